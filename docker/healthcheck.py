"""Asks a server of this container whether it is well: exit 0 for 200, else 1 and a reason.

Only the standard library, because it runs every half minute beside the server.
"""

from __future__ import annotations

import os
import sys
import urllib.error
import urllib.request

TIMEOUT_SECONDS = 4.0
"""Less than the healthcheck's own timeout, so that the reason is still written down."""


def main() -> int:
    url = os.environ.get("HEALTH_URL", "")
    if not url.startswith("http://127.0.0.1:"):
        sys.stderr.write(f"HEALTH_URL must be an http://127.0.0.1:PORT/... address, got {url!r}\n")
        return 1
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as answer:  # noqa: S310 - checked
            status = answer.status
    except urllib.error.HTTPError as error:
        status = error.code
    except OSError as error:
        sys.stderr.write(f"{url} does not answer: {error}\n")
        return 1
    if status != 200:
        sys.stderr.write(f"{url} answered {status}, expected 200\n")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

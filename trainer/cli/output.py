"""How the commands tell what they do: for people, or as JSON lines."""

from __future__ import annotations

import enum
import json
import sys
import time
from collections.abc import Callable
from typing import Any


class Format(enum.Enum):
    """How progress is told."""

    HUMAN = "human"
    JSON = "json"


def teller(progress: Format) -> Callable[[str, dict[str, Any]], None]:
    """A progress callback: event and facts to one line on standard output."""
    started = time.monotonic()

    def tell(event: str, facts: dict[str, Any]) -> None:
        if progress is Format.JSON:
            line = json.dumps({"event": event, **facts})
        else:
            told = "  ".join(f"{name.replace('_', ' ')} {value}" for name, value in facts.items())
            line = f"{time.monotonic() - started:6.1f} s  {event:<10} {told}"
        sys.stdout.write(line + "\n")
        sys.stdout.flush()

    return tell

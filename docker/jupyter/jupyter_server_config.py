"""JupyterLab in its container. Read by Jupyter from the environment's etc/jupyter."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

c = get_config()  # type: ignore[name-defined]  # noqa: F821 - Jupyter puts it here

TOKEN_FILE = Path(os.environ.get("JUPYTER_TOKEN_FILE", ""))
NOTEBOOKS = Path("/opt/notebooks")
WORK = Path("/work")

# Whoever has the token runs programs here. Without one Jupyter would make one up and write it to
# the log; and it would take the line end of the file for a part of the token.
TOKEN = TOKEN_FILE.read_text(encoding="ascii").strip() if TOKEN_FILE.is_file() else ""
if not TOKEN:
    raise SystemExit(
        f"JUPYTER_TOKEN_FILE must name a file with the token, got {str(TOKEN_FILE)!r}; "
        "mount a secret there"
    )

c.IdentityProvider.token = TOKEN
c.ServerApp.ip = "0.0.0.0"  # noqa: S104 - in a container loopback reaches nobody
c.ServerApp.port = 8888
c.ServerApp.port_retries = 0
c.ServerApp.open_browser = False
c.ServerApp.root_dir = str(WORK)
c.ServerApp.allow_remote_access = True
# Nothing asks the internet for news, updates or extensions.
c.LabApp.news_url = None
c.LabApp.check_for_updates_class = "jupyterlab.NeverCheckForUpdate"
c.LabApp.extension_manager = "readonly"

# The starter is copied once; what became of it is the user's.
for notebook in sorted(NOTEBOOKS.glob("*.ipynb")):
    if not (WORK / notebook.name).exists():
        shutil.copyfile(notebook, WORK / notebook.name)

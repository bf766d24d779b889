"""The HTTP rim: metrics, health, and the API that reads what the node knows.

The only home of FastAPI and uvicorn. Answers hold no patient data: studies are named by
their UIDs.
"""

from dicomnode.web.app import Health, build_app
from dicomnode.web.server import WebServer

__all__ = ["Health", "WebServer", "build_app"]

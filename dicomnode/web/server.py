"""uvicorn in a thread of the node."""

from __future__ import annotations

import socket
import threading

import uvicorn
from fastapi import FastAPI

from dicomnode.errors import ConfigError

_STOP_SECONDS = 3.0


class WebServer:
    """Serves the application until it is stopped."""

    def __init__(self, app: FastAPI, *, host: str, port: int) -> None:
        self._address = (host, port)
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            server_header=False,
            limit_concurrency=64,
            timeout_keep_alive=5,
            timeout_graceful_shutdown=2,
            ws="none",
            lifespan="off",
        )
        self._server = uvicorn.Server(config)
        self._socket: socket.socket | None = None
        self._thread = threading.Thread(target=self._run, name="web", daemon=True)

    def start(self) -> None:
        """Listen, then serve in a thread. Raises `ConfigError` when the port is taken."""
        host, port = self._address
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except OSError as error:
            listener.close()
            raise ConfigError(
                [f"cannot listen on web.host:port {host}:{port}: {error.strerror}"]
            ) from error
        self._socket = listener
        self._thread.start()

    def _run(self) -> None:
        sockets = [self._socket] if self._socket is not None else None
        self._server.run(sockets=sockets)

    def stop(self) -> None:
        self._server.should_exit = True
        if self._thread.is_alive():
            self._thread.join(_STOP_SECONDS)
        if self._socket is not None:
            self._socket.close()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

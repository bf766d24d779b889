"""`dicomnode model-server`: read the flags, open the doors, wait for the end.

Ends with 0 on SIGTERM, SIGINT, or (with `--parent_pipe`) when standard input closes;
with 1 when it cannot start.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from dicomnode import logs
from dicomnode.logs import get_logger
from dicomnode.modelserver import servable as tensorflow_loader
from dicomnode.modelserver.batching import Batcher
from dicomnode.modelserver.grpc_api import GrpcApi
from dicomnode.modelserver.manager import ManagerOptions, ModelManager
from dicomnode.modelserver.metrics import ServerMetrics
from dicomnode.modelserver.models import Models
from dicomnode.modelserver.options import Options, parse
from dicomnode.modelserver.rest_api import RestApi
from dicomnode.modelserver.signatures import Servable

log = get_logger(__name__)

_HEALTH_SECONDS = 0.25

Load = Callable[[Path], Servable]


class ModelServer:
    """A running model server, usable as a context manager.

    `load` turns a version's folder into a Servable; tensorflow's by default. After
    `start`, `port` and `rest_port` are the real ones. Raises OSError for a port that
    cannot be bound.
    """

    def __init__(self, options: Options, *, load: Load | None = None) -> None:
        self.options = options
        self._load = load or (
            lambda path: tensorflow_loader.load(path, warm_up=options.enable_model_warmup)
        )
        self.models = Models(self._manager)
        metrics = ServerMetrics(self.models)
        self._grpc = GrpcApi(self.models, metrics, options)
        try:
            self._rest = (
                RestApi(self.models, metrics, options)
                if options.rest_api_port is not None
                else None
            )
        except OSError:
            self._grpc.stop(0)
            raise
        self.port = self._grpc.port
        self.rest_port = self._rest.port if self._rest is not None else None
        self._stopping = threading.Event()
        self._health = threading.Thread(target=self._watch_health, name="health", daemon=True)

    def start(self) -> None:
        """Open the doors first: until a version is loaded they answer NOT_FOUND."""
        self._grpc.report_health(False)
        self._grpc.start()
        if self._rest is not None:
            self._rest.start()
        self.models.add(self.options.model_name, self.options.model_base_path)
        self._health.start()
        log.info("model_server.listening", port=self.port, rest_api_port=self.rest_port)

    def stop(self) -> None:
        """Close the doors, let running requests end, unload."""
        self._stopping.set()
        if self._health.is_alive():
            self._health.join()
        self._grpc.stop(self.options.drain_seconds)
        if self._rest is not None:
            self._rest.stop()
        self.models.stop()

    def __enter__(self) -> ModelServer:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def _manager(self, name: str, base_path: Path) -> ModelManager:
        return ModelManager(
            name=name,
            base_path=base_path,
            load=self._load,
            options=ManagerOptions(
                batching=self._batcher,
                poll_seconds=self.options.file_system_poll_wait_seconds,
                load_retries=self.options.max_num_load_retries,
                load_retry_seconds=self.options.load_retry_interval_seconds,
            ),
        )

    def _batcher(self, servable: Servable, name: str) -> Batcher:
        options = self.options
        return Batcher(
            servable.run,
            maximum=options.max_batch_size if options.enable_batching else 1,
            wait_seconds=options.batch_timeout_micros / 1e6,
            limit=options.max_enqueued_requests,
            name=name,
        )

    def _watch_health(self) -> None:
        told = False  # by `start`
        while not self._stopping.wait(_HEALTH_SECONDS):
            serving = self.models.serving
            if serving is not told:
                self._grpc.report_health(serving)
                told = serving


def run(options: Options) -> int:
    """Serve until told to end. Returns the exit code."""
    ending = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ending.set())
    if options.parent_pipe:
        threading.Thread(target=_await_parent, args=(ending,), name="parent", daemon=True).start()
    try:
        tensorflow_loader.import_tensorflow(
            intra_op=options.intra_op_parallelism, inter_op=options.inter_op_parallelism
        )
    except ImportError as error:
        _complain(
            f"the model server needs the `model` extra: pip install 'dicomnode[model]' ({error})"
        )
        return 1
    try:
        server = ModelServer(options)
    except OSError as error:
        _complain(f"{error}; is another model server running? choose another --port")
        return 1
    with server:
        ending.wait()
        log.info("model_server.ending")
    return 0


def _await_parent(ending: threading.Event) -> None:
    """The parent holds the other end of the pipe; when it dies, the kernel closes it."""
    with contextlib.suppress(OSError):  # no standard input at all: no parent to wait for
        while os.read(0, 4096):  # unbuffered: this thread may still wait here at the exit
            continue
    ending.set()


def _complain(message: str) -> None:
    sys.stderr.write(message + "\n")


def main(argv: list[str] | None = None) -> int:
    """The command. A wrong flag exits with 2."""
    options = parse(sys.argv[1:] if argv is None else argv)
    logs.configure()
    return run(options)


if __name__ == "__main__":
    sys.exit(main())

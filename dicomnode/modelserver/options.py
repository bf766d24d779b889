"""The command line, with the flag names of tensorflow_model_server.

Its spelling is accepted too: underscores, one or two dashes, `--flag=value`, and
`--enable_batching=true`.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass
from pathlib import Path

MAXIMUM_THREADS = 256


@dataclass(frozen=True, kw_only=True)
class Options:
    """How this model server runs."""

    model_name: str
    """The name that clients ask for."""
    model_base_path: Path
    """The folder with the numbered versions."""
    host: str = "127.0.0.1"
    """The address to listen on."""
    port: int = 8500
    """gRPC; 0 picks a free one, which is logged."""
    rest_api_port: int | None = None
    """REST; None: no REST. `rest_api_port=0` on the command line means none, as in TF Serving."""
    file_system_poll_wait_seconds: float = 1.0
    """How often the base path is looked at; 0: once, at the start."""
    enable_batching: bool = True
    """Whether requests that wait for the processor at the same time run as one."""
    max_batch_size: int = 8
    """Most images in one merged run."""
    batch_timeout_micros: int = 2000
    """How long a run waits for companions when the last run had some."""
    max_enqueued_requests: int = 128
    """Requests that may wait for a model; more are answered UNAVAILABLE at once."""
    grpc_max_threads: int = 16
    """Requests that are read or answered at the same time."""
    rest_api_num_threads: int = 4
    """REST requests that are read or answered at the same time."""
    rest_api_timeout_in_ms: int = 30000
    """Longest time that a REST request may take."""
    maximum_message_bytes: int = 64 * 1024 * 1024
    """Largest request, gRPC and REST."""
    intra_op_parallelism: int = 0
    """Threads inside one tensorflow operation; 0: as many as there are cores."""
    inter_op_parallelism: int = 0
    """Operations at the same time; 0: tensorflow decides."""
    max_num_load_retries: int = 5
    """How often a version that fails to load is tried again while its files stay the same."""
    load_retry_interval_seconds: float = 60.0
    """Wait between those tries."""
    enable_model_warmup: bool = True
    """Whether a version answers a request before it becomes AVAILABLE."""
    parent_pipe: bool = False
    """End when standard input is closed, so that the server never outlives its parent."""
    drain_seconds: float = 10.0
    """How long running requests may take when the server ends."""


def _boolean(text: str) -> bool:
    if text.lower() in ("true", "1", "yes"):
        return True
    if text.lower() in ("false", "0", "no"):
        return False
    raise argparse.ArgumentTypeError(f"expected true or false, got {text!r}")


def _whole(low: int, high: int) -> object:
    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"expected a whole number, got {text!r}") from error
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"must be between {low} and {high}, got {value}")
        return value

    return parse


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"expected seconds, got {text!r}") from error
    if not 0 <= value <= 86400:
        raise argparse.ArgumentTypeError(f"must be between 0 and 86400 seconds, got {text}")
    return value


def _flag(parser: argparse.ArgumentParser, name: str, default: object, **more: object) -> None:
    parser.add_argument(f"--{name}", f"-{name}", dest=name, default=default, **more)  # type: ignore[arg-type]


def parser() -> argparse.ArgumentParser:
    """The flags; a wrong one ends the program with 2."""
    flags = argparse.ArgumentParser(
        prog="dicomnode model-server",
        description="Serve the newest version of a model with TensorFlow Serving's API.",
        allow_abbrev=False,
    )
    truth: dict[str, object] = {"type": _boolean, "nargs": "?", "const": True}
    _flag(flags, "host", "127.0.0.1", help="address to listen on [127.0.0.1]")
    _flag(flags, "port", 8500, type=_whole(0, 65535), help="gRPC port, 0: a free one [8500]")
    _flag(flags, "rest_api_port", 0, type=_whole(0, 65535), help="REST port, 0: none [0]")
    _flag(flags, "model_name", "default", help="name that clients ask for [default]")
    _flag(flags, "model_base_path", None, required=True, help="folder with numbered versions")
    _flag(flags, "file_system_poll_wait_seconds", 1.0, type=_seconds, help="seconds [1]")
    _flag(flags, "enable_batching", True, **truth, help="merge requests that wait [true]")
    _flag(flags, "max_batch_size", 8, type=_whole(1, 1024), help="images in a run [8]")
    _flag(flags, "batch_timeout_micros", 2000, type=_whole(0, 10_000_000), help="[2000]")
    _flag(flags, "max_enqueued_requests", 128, type=_whole(1, 4096), help="[128]")
    _flag(flags, "grpc_max_threads", _threads(), type=_whole(1, MAXIMUM_THREADS), help="gRPC")
    _flag(flags, "rest_api_num_threads", 4, type=_whole(1, MAXIMUM_THREADS), help="REST [4]")
    _flag(flags, "rest_api_timeout_in_ms", 30000, type=_whole(1, 3_600_000), help="[30000]")
    _flag(flags, "maximum_message_bytes", 64 << 20, type=_whole(1 << 20, 1 << 30), help="[64 MiB]")
    _flag(flags, "tensorflow_intra_op_parallelism", 0, type=_whole(0, 256), help="threads [0]")
    _flag(flags, "tensorflow_inter_op_parallelism", 0, type=_whole(0, 256), help="threads [0]")
    _flag(flags, "tensorflow_session_parallelism", 0, type=_whole(0, 256), help="both of them")
    _flag(flags, "max_num_load_retries", 5, type=_whole(0, 1000), help="[5]")
    _flag(flags, "load_retry_interval_micros", 60_000_000, type=_whole(0, 10**11), help="[60 s]")
    _flag(flags, "enable_model_warmup", True, **truth, help="answer once before AVAILABLE [true]")
    _flag(flags, "parent_pipe", False, **truth, help="end when standard input closes [false]")
    return flags


def _threads() -> int:
    return min(MAXIMUM_THREADS, max(16, 4 * (os.cpu_count() or 1)))


def parse(argv: list[str]) -> Options:
    """Options from the command line. Exits with 2 on a wrong flag, as argparse does."""
    flags = parser()
    found = flags.parse_args(argv)
    if not found.model_name or any(sign in found.model_name for sign in "/: "):
        flags.error(f"--model_name must not be empty or hold / : or spaces: {found.model_name!r}")
    return Options(
        model_name=found.model_name,
        model_base_path=Path(found.model_base_path),
        host=found.host,
        port=found.port,
        rest_api_port=found.rest_api_port or None,
        file_system_poll_wait_seconds=found.file_system_poll_wait_seconds,
        enable_batching=found.enable_batching,
        max_batch_size=found.max_batch_size,
        batch_timeout_micros=found.batch_timeout_micros,
        max_enqueued_requests=found.max_enqueued_requests,
        grpc_max_threads=found.grpc_max_threads,
        rest_api_num_threads=found.rest_api_num_threads,
        rest_api_timeout_in_ms=found.rest_api_timeout_in_ms,
        maximum_message_bytes=found.maximum_message_bytes,
        intra_op_parallelism=found.tensorflow_intra_op_parallelism
        or found.tensorflow_session_parallelism,
        inter_op_parallelism=found.tensorflow_inter_op_parallelism
        or found.tensorflow_session_parallelism,
        max_num_load_retries=found.max_num_load_retries,
        load_retry_interval_seconds=found.load_retry_interval_micros / 1e6,
        enable_model_warmup=found.enable_model_warmup,
        parent_pipe=found.parent_pipe,
    )

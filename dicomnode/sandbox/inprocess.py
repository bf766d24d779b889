"""`InProcessPreparer`: the contract of `ports.Preparer` without a child process."""

from __future__ import annotations

import time
from pathlib import Path

from dicomnode.errors import TransientError, UndecodableImage
from dicomnode.findings import NotEvaluated, PreparedImage
from dicomnode.imaging.preprocess import display_image, eligible_grey, profile_named
from dicomnode.imaging.reading import read_instance


class InProcessPreparer:
    """For tests and for programs that trust their files: a crash of a codec is theirs."""

    def __init__(self, *, maximum_pixels: int = 100_000_000) -> None:
        self._maximum_pixels = maximum_pixels

    def prepare(self, path: Path, *, profile: str) -> PreparedImage | NotEvaluated:
        """As `SandboxPreparer.prepare`, without its limits of memory and time."""
        chosen = profile_named(profile)
        started = time.perf_counter()
        try:
            with path.open("rb") as stream:
                ds = read_instance(stream)
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError) as error:
            raise UndecodableImage(
                f"the stored file cannot be opened ({type(error).__name__}); is it still there?"
            ) from error
        except OSError as error:
            raise TransientError("the stored file cannot be read; check the storage") from error
        grey = eligible_grey(ds, maximum_pixels=self._maximum_pixels)
        if isinstance(grey, NotEvaluated):
            return grey
        decoded = time.perf_counter()
        tensor, display = chosen.apply(grey), display_image(grey)
        return PreparedImage(
            tensor=tensor,
            display=display,
            decode_seconds=decoded - started,
            preprocess_seconds=time.perf_counter() - decoded,
        )

    def close(self) -> None:
        """Nothing to end."""

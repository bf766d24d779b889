"""The client of the model servers: `ports.Predictor`.

A request goes to the backend with the fewest in flight and, when that one fails, to
another, until its deadline. When all are full the caller waits: back-pressure reaches the
queue, not memory. A backend that keeps failing is left out until a probe finds it well.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import grpc
import numpy as np
from numpy.typing import NDArray

from dicomnode.config import ServingSettings
from dicomnode.errors import BackendUnavailable, ModelRefused
from dicomnode.findings import Prediction
from dicomnode.logs import get_logger
from dicomnode.metrics import Metrics
from dicomnode.serving import answers
from dicomnode.serving.backend import Backend
from dicomnode.serving.balancer import VERDICTS, Verdict
from dicomnode.serving.pool import Lease, Pool
from dicomnode.serving.resolver import Lookup, getaddrinfo

log = get_logger(__name__)

_MAXIMUM_TRIES = 8
"""At different backends, for one request; the job's own retries come after that."""


@dataclass(frozen=True, kw_only=True)
class _Failed:
    """A try that may succeed elsewhere."""

    backend: str
    code: grpc.StatusCode
    detail: str

    def __str__(self) -> str:
        return f"{self.backend}: {self.code.name} {self.detail}".strip()


class ServingClient:
    """Asks the replicas that serve the model. Thread-safe; `close` it at the end."""

    def __init__(
        self,
        settings: ServingSettings,
        *,
        metrics: Metrics | None = None,
        lookup: Lookup = getaddrinfo,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._metrics = metrics if metrics is not None else Metrics()
        self._clock = clock
        self._pool = Pool(settings, metrics=self._metrics, lookup=lookup, clock=clock)

    def predict(self, image: NDArray[np.uint8], *, version: int | None = None) -> Prediction:
        """Ask for uint8 [height, width, 3]; `version` None means the newest that is served.

        Raises `BackendUnavailable` when no backend answers within
        `serving.timeout_seconds` (retry later), `ModelRefused` when the servers reject
        what is sent or answer nonsense (never); its `OtherSizeWanted` names the version that
        would have answered an image of another size.
        """
        answers.check_image(image)
        deadline = self._clock() + self._settings.timeout_seconds
        failures: list[_Failed] = []
        tried: set[Backend] = set()
        while len(tried) < _MAXIMUM_TRIES:
            lease = self._pool.acquire(deadline, avoid=tried)
            if lease is None:
                break
            tried.add(lease.backend)
            outcome = self._try(lease, image, version, deadline)
            if isinstance(outcome, Prediction):
                return outcome
            failures.append(outcome)
        raise self._given_up(failures, version)

    def ready(self) -> bool:
        """Whether at least one replica says that the model is AVAILABLE (asked once a second)."""
        return self._pool.ready()

    def close(self) -> None:
        """End the threads and channels; requests that still run end as unavailable."""
        self._pool.close()

    def _try(
        self, lease: Lease, image: NDArray[np.uint8], version: int | None, deadline: float
    ) -> Prediction | _Failed:
        """One try at one backend; the lease ends here."""
        verdict = Verdict.BUSY
        try:
            outcome, verdict = self._ask(lease.backend, image, version, deadline)
            return outcome
        finally:
            self._pool.release(lease, verdict)

    def _ask(
        self,
        backend: Backend,
        image: NDArray[np.uint8],
        version: int | None,
        deadline: float,
        *,
        again: bool = True,
    ) -> tuple[Prediction | _Failed, Verdict]:
        """Raises `ModelRefused`."""
        try:
            prediction = self._exchange(backend, image, version, deadline)
        except grpc.RpcError as error:
            failed = self._failed(backend, error)
            backend.questions.pop(version, None)
            if VERDICTS[failed.code] is Verdict.REFUSED and again:
                # another version may have come meanwhile that wants to be asked differently
                return self._ask(backend, image, version, deadline, again=False)
            if VERDICTS[failed.code] is Verdict.REFUSED:
                raise ModelRefused(
                    f"model {self._settings.model_name!r} refused the request at {failed}"
                ) from error
            return failed, VERDICTS[failed.code]
        self._count(backend, grpc.StatusCode.OK)
        return prediction, Verdict.ACCEPT

    def _exchange(
        self, backend: Backend, image: NDArray[np.uint8], version: int | None, deadline: float
    ) -> Prediction:
        """Raises `grpc.RpcError` and `ModelRefused`."""
        asked = backend.questions.get(version)
        if asked is None or not asked.takes(image):
            metadata = backend.metadata(version, timeout=self._timeout(deadline))
            asked = answers.question(metadata, backend=backend.name)
            backend.questions[version] = asked
            answers.check_size(
                image, asked, model_name=self._settings.model_name, backend=backend.name
            )
        request = answers.request(
            image, asked, model_name=self._settings.model_name, version=version
        )
        response = backend.predict(request, timeout=self._timeout(deadline))
        prediction = answers.prediction(
            response, model_name=self._settings.model_name, backend=backend.name
        )
        if prediction.model_version != asked.version:
            backend.questions.pop(version, None)
        return prediction

    def _timeout(self, deadline: float) -> float:
        left = deadline - self._clock()
        return max(0.001, min(left, self._settings.try_timeout_seconds))

    def _failed(self, backend: Backend, error: grpc.RpcError) -> _Failed:
        code = error.code()
        self._count(backend, code)
        return _Failed(backend=backend.name, code=code, detail=str(error.details() or "")[:300])

    def _count(self, backend: Backend, code: grpc.StatusCode) -> None:
        self._metrics.inference_requests.labels(backend.name, code.name).inc()

    def _given_up(self, failures: list[_Failed], version: int | None) -> Exception:
        name = self._settings.model_name
        if not failures:
            return BackendUnavailable(
                f"no model server took the request for {name!r} within"
                f" {self._settings.timeout_seconds:g} s ({self._pool.describe()});"
                " check serving.targets and the model servers' logs"
            )
        said = "; ".join(str(failure) for failure in failures)
        if version is not None and all(
            failure.code is grpc.StatusCode.NOT_FOUND for failure in failures
        ):
            return ModelRefused(f"version {version} of {name!r} is not served: {said}")
        return BackendUnavailable(f"{len(failures)} model servers failed for {name!r}: {said}")

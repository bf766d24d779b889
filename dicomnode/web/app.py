"""The HTTP application."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any, Final

from fastapi import FastAPI, HTTPException, Query, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from dicomnode import __version__
from dicomnode.metrics import Metrics

_READS: Final = 8
_PATIENCE_SECONDS: Final = 1.0


@dataclass(frozen=True, kw_only=True)
class Health:
    """One answer about the node: a name per check, and what was found."""

    checks: dict[str, str]
    """"ok", or what is wrong and what to do."""

    @property
    def good(self) -> bool:
        return all(found == "ok" for found in self.checks.values())


class Reads:
    """Reads of the store, so many at a time: one on a disk that is away does not come back, and
    such requests must not take every thread and connection from those that ask for life."""

    def __init__(self) -> None:
        self._places = threading.BoundedSemaphore(_READS)

    @contextmanager
    def place(self) -> Iterator[None]:
        """Answers 503 when there is none within a second."""
        if not self._places.acquire(timeout=_PATIENCE_SECONDS):
            raise HTTPException(
                status_code=503,
                detail=f"{_READS} reads of the store have not come back: is its disk there?",
            )
        try:
            yield
        finally:
            self._places.release()


def build_app(
    *,
    studies: Callable[[int, int, str | None], list[dict[str, Any]]],
    study: Callable[[str], dict[str, Any] | None],
    report: Callable[[str], dict[str, Any] | None],
    readiness: Callable[[], Health],
    liveness: Callable[[], Health],
    metrics: Metrics,
    refresh_metrics: Callable[[], None],
) -> FastAPI:
    """The application. Every callable reads; nothing here changes the node."""
    app = FastAPI(
        title="dicomnode",
        version=__version__,
        description="Investigational, not for diagnostic use",
        docs_url=None,
        redoc_url=None,
    )
    reads = Reads()

    @app.get("/metrics")
    def get_metrics() -> Response:
        with reads.place():
            refresh_metrics()
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    @app.get("/healthz")
    async def get_healthz() -> JSONResponse:
        return _answer(liveness())  # looks at threads, and needs none itself

    @app.get("/readyz")
    def get_readyz() -> JSONResponse:
        with reads.place():
            return _answer(readiness())

    @app.get("/api/studies")
    def get_studies(
        limit: Annotated[int, Query(ge=1, le=500)] = 50,
        offset: Annotated[int, Query(ge=0, le=10_000_000)] = 0,
        state: Annotated[str | None, Query(max_length=16)] = None,
    ) -> list[dict[str, Any]]:
        with reads.place():
            return studies(limit, offset, state)

    @app.get("/api/studies/{study_instance_uid}")
    def get_study(study_instance_uid: str) -> dict[str, Any]:
        with reads.place():
            return _found(study(study_instance_uid), "study", study_instance_uid)

    @app.get("/api/studies/{study_instance_uid}/report")
    def get_report(study_instance_uid: str) -> dict[str, Any]:
        with reads.place():
            return _found(report(study_instance_uid), "report of study", study_instance_uid)

    return app


def _answer(health: Health) -> JSONResponse:
    return JSONResponse(
        {"ok": health.good, "checks": health.checks}, status_code=200 if health.good else 503
    )


def _found(answer: dict[str, Any] | None, what: str, uid: str) -> dict[str, Any]:
    if answer is None:
        raise HTTPException(status_code=404, detail=f"no {what} {uid[:64]}")
    return answer

"""Logging: structlog, pretty on a terminal, one JSON object a line elsewhere.

Events name ids of jobs and SOP instances, never patients: `_drop_patient_data` removes
any key that could hold one, whoever binds it.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

_FORBIDDEN = ("patient", "person_name", "birth", "physician", "address", "accession")


def _drop_patient_data(
    _logger: Any, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    for key in [key for key in event if any(word in key.lower() for word in _FORBIDDEN)]:
        del event[key]
    return event


def configure(*, level: str = "INFO", json: bool | None = None) -> None:
    """Send all events, those of the standard library included, to standard error.

    `json` None means: JSON unless standard error is a terminal.
    """
    as_json = not sys.stderr.isatty() if json is None else json
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _drop_patient_data,
        structlog.processors.format_exc_info,
    ]
    renderer: Any = (
        structlog.processors.JSONRenderer() if as_json else structlog.dev.ConsoleRenderer()
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level)),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    # a line that cannot be written would be printed with all that led to it
    logging.raiseExceptions = False
    # pynetdicom and pydicom print values of data elements at INFO and below, and in warnings
    for chatty in ("pynetdicom", "pydicom", "highdicom", "alembic"):
        logging.getLogger(chatty).setLevel(logging.CRITICAL)


def get_logger(name: str) -> Any:
    """A bound logger; events are `noun.verb`, e.g. `job.settled`."""
    return structlog.get_logger(name)

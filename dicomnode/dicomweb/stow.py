"""Delivery to a DICOMweb server."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import requests
from dicomweb_client.api import DICOMwebClient
from pydicom import dcmread
from pydicom.dataset import Dataset
from requests.adapters import HTTPAdapter

from dicomnode.config import DestinationSettings
from dicomnode.errors import DestinationBusy, DestinationUnavailable
from dicomnode.ports import DestinationSession, Outgoing
from dicomnode.status import StorageStatus

_OUTAGES = (408, 425, 429, 500, 502, 503, 504)
"""HTTP statuses that say nothing about the document."""


class DicomwebDestination:
    """A PACS that takes documents by STOW-RS."""

    def __init__(self, settings: DestinationSettings) -> None:
        self.name = settings.name
        self._url = settings.url or ""
        self._timeout_seconds = settings.timeout_seconds
        self._credentials = _credentials(settings)

    def connect(self, sop_class_uids: Sequence[str]) -> AbstractContextManager[DestinationSession]:
        """Open an HTTP session. STOW-RS negotiates nothing: `sop_class_uids` is not used."""
        del sop_class_uids
        return self._session()

    @contextmanager
    def _session(self) -> Iterator[DestinationSession]:
        with requests.Session() as session:
            session.auth = self._credentials
            adapter = _TimeoutAdapter(self._timeout_seconds)
            session.mount("http://", adapter)
            session.mount("https://", adapter)
            yield _StowSession(self.name, self._url, session)


class _TimeoutAdapter(HTTPAdapter):
    """requests waits for ever unless each call is given a timeout."""

    def __init__(self, timeout_seconds: float) -> None:
        self._timeout_seconds = timeout_seconds
        super().__init__()

    def send(self, *args: Any, **kwargs: Any) -> requests.Response:
        kwargs["timeout"] = self._timeout_seconds
        return super().send(*args, **kwargs)


class _StowSession:
    def __init__(self, name: str, url: str, session: requests.Session) -> None:
        self._name = name
        self._url = url
        self._client = DICOMwebClient(url=url, session=session)
        self._client.set_http_retry_params(retry=False)

    def send(self, document: Outgoing) -> int:
        """Store one document; the server's FailureReason (0008,1197) is the status.

        Raises `DestinationUnavailable` when the server cannot be reached,
        `DestinationBusy` when it answers with a passing HTTP status.
        """
        try:
            answer = self._client.store_instances([dcmread(document.path)])
        except requests.HTTPError as error:
            return self._http_status(error, document)
        except (requests.RequestException, OSError) as error:
            raise DestinationUnavailable(
                f"no answer from {self._name} ({self._url}): {type(error).__name__}"
            ) from error
        return _status(answer, document.sop_instance_uid)

    def _http_status(self, error: requests.HTTPError, document: Outgoing) -> int:
        code = error.response.status_code if error.response is not None else 0
        if code in _OUTAGES:
            raise DestinationBusy(
                f"{self._name} ({self._url}) answered HTTP {code} for {document.sop_instance_uid}"
            ) from error
        if code in (401, 403, 404):
            raise DestinationUnavailable(
                f"{self._name} ({self._url}) answered HTTP {code}; "
                "check url, username and password of this destination"
            ) from error
        return StorageStatus.CANNOT_UNDERSTAND


def _status(answer: Dataset, sop_instance_uid: str) -> int:
    """PS3.18 10.5.3: instances in FailedSOPSequence carry their reason."""
    for item in answer.get("FailedSOPSequence", None) or []:
        if item.get("ReferencedSOPInstanceUID") == sop_instance_uid:
            return int(item.get("FailureReason", StorageStatus.PROCESSING_FAILURE))
    return StorageStatus.SUCCESS


def _credentials(settings: DestinationSettings) -> tuple[str, str] | None:
    if settings.username is None:
        return None
    if settings.password_file is not None:
        return settings.username, settings.password_file.read_text(encoding="utf-8").strip()
    password = settings.password.get_secret_value() if settings.password is not None else ""
    return settings.username, password

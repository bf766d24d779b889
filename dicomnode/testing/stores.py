"""Stores and received instances for tests.

There is no in-memory imitation of the store: the real one on SQLite opens in a few
hundredths of a second, and it is the one that must be right.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from pydantic import SecretStr

from dicomnode.config import StorageSettings
from dicomnode.ports import ReceivedInstance
from dicomnode.storage import Storage, open_storage

DX_FOR_PRESENTATION = "1.2.840.10008.5.1.4.1.1.1.1"
EXPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"


@contextmanager
def opened_store(root: Path, *, database_url: str = "") -> Iterator[Storage]:
    """A node's store under `root`, closed at the end."""
    storage = open_storage(store_settings(root, database_url=database_url), single_owner=True)
    try:
        yield storage
    finally:
        storage.close()


def store_settings(root: Path, *, database_url: str = "") -> StorageSettings:
    """Settings without a limit of free space."""
    return StorageSettings(root=root, database_url=SecretStr(database_url), minimum_free_bytes=0)


def received_instance(
    incoming: Path,
    *,
    sop: str = "1.2.3.1",
    series: str = "1.2.3.10",
    study: str = "1.2.3.100",
    content: bytes = b"a data set",
    received_at: datetime | None = None,
    own_product: bool = False,
    accession_number: str = "",
    patient_id: str = "",
) -> ReceivedInstance:
    """As a C-STORE leaves it: `content` in a temporary file under `incoming`."""
    path = incoming / f"{uuid.uuid4().hex}.part"
    path.write_bytes(content)
    return ReceivedInstance(
        path=path,
        size=len(content),
        digest=hashlib.sha256(content).hexdigest(),
        sop_class_uid=DX_FOR_PRESENTATION,
        sop_instance_uid=sop,
        series_instance_uid=series,
        study_instance_uid=study,
        transfer_syntax_uid=EXPLICIT_VR_LITTLE_ENDIAN,
        calling_ae_title="XRAY1",
        peer_label="XRAY1",
        received_at=received_at or datetime.now(UTC),
        accession_number=accession_number,
        patient_id=patient_id,
        modality="DX",
        own_product=own_product,
    )

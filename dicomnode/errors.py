"""Every error that crosses a layer of the node.

::

    DicomnodeError
    ├── ConfigError            the settings cannot be used; the operator must change them
    ├── TransientError         the same attempt may succeed later
    │   ├── DestinationBusy        the PACS says: try again
    │   ├── LeaseLost              another worker holds the job by now
    │   └── OutageError            what every job needs is away; says nothing about this job
    │       ├── BackendUnavailable     no model server answers
    │       ├── DestinationUnavailable the PACS cannot be reached
    │       ├── StorageFull            no room for another instance
    │       ├── StorageUnavailable     the database or the file system does not answer
    │       ├── SandboxUnavailable     the decoder process cannot be started
    │       └── ModelCardMissing       no card for the version that answers (yet)
    └── PermanentError         the same attempt will fail again
        ├── UndecodableImage       the pixel data cannot be turned into an image
        ├── NotAnInstance          the bytes are not a DICOM instance that can be indexed
        ├── NotInStore             no such instance, document or path in the store
        ├── ModelRefused           the model server rejects what we send
        │   └── OtherSizeWanted        the version that would answer takes another size
        ├── DeliveryRefused        the PACS rejects the document for good
        ├── LabelsRefused          labels that cannot be recorded as they are
        └── ReportUnbuildable      the study's header cannot be carried into a valid report

A message names the thing, what was found, what was expected and the next step, and
carries no patient data: no names, no identifiers of a patient, no free text of a header.
"""

from __future__ import annotations


class DicomnodeError(Exception):
    """Base of all errors of this project."""

    code: str = "error"
    """A short word for logs, metrics and dead letters; one per class."""


class ConfigError(DicomnodeError):
    """The settings cannot be used. `problems` holds one line per wrong key."""

    code = "config"

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class TransientError(DicomnodeError):
    """The same attempt may succeed later."""

    code = "transient"

    def __init__(self, message: str, *, retry_after_seconds: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class OutageError(TransientError):
    """Something that every job needs is away. It says nothing about this job, so it is
    retried by age (`retry.maximum_age_seconds`) and not by count."""

    code = "outage"


class BackendUnavailable(OutageError):
    """No model server answers, or all are at their limit of requests in flight."""

    code = "backend_unavailable"


class DestinationUnavailable(OutageError):
    """The PACS cannot be reached, or rejects or aborts the association."""

    code = "destination_unavailable"


class DestinationBusy(TransientError):
    """The PACS answered with a status that promises a later success (0xA7xx)."""

    code = "destination_busy"


class StorageFull(OutageError):
    """No room for another instance or document."""

    code = "storage_full"


class StorageUnavailable(OutageError):
    """The database or the file system of the store does not answer as it should."""

    code = "storage_unavailable"


class LeaseLost(TransientError):
    """Another worker holds the job by now, or it is settled: nothing was recorded."""

    code = "lease_lost"


class SandboxUnavailable(OutageError):
    """The decoder process cannot be started."""

    code = "sandbox_unavailable"


class ModelCardMissing(OutageError):
    """No version is published yet, or one answered whose model card cannot be read (yet)."""

    code = "model_card_missing"


class PermanentError(DicomnodeError):
    """The same attempt will fail again."""

    code = "permanent"


class UndecodableImage(PermanentError):
    """The pixel data cannot be turned into an image."""

    code = "undecodable_image"


class NotAnInstance(PermanentError):
    """The bytes are not a DICOM instance that can be indexed."""

    code = "not_an_instance"


class NotInStore(PermanentError):
    """No such instance, document or path in the store."""

    code = "not_in_store"


class ModelRefused(PermanentError):
    """The model server rejects what we send: shape, dtype, name or signature."""

    code = "model_refused"


class OtherSizeWanted(ModelRefused):
    """The version that would answer takes images of another size; `model_version` names it."""

    code = "other_size_wanted"

    def __init__(self, message: str, *, model_version: int) -> None:
        super().__init__(message)
        self.model_version = model_version


class DeliveryRefused(PermanentError):
    """The PACS rejects the document for good."""

    code = "delivery_refused"


class LabelsRefused(PermanentError):
    """Labels that cannot be recorded as they are: nothing of what came with them was."""

    code = "labels_refused"


class ReportUnbuildable(PermanentError):
    """The study's header cannot be carried into a valid report."""

    code = "report_unbuildable"

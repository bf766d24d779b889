"""Settings: one TOML file, overridable by environment, checked as a whole.

The field docstrings are the reference: `docs/configuration.md` and
`config/dicomnode.example.toml` are generated from them.
"""

from __future__ import annotations

import difflib
import ipaddress
import os
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)

from dicomnode.errors import ConfigError

ENVIRONMENT_PREFIX = "DICOMNODE_"


def _ae_title(value: Any) -> Any:
    if not isinstance(value, str):
        raise ValueError(f"must be a string, got {value!r}")
    stripped = value.strip(" ")
    if not 1 <= len(stripped) <= 16:
        raise ValueError(
            f"must be 1-16 characters (PS3.5 6.2), got {value!r} ({len(stripped)} characters)"
        )
    if not stripped.isascii() or not stripped.isprintable() or "\\" in stripped:
        raise ValueError(f"must be printable ASCII without backslash (PS3.5 6.2), got {value!r}")
    return stripped


AeTitle = Annotated[str, BeforeValidator(_ae_title)]
Port = Annotated[int, Field(ge=1, le=65535)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class PeerSettings(_Section):
    """An application entity that may associate with this node."""

    name: Name
    """What this peer is called in logs."""
    ae_title: AeTitle
    """Its calling AE title."""
    host: str | None = None
    """Also pin the address (an IP address); empty: any address."""

    @field_validator("host")
    @classmethod
    def _is_an_address(cls, value: str | None) -> str | None:
        if value:
            try:
                ipaddress.ip_address(value)
            except ValueError as error:
                raise ValueError(f"must be an IP address, got {value!r}") from error
        return value or None


class DimseSettings(_Section):
    """How this node listens for associations."""

    ae_title: AeTitle = "DICOMNODE"
    """The called AE title, and the calling AE title of deliveries."""
    host: str = "127.0.0.1"
    """The address to listen on; `0.0.0.0` for all."""
    port: Port = 11112
    """The port to listen on."""
    accept_unknown_peers: bool = False
    """Whether an AE title that is not in `[[dimse.peers]]` may associate."""
    require_called_ae_title: bool = True
    """Whether the called AE title must be `ae_title`."""
    maximum_associations: int = Field(default=25, ge=1, le=500)
    """Associations open at the same time; more are rejected (transient, local limit)."""
    maximum_pdu_bytes: int = Field(default=131072, ge=4096, le=1048576)
    """Largest PDU that peers may send. 128 KiB is faster than the usual 16 KiB."""
    maximum_instance_bytes: int = Field(default=512 * 1024 * 1024, ge=1024 * 1024)
    """Largest data set that is received; a larger one is aborted and discarded."""
    artim_timeout_seconds: float = Field(default=30.0, gt=0)
    """How long a new connection may take to ask for an association (PS3.8 9.1.5)."""
    idle_timeout_seconds: float = Field(default=60.0, gt=0)
    """How long an association may be silent before it is aborted."""
    storage_sop_classes: list[str] = []
    """Further Storage SOP Class UIDs to accept beside CR, DX and Secondary Capture."""
    peers: list[PeerSettings] = Field(default=[], max_length=1000)
    """Who may associate."""


class StorageSettings(_Section):
    """Where instances, documents and the database live."""

    root: Path = Path("var")
    """Part 10 files and reports. A relative path is relative to the settings file."""
    database_url: SecretStr = SecretStr("")
    """Empty: a SQLite file under `root`. `postgresql+psycopg://...` when several nodes
    share one store."""
    minimum_free_bytes: int = Field(default=1_000_000_000, ge=0)
    """Below this the node answers 0xA700 and is not ready."""


class StudySettings(_Section):
    """When a study counts as settled."""

    idle_seconds: float = Field(default=5.0, ge=0, le=86400)
    """Seconds without a new image until the report is made; 0: at once, per instance."""


class ServingSettings(_Section):
    """The model servers."""

    engine: Literal["embedded", "external"] = "embedded"
    """`embedded`: this node starts its own model server on the first target."""
    targets: list[str] = Field(default=["127.0.0.1:8500"], min_length=1, max_length=64)
    """`host:port` each, or `dns:///name:port`, of which every A record is a backend."""
    model_name: Name = "covid19"
    """The name under which the model is served."""
    model_base_path: Path = Path("var/models/covid19")
    """Model cards are read here by version; the embedded engine serves it. A relative
    path is relative to the settings file."""
    timeout_seconds: float = Field(default=30.0, gt=0)
    """Deadline of one inference request over all tries."""
    try_timeout_seconds: float = Field(default=10.0, gt=0)
    """Deadline of one try at one backend."""
    maximum_in_flight: int = Field(default=4, ge=1, le=256)
    """Requests that wait at one backend at the same time."""
    resolve_seconds: float = Field(default=5.0, gt=0)
    """How often `dns:///` targets are resolved again."""
    rest_port: int = Field(default=0, ge=0, le=65535)
    """REST port of the embedded model server; 0: none."""

    @field_validator("targets")
    @classmethod
    def _are_targets(cls, value: list[str]) -> list[str]:
        for target in value:
            host, _, port = target.removeprefix("dns:///").rpartition(":")
            if not host or not port.isdigit() or not 1 <= int(port) <= 65535:
                raise ValueError(f"must be host:port or dns:///name:port, got {target!r}")
        return value


class DestinationSettings(_Section):
    """Where reports and heatmaps go."""

    name: Name
    """What this destination is called in logs and metrics."""
    kind: Literal["dimse", "dicomweb"] = "dimse"
    """C-STORE, or STOW-RS."""
    ae_title: AeTitle | None = None
    """Called AE title (dimse)."""
    host: str | None = None
    """Host name or address (dimse)."""
    port: Port | None = None
    """Port (dimse)."""
    url: str | None = None
    """Root of the DICOMweb service (dicomweb)."""
    username: str | None = None
    """HTTP basic authentication (dicomweb)."""
    password: SecretStr | None = None
    """HTTP basic authentication (dicomweb); better by environment or `password_file`."""
    password_file: Path | None = None
    """A file that holds the password."""
    timeout_seconds: float = Field(default=30.0, gt=0)
    """How long to wait for a connection, an association or an answer."""

    @model_validator(mode="after")
    def _has_what_its_kind_needs(self) -> DestinationSettings:
        needed = ("ae_title", "host", "port") if self.kind == "dimse" else ("url",)
        missing = [name for name in needed if getattr(self, name) is None]
        if missing:
            raise ValueError(f"kind = {self.kind!r} also needs {', '.join(missing)}")
        return self


class WebSettings(_Section):
    """Metrics, health and the API."""

    host: str = "127.0.0.1"
    """The address to listen on."""
    port: Port = 8080
    """The port to listen on."""


class WorkerSettings(_Section):
    """Who does the work."""

    analysers: int = Field(default=2, ge=1, le=64)
    """Images analysed at the same time."""
    lease_seconds: float = Field(default=120.0, gt=1)
    """After this silence a job of a dead node is taken over by another."""
    decode_memory_bytes: int = Field(default=1_500_000_000, ge=256_000_000)
    """Address space that the decoder process may use."""
    decode_timeout_seconds: float = Field(default=60.0, gt=0)
    """How long one image may take to decode."""
    maximum_pixels: int = Field(default=100_000_000, ge=1_000_000)
    """Rows x Columns beyond which an image is refused unread."""


class RetrySettings(_Section):
    """How patient the node is with what fails."""

    base_seconds: float = Field(default=1.0, gt=0)
    """Wait after the first failed attempt; doubled after each further one."""
    cap_seconds: float = Field(default=60.0, gt=0)
    """Longest wait."""
    maximum_attempts: int = Field(default=10, ge=1)
    """Attempts at a job that itself fails, before it becomes a dead letter."""
    maximum_age_seconds: float = Field(default=7 * 24 * 3600.0, gt=0)
    """How long a job survives an outage (PACS or model servers away)."""


class LogSettings(_Section):
    """What the node tells."""

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """Least severity that is written."""
    format: Literal["auto", "json", "console"] = "auto"
    """`auto`: JSON unless standard error is a terminal."""


class Settings(_Section):
    """All settings of a node."""

    dimse: DimseSettings = DimseSettings()
    storage: StorageSettings = StorageSettings()
    study: StudySettings = StudySettings()
    serving: ServingSettings = ServingSettings()
    destinations: list[DestinationSettings] = Field(default=[], max_length=32)
    web: WebSettings = WebSettings()
    worker: WorkerSettings = WorkerSettings()
    retry: RetrySettings = RetrySettings()
    log: LogSettings = LogSettings()

    @model_validator(mode="after")
    def _names_are_unique(self) -> Settings:
        for key, names in (
            ("destinations", [destination.name for destination in self.destinations]),
            ("dimse.peers", [peer.name for peer in self.dimse.peers]),
        ):
            twice = sorted({name for name in names if names.count(name) > 1})
            if twice:
                raise ValueError(f"{key}: name {', '.join(twice)} is used more than once")
        return self


def load(path: Path | None, *, environment: dict[str, str] | None = None) -> Settings:
    """Read and check the settings; relative paths are taken from the file's folder.

    Raises `ConfigError` with one line per wrong key, all at once.
    """
    tree: dict[str, Any] = {}
    if path is not None:
        try:
            tree = tomllib.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise ConfigError([f"cannot read {path}: {error.strerror}"]) from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigError([f"{path} is not valid TOML: {error}"]) from error
    _overlay(tree, dict(os.environ) if environment is None else environment)
    try:
        settings = Settings.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(_problems(error)) from error
    return _anchored(settings, path.resolve().parent if path is not None else Path.cwd())


def _overlay(tree: dict[str, Any], environment: dict[str, str]) -> None:
    """`DICOMNODE_DIMSE__PORT=104` sets `dimse.port`; a value that is TOML is read as such."""
    for name in sorted(environment):
        if not name.startswith(ENVIRONMENT_PREFIX) or "__" not in name:
            continue
        *sections, key = name.removeprefix(ENVIRONMENT_PREFIX).lower().split("__")
        branch: Any = tree
        for section in sections:
            branch = branch.setdefault(section, {}) if isinstance(branch, dict) else None
        if isinstance(branch, dict):
            branch[key] = _toml_or_text(environment[name])
    destinations = environment.get(f"{ENVIRONMENT_PREFIX}DESTINATIONS")
    if destinations is not None:
        tree["destinations"] = _toml_or_text(destinations)


def _toml_or_text(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _anchored(settings: Settings, folder: Path) -> Settings:
    storage = settings.storage.model_copy(update={"root": folder / settings.storage.root})
    serving = settings.serving.model_copy(
        update={"model_base_path": folder / settings.serving.model_base_path}
    )
    return settings.model_copy(update={"storage": storage, "serving": serving})


def _problems(error: ValidationError) -> list[str]:
    problems = []
    for detail in error.errors():
        key = _dotted(detail["loc"])
        if detail["type"] == "extra_forbidden":
            problems.append(f"{key} is not a setting{_nearest(detail['loc'])}")
        elif detail["type"] == "value_error":
            message = str(detail["ctx"]["error"])
            problems.append(f"{key} {message}".strip())
        else:
            message = detail["msg"][:1].lower() + detail["msg"][1:]
            problems.append(f"{key}: {message}{_found(detail)}")
    return problems


def _dotted(location: tuple[int | str, ...]) -> str:
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def _found(detail: Any) -> str:
    value = detail.get("input")
    if isinstance(value, str | int | float | bool) and not _is_secret(detail["loc"]):
        return f", got {value!r}"
    return ""


def _is_secret(location: tuple[int | str, ...]) -> bool:
    return any(word in str(location[-1]) for word in ("password", "url")) if location else False


def _nearest(location: tuple[int | str, ...]) -> str:
    """The nearest known key in the same section, or the same key in another one."""
    section: Any = Settings
    for part in location[:-1]:
        if isinstance(part, str):
            section = _section_of(section, part)
    wrong = str(location[-1])
    prefix = _dotted(location[:-1])
    close = difflib.get_close_matches(wrong, section.model_fields, n=1, cutoff=0.6)
    if close:
        return f"; did you mean {prefix + '.' if prefix else ''}{close[0]}?"
    elsewhere = [
        f"{name}.{wrong}"
        for name in Settings.model_fields
        if wrong in _section_of(Settings, name).model_fields
    ]
    return f"; did you mean {elsewhere[0]}?" if elsewhere else ""


def _section_of(section: Any, name: str) -> Any:
    annotation = section.model_fields[name].annotation
    arguments = getattr(annotation, "__args__", ())
    return arguments[0] if arguments else annotation

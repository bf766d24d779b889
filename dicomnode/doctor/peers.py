"""The ways in and out: ports, the node that runs here, destinations."""

from __future__ import annotations

import errno
import json
import os
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator

from dicomnode.config import DestinationSettings, Settings
from dicomnode.dimse import echo
from dicomnode.doctor.findings import Finding, fail, ok, warn
from dicomnode.errors import DeliveryRefused, DestinationUnavailable

ASK_SECONDS = 5.0
_LARGEST_ANSWER = 65_536


def readiness(settings: Settings) -> dict[str, str] | None:
    """What the node that runs here says of itself; None when none answers."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.web.host, settings.web.host)  # noqa: S104
    address = f"[{host}]" if ":" in host else host
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(
            f"http://{address}:{settings.web.port}/readyz", timeout=ASK_SECONDS
        ) as answer:
            body = answer.read(_LARGEST_ANSWER)
    except urllib.error.HTTPError as error:
        body = error.read(_LARGEST_ANSWER)
    except OSError:
        return None
    try:
        checks = json.loads(body)["checks"]
        return {str(name): str(told) for name, told in checks.items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def node(settings: Settings, told: dict[str, str] | None) -> Iterator[Finding]:
    """The ports, and whether the node that holds them is ready."""
    if told is not None:
        trouble = [f"{name}: {text}" for name, text in told.items() if text != "ok"]
        if trouble:
            yield fail(
                "node.ready",
                "; ".join(trouble),
                expected="every check of /readyz ok",
                next_step="see docs/operations.md, 'Health and what it means'",
            )
        else:
            yield ok("node.ready", "a node runs here and is ready")
        return
    for key, host, port in (
        ("dimse", settings.dimse.host, settings.dimse.port),
        ("web", settings.web.host, settings.web.port),
    ):
        yield _port(key, host, port)


def _port(key: str, host: str, port: int) -> Finding:
    check = f"port.{key}"
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except OSError as error:
        next_step = f"set another {key}.port or {key}.host"
        if error.errno == errno.EADDRINUSE:
            next_step = f"`ss -ltnp` names who listens there; {next_step}"
        elif error.errno == errno.EACCES:
            next_step = f"ports below 1024 need CAP_NET_BIND_SERVICE; {next_step}"
        return fail(
            check,
            f"cannot listen on {host}:{port}: {error.strerror}",
            expected="a free port, or a node of ours that answers there",
            next_step=next_step,
        )
    return ok(check, f"{host}:{port} is free")


def modalities(settings: Settings) -> Iterator[Finding]:
    """Who may send."""
    dimse = settings.dimse
    if dimse.accept_unknown_peers:
        yield warn(
            "peers",
            "dimse.accept_unknown_peers = true: any AE title may associate",
            expected="[[dimse.peers]] only",
            next_step="name the modalities under [[dimse.peers]]",
        )
    elif not dimse.peers:
        yield warn(
            "peers",
            "no [[dimse.peers]]: nobody may associate",
            expected="at least one modality",
            next_step="add the modalities' AE titles",
        )
    else:
        yield ok("peers", f"{len(dimse.peers)} modalities may associate")
    if dimse.host in ("127.0.0.1", "::1", "localhost"):
        yield warn(
            "peers.host",
            f"dimse.host = {dimse.host}: only this machine can send",
            expected="an address that modalities reach",
            next_step='set dimse.host = "0.0.0.0"',
        )


def destinations(settings: Settings) -> Iterator[Finding]:
    """Each is asked as a delivery would: C-ECHO, or one HTTP request."""
    if not settings.destinations:
        yield warn(
            "destinations",
            "no [[destinations]]: reports stay in the store",
            expected="a PACS",
            next_step="add it under [[destinations]]",
        )
    for destination in settings.destinations:
        if destination.kind == "dimse":
            yield _dimse(destination, settings.dimse.ae_title)
        else:
            yield _dicomweb(destination)


def _dimse(destination: DestinationSettings, calling_ae_title: str) -> Finding:
    check = f"destination {destination.name}"
    assert destination.host is not None and destination.port is not None
    assert destination.ae_title is not None
    try:
        status = echo(
            destination.host,
            destination.port,
            called_ae_title=destination.ae_title,
            calling_ae_title=calling_ae_title,
            timeout_seconds=min(destination.timeout_seconds, ASK_SECONDS),
        )
    except (DestinationUnavailable, DeliveryRefused) as error:
        return fail(
            check,
            str(error),
            expected="C-ECHO answered with 0x0000",
            next_step="check address, port and AE titles; the PACS must know this node's",
        )
    if status != 0:
        return fail(
            check,
            f"C-ECHO answered with 0x{status:04X}",
            expected="0x0000",
            next_step="ask the PACS administrator",
        )
    return ok(check, f"{destination.host}:{destination.port} answers C-ECHO")


def _dicomweb(destination: DestinationSettings) -> Finding:
    import requests  # noqa: PLC0415 - a node without DICOMweb does without it

    check, url = f"destination {destination.name}", destination.url or ""
    secret = destination.password_file
    if secret is not None and not os.access(secret, os.R_OK):
        return fail(
            check,
            f"password_file {secret} cannot be read by uid {os.getuid()}",
            expected="a file that this user can read",
            next_step="mount the Secret, or chown the file",
        )
    password = destination.password.get_secret_value() if destination.password else ""
    if secret is not None:
        password = secret.read_text(encoding="utf-8").strip()
    credentials = (destination.username, password) if destination.username else None
    try:
        # the answer would hold patients: its status is all that is looked at
        with requests.get(
            f"{url.rstrip('/')}/studies",
            params={"limit": "1"},
            auth=credentials,
            headers={"Accept": "application/dicom+json"},
            timeout=min(destination.timeout_seconds, ASK_SECONDS),
            stream=True,
        ) as answer:
            status = answer.status_code
    except requests.RequestException as error:
        return fail(
            check,
            f"no answer from {url} ({type(error).__name__})",
            expected="a DICOMweb service",
            next_step="check url, name resolution, certificate and network policy",
        )
    if status in (200, 204):
        return ok(check, f"{url} answers HTTP {status}")
    if status in (401, 403):
        return fail(
            check,
            f"{url} answers HTTP {status}",
            expected="these credentials to be accepted",
            next_step="check username, and password or password_file",
        )
    return warn(
        check,
        f"{url} answers HTTP {status} to a query",
        expected="200 or 204; a server that only takes STOW-RS may say otherwise",
        next_step="is url the root of the service, the part before /studies?",
    )

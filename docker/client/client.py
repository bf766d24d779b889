"""A modality's and a workstation's verbs, for trying a node out.

    client echo HOST:PORT                      C-ECHO (DCMTK's echoscu)
    client send HOST:PORT PATH...              C-STORE (storescu)
    client query HOST:PORT -k KEY=VALUE        C-FIND for studies, at a PACS (findscu)
    client predict http://HOST:8501 PATH...    the model server's REST API, as the thesis's client

`predict` sends `{"instances": [[[[r, g, b], ...]]]}` with values in 0..1, 224 x 224 or what
--profile says, and prints one JSON object per file. DICOM files are read and judged as the node
does it; of JPEG and PNG the greys are taken. Names of files are printed, nothing that is in them.
Exit codes: 0 done, 1 failed, 2 wrong usage.
"""

from __future__ import annotations

import argparse
import io
import json
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

DONE, FAILED = 0, 1
TIMEOUT_SECONDS = 60
MAXIMUM_PIXELS = 100_000_000


class ClientError(Exception):
    """What went wrong, in a sentence."""


def main(arguments: list[str]) -> int:
    told = _parser().parse_args(arguments)
    try:
        if told.verb == "predict":
            return predict(told.url, told.paths, model=told.model, profile=told.profile)
        return subprocess.run(dcmtk(told), check=False).returncode
    except FileNotFoundError as error:
        sys.stderr.write(f"{error.filename} is not installed; it is in the Debian package dcmtk\n")
    except ClientError as error:
        sys.stderr.write(f"{error}\n")
    return FAILED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="client", description="Try a dicomnode out.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb, said in (("echo", "C-ECHO"), ("send", "C-STORE"), ("query", "C-FIND")):
        command = verbs.add_parser(verb, help=said)
        command.add_argument("peer", metavar="HOST:PORT", type=_peer)
        command.add_argument("--called", default="DICOMNODE", help="called AE title")
        command.add_argument("--calling", default="XRAY1", help="calling AE title")
        if verb == "send":
            command.add_argument("paths", nargs="+", type=Path, help="files or folders")
        if verb == "query":
            command.add_argument("-k", "--key", action="append", metavar="KEY=VALUE", default=[])
    command = verbs.add_parser("predict", help="ask the model server")
    command.add_argument("url", metavar="http://HOST:PORT")
    command.add_argument("paths", nargs="+", type=Path, help="DICOM, JPEG or PNG files")
    command.add_argument("--model", default="covid19", help="the model's name")
    command.add_argument("--profile", default="unit-rgb-224/1", help="the preprocess profile")
    return parser


def _peer(text: str) -> tuple[str, str]:
    host, _, port = text.rpartition(":")
    if not host or host.startswith("-") or not port.isdigit() or not 1 <= int(port) <= 65535:
        raise argparse.ArgumentTypeError(f"must be HOST:PORT, got {text!r}")
    return host, port


def dcmtk(told: argparse.Namespace) -> list[str]:
    """The command of DCMTK that does it."""
    host, port = told.peer
    titles = ["-aec", told.called, "-aet", told.calling]
    if told.verb == "echo":
        return ["/usr/bin/echoscu", *titles, host, port]
    if told.verb == "send":
        # folders and what is under them; a refused file does not stop the others
        options = ["+sd", "+r", "--no-halt"]
        paths = [str(path) for path in told.paths]
        return ["/usr/bin/storescu", *titles, *options, host, port, *paths]
    keys = told.key or ["StudyDate=", "StudyDescription=", "ModalitiesInStudy="]
    asked = [part for key in ("StudyInstanceUID=", *keys) for part in ("-k", key)]
    level = ["-S", "-k", "QueryRetrieveLevel=STUDY"]
    return ["/usr/bin/findscu", *titles, *level, *asked, host, port]


def predict(url: str, paths: list[Path], *, model: str, profile: str) -> int:
    """Ask for every file; one that cannot be asked about does not stop the others."""
    outcome = DONE
    for path in paths:
        try:
            probabilities = _asked(url, model, _prepared(path, profile))
        except ClientError as error:
            sys.stderr.write(f"{path}: {error}\n")
            outcome = FAILED
            continue
        sys.stdout.write(json.dumps({"file": str(path), "probabilities": probabilities}) + "\n")
    return outcome


def _prepared(path: Path, profile_name: str) -> list[Any]:
    from dicomnode.errors import NotAnInstance, UndecodableImage  # noqa: PLC0415 - echo is quick
    from dicomnode.findings import NotEvaluated  # noqa: PLC0415
    from dicomnode.imaging import preprocess, reading  # noqa: PLC0415

    try:
        profile = preprocess.profile_named(profile_name)
        data = path.read_bytes()
        if data[128:132] == b"DICM":
            dataset = reading.read_instance(io.BytesIO(data))
            image = preprocess.prepare(dataset, profile, maximum_pixels=MAXIMUM_PIXELS)
            if isinstance(image, NotEvaluated):
                raise ClientError(f"not evaluated: {image.reason.value}")
            tensor = image.tensor
        else:
            grey = preprocess.image_file_grey8(data, maximum_pixels=MAXIMUM_PIXELS)
            tensor = profile.apply(grey)
    except (OSError, ValueError, NotAnInstance, UndecodableImage) as error:
        raise ClientError(str(error)) from error
    scaled: list[Any] = (tensor.astype("float32") / 255.0).round(6).tolist()
    return scaled


def _asked(url: str, model: str, instance: list[Any]) -> list[float]:
    address = f"{url.rstrip('/')}/v1/models/{model}:predict"
    if not address.startswith(("http://", "https://")):
        raise ClientError(f"the address must start with http:// or https://, got {url!r}")
    request = urllib.request.Request(  # noqa: S310 - checked above
        address,
        data=json.dumps({"instances": [instance]}).encode(),
        headers={"Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as answer:  # noqa: S310
            body = json.load(answer)
    except urllib.error.HTTPError as error:
        said = error.read(500).decode(errors="replace")
        raise ClientError(f"{address} answered {error.code}: {said}") from error
    except (OSError, ValueError) as error:
        raise ClientError(f"{address} does not answer as a model server: {error}") from error
    try:
        return [float(probability) for probability in body["predictions"][0]]
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise ClientError(f"{address} answered no predictions") from error


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))

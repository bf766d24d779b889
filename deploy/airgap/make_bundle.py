#!/usr/bin/env python3
"""Make the bundle that a cluster without internet is installed from.

    make_bundle.py --arch arm64 --overlay deploy/overlays/k3s-jetson --list
    make_bundle.py --arch arm64 --overlay deploy/overlays/k3s-jetson \
        --images images --k3s k3s --k3s-version v1.33.5+k3s1 --out /media/stick/dicomnode

Runs where there is internet, on Python 3.11 and nothing else. What it cannot make itself lies in
slots that --list names: IMAGES/ARCH/NAME.tar, K3S/ARCH/{k3s,k3s-airgap-images-ARCH.tar.zst} with
the release's sha256sum-ARCH.txt. docs/operations/air-gap.md goes through it.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from bundle_files import Bundle, published_sums, sha256_of
from bundle_images import BundleError, Image, check_archive, needed_images

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
LOCKED = ROOT / "docker" / "requirements" / "node.txt"
ARCHITECTURES = {"amd64": "x86_64", "arm64": "aarch64"}


def main(arguments: list[str] | None = None) -> int:
    """The command; its exit code."""
    options = parse(arguments)
    try:
        manifests = rendered(options)
        images = needed_images(list(manifests.values()), options.pins.read_text(encoding="utf-8"))
        if options.list:
            return list_slots(options, images)
        problems = missing(options, images)
        if problems:
            raise BundleError("\n".join(problems))
        seal = make(options, manifests, images)
    except (BundleError, OSError) as error:
        sys.stderr.write(f"make_bundle: {error}\n")
        return 1
    count = len(images) - len(options.without_image)
    say(f"{options.out}: {count} images for {', '.join(options.arch)}, sealed with")
    say(seal)
    say("write the seal down: verify.sh and install.sh take it as --seal")
    return 0


def say(text: str) -> None:
    """A line of the answer."""
    sys.stdout.write(text + "\n")


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The options, or exit code 2."""
    parser = argparse.ArgumentParser(description="Make a bundle for a cluster without internet.")
    add = parser.add_argument
    add("--arch", action="append", choices=sorted(ARCHITECTURES), required=True)
    add("--overlay", action="append", type=Path, default=[], help="a kustomize folder")
    add("--manifests", action="append", type=Path, default=[], help="an already rendered file")
    add("--images", type=Path, default=Path("images"), help="folder of the image slots")
    add("--k3s", type=Path, default=Path("k3s"), help="folder of the k3s slots")
    add("--k3s-version", default="", help="as released, for example v1.33.5+k3s1")
    add("--without-image", action="append", default=[], help="an image that is there already")
    add("--without-k3s", action="store_true", help="the boards have k3s")
    add("--wheels", action="store_true", help="also the Python packages, with pip download")
    add("--pins", type=Path, default=ROOT / "docker" / "images.env", help="digests of images")
    add("--out", type=Path, default=Path("dicomnode-bundle"))
    add("--list", action="store_true", help="say what belongs into which slot, make nothing")
    options = parser.parse_args(arguments)
    if not options.overlay and not options.manifests:
        parser.error("no manifests: give --overlay FOLDER or --manifests FILE")
    return options


def rendered(options: argparse.Namespace) -> dict[str, str]:
    """Rendered manifests by overlay name."""
    texts = {path.stem: path.read_text(encoding="utf-8") for path in options.manifests}
    for overlay in options.overlay:
        done = subprocess.run(
            ["kubectl", "kustomize", overlay],  # noqa: S607 - whichever the operator uses
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise BundleError(f"kubectl kustomize {overlay}: {done.stderr.strip()}")
        texts[overlay.resolve().name] = done.stdout
    return texts


def slots(options: argparse.Namespace, images: list[Image]) -> list[tuple[str, Image, Path]]:
    """Architecture, image and archive, for everything that the bundle holds."""
    return [
        (arch, image, options.images / arch / image.file_name)
        for arch in options.arch
        for image in images
        if image.name not in options.without_image
    ]


def k3s_files(options: argparse.Namespace, arch: str) -> list[tuple[Path, str, str]]:
    """Path, name in the release's list of sums, and name in the bundle."""
    folder, tarball = options.k3s / arch, f"k3s-airgap-images-{arch}.tar.zst"
    released = "k3s" if arch == "amd64" else f"k3s-{arch}"
    return [(folder / "k3s", released, "k3s"), (folder / tarball, tarball, tarball)]


def list_slots(options: argparse.Namespace, images: list[Image]) -> int:
    """Say what belongs where."""
    for arch, image, path in slots(options, images):
        state = "there" if path.exists() else image.how_to_get(arch, path)
        say(f"{path}\n    {state}")
    for arch in () if options.without_k3s else options.arch:
        for path, released, _ in k3s_files(options, arch):
            state = "there" if path.exists() else f"{released} of a k3s release"
            say(f"{path}\n    {state}")
        say(f"{options.k3s / arch / f'sha256sum-{arch}.txt'}\n    of the same release")
    return 0


def missing(options: argparse.Namespace, images: list[Image]) -> list[str]:
    """Everything that is not in its slot, at once."""
    unknown = set(options.without_image) - {image.name for image in images}
    found = [f"--without-image {name}: the manifests do not name it" for name in sorted(unknown)]
    found += [
        f"{path} is missing: {image.how_to_get(arch, path)}"
        for arch, image, path in slots(options, images)
        if not path.is_file()
    ]
    if options.without_k3s:
        return found
    if not options.k3s_version:
        found.append("--k3s-version is missing; expected the release that lies in the k3s slots")
    return found + [
        f"{path} is missing: it is {released} of k3s {options.k3s_version}"
        for arch in options.arch
        for path, released, _ in k3s_files(options, arch)
        if not path.is_file()
    ]


def make(options: argparse.Namespace, manifests: dict[str, str], images: list[Image]) -> str:
    """Write the bundle; its seal."""
    for arch, image, path in slots(options, images):
        check_archive(path, image, arch)
    bundle = Bundle(options.out)
    try:
        return _fill(bundle, options, manifests, images)
    except BaseException:
        bundle.abandon()
        raise


def _fill(
    bundle: Bundle, options: argparse.Namespace, manifests: dict[str, str], images: list[Image]
) -> str:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    for name in ("verify.sh", "install.sh"):
        bundle.add(HERE / name, name)
    setup = ROOT / "deploy" / "node-setup"
    for path in sorted(p for p in setup.rglob("*") if p.is_file() and p.name != "board.env"):
        bundle.add(path, f"node-setup/{path.relative_to(setup)}")
    for path in manual():
        bundle.add(path, str(path.relative_to(ROOT)))
    for name, text in manifests.items():
        bundle.write(f"manifests/{name}.yaml", text)
    described = []
    for arch, image, path in slots(options, images):
        name = f"images/{arch}/{image.file_name}"
        digest = bundle.add(path, name)
        described.append(
            {"name": image.full_name, "pinned": image.digest, "file": name, "sha256": digest}
        )
    bundle.write(
        "images.txt",
        "".join(
            f"{arch} {image.full_name} images/{arch}/{image.file_name}\n"
            for arch, image, _ in slots(options, images)
        ),
    )
    for arch in () if options.without_k3s else options.arch:
        _add_k3s(bundle, options, arch)
    for arch in options.arch if options.wheels else ():
        _add_wheels(bundle, arch)
    k3s_version = "" if options.without_k3s else options.k3s_version
    bundle.write("versions.txt", f"dicomnode {version}\nk3s {k3s_version or 'not-included'}\n")
    description: dict[str, Any] = {
        "format": 1,
        "dicomnode": version,
        "k3s": k3s_version,
        "made": _now(),
        "architectures": options.arch,
        "manifests": sorted(manifests),
        "images": described,
        "not_included": sorted(options.without_image),
        "wheels": options.wheels,
    }
    return bundle.finish(description)


def manual() -> list[Path]:
    """What an operator reads on site, and the examples that it leads to, where its links lead."""
    found = [*(ROOT / "docs").rglob("*.md"), *(ROOT / "deploy" / "examples").iterdir()]
    return [ROOT / "CHANGELOG.md", *sorted(path for path in found if path.is_file())]


def _now() -> str:
    """SOURCE_DATE_EPOCH, where a bundle is to be made again to the byte."""
    seconds = int(os.environ.get("SOURCE_DATE_EPOCH", time.time()))
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def _add_k3s(bundle: Bundle, options: argparse.Namespace, arch: str) -> None:
    sums = published_sums(options.k3s / arch / f"sha256sum-{arch}.txt")
    for path, released, name in k3s_files(options, arch):
        if released not in sums:
            raise BundleError(f"sha256sum-{arch}.txt does not name {released}; wrong release?")
        found = sha256_of(path)
        if found != sums[released]:
            raise BundleError(
                f"{path}: sha256 {found}, the release says {sums[released]}; download it again"
            )
        bundle.add(path, f"k3s/{arch}/{name}")


def _add_wheels(bundle: Bundle, arch: str) -> None:
    """The node and the packages of its image, hashes and all, for the Python of the boards."""
    machine = ARCHITECTURES[arch]
    # pip wants each one named: every glibc up to that of the node's image, Debian 12
    tags = ("2014", *(f"_2_{minor}" for minor in range(17, 37)))
    platforms = [f"manylinux{tag}_{machine}" for tag in tags]
    with tempfile.TemporaryDirectory() as folder:
        pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
        _run([*pip, "wheel", "--no-deps", "--wheel-dir", folder, str(_sources(Path(folder)))])
        _run(
            [*pip, "download", "--dest", folder, "--only-binary=:all:", "--python-version=3.11"]
            + ["--implementation=cp", "--abi=cp311", "--abi=abi3", "--abi=none"]
            + [f"--platform={platform}" for platform in platforms]
            + ["--no-deps", "--require-hashes", "--requirement", str(LOCKED)]
        )
        for path in sorted(Path(folder).glob("*.whl")):
            bundle.add(path, f"wheels/{arch}/{path.name}")


def _sources(folder: Path) -> Path:
    """A copy: a build leaves its results beside the sources and finds those of the last one."""
    copy = folder / "sources"
    for name in ("dicomnode", "trainer"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, copy / name)
    return copy


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BundleError(f"{' '.join(command[2:5])} failed: {done.stderr.strip()[-600:]}")


if __name__ == "__main__":
    sys.exit(main())

"""The model: its cards on disk, its servers and what they serve."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator

import grpc

from dicomnode.config import ServingSettings, Settings
from dicomnode.doctor.findings import Finding, fail, ok, warn
from dicomnode.errors import ModelCardMissing
from dicomnode.imaging.profiles import profile_named
from dicomnode.serving.backend import Backend
from dicomnode.serving.cards import DirectoryModelCards
from dicomnode.serving.resolver import DNS_SCHEME, Address, Resolver
from dicomnode.wire.generated import serving_pb2 as pb

PROBE_SECONDS = 3.0


def cards(settings: Settings) -> Iterator[Finding]:
    """Is there a version, and does this program understand its card?"""
    base = settings.serving.model_base_path
    if settings.serving.engine == "embedded" and importlib.util.find_spec("tensorflow") is None:
        yield fail(
            "model.engine",
            "serving.engine is embedded, and tensorflow is not installed",
            expected="the `model` extra, or model servers elsewhere",
            next_step="pip install 'dicomnode[model]', or serving.engine = \"external\"",
        )
    try:
        card = DirectoryModelCards(base).newest()
        profile = profile_named(card.preprocess_profile)
    except ModelCardMissing as error:
        yield fail(
            "model.card",
            str(error),
            expected="BASE/<version>/assets.extra/model_card.json",
            next_step="publish a version (trainer fit), or mount the folder of the models",
        )
    except ValueError as error:
        yield fail(
            "model.card",
            f"the newest card asks for another preprocessing: {error}",
            expected="a preprocess profile that this program has",
            next_step="upgrade the node before the model, or roll the model back",
        )
    else:
        yield ok(
            "model.card",
            f"version {card.model_version} of {card.model_name} under {base}: "
            f"{card.network}, {profile.name}, threshold {card.threshold.value:.3f}",
        )


def servers(settings: Settings, *, node_runs: bool) -> Iterator[Finding]:
    """Every address of `serving.targets`, and whether they agree."""
    serving = settings.serving
    resolver = Resolver(serving.targets)
    addresses = resolver.resolve()
    yield from _names(serving, resolver, addresses)
    if serving.engine == "embedded" and not node_runs:
        yield ok("model.servers", "the node starts its own when it starts (embedded)")
        return
    answers = {address: _versions(address, serving) for address in addresses}
    well = [address for address, found in answers.items() if isinstance(found, set) and found]
    for address, found in answers.items():
        yield _server(address, found, serving, others=len(well) - (address in well))
    newest = {max(found) for found in answers.values() if isinstance(found, set) and found}
    if len(newest) > 1:
        yield warn(
            "model.versions",
            f"the model servers serve versions {', '.join(map(str, sorted(newest)))}",
            expected="one version, except for the minutes of a roll-out",
            next_step="do all of them see the same model folder?",
        )
    elif newest:
        yield from _is_on_disk(serving, newest.pop())


def _names(
    serving: ServingSettings, resolver: Resolver, addresses: list[Address]
) -> Iterator[Finding]:
    for target in serving.targets:
        if not target.startswith(DNS_SCHEME):
            continue
        name = target.removeprefix(DNS_SCHEME).rpartition(":")[0]
        if name in resolver.errors:
            yield fail(
                "model.dns",
                f"{name} cannot be looked up: {resolver.errors[name]}",
                expected="an A record per model server that is ready (a headless Service)",
                next_step="kubectl get endpoints; does the network policy allow DNS?",
            )
        else:
            yield ok("model.dns", f"{name}: {len(addresses)} addresses")


def _versions(address: Address, serving: ServingSettings) -> set[int] | str:
    """Versions that are AVAILABLE, or why there is no answer."""
    backend = Backend(address, model_name=serving.model_name, limit=1)
    try:
        statuses = backend.probe(timeout=PROBE_SECONDS).result().model_version_status
    except grpc.RpcError as error:
        return f"{error.code().name}: {error.details()}"[:300]
    finally:
        backend.close()
    return {int(one.version) for one in statuses if one.state == pb.ModelVersionStatus.AVAILABLE}


def _server(
    address: Address, found: set[int] | str, serving: ServingSettings, *, others: int
) -> Finding:
    if isinstance(found, set) and found:
        versions = ", ".join(map(str, sorted(found)))
        return ok(f"model.server {address}", f"serves {serving.model_name} {versions}")
    told = found if isinstance(found, str) else f"no version of {serving.model_name} is AVAILABLE"
    return (warn if others else fail)(
        f"model.server {address}",
        told,
        expected=f"{serving.model_name}, AVAILABLE",
        next_step="does it run, does it see a version in its folder, is its name "
        f"{serving.model_name}?" + (f" {others} others work" if others else ""),
    )


def _is_on_disk(serving: ServingSettings, version: int) -> Iterator[Finding]:
    try:
        newest = DirectoryModelCards(serving.model_base_path).newest().model_version
    except ModelCardMissing:
        return  # `cards` says it
    if newest != version:
        yield warn(
            "model.versions",
            f"the servers serve version {version}, the newest on disk is {newest}",
            expected="the same",
            next_step="do the servers see the folder that serving.model_base_path names?",
        )

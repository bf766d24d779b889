"""All checks, in the order in which they are told."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from dicomnode.config import Settings
from dicomnode.doctor import machine, models, peers, store
from dicomnode.doctor.findings import Finding, fail
from dicomnode.errors import DicomnodeError

Check = Callable[[Settings], Iterator[Finding]]


def examine(settings: Settings) -> Iterator[Finding]:
    """Every finding as soon as it is known: some checks wait for peers."""
    told = peers.readiness(settings)
    checks: tuple[tuple[str, Check], ...] = (
        ("store", store.store),
        ("database", store.database),
        ("model.card", models.cards),
        ("model.servers", lambda s: models.servers(s, node_runs=told is not None)),
        ("node", lambda s: peers.node(s, told)),
        ("peers", peers.modalities),
        ("destinations", peers.destinations),
        ("machine", machine.machine),
        ("decoders", machine.decoders),
    )
    for name, check in checks:
        yield from _guarded(name, check, settings)


def _guarded(name: str, check: Check, settings: Settings) -> Iterator[Finding]:
    """One check that cannot even look must not keep the others from being told."""
    try:
        yield from check(settings)
    except (DicomnodeError, OSError) as error:
        yield fail(
            name,
            f"could not be looked at: {error}",
            expected="a look",
            next_step="remove the cause that is named here and ask again",
        )

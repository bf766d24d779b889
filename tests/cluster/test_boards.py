"""The scheduler's part, without any pod."""

from __future__ import annotations

from typing import Any

import pytest

from tests.cluster.boards import Board, Placed, choose
from tests.cluster.supported import Unsupported

BOARDS = [Board(name="one"), Board(name="two")]
LABELS = {"app": "web"}


def spec(memory: str = "100Mi", cpu: str = "100m", **more: Any) -> dict[str, Any]:
    requests = {"memory": memory, "cpu": cpu}
    return {"containers": [{"resources": {"requests": requests}}], **more}


def apart(kind: str, key: str = "kubernetes.io/hostname") -> dict[str, Any]:
    term = {"topologyKey": key, "labelSelector": {"matchLabels": LABELS}}
    if kind == "preferred":
        term = {"weight": 100, "podAffinityTerm": term}
    rule = f"{kind}DuringSchedulingIgnoredDuringExecution"
    return {"affinity": {"podAntiAffinity": {rule: [term]}}}


def on(board: str, **more: Any) -> Placed:
    return Placed(board=board, labels=LABELS, spec=spec(**more))


def test_the_emptier_board_is_taken():
    assert choose(BOARDS, LABELS, spec(), [on("one")])[0] == "two"


def test_required_anti_affinity_leaves_a_pod_without_a_board():
    wish = spec(**apart("required"))
    assert choose(BOARDS, LABELS, wish, [on("one")])[0] == "two"
    board, reason = choose(BOARDS, LABELS, wish, [on("one"), on("two")])
    assert board is None
    assert reason == (
        "one: didn't match pod anti-affinity rules; two: didn't match pod anti-affinity rules"
    )


def test_who_is_there_already_keeps_others_away_too():
    there = [on("one", **apart("required")), on("two", **apart("required"))]
    assert choose(BOARDS, LABELS, spec(), there)[0] is None
    assert choose(BOARDS, {"app": "other"}, spec(), there)[0] == "one"


def test_preferred_anti_affinity_weighs_more_than_an_emptier_board():
    others = [Placed(board="two", labels={"app": "other"}, spec=spec()) for _ in range(3)]
    assert choose(BOARDS, LABELS, spec(**apart("preferred")), [on("one"), *others])[0] == "two"
    there = [on("one"), on("two")]
    assert choose(BOARDS, LABELS, spec(**apart("preferred")), there)[0] is not None


@pytest.mark.parametrize(
    ("asked", "reason"), [("memory", "Insufficient memory"), ("cpu", "Insufficient cpu")]
)
def test_a_board_has_room_for_what_is_asked_for_and_no_more(asked: str, reason: str):
    much = {"memory": "2801Mi", "cpu": "3901m"}[asked]
    board, told = choose(BOARDS[:1], LABELS, spec(**{asked: much}), [on("one")])
    assert (board, told) == (None, f"one: {reason}")
    assert choose(BOARDS[:1], LABELS, spec(**{asked: much}), [])[0] == "one"


def test_a_board_of_another_kind_is_not_taken():
    server = Board(name="server", labels={"kubernetes.io/arch": "amd64"})
    chosen, reason = choose(
        [server], LABELS, spec(nodeSelector={"kubernetes.io/arch": "arm64"}), []
    )
    assert (chosen, reason) == (None, "server: didn't match the node selector")


def test_what_is_not_known_here_is_refused():
    with pytest.raises(Unsupported, match="topologyKey zone"):
        choose(BOARDS, LABELS, spec(**apart("required", "zone")), [on("one")])
    with pytest.raises(Unsupported, match="nodeAffinity is not carried out"):
        choose(BOARDS, LABELS, spec(affinity={"nodeAffinity": {}}), [])

"""Features of a real base: computed once, shared out, in float32 or bfloat16."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.integration.test_trainer_distribution import WEIGHTS, films
from trainer import features, networks
from trainer.errors import PeerLost

pytest.importorskip("tensorflow")


@pytest.fixture(scope="module")
def network(shared_data: Path) -> networks.Network:
    weights = str(shared_data / "weights" / WEIGHTS)
    return networks.build("mobilenet", weights=weights, classes=2, seed=1)


def digests(count: int) -> list[str]:
    return [f"{number:064x}" for number in range(count)]


def cached(
    network: networks.Network, folder: Path, count: int, dtype: str = "float32", **options: Any
) -> tuple[features.Rows, list[tuple[int, int]]]:
    told: list[tuple[int, int]] = []
    rows = features.cached(
        network.base,
        films(count),
        options.pop("digests", digests(count)),
        folder=folder,
        batch_size=4,
        space=features.Space(
            network=network.name,
            weights_sha256=network.weights_sha256,
            profile=network.profile,
            dtype=dtype,
            shape=network.base.output_shape[1:],
        ),
        progress=lambda done, total: told.append((done, total)),
        **options,
    )
    return rows, told


def test_the_second_run_computes_only_what_is_new(network, tmp_path: Path):
    first, told = cached(network, tmp_path, 6)
    assert told == [(4, 6), (6, 6)]
    assert np.allclose(first[np.arange(6)], features.compute(network.base, films(6)), atol=1e-5)
    again, told = cached(network, tmp_path, 6)
    assert told == []
    assert np.array_equal(again[np.arange(6)], first[np.arange(6)])
    more, told = cached(network, tmp_path, 8)
    assert told == [(2, 2)]
    assert np.array_equal(more[np.arange(6)], first[np.arange(6)])


def test_a_damaged_file_is_computed_again(network, tmp_path: Path):
    first, _ = cached(network, tmp_path, 3)
    expected = first[np.arange(3)]
    path = next(tmp_path.rglob("*.features"))
    data = bytearray(path.read_bytes())
    data[-5] ^= 0xFF
    path.write_bytes(data)
    again, told = cached(network, tmp_path, 3)
    assert told == [(3, 3)]
    assert np.allclose(again[np.arange(3)], expected, atol=1e-6)


def test_the_same_picture_twice_is_computed_once(network, tmp_path: Path):
    rows, told = cached(network, tmp_path, 3, digests=[*digests(2), digests(1)[0]])
    assert told == [(2, 2)]
    assert np.array_equal(rows[np.array([0])], rows[np.array([2])])


def test_workers_share_the_films_and_each_gets_all(network, tmp_path: Path):
    """Two threads stand for two workers; what they agree on is summed in a real barrier."""
    barrier, given = threading.Barrier(2, timeout=60), {}
    found: dict[int, Any] = {}

    def work(index: int) -> None:
        def total(array: np.ndarray) -> np.ndarray:
            given[index] = array
            barrier.wait()
            return given[0] + given[1]

        share = features.Share(index=index, workers=2, total=total, patience=60.0)
        found[index] = cached(network, tmp_path, 9, share=share)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=120)
    expected = features.compute(network.base, films(9))
    assert [found[index][1][-1] for index in range(2)] == [(4, 4), (5, 5)]
    for index in range(2):
        assert np.allclose(found[index][0][np.arange(9)], expected, atol=1e-5)


def test_a_peer_that_is_gone_is_noticed_while_waiting(network, tmp_path: Path):
    def gone() -> None:
        raise PeerLost("worker 1 no longer answers")

    with pytest.raises(PeerLost, match="no longer answers"):
        cached(network, tmp_path, 4, share=features.Share(index=0, workers=2, check=gone))


def test_a_peer_that_writes_elsewhere_is_not_waited_for_without_end(network, tmp_path: Path):
    share = features.Share(index=0, workers=2, patience=0.5)
    with pytest.raises(PeerLost, match=r"features of 2 films did not come .* same --work"):
        cached(network, tmp_path, 4, share=share)


def test_bfloat16_differs_by_its_mantissa_and_keeps_the_order(network, tmp_path: Path):
    exact, _ = cached(network, tmp_path, 12)
    short, _ = cached(network, tmp_path, 12, dtype="bfloat16")
    exact, short = exact[np.arange(12)], short[np.arange(12)]
    assert short.dtype == np.float32
    assert not np.array_equal(exact, short)
    error = np.abs(exact - short).mean() / np.abs(exact).mean()
    assert 1e-3 < error < 0.15, "bfloat16 has 8 bits; 27 layers add their rounding up"
    flat = [rows.reshape(12, -1) - rows.reshape(12, -1).mean(0) for rows in (exact, short)]
    alike = (flat[0] * flat[1]).sum(1) / np.prod([np.linalg.norm(f, axis=1) for f in flat], axis=0)
    assert alike.min() > 0.95


@pytest.mark.parametrize("kind", ["thesis", "pooled"])
def test_a_head_is_parted_before_its_first_weight_or_dropout(kind):
    network = networks.build(
        "mobilenet", weights="random", classes=2, seed=1, head=kind, alpha=0.25
    )
    maps = np.random.default_rng(1).random((40, *network.head.input_shape[1:]), dtype=np.float32)
    constant, rest = features.parted(network.head)
    assert constant.weights == []
    assert [id(v) for v in rest.trainable_variables] == [
        id(v) for v in network.head.trainable_variables
    ]
    pooled = features.applied(constant, maps)
    assert pooled.shape == (40, 256)
    np.testing.assert_allclose(rest(pooled).numpy(), network.head(maps).numpy(), atol=1e-6)
    again, whole = features.parted(rest)
    assert again is None
    assert whole is rest

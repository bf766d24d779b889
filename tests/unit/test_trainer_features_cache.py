"""Features on disk: found by content, whole or not at all."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from trainer.features.cache import Cache, Space, trim

SPACE = Space(
    network="vgg16", weights_sha256="w", profile="unit-rgb-224/1", dtype="float32", shape=(2, 3)
)


def features(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((count, 2, 3), dtype=np.float32)


def films(*numbers: int) -> list[str]:
    return [f"{number:064x}" for number in numbers]


def test_what_was_written_is_found_in_the_order_that_is_asked_for(tmp_path: Path):
    first, second = features(3, 1), features(2, 2)
    Cache(tmp_path, SPACE, []).write(films(1, 2, 3), first)
    Cache(tmp_path, SPACE, []).write(films(4, 5), second)
    cache = Cache(tmp_path, SPACE, films(5, 1, 4, 5))
    assert not cache.missing().any()
    rows = cache.rows()
    assert rows.shape == (4, 2, 3)
    assert rows.dtype == np.float32
    expected = np.stack([second[1], first[0], second[0], second[1]])
    assert np.array_equal(rows[np.arange(4)], expected)
    assert np.array_equal(rows[np.array([2, 0])], expected[[2, 0]])
    assert isinstance(rows.maps[0], np.memmap)


def test_only_what_is_not_there_is_missing(tmp_path: Path):
    Cache(tmp_path, SPACE, []).write(films(1, 2), features(2))
    assert Cache(tmp_path, SPACE, films(1, 3, 2)).missing().tolist() == [False, True, False]


@pytest.mark.parametrize(
    "other",
    [
        {"network": "xception"},
        {"weights_sha256": "v"},
        {"profile": "unit-rgb-299/1"},
        {"dtype": "bfloat16"},
        {"shape": (3, 2)},
    ],
)
def test_whatever_decides_the_features_makes_another_space(tmp_path: Path, other):
    Cache(tmp_path, SPACE, []).write(films(1), features(1))
    assert Cache(tmp_path, replace(SPACE, **other), films(1)).missing().all()


@pytest.mark.parametrize("damage", ["row", "header", "short", "empty", "length", "shape"])
def test_a_damaged_shard_is_thrown_away_and_its_films_are_missing(tmp_path: Path, damage):
    Cache(tmp_path, SPACE, []).write(films(1, 2), features(2))
    Cache(tmp_path, SPACE, []).write(films(3), features(1))
    path = next(
        path for path in tmp_path.rglob("*.features") if films(1)[0].encode() in path.read_bytes()
    )
    data = bytearray(path.read_bytes())
    if damage == "row":
        data[-1] ^= 1
    elif damage == "header":
        data[20] ^= 0xFF
    elif damage == "short":
        del data[-4:]
    elif damage == "empty":
        data.clear()
    elif damage == "length":
        data[8:16] = b"\xff" * 8
    else:
        data = data.replace(b"[2, 2, 3]", b"[3, 2, 2]")
    path.write_bytes(data)
    assert Cache(tmp_path, SPACE, films(1, 2, 3)).missing().tolist() == [True, True, False]
    assert not path.exists()


def test_a_shard_that_cannot_be_written_leaves_nothing(tmp_path: Path, monkeypatch):
    def full(self: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        Cache(tmp_path, SPACE, []).write(films(1), features(1))
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_shard_that_nobody_used_for_a_quarter_of_a_year_is_removed(tmp_path: Path):
    other = replace(SPACE, profile="unit-rgb-299/1")
    Cache(tmp_path, SPACE, []).write(films(1), features(1))
    Cache(tmp_path, other, []).write(films(1), features(1))
    long_ago = time.time() - 100 * 86_400
    for shard in tmp_path.glob("*/*"):
        os.utime(shard, (long_ago, long_ago))
    used = Cache(tmp_path, SPACE, films(1))
    used.missing()
    used.rows()
    trim(tmp_path)
    assert not Cache(tmp_path, SPACE, films(1)).missing().any(), "it was used a moment ago"
    assert Cache(tmp_path, other, films(1)).missing().all()

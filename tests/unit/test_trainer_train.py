"""Which film is seen when and by whom; where a run stands."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from trainer.train import Checkpoint, Epoch, State, order


def rows_of(films: int, batch: int, workers: int, per_call: int = 3) -> list[list[np.ndarray]]:
    """Per worker, the films of every step, without padding."""
    sequence = order.epoch_order(1, 1, films)
    told = []
    for index in range(workers):
        steps = []
        for share in order.shares(
            sequence, batch_size=batch, workers=workers, index=index, steps_per_call=per_call
        ):
            assert len(share.films) <= per_call
            for chosen, weights in zip(share.films, share.weights, strict=True):
                steps.append(chosen[weights > 0])
        told.append(steps)
    return told


@pytest.mark.parametrize("films", [1, 7, 24, 25])
@pytest.mark.parametrize("batch", [1, 2, 5, 8])
@pytest.mark.parametrize("workers", [1, 2, 3, 4])
def test_the_workers_share_every_batch_without_overlap_or_gap(films, batch, workers):
    told = rows_of(films, batch, workers)
    sequence = order.epoch_order(1, 1, films)
    steps = -(-films // batch)
    assert all(len(own) == steps for own in told), "each makes every step, or all would hang"
    for step in range(steps):
        together = np.concatenate([own[step] for own in told])
        assert np.array_equal(together, sequence[step * batch : (step + 1) * batch])


@pytest.mark.parametrize("workers", [2, 3])
def test_a_worker_knows_where_its_rows_begin(workers):
    sequence = order.epoch_order(1, 1, 23)
    for index in range(workers):
        for start, share in zip(
            range(0, 23, 8),
            order.shares(sequence, batch_size=8, workers=workers, index=index, steps_per_call=1),
            strict=True,
        ):
            own = share.films[0][share.weights[0] > 0]
            first = start + share.first_row
            assert np.array_equal(own, sequence[first : first + len(own)])
            assert share.rows == min(8, 23 - start)


def test_the_order_of_an_epoch_follows_from_seed_and_number():
    assert np.array_equal(order.epoch_order(1, 2, 50), order.epoch_order(1, 2, 50))
    assert not np.array_equal(order.epoch_order(1, 2, 50), order.epoch_order(1, 3, 50))
    assert not np.array_equal(order.epoch_order(1, 2, 50), order.epoch_order(2, 2, 50))


def test_a_film_is_varied_in_the_same_way_whoever_shows_it():
    films = np.random.default_rng(1).integers(0, 256, (6, 40, 40, 3), dtype=np.uint8)
    variation = order.Variation.drawn(1, 1, 6)
    whole = variation.apply(films, np.arange(6))
    halves = [variation.apply(films[part], np.array(part)) for part in ([3, 1], [0, 5])]
    assert np.array_equal(halves[0], whole[[3, 1]])
    assert np.array_equal(halves[1], whole[[0, 5]])
    assert any(not np.array_equal(whole[n], films[n]) for n in range(6))
    assert np.array_equal(order.Variation.drawn(1, 1, 6).moves, variation.moves)
    assert not np.array_equal(order.Variation.drawn(1, 2, 6).moves, variation.moves)


def test_a_varied_film_is_moved_by_a_twentieth_at_most_and_perhaps_mirrored():
    film = np.zeros((1, 40, 40, 3), dtype=np.uint8)
    film[0, 20, 10] = 255
    mirrored = 0
    for epoch in range(60):
        varied = order.Variation.drawn(3, epoch, 1).apply(film, np.array([0]))[0]
        row, column = np.argwhere(varied[:, :, 0] == 255)[0]
        mirrored += column > 20
        assert abs(row - 20) <= 2
        assert min(abs(column - 10), abs(column - 29)) <= 2
    assert 15 < mirrored < 45


def state(epochs: int = 2) -> State:
    return State(
        weights=[np.ones((2, 3), np.float32), np.arange(3.0)],
        best=[np.zeros((2, 3), np.float32), np.arange(3.0)],
        optimizer=[np.array(7, np.int64), np.ones(3)],
        history=tuple(
            Epoch(number=n, loss=0.5, validation_loss=0.4, validation_accuracy=1.0)
            for n in range(1, epochs + 1)
        ),
    )


def test_a_checkpoint_comes_back_as_it_was(tmp_path: Path):
    checkpoint = Checkpoint(folder=tmp_path / "c", identity="a")
    assert checkpoint.load() is None
    checkpoint.save(state())
    found = checkpoint.load()
    assert found is not None
    assert found.history == state().history
    for part in ("weights", "best", "optimizer"):
        for value, expected in zip(getattr(found, part), getattr(state(), part), strict=True):
            assert np.array_equal(value, expected)
            assert value.dtype == expected.dtype
    assert [path.name for path in (tmp_path / "c").iterdir()] == ["a.npz"]


@pytest.mark.parametrize("damage", ["flipped", "short", "empty", "other"])
def test_a_damaged_checkpoint_is_thrown_away(tmp_path: Path, damage):
    checkpoint = Checkpoint(folder=tmp_path, identity="a")
    checkpoint.save(state())
    data = bytearray(checkpoint.path.read_bytes())
    data[data.index(b"\x00\x00\x80\x3f" * 3)] ^= 1  # in the middle of the weights
    kinds = {"flipped": bytes(data), "short": bytes(data[:-40]), "empty": b"", "other": b"no zip"}
    checkpoint.path.write_bytes(kinds[damage])
    assert checkpoint.load() is None
    assert not checkpoint.path.exists()


def test_the_checkpoint_of_another_run_is_left_alone(tmp_path: Path):
    ours, theirs = (Checkpoint(folder=tmp_path, identity=name) for name in "ab")
    theirs.save(state())
    assert ours.load() is None
    assert ours.others() == [theirs.path]
    ours.save(state())
    ours.remove()
    assert not ours.path.exists()
    assert theirs.load() is not None


def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before(tmp_path: Path, monkeypatch):
    checkpoint = Checkpoint(folder=tmp_path, identity="a")
    checkpoint.save(state(1))

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(OSError, match="No space left"):
        checkpoint.save(state(2))
    found = checkpoint.load()
    assert found is not None
    assert len(found.history) == 1
    assert len(list(tmp_path.iterdir())) == 1

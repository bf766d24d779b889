"""The step: the same training on one worker, on two, and in a loop written out by hand."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from trainer import features, networks, train
from trainer.dropout import Draw, SharedDropout, drawing
from trainer.errors import TrainerError
from trainer.train import order

tf = pytest.importorskip("tensorflow")
keras = pytest.importorskip("keras")

EPOCHS, BATCH, SEED = 3, 7, 3
WEIGHTS = "mobilenet_v1_0.75_224_notop_imagenet.h5"


def films(count: int) -> np.ndarray:
    rng = np.random.default_rng(5)
    coarse = rng.integers(0, 256, (count, 14, 14, 1), dtype=np.uint8)
    return np.repeat(np.kron(coarse, np.ones((1, 16, 16, 1), np.uint8)), 3, axis=3)


def learned(mode: str, weights: str, cluster: Any = None) -> dict[str, Any]:
    """What a short run comes to: 23 films in batches of 7, so the last one is short.

    `head` trains the head on features, `tail` fine-tunes on features, `augmented` fine-tunes
    on films that are varied, through the base in every step.
    """
    from contextlib import nullcontext

    with cluster.scope() if cluster else nullcontext():
        network = networks.build(
            "mobilenet",
            weights=weights,
            classes=2,
            seed=SEED,
            head="thesis",
            fine_tune=0 if mode == "head" else 6,
        )
    images, labels = films(31), np.arange(31) % 2
    maps = features.compute(network.base, images)
    live = mode == "augmented"
    epochs = train.train(
        network.trainable,
        train.Part(inputs=images[:23] if live else maps[:23], labels=labels[:23]),
        train.Part(inputs=maps[23:], labels=labels[23:]),
        epochs=EPOCHS,
        batch_size=BATCH,
        learning_rate=1e-3,
        seed=SEED,
        decay="thesis",
        augment=live,
        before=network.base if live else None,
        slow=() if network.tail is None else network.tail.trainable_variables,
        slow_rate=network.tail_rate,
        keep="last",
        cluster=cluster,
    )
    predicted = train.predict(network.trainable, maps, cluster=cluster)
    return {
        "losses": [(epoch.loss, epoch.validation_loss) for epoch in epochs],
        "predicted": predicted[:, 1].tolist(),
        "sums": [float(np.abs(weight).sum()) for weight in network.trainable.get_weights()],
    }


WORKER = """
import json, os, sys
from trainer import cluster
from tests.integration.test_trainer_distribution import learned
spec = cluster.ClusterSpec.from_environment("direct", os.environ)
with cluster.join(spec, patience=120) as workers:
    print(json.dumps({mode: learned(mode, sys.argv[1], workers) for mode in sys.argv[2:]}))
"""
MODES = ("head", "tail", "augmented")


@pytest.fixture(scope="module")
def weights(shared_data) -> str:
    return str(shared_data / "weights" / WEIGHTS)


@pytest.fixture(scope="module")
def both(weights: str) -> list[dict[str, Any]]:
    """What each of two workers came to."""
    with socket.socket() as one, socket.socket() as other:
        for free in (one, other):
            free.bind(("127.0.0.1", 0))
        hosts = [f"127.0.0.1:{free.getsockname()[1]}" for free in (one, other)]

    def worker(index: int) -> subprocess.Popen[str]:
        config = {"cluster": {"worker": hosts}, "task": {"type": "worker", "index": index}}
        return subprocess.Popen(
            [sys.executable, "-c", WORKER, weights, *MODES],
            env=os.environ | {"TF_CONFIG": json.dumps(config)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    with worker(0) as chief, worker(1) as second:
        told = [process.communicate(timeout=300) for process in (chief, second)]
    assert (chief.returncode, second.returncode) == (0, 0), told
    return [json.loads(output) for output, _ in told]


@pytest.mark.parametrize("mode", MODES)
def test_two_workers_come_to_the_same_as_one(both, weights, mode):
    chief, second = (told[mode] for told in both)
    assert chief == second, "weights, losses and evaluation are equal on both, to the last bit"
    alone = learned(mode, weights)
    np.testing.assert_allclose(chief["losses"], alone["losses"], rtol=1e-4)
    np.testing.assert_allclose(chief["predicted"], alone["predicted"], atol=1e-4)
    np.testing.assert_allclose(chief["sums"], alone["sums"], rtol=1e-4)


def test_features_once_give_the_losses_of_the_straight_loop(weights):
    """The straight loop: every film through the whole network in every epoch."""
    network = networks.build("mobilenet", weights=weights, classes=2, seed=SEED, head="thesis")
    images, labels = films(31), np.arange(31) % 2
    schedule = keras.optimizers.schedules.InverseTimeDecay(1e-3, 1, 1e-3 / EPOCHS)
    optimizer = keras.optimizers.Adam(schedule)
    losses, step = [], 0
    for epoch in range(1, EPOCHS + 1):
        sequence, total = order.epoch_order(SEED, epoch, 23), 0.0
        for start in range(0, 23, BATCH):
            chosen = sequence[start : start + BATCH]
            batch = tf.constant(images[chosen].astype(np.float32) / np.float32(255))
            draw = Draw(
                seed=SEED, step=tf.constant(step), first_row=tf.constant(0), global_batch=BATCH
            )
            with tf.GradientTape() as tape, drawing(draw):
                probabilities = network.head(network.base(batch, training=False), training=True)
                loss = keras.losses.SparseCategoricalCrossentropy()(labels[chosen], probabilities)
            variables = network.head.trainable_variables
            optimizer.apply(tape.gradient(loss, [v.value for v in variables]), variables)
            total += float(loss) * len(chosen)
            step += 1
        losses.append(total / 23)
    once = learned("head", weights)
    np.testing.assert_allclose([loss for loss, _ in once["losses"]], losses, rtol=1e-4)


def test_the_tail_moves_at_a_tenth_of_the_rate_of_the_head(weights):
    """Adam's first step moves each weight by the rate, whatever the size of its gradient."""
    network = networks.build(
        "mobilenet", weights=weights, classes=2, seed=SEED, head="thesis", fine_tune=6
    )
    maps, labels = features.compute(network.base, films(8)), np.arange(8) % 2
    before = [v.numpy() for v in network.trainable.trainable_variables]
    part = train.Part(inputs=maps, labels=labels)
    train.train(
        network.trainable,
        part,
        part,
        epochs=1,
        batch_size=8,
        learning_rate=1e-3,
        seed=1,
        decay="thesis",
        slow=network.tail.trainable_variables,
        slow_rate=network.tail_rate,
        keep="last",
    )
    slow = {id(variable) for variable in network.tail.trainable_variables}
    moved = {"tail": [], "head": []}
    for variable, old in zip(network.trainable.trainable_variables, before, strict=True):
        part_name = "tail" if id(variable) in slow else "head"
        moved[part_name].append(np.abs(variable.numpy() - old).max())
    assert max(moved["head"]) == pytest.approx(1e-3, rel=0.01)
    assert max(moved["tail"]) == pytest.approx(1e-4, rel=0.01)


def test_dropout_masks_are_rows_of_that_of_the_whole_batch():
    inputs = keras.Input((40,))
    model = keras.Model(inputs, SharedDropout(0.3)(SharedDropout(0.5)(inputs)))

    def dropped(first: int, rows: int, step: int = 5) -> np.ndarray:
        draw = Draw(seed=1, step=tf.constant(step), first_row=tf.constant(first), global_batch=6)
        with drawing(draw):
            return model(tf.ones((rows, 40)), training=True).numpy()

    whole = dropped(0, 6)
    assert np.array_equal(dropped(0, 3), whole[:3])
    assert np.array_equal(dropped(3, 3), whole[3:])
    assert np.array_equal(dropped(5, 3)[0], whole[5]), "padding follows the last row"
    assert not np.array_equal(dropped(0, 6, step=6), whole)
    assert 0.35 * 0.6 < (whole > 0).mean() < 0.35 * 1.4
    assert whole.max() == pytest.approx(1 / 0.35)
    assert np.array_equal(model(tf.ones((2, 40)), training=False).numpy(), np.ones((2, 40)))


def test_a_loss_that_is_no_number_ends_the_run_with_advice():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.layers.Dense(2, activation="softmax")(inputs))
    broken = np.full((8, 4), np.nan, dtype=np.float32)
    part = train.Part(inputs=broken, labels=np.arange(8) % 2)
    with pytest.raises(TrainerError, match=r"the loss is nan in epoch 1; try a --learning-rate"):
        train.train(
            model, part, part, epochs=2, batch_size=4, learning_rate=1e-3, seed=1, decay="thesis"
        )


def test_a_run_that_continues_comes_to_the_same_as_an_undisturbed_one(tmp_path):
    labels = np.arange(24) % 2
    maps = np.random.default_rng(1).normal(size=(24, 6)).astype(np.float32)
    maps[labels == 1, 0] += 1
    checkpoint = train.Checkpoint(folder=tmp_path, identity="run")

    class Killed(Exception):
        pass

    def run(killed_after: int | None = None) -> tuple[list[train.Epoch], list[np.ndarray], int]:
        keras.utils.set_random_seed(4)
        inputs = keras.Input((6,))
        hidden = SharedDropout(0.5)(keras.layers.Dense(8, activation="relu")(inputs))
        model = keras.Model(inputs, keras.layers.Dense(2, activation="softmax")(hidden))
        resumed: list[int] = []

        def on_epoch(epoch: train.Epoch) -> None:
            if epoch.number == killed_after:
                raise Killed

        epochs = train.train(
            model,
            train.Part(inputs=maps[:16], labels=labels[:16]),
            train.Part(inputs=maps[16:], labels=labels[16:]),
            epochs=6,
            batch_size=5,
            learning_rate=0.05,
            seed=1,
            decay="thesis",
            checkpoint=checkpoint,
            on_resume=resumed.append,
            on_epoch=on_epoch,
        )
        return epochs, model.get_weights(), resumed[0] if resumed else 0

    undisturbed = run()
    checkpoint.remove()
    with pytest.raises(Killed):
        run(killed_after=3)
    again = run()
    assert again[2] == 3
    assert again[0] == undisturbed[0]
    for ours, theirs in zip(again[1], undisturbed[1], strict=True):
        assert np.array_equal(ours, theirs)

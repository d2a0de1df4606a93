"""Random training data, and steps of a trainer, for several test files."""

import pathlib
from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np

from indextts2_jax.checkpoint.parts import Settings
from train.data import shards
from train.data.shards import Utterance
from train.run import config, loop
from train.run.step import Step, optimizer, schedule, to_devices
from train.run.task import Partition


def random_utterances(count: int, *, codes: tuple[int, int] = (10, 16)) -> list[Utterance]:
    """Utterances of two speakers in turn, with a number of codes in a range; 2 frames each."""
    rng = np.random.default_rng(0)
    utterances = []
    for number in range(count):
        T = int(rng.integers(*codes))
        features = rng.normal(size=(T, 32)).astype(np.float16)
        utterances.append(
            Utterance(
                id=str(number),
                speaker=f"s{number % 2}",
                text="HELLO",
                text_ids=rng.integers(3, 300, 6).astype(np.int32),
                takes=(shards.Take(1.0, rng.integers(0, 512, T).astype(np.int32), features),),
                mel=rng.normal(size=(2 * T, 80)).astype(np.float16),
                style=rng.normal(size=192).astype(np.float32),
                word_vectors=rng.normal(size=(2, 4)).astype(np.float16),
                word_frames=np.array([T, T], np.int32),
            )
        )
    return utterances


def save(path: pathlib.Path, checkpoint: pathlib.Path, utterances: Iterable[Utterance]):
    """Writes one shard, as if made with the encoders of a (demo) checkpoint; returns `path`."""
    path.mkdir()
    rows = shards.write_shard(shards.shard_path(path, 0), list(utterances))
    made_with = shards.fingerprints(checkpoint, Settings.load(checkpoint))
    shards.Index.build(path, made_with, [rows], 256 / 22050).save()
    return path


def make_step(task, stage, mesh, *, accumulation=1, adapters=None):
    """The step of a stage as the trainer would make it, in float32."""
    rate = schedule(stage)
    return Step(
        task=task,
        partition=Partition.of(task, stage, adapters),
        mesh=mesh,
        tx=optimizer(config.base_config().optimizer, rate, kind=stage.optimizer),
        rate=rate,
        num_steps=stage.steps,
        accumulation=accumulation,
        dtype=jnp.float32,
        ema=0.0,
    )


def begin(step):
    """Frozen arrays and the first state of a step."""
    places = {**step.frozen_shardings, **step.kept_shardings}
    arrays = jax.jit(lambda k: step.random(k, places), out_shardings=places)(jax.random.key(0))
    key = jax.random.key_data(jax.random.key(1))
    kept = {name: arrays[name] for name in step.kept_shardings}
    return {name: arrays[name] for name in step.frozen_shardings}, step.start(kept, key)


def run(step, batch, steps=2):
    """Losses of some steps, the first frozen arrays and state (on the host), the last state."""
    frozen, state = begin(step)
    first = {n: np.asarray(x) for n, x in {**frozen, **state.current}.items()}
    losses = []
    for _ in range(steps):
        state, metrics = step.train(state, frozen, to_devices(batch, step.mesh))
        losses.append(float(metrics["loss"]))
    return losses, first, frozen, state


class StopAt(loop.Stop):
    """Stops a run after some steps, of all stages together."""

    def __init__(self, steps: int):
        super().__init__()
        self.steps = steps

    def agreed(self, step: int) -> bool:
        self.steps -= 1
        self.requested = self.steps == 0
        return self.requested

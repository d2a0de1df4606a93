"""Random training data, for several test files."""

import pathlib
from collections.abc import Iterable

import numpy as np

from indextts2_jax.parts import Settings
from train import shards
from train.shards import Utterance


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

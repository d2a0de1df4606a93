r"""Makes the emotion prototypes that `--emotion-weights` mixes, for a T2S of one's own.

    python -m train.prototypes --checkpoint RUN/checkpoint --data DATA --out CKPT

A prototype is the style and the emotion vector of a recording whose emotion is known (paper
appendix A: five of each emotion). DATA is made by train.prepare and has labels; emotions of the
checkpoint's set without a recording leave the set. Prototypes belong to one T2S: with the emotion
branch trained further, make them again.
"""

import argparse
import collections
import dataclasses
import pathlib
import sys
from collections.abc import Sequence

import jax
import numpy as np

from indextts2_jax import programs
from indextts2_jax.checkpoint.networks import Networks
from indextts2_jax.emotion.mixing import EmotionPrototypes
from indextts2_jax.emotion.text_to_emotion import EmotionSet
from indextts2_jax.errors import InputError
from train.data import shards
from train.data.records import Records
from train.run.artifacts import Base, Result

PER_EMOTION = 5  # paper appendix A


def choose(index: shards.Index, emotions: EmotionSet, count: int, seed: int) -> dict[str, list]:
    """Draws recordings of each emotion, of as many speakers as there are.

    Args:
      index: of the data.
      emotions: the set.
      count: of each emotion; fewer where the data have fewer.
      seed: of the draws.

    Returns:
      Emotion -> rows of the data, for those that have any.
    """
    rng = np.random.default_rng(seed)
    found: dict[str, list[int]] = collections.defaultdict(list)
    for row in rng.permutation(len(index)):
        label = index.emotions[index.table["emotion"][row]]
        # Corpora have the labels of the paper, such as Surprise, where sets have other keys.
        name = emotions.find(label) or EmotionSet.paper().find(label)
        if name in emotions.names:
            found[name].append(int(row))
    chosen = {}
    for name, rows in found.items():
        seen: collections.Counter[int] = collections.Counter()
        turns = []
        for row in rows:
            speaker = int(index.table["speaker"][row])
            turns.append(seen[speaker])
            seen[speaker] += 1
        order = np.argsort(turns, kind="stable")[:count]
        chosen[name] = sorted(rows[i] for i in order)
    return chosen


def without(emotions: EmotionSet, missing: Sequence[str]) -> EmotionSet:
    """Leaves some emotions out of a set; the neutral one is none of them."""
    kept = [i for i, name in enumerate(emotions.names) if name not in missing]
    melancholic = emotions.melancholic
    return dataclasses.replace(
        emotions,
        names=tuple(emotions.names[i] for i in kept),
        keys=tuple(emotions.keys[i] for i in kept),
        melancholic=None if melancholic and {*melancholic} & {*missing} else melancholic,
    )


def make_prototypes(
    checkpoint: pathlib.Path,
    path: pathlib.Path,
    out: pathlib.Path,
    *,
    count: int = PER_EMOTION,
    seed: int = 0,
) -> dict[str, int]:
    """Writes a checkpoint with prototypes; other files are hard links.

    Args:
      checkpoint: whose T2S computes them.
      path: of prepared data with emotions.
      out: directory to write.
      count: recordings of each emotion.
      seed: of their choice.

    Returns:
      Emotion -> number of its prototypes.

    Raises:
      InputError: if checkpoint and data do not fit, or the data lack needed emotions.
    """
    if out.exists():
        raise InputError(f"{out} exists")
    base, index = Base.open(checkpoint), shards.Index.load(path)
    wanted = shards.fingerprints(base.path, base.settings)
    shards.check_fingerprints(
        index.fingerprints, wanted, f"data {path} and checkpoint {checkpoint}"
    )
    emotions = base.settings.emotions
    chosen = choose(index, emotions, count, seed)
    if missing := [name for name in emotions.names if name not in chosen]:
        if emotions.neutral in missing or "qwen3" in base.settings.configs:
            raise InputError(
                f"{path} has no recordings of {', '.join(missing)}; its labels are "
                f"{', '.join(index.emotions)}"
            )
        emotions = without(emotions, missing)
    networks = Networks(checkpoint)
    networks.require("t2s")
    records = Records.of(index)

    def recording(row: int) -> tuple[np.ndarray, np.ndarray]:
        with records.naming(row):
            utterance = records[row]
        features = utterance.takes[0].features.astype(np.float32)
        vector = programs.emotion_vector(networks.t2s, *programs.padded(features))[0]
        return utterance.style, np.asarray(vector, np.float32)

    made = EmotionPrototypes.build(
        {name: [recording(row) for row in rows] for name, rows in chosen.items()}, emotions
    )
    groups = made.group_sizes
    result = Result.of(base, "prototypes", {}, emotions=emotions, emotion_groups=groups)
    arrays = {"emotion_styles": made.styles, "emotion_vectors": made.vectors}
    result.publish(out, {f"prototypes.{n}": jax.numpy.asarray(x) for n, x in arrays.items()})
    return dict(zip(emotions.names, groups, strict=True))


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m train.prototypes",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--checkpoint", type=pathlib.Path, required=True, help="with a T2S")
    parser.add_argument("--data", type=pathlib.Path, required=True, help="with emotion labels")
    parser.add_argument("--out", type=pathlib.Path, required=True, help="checkpoint to write")
    parser.add_argument("--count", type=int, default=PER_EMOTION, help="of each emotion")
    parser.add_argument("--seed", type=int, default=0, help="of the choice of recordings")
    args = parser.parse_args(argv)
    try:
        if args.count < 1:
            raise InputError(f"count is {args.count}; want 1 or more")
        made = make_prototypes(
            args.checkpoint, args.data, args.out, count=args.count, seed=args.seed
        )
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(", ".join(f"{name} {number}" for name, number in made.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())

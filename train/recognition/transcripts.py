"""Writes what the encoder hears in validation utterances, and through the codes.

    RUN/samples/STEP/transcripts.jsonl   text, heard [, heard through the codes]

In the metrics, over all validation utterances (those of the first batches if none is held out):

    sample_cer, sample_wer        error rates of characters and words by greedy reading
    sample_cer_codes, ..._wer_..  the same through the codes
    sample_perplexity             of the codes
    sample_used                   share of the codes that occur
    sample_f0_features, _f0_codes correlation of log F0 with what is linear in the features, as they
                                  are and through the codes; fitted to every other utterance, and
                                  measured on the others where they are voiced

Dims: B rows, T frames, D width, N frames of all utterances.
"""

import dataclasses
import functools
import json
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from indextts2_jax.nn.masking import length_mask
from indextts2_jax.sharding import replicated
from train.data.batches import LoadBatch
from train.objectives import ctc, quantization
from train.recognition.hearing import Hearing, Method
from train.recognition.recognizer import Units
from train.run.feed import Feed
from train.run.step import to_devices
from train.run.writer import MetricsWriter

FIRST = 2  # training batches that are read where nothing is held out
RIDGE = 1e-2  # times the variance of the features: keeps the fit of F0 from being exact


def heard_by(hearing: Hearing) -> Callable[..., dict[str, jax.Array]]:
    """Returns what is kept of a batch; the batch too, since other processes have rows of it."""
    task = hearing.task(Method())

    def run(arrays: Mapping[str, jax.Array], batch: Mapping[str, jax.Array]) -> Any:
        modules = task.fill(arrays)
        features = batch["features"]
        mask = length_mask(batch["feature_lengths"], features.shape[1])
        plain = hearing.hear(modules, features, mask, through=False)
        out = {**batch, "heard": plain.logits.argmax(axis=2), "hidden": plain.features}
        if hearing.codec is not None:
            through = hearing.hear(modules, features, mask, through=True)
            assert through.quantized is not None
            out |= {
                "heard_codes": through.logits.argmax(axis=2),
                "hidden_codes": through.quantized.features,
                "codes": through.quantized.codes,
                "code_mask": through.quantized.mask,
            }
        return out

    return run


@dataclasses.dataclass
class Transcripts:
    """Reads when it is called.

    Attributes:
      hearing: the networks of the last stage; earlier ones may have no codec.
      units: of the labels.
      batches: with labels.
      mesh: of the run.
      out: directory of the run.
    """

    hearing: Hearing
    units: Units
    batches: Sequence[Mapping[str, np.ndarray]]
    mesh: Mesh
    out: pathlib.Path

    def __call__(self, arrays: Mapping[str, jax.Array], writer: MetricsWriter, step: int) -> None:
        """Writes transcripts and numbers; all processes of a run have to call it."""
        has_codec = any(name.startswith("semantic_codec.") for name in arrays)
        hear = self._with_codec if has_codec else self._without_codec
        rows = [
            {name: x[b] for name, x in batch.items()}
            for rows in self.batches
            for batch in [jax.tree.map(np.asarray, hear(arrays, to_devices(rows, self.mesh)))]
            for b in np.flatnonzero(batch["weight"])
        ]
        texts = [self._texts(row) for row in rows]
        numbers = {}
        for name in texts[0].keys() - {"text"}:
            suffix = name.removeprefix("heard")
            pairs = [(item["text"], item[name]) for item in texts]
            numbers[f"sample_cer{suffix}"] = error_rate(pairs)
            words = [(a.split(), b.split()) for a, b in pairs]
            numbers[f"sample_wer{suffix}"] = error_rate(words)
        voiced = [row for row in rows if np.any(row["prosody"][:, 1])]
        if len(voiced) > 1:
            for name in ("hidden", "hidden_codes"):
                if name in rows[0]:
                    what = "codes" if name.endswith("codes") else "features"
                    numbers[f"sample_f0_{what}"] = f0_correlation(voiced, name)
        if "codes" in rows[0]:
            codes = np.concatenate([row["codes"][row["code_mask"]] for row in rows])
            counts = np.bincount(codes, minlength=self.hearing.num_codes)
            numbers["sample_perplexity"] = float(quantization.perplexity(jnp.asarray(counts)))
            numbers["sample_used"] = np.mean(counts > 0)
        writer.scalars(step, numbers)
        if jax.process_index() == 0:
            folder = self.out / "samples" / f"{step:08d}"
            folder.mkdir(parents=True, exist_ok=True)
            lines = (json.dumps(item, ensure_ascii=False) + "\n" for item in texts)
            (folder / "transcripts.jsonl").write_text("".join(lines))

    @functools.cached_property
    def _with_codec(self) -> Callable[..., dict[str, jax.Array]]:
        return jax.jit(heard_by(self.hearing), out_shardings=replicated(self.mesh))

    @functools.cached_property
    def _without_codec(self) -> Callable[..., dict[str, jax.Array]]:
        hearing = self.hearing.without_codec()
        return jax.jit(heard_by(hearing), out_shardings=replicated(self.mesh))

    def _texts(self, row: Mapping[str, np.ndarray]) -> dict[str, str]:
        length = int(row["feature_lengths"])
        out = {"text": self.units.text(row["labels"][: row["label_lengths"]])}
        for name in ("heard", "heard_codes"):
            if name in row:
                out[name] = self.units.text(ctc.read(row[name][:length]))
        return out


def error_rate(pairs: Sequence[tuple[Sequence, Sequence]]) -> float:
    """Edits that turn what was heard into what was said, per element of the latter."""
    edits = sum(ctc.edit_distance(heard, said) for said, heard in pairs)
    return edits / max(sum(len(said) for said, _ in pairs), 1)


def f0_correlation(rows: Sequence[Mapping[str, np.ndarray]], name: str) -> float:
    """Correlates measured log F0 with that of a ridge regression from row[name] [T, D]."""

    def frames(rows: Sequence[Mapping[str, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
        voiced = [np.flatnonzero(row["prosody"][:, 1]) for row in rows]
        x = [row[name][where] for row, where in zip(rows, voiced, strict=True)]
        y = [row["prosody"][where, 0] for row, where in zip(rows, voiced, strict=True)]
        return np.concatenate(x).astype(np.float64), np.concatenate(y).astype(np.float64)

    x, y = frames(rows[::2])
    mean = x.mean(axis=0)
    centred = x - mean
    square = centred.T @ centred
    square += RIDGE * np.trace(square) / len(square) * np.eye(len(square))
    weights = np.linalg.solve(square, centred.T @ (y - y.mean()))
    x, y = frames(rows[1::2])
    return quantization.correlation((x - mean) @ weights, y)


def batches_of(feed: Feed, units: Units) -> list[dict[str, np.ndarray]]:
    """Reads labelled batches: of validation, or the first of training."""
    process = {"process": jax.process_index(), "processes": jax.process_count()}
    load = LoadBatch(feed.plan, **process)
    chosen = feed.plan.validation or [feed.plan[i] for i in range(FIRST)]
    return [units.batch(load(selection)) for selection in chosen]

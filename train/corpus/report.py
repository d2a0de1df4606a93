"""The end of `train.prepare`: the notes of all shards -> index, rejected.jsonl, report, picture."""

import collections
import json
import math
import pathlib
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TextIO

import numpy as np

from indextts2_jax.audio.mel import MelConfig
from indextts2_jax.checkpoint import store
from indextts2_jax.errors import InputError
from train.data.shards import Index

BINS = 40
MEASURES = {
    "seconds": "seconds",
    "codes": "codes, recorded speed",
    "text": "text tokens",
    "rate": "letters per second",
    "speaker": "utterances per speaker",
}
LENGTHS = (0, 1, 2, 4, 8, math.inf)  # s, between which a corpus should have utterances
RARE = 0.005  # of all utterances: so few teach nothing
LONGEST = 0.99  # quantile of the texts that a model is to be asked for


def finish(
    out: pathlib.Path,
    notes: Iterable[Mapping[str, Any]],
    made_with: Mapping[str, str],
    mel: MelConfig,
    features_per_code: int = 1,
) -> dict[str, Any]:
    """Puts the shards together.

    Args:
      out: the data directory.
      notes: what was noted of each shard: `utterances` (their rows), `rates` (letters a second, of
        the same), `rejected`. Read once, and not kept.
      made_with: fingerprints.
      mel: the spectrogram.
      features_per_code: of the codec.

    Returns:
      What `report.json` says.

    Raises:
      InputError: if no utterance is left; what was rejected is written all the same.
    """
    frame_seconds = mel.hop_length / mel.sample_rate
    counter: collections.Counter[str] = collections.Counter()
    rates = array("d")

    def shards(rejected: TextIO) -> Iterator[Sequence[Mapping[str, Any]]]:
        for note in notes:
            for item in note["rejected"]:
                rejected.write(json.dumps(item, ensure_ascii=False) + "\n")
                counter[item["reason"]] += 1
            rates.extend(note["rates"])
            yield note["utterances"]

    path = out / "rejected.jsonl"
    with open(path, "w", encoding="utf-8", errors="backslashreplace") as file:
        index = Index.build(out, made_with, shards(file), frame_seconds, features_per_code)
    reasons = dict(counter.most_common())
    if not len(index):
        raise InputError(f"nothing is left ({_counts(reasons)}); see {path}")
    index.save()

    table = index.table
    per_speaker = np.bincount(table["speaker"])
    values = {
        "seconds": table["frames"] * frame_seconds,
        "codes": table["codes"],
        "text": table["text"],
        "rate": np.frombuffer(rates),
        "speaker": per_speaker,
    }
    report = {
        "utterances": len(index),
        "hours": index.hours,
        "speakers": len(index.speakers),
        "speakers_of_one_utterance": int((per_speaker == 1).sum()),
        "hours_by_language": _hours(index, "language", values["seconds"]),
        "hours_by_emotion": _hours(index, "emotion", values["seconds"]),
        "rejected": reasons,
        "warnings": missing_lengths(values["seconds"], values["text"]),
        "histograms": {name: _histogram(x) for name, x in values.items()},
    }
    store.write_json(out / "report.json", report)
    _draw(report, out / "report.png")
    return report


def describe(report: Mapping[str, Any], out: pathlib.Path) -> str:
    """Tells the report in a few lines."""
    lines = [
        f"{report['utterances']} utterances, {report['hours']:.2f} h, {report['speakers']} speakers"
        f" -> {out}",
        *(
            f"  {MEASURES[name]}: {h['low']:.4g} to {h['high']:.4g}, median {h['median']:.4g}"
            for name, h in report["histograms"].items()
        ),
    ]
    if alone := report["speakers_of_one_utterance"]:
        lines.append(
            f"  {alone} speakers have one utterance: no prompt for T2S and S2M, which leave it out"
        )
    if rejected := report["rejected"]:
        lines.append(f"  rejected: {_counts(rejected)}; see {out / 'rejected.jsonl'}")
    lines += [f"  warning: {warning}" for warning in report["warnings"]]
    return "\n".join(lines)


def missing_lengths(seconds: np.ndarray, text: np.ndarray) -> list[str]:
    """Says which lengths the corpus lacks: a model learns no others than it has heard.

    Args:
      seconds: [N] of the utterances.
      text: [N] tokens of their texts.

    Returns:
      One line for each range of lengths that fewer than RARE of the utterances have.
    """
    counts, _ = np.histogram(seconds, LENGTHS)
    lacking = np.flatnonzero(counts < RARE * len(seconds))
    ranges = np.split(lacking, np.flatnonzero(np.diff(lacking) > 1) + 1) if len(lacking) else []
    lines = []
    for places in ranges:
        low, high = LENGTHS[places[0]], LENGTHS[places[-1] + 1]
        cure = "add some, or such speech will fail"
        if low == 0:
            which, cure = f"shorter than {high:g} s", 'add some, or "Yes." will fail'
        elif high == math.inf:
            which = f"longer than {low:g} s"
            cure = f"speak with max_text_tokens={max(1, int(np.quantile(text, LONGEST)))}"
        else:
            which = f"between {low:g} and {high:g} s"
        count = int(counts[places].sum())
        lines.append(f"{count} of {len(seconds):,} utterances are {which}: {cure}")
    return lines


def _counts(reasons: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in reasons.items())


def _hours(index: Index, column: str, seconds: np.ndarray) -> dict[str, float]:
    names = {"language": index.languages, "emotion": index.emotions}[column]
    sums = np.bincount(index.table[column], seconds, len(names)) / 3600
    return {name or "unknown": round(float(x), 4) for name, x in zip(names, sums, strict=True)}


def _histogram(values: np.ndarray) -> dict[str, Any]:
    counts, edges = np.histogram(values, BINS)
    return {
        "low": round(float(values.min()), 3),
        "median": round(float(np.median(values)), 3),
        "high": round(float(values.max()), 3),
        "counts": counts.tolist(),
        "edges": edges.round(4).tolist(),
    }


def _draw(report: Mapping[str, Any], path: pathlib.Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 6), layout="constrained")
    *measured, last = figure.subplots(2, 3).flat
    for axes, (name, title) in zip(measured, MEASURES.items(), strict=True):
        histogram = report["histograms"][name]
        axes.stairs(histogram["counts"], histogram["edges"], fill=True)
        axes.set(xlabel=title, ylabel="speakers" if name == "speaker" else "utterances")
    reasons = report["rejected"] or {"nothing": 0}
    last.barh(list(reasons), list(reasons.values()), color="tab:red")
    last.invert_yaxis()
    last.set(xlabel="rejected recordings")
    title = f"{report['utterances']} utterances, {report['hours']:.2f} h"
    figure.suptitle(f"{title}, {report['speakers']} speakers")
    figure.savefig(path, dpi=100)

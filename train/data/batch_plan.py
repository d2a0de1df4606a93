"""Which utterances make the batch of a step, with which prompts, padded to which shape.

    Index.table -> BatchPlan[step] = Selection (rows, prompts, draws)

All that decides on a batch stands in the tables, so batches are planned, not streamed. A *round* is
so many utterances, drawn from every data set in proportion to its weight; each data set gives its
utterances in an order of its own, a new one every epoch. They are sorted into *buckets* of similar
length, cut into batches of static shapes, and the batches are shuffled. Step n is a function of
(data, DataConfig, n) alone. `train.data` loads what is planned here.

Dims: B rows of a batch, N utterances of all data sets, K buckets; others as in `train.data.shards`.
"""

import bisect
import dataclasses
import itertools
import math
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from indextts2_jax.errors import InputError
from train.data.config import DataConfig
from train.data.shards import Index, check_fingerprints

ROUND_UP = 8  # padded lengths are multiples of it
QUANTILE = 0.99  # of the texts in a bucket decide on its text length; longer ones go further up
STAY = 2  # utterances of a speaker that validation leaves: one for training, and its prompt
ENDLESS = 1 << 40  # steps

# First word of every seed: what is drawn with it.
_ORDER, _ROUND, _HELD_OUT, _VALIDATION = range(4)
_PLANNING = threading.Lock()  # grain's threads share a plan


@dataclasses.dataclass(frozen=True)
class Bucket:
    """Batches of one shape.

    Attributes:
      rows: B.
      lengths: column of the table -> the longest that fits, to which it is padded.
    """

    rows: int
    lengths: Mapping[str, int]


@dataclasses.dataclass(frozen=True)
class Selection:
    """What a batch is made of.

    Attributes:
      bucket: its place among the plan's.
      rows: [B] utterances, counted through all data sets.
      prompts: [B] other utterances of the same speakers.
      draws: [3, B] uniform in 0 .. 1: speed of the target, speed and place of the prompt.
      speakers: [B] int32.
      weight: [B] float32, 1, or 0 for repetitions that only fill the last validation batch.
    """

    bucket: int
    rows: np.ndarray
    prompts: np.ndarray
    draws: np.ndarray
    speakers: np.ndarray
    weight: np.ndarray

    def cut(self, bucket: int, start: int, stop: int) -> "Selection":
        """Returns a range of the rows."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        del values["bucket"]
        return Selection(bucket, **{name: x[..., start:stop] for name, x in values.items()})


@dataclasses.dataclass(frozen=True)
class _Draw:
    """The utterances of a round, in the order in which they are drawn."""

    rows: np.ndarray
    speeds: np.ndarray  # [2, n] draws for the targets and the prompts
    level: np.ndarray  # place of the bucket that fits
    rng: np.random.Generator  # for the rest


@dataclasses.dataclass(frozen=True)
class _Round:
    """The same, cut into batches."""

    rows: Selection  # all of them
    buckets: np.ndarray  # of every batch
    stops: np.ndarray  # where it ends in `rows`
    order: np.ndarray  # in which the batches are given

    def batch(self, number: int) -> Selection:
        place = self.order[number]
        start = int(self.stops[place - 1]) if place else 0
        return self.rows.cut(int(self.buckets[place]), start, int(self.stops[place]))


class _Prompts:
    """Finds other utterances of the same speaker."""

    def __init__(self, speaker: np.ndarray, allowed: np.ndarray):
        """Takes the speakers [N] of all utterances and which of these [N] may be prompts."""
        rows = np.flatnonzero(allowed)
        self._rows = rows[np.argsort(speaker[rows], kind="stable")].astype(np.int32)  # by speaker
        self._count = np.bincount(speaker[rows], minlength=speaker.max() + 1)  # of a speaker
        self._start = np.cumsum(self._count) - self._count
        self._place = np.full(len(speaker), -1, np.int32)  # among those of its speaker
        self._place[self._rows] = np.arange(len(rows)) - self._start[speaker[self._rows]]

    def of(self, rows: np.ndarray, speaker: np.ndarray, draw: np.ndarray) -> np.ndarray:
        """Finds a prompt for each of `rows`; `draw` is uniform in 0 .. 1.

        Never the row itself, unless its speaker has no other.
        """
        count, place = self._count[speaker], self._place[rows]
        others = count - (place >= 0)
        step = 1 + (draw * others).astype(np.int64)
        return self._rows[self._start[speaker] + (place + step) % count]


class BatchPlan:
    """What every step's batch consists of: an endless source of grain (`len`, `[step]`).

    Attributes:
      cfg: which batches.
      fingerprints: what the data were made with.
      features_per_code: of the codec.
      speakers: names, `<data directory>/<speaker>`: nobody speaks in two data sets.
      trained: [speakers] bool, of whom something is trained.
      shards: files of all data sets and their numbers of utterances, in order.
      buckets: from short to long.
      prompt_lengths: field of a prompt -> the longest, to which it is padded; None = as it is.
      validation: the batches of one validation.
    """

    def __init__(self, cfg: DataConfig, indexes: Sequence[Index]):
        """Plans the batches.

        Args:
          cfg: which batches.
          indexes: of `cfg.paths`, in order.

        Raises:
          InputError: if no batches can be made so.
        """
        self.cfg, self.fingerprints = cfg, indexes[0].fingerprints
        self.features_per_code = indexes[0].features_per_code
        for path, index in zip(cfg.paths, indexes, strict=True):
            check_fingerprints(index.fingerprints, self.fingerprints, f"{cfg.paths[0]} and {path}")
        named = list(zip(cfg.paths, indexes, strict=True))
        self.speakers = tuple(f"{path}/{name}" for path, x in named for name in x.speakers)
        self.shards = [s for x in indexes for s in zip(x.shard_paths(), x.shards, strict=True)]
        self._starts = np.cumsum([0, *map(len, indexes)])  # of data sets among the rows
        first = np.cumsum([0, *(len(x.speakers) for x in indexes)])
        table = {
            column: np.concatenate([x.table[column] for x in indexes])
            for column in ("codes", "varied_codes", "frames", "text", "words")
        }
        by_set = [x.table["speaker"] + start for x, start in zip(indexes, first, strict=False)]
        self._speaker = np.concatenate(by_set).astype(np.int32)
        if not cfg.speed_probability:
            table["varied_codes"] = table["codes"]
        if cfg.crop:
            for column in {"codes": ("codes", "varied_codes"), "frames": ("frames",)}[cfg.measure]:
                table[column] = np.minimum(table[column], cfg.crop)

        usable, self._left_out = self._usable(table)
        names = [name for x in indexes for name in x.speakers]
        apart = np.array([cfg.holds_out(name) for name in names], bool)[self._speaker]
        held_out = self._hold_out(usable, apart)
        training = usable & ~held_out & ~apart
        self.trained = np.bincount(self._speaker[training], minlength=len(names)) > 0
        self._own = [np.flatnonzero(training[s]).astype(np.int32) + s.start for s in self._sets()]
        self._weights = self._normalized_weights()
        self._round_size = min(cfg.round_size, int(training.sum()))
        may_prompt = usable & ~held_out
        self._prompts = _Prompts(self._speaker, may_prompt)
        self.prompt_lengths = self._prompt_lengths(table, may_prompt)

        varied = {**table, "codes": table["varied_codes"]}
        self.buckets = self._make_buckets(table, varied, usable)
        self._rows = np.array([bucket.rows for bucket in self.buckets])
        # Which bucket an utterance goes to at the recorded speed, and at another one.
        self._level = self._levels(table), self._levels(varied)
        self._measured = table[cfg.measure], varied[cfg.measure]

        self.validation = self._plan_validation(np.flatnonzero(held_out))
        self._ends = [0]  # steps before round r
        self._rounds: dict[int, _Round] = {}
        self._orders: dict[int, tuple[int, np.ndarray]] = {}  # data set -> epoch and its order

    def __len__(self) -> int:
        return ENDLESS

    def __getitem__(self, index: int) -> Selection:
        """Returns the batch of step `index`."""
        with _PLANNING:
            while self._ends[-1] <= index:
                number = len(self._ends) - 1
                self._ends.append(self._ends[-1] + len(self._batches(self._draw(number).level)))
            number = bisect.bisect_right(self._ends, index) - 1
            if number not in self._rounds:
                # Threads that read ahead may be in the next round while others end this one.
                kept = list(self._rounds.items())[-1:]
                made = self._arrange(self._draw(number), shuffle=True, fill_weight=1)
                self._rounds = dict(kept) | {number: made}
            return self._rounds[number].batch(index - self._ends[number])

    def summary(self) -> dict[str, Any]:
        """Counts for a report what is left out, the buckets, and the padding of a round."""
        draw = self._draw(0)
        rows, batches = draw.rows, self._batches(draw.level)
        measured = np.where(
            draw.speeds[0] < self.cfg.speed_probability,
            self._measured[1][rows],
            self._measured[0][rows],
        )
        padded = np.array([bucket.lengths[self.cfg.measure] for bucket in self.buckets])
        places, used = self._rows[batches], np.bincount(batches, minlength=len(self.buckets))
        return {
            "utterances": {p: len(x) for p, x in zip(self.cfg.paths, self._own, strict=True)},
            "weights": dict(zip(self.cfg.paths, self._weights.tolist(), strict=True)),
            "left_out": self._left_out,
            "validation": int(sum(x.weight.sum() for x in self.validation)),
            "round": {
                "utterances": len(rows),
                "repeated": int(places.sum()) - len(rows),
                "batches": len(batches),
            },
            "padding_efficiency": float(measured.sum() / (padded[batches] * places).sum()),
            "buckets": [
                {"rows": bucket.rows, **bucket.lengths, "batches": int(count)}
                for bucket, count in zip(self.buckets, used, strict=True)
            ],
        }

    # Once: who may be drawn, and what the batches look like.

    def _sets(self) -> list[slice]:
        return [slice(int(a), int(b)) for a, b in itertools.pairwise(self._starts)]

    def _usable(self, table: Mapping[str, np.ndarray]) -> tuple[np.ndarray, dict[str, int]]:
        """Finds which utterances [N] can be used, and how many of the drawn data sets cannot."""
        cfg = self.cfg
        drawn = np.ones(len(self._speaker), bool)
        for part, weight in zip(self._sets(), cfg.weights, strict=False):
            drawn[part] = weight > 0
        codes = np.maximum(table["codes"], table["varied_codes"])
        long = (codes > (cfg.max_codes or math.inf)) | (table["text"] > (cfg.max_text or math.inf))
        fits = drawn & ~long
        count = np.bincount(self._speaker[fits], minlength=len(self.speakers))
        alone = fits & (count[self._speaker] < 2) & cfg.has_prompts
        usable = fits & ~alone
        if "word_vectors" in cfg.fields and (usable & (table["words"] == 0)).any():
            raise InputError("data.fields has word_vectors, but some utterances have none")
        return usable, {
            "too_long": int((drawn & long).sum()),
            "alone_of_their_speaker": int(alone.sum()),
        }

    def _hold_out(self, usable: np.ndarray, apart: np.ndarray) -> np.ndarray:
        """Chooses utterances [N] for validation: the same ones in every run, stage and mix.

        Of speakers who are held out (`apart` [N]), if there are any.
        """
        held_out = np.zeros(len(usable), bool)
        if apart.any():
            usable = usable & apart
        for path, part in zip(self.cfg.paths, self._sets(), strict=True):
            key = np.random.default_rng([_HELD_OUT]).random(part.stop - part.start)
            rows = np.flatnonzero(usable[part])
            speaker = self._speaker[part][rows]
            order = np.lexsort((key[rows], speaker))
            count = np.bincount(speaker)
            place = np.arange(len(rows)) - (np.cumsum(count) - count)[speaker[order]]
            spare = rows[order][place >= STAY]
            if len(rows) and len(spare) < self.cfg.validation:
                raise InputError(
                    f"data.validation is {self.cfg.validation}, but {path} can spare {len(spare)} "
                    f"utterances ({STAY} of every speaker stay); set data.validation={len(spare)}"
                )
            chosen = spare[np.argsort(key[spare])[: self.cfg.validation]]
            held_out[part.start + chosen] = True
        return held_out

    def _normalized_weights(self) -> np.ndarray:
        sizes = np.array([len(own) for own in self._own])
        weights = np.array(self.cfg.weights or sizes, np.float64)
        for path, size, weight in zip(self.cfg.paths, sizes, weights, strict=True):
            if not size and (weight or not self.cfg.weights):
                pairs = "no two utterances of one speaker" if self.cfg.has_prompts else "nothing"
                raise InputError(f"{path} has {pairs} that can be used")
        return weights / weights.sum()

    def _prompt_lengths(
        self, table: Mapping[str, np.ndarray], allowed: np.ndarray
    ) -> dict[str, int | None]:
        codes, frames = table["codes"][allowed], table["frames"][allowed]
        longest = self.cfg.prompt_codes
        # Both ends of a crop are rounded to frames; see `train.data.LoadBatch`.
        cropped = frames * longest // np.maximum(codes, 1) + 1
        most = int(np.where(codes > longest, cropped, frames).max())
        lengths = {"prompt_codes": longest, "prompt_features": longest * self.features_per_code}
        lengths |= {"prompt_mel": round_up(most), "prompt_style": None}
        return {name: x for name, x in lengths.items() if name in self.cfg.fields}

    def _make_buckets(
        self,
        table: Mapping[str, np.ndarray],
        varied: Mapping[str, np.ndarray],
        usable: np.ndarray,
    ) -> tuple[Bucket, ...]:
        """Makes a ladder of lengths, without steps that would not fill a batch in a round."""
        cfg = self.cfg
        columns = {c: np.concatenate([table[c][usable], varied[c][usable]]) for c in cfg.columns}
        measured = columns[cfg.measure]
        longest, shortest = int(measured.max()), max(int(measured.min()), 1)
        count = 1 + math.ceil(math.log(longest / shortest, cfg.ladder_ratio))
        ladder = np.unique([round_up(longest / cfg.ladder_ratio**k) for k in range(count)])

        share = np.zeros(len(usable))
        for own, weight in zip(self._own, self._weights, strict=True):
            share[own] = weight / max(len(own), 1)
        p, share = cfg.speed_probability, share[usable] * self._round_size
        share = np.concatenate([share * (1 - p), share * p])
        expected = np.bincount(np.searchsorted(ladder, measured), share, len(ladder))
        kept, waiting = [], 0.0
        for length, here in zip(ladder, expected, strict=True):
            waiting += here
            if waiting >= self._rows_of(length) or length == ladder[-1]:
                kept.append(length)
                waiting = 0.0

        level = np.searchsorted(kept, measured)
        lengths = {cfg.measure: np.array(kept)}
        for name in columns.keys() - lengths:
            values = columns[name]
            inside = [values[level == k] for k in range(len(kept))]
            tops = [round_up(np.quantile(x, QUANTILE)) if len(x) else 0 for x in inside]
            # Whatever fits a bucket fits the longer ones; the last takes everything.
            lengths[name] = np.maximum.accumulate([*tops[:-1], round_up(values.max())])
        return tuple(
            Bucket(self._rows_of(length), {name: int(x[k]) for name, x in lengths.items()})
            for k, length in enumerate(kept)
        )

    def _rows_of(self, length: int) -> int:
        cfg = self.cfg
        if cfg.measure == "frames":
            length += self.prompt_lengths.get("prompt_mel") or 0
        return rows_within(cfg.budget, int(length), cfg.max_rows, cfg.rows_multiple)

    def _levels(self, table: Mapping[str, np.ndarray]) -> np.ndarray:
        """Finds the first bucket [N] that every utterance fits."""
        fits = [
            np.searchsorted([bucket.lengths[c] for bucket in self.buckets], table[c])
            for c in self.cfg.columns
        ]
        return np.max(fits, axis=0).astype(np.int16)

    # Every round: what is drawn, and how it is cut into batches.

    def _order(self, number: int, epoch: int) -> np.ndarray:
        """Shuffles the utterances of a data set for an epoch."""
        if number not in self._orders or self._orders[number][0] != epoch:
            rng = np.random.default_rng([_ORDER, self.cfg.seed, number, epoch])
            self._orders[number] = epoch, rng.permutation(self._own[number])
        return self._orders[number][1]

    def _draw(self, number: int) -> _Draw:
        """Draws a round."""
        pieces = [np.empty(0, np.int32)]
        for place, (own, weight) in enumerate(zip(self._own, self._weights, strict=True)):
            start, stop = (round(r * self._round_size * weight) for r in (number, number + 1))
            size = max(len(own), 1)
            for epoch in range(start // size, -(-stop // size)):
                order = self._order(place, epoch)
                pieces.append(order[max(start - epoch * size, 0) : stop - epoch * size])
        rows = np.concatenate(pieces)
        rng = np.random.default_rng([_ROUND, self.cfg.seed, number])
        speeds = rng.random((2, len(rows)))
        varied = speeds[0] < self.cfg.speed_probability
        return _Draw(
            rows, speeds, np.where(varied, self._level[1][rows], self._level[0][rows]), rng
        )

    def _batches(self, level: np.ndarray) -> np.ndarray:
        """Assigns buckets to the batches of utterances that are sorted by `level`.

        What is left over in a bucket moves up into the next; the last batch may want rows.
        """
        counts = np.bincount(level, minlength=1)
        batches, left = np.zeros(len(counts), int), 0
        for k, count in enumerate(counts):
            batches[k], left = divmod(left + count, self._rows[k])
        batches[-1] += left > 0
        return np.repeat(np.arange(len(counts)), batches)

    def _arrange(self, draw: _Draw, *, shuffle: bool, fill_weight: float) -> _Round:
        """Cuts a round into batches.

        Args:
          draw: the round.
          shuffle: the batches; else they go from short to long.
          fill_weight: of the utterances that fill up the last batch: some of the round again.
        """
        count, rng = len(draw.rows), draw.rng
        order = rng.permutation(count)
        order = order[np.argsort(draw.level[order], kind="stable")]
        batches = self._batches(draw.level)
        stops = np.cumsum(self._rows[batches])
        order = np.concatenate([order, rng.integers(0, count, stops[-1] - count)])
        weight = np.where(np.arange(len(order)) < count, 1, fill_weight).astype(np.float32)

        rows = draw.rows[order]
        speaker = self._speaker[rows]
        crop, which = rng.random((2, count))
        prompts = self._prompts.of(rows, speaker, which[order])
        draws = np.stack([*draw.speeds, crop])[:, order]
        numbers = np.arange(len(batches))
        return _Round(
            Selection(
                bucket=-1, rows=rows, prompts=prompts, draws=draws, speakers=speaker, weight=weight
            ),
            batches,
            stops,
            rng.permutation(numbers) if shuffle else numbers,
        )

    def _plan_validation(self, rows: np.ndarray) -> list[Selection]:
        if not len(rows):
            return []
        recorded = np.ones((2, len(rows)))  # below no probability
        rng = np.random.default_rng([_VALIDATION])
        draw = _Draw(rows, recorded, self._level[0][rows], rng)
        made = self._arrange(draw, shuffle=False, fill_weight=0)
        return [made.batch(number) for number in made.order]


def rows_within(budget: int, length: int, max_rows: int, multiple: int) -> int:
    """Returns how many rows of a length a budget has room for.

    Args:
      budget: codes or frames of a batch.
      length: those of a row.
      max_rows: most rows.
      multiple: the rows are one of it, and at least so many even beyond the budget.
    """
    return max(min(budget // length, max_rows) // multiple, 1) * multiple


def round_up(length: float) -> int:
    """Rounds up to the length to which arrays of `length` are padded."""
    return math.ceil(length / ROUND_UP) * ROUND_UP

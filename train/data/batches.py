"""Planned batches as arrays: their utterances are read, cropped and padded.

    BatchPlan[step] = Selection (rows, prompts, draws) -> LoadBatch -> dict of arrays

`train.data.batch_plan` decides what a batch consists of. Any number of workers and processes loads
the same batches, and the number of the step is all that a run needs to go on.

Dims: B rows of a batch, T codes and M mel frames of an utterance.
"""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import grain
import numpy as np
from absl import flags

from indextts2_jax.errors import InputError
from train.data.batch_plan import BatchPlan, Selection
from train.data.config import FEATURE_FIELDS, LENGTHS, TARGET_FIELDS, DataConfig
from train.data.records import Records
from train.data.shards import Index, Take, Utterance

FLOAT32 = ("mel", "audio", "prosody")  # ends of names of what is given as float32


class LoadBatch:
    """Reads the utterances of a batch, this process's rows of it."""

    def __init__(self, plan: BatchPlan, process: int = 0, processes: int = 1):
        """Prepares to read.

        Args:
          plan: of the batches.
          process: which part of the rows.
          processes: into how many parts they are split.

        Raises:
          InputError: if a shard is missing, or the rows cannot be split.
        """
        self.cfg = plan.cfg
        if (rows := plan.cfg.rows_multiple) % processes:
            raise InputError(
                f"data.rows_multiple is {rows}; want a multiple of the {processes} processes"
            )
        self._part = process, processes
        self._buckets, self._prompt_lengths = plan.buckets, plan.prompt_lengths
        self._features_per_code = plan.features_per_code
        self._records = Records(plan.shards)

    def __call__(self, selection: Selection) -> dict[str, np.ndarray]:
        """Loads a batch.

        Args:
          selection: what it is made of.

        Returns:
          The fields of the configuration, padded with zeros, and `weight` [B].

        Raises:
          DataError: names the record that cannot be read.
        """
        process, processes = self._part
        size = len(selection.rows) // processes
        mine = selection.cut(selection.bucket, process * size, (process + 1) * size)
        bucket = self._buckets[selection.bucket]
        lengths = {
            f: bucket.lengths[c] * self._per_code(f)
            for f, c in TARGET_FIELDS.items()
            if f in self.cfg.fields
        }
        if "word_vectors" in lengths:
            lengths["word_frames"] = lengths["word_vectors"]
        out: dict[str, np.ndarray] = {"weight": mine.weight}
        if "speaker" in self.cfg.fields:
            out["speaker"] = mine.speakers
        target_speed, prompt_speed, place = mine.draws
        for b, row in enumerate(mine.rows):
            with self._records.naming(row):
                arrays = self._target(self._records[row], target_speed[b])
                _put(out, size, b, self._cropped(arrays, place[b]), lengths)
        for b, row in enumerate(mine.prompts if self._prompt_lengths else ()):
            with self._records.naming(row):
                arrays = self._prompt(self._records[row], prompt_speed[b], place[b])
                _put(out, size, b, arrays, self._prompt_lengths)
        return out

    def _per_code(self, field: str) -> int:
        """How many rows a field has for one of what its column counts."""
        return self._features_per_code if field in FEATURE_FIELDS else 1

    def _target(self, utterance: Utterance, speed: float) -> dict[str, Any]:
        take = self._take(utterance, speed)
        return {
            "text": utterance.text_ids,
            "codes": take.codes,
            "features": take.features,
            "mel": utterance.mel,
            "word_vectors": utterance.word_vectors,
            "word_frames": utterance.word_frames,
            "audio": utterance.audio,
            "bank": utterance.bank,
            "prosody": utterance.prosody,
        }

    def _cropped(self, arrays: dict[str, Any], place: float) -> dict[str, Any]:
        """Cuts the same piece from all arrays that count what is cropped."""
        cfg = self.cfg
        loaded = [f for f in cfg.fields if TARGET_FIELDS.get(f) == cfg.measure]
        if not cfg.crop or not loaded:
            return arrays
        for name in loaded:
            if arrays[name] is None:
                raise ValueError(f"it has no {name}")
        length = min(-(-len(arrays[name]) // self._per_code(name)) for name in loaded)
        start = int(place * (max(length - cfg.crop, 0) + 1))
        stop = start + cfg.crop
        return arrays | {
            name: arrays[name][start * k : stop * k]
            for name, k in ((name, self._per_code(name)) for name in loaded)
        }

    def _prompt(self, utterance: Utterance, speed: float, place: float) -> dict[str, Any]:
        """Cuts the same piece of time from all arrays of a prompt."""
        take = self._take(utterance, speed)
        T, M = len(take.codes), len(utterance.mel)
        length = min(T, self.cfg.prompt_codes)
        start = int(place * (T - length + 1))
        stop, k = start + length, self._features_per_code
        return {
            "prompt_codes": take.codes[start:stop],
            "prompt_features": take.features[start * k : stop * k],
            "prompt_mel": utterance.mel[start * M // T : stop * M // T],
            "prompt_style": utterance.style,
        }

    def _take(self, utterance: Utterance, draw: float) -> Take:
        probability, others = self.cfg.speed_probability, utterance.takes[1:]
        if not others or draw >= probability:
            return utterance.takes[0]
        return others[int(draw / probability * len(others))]


def _put(
    out: dict[str, np.ndarray],
    rows: int,
    row: int,
    arrays: Mapping[str, np.ndarray],
    lengths: Mapping[str, int | None],
) -> None:
    """Copies arrays into a row of the batch `out` of `rows`."""
    for name, length in lengths.items():
        x = arrays[name]
        if x is None:
            raise ValueError(f"it has no {name}")
        length = len(x) if length is None else length
        if name not in out:
            dtype = np.float32 if name.endswith(FLOAT32) else x.dtype
            out[name] = np.zeros((rows, length, *x.shape[1:]), dtype)
            if name in LENGTHS:
                out[LENGTHS[name]] = np.zeros(rows, np.int32)
        if len(x) > length:
            raise ValueError(f"{name} has length {len(x)}, the table says at most {length}")
        out[name][row, : len(x)] = x / np.float32(32768) if name == "audio" else x
        if name in LENGTHS:
            out[LENGTHS[name]][row] = len(x)


class Batches(grain.DatasetIterator[dict[str, np.ndarray]]):
    """Endless batches. The state is the number of the step, for any number of workers.

    (grain's own iterators over worker processes cannot go on with another number of them.)
    """

    def __init__(
        self,
        plan: BatchPlan,
        start: int = 0,
        *,
        process: int = 0,
        processes: int = 1,
        workers: int = 0,
        buffer: int = 2,
    ):
        """Prepares to read, which begins with the first batch.

        Args:
          plan: of the batches.
          start: the first step.
          process: which part of the rows is loaded.
          processes: into how many parts the rows are split.
          workers: processes that load; 0 = threads of this one.
          buffer: batches that are read ahead, by each worker.

        Raises:
          InputError: if a shard is missing, or the rows cannot be split.
        """
        super().__init__()
        self._dataset = grain.MapDataset.source(plan).map(LoadBatch(plan, process, processes))
        self._step, self._workers, self._buffer = start, workers, buffer
        self._running: grain.DatasetIterator[dict[str, np.ndarray]] | None = None

    def __next__(self) -> dict[str, np.ndarray]:
        """Returns the batch of the next step."""
        batch = next(self._start())
        self._step += 1
        return batch

    def _start(self) -> grain.DatasetIterator[dict[str, np.ndarray]]:
        if self._running is None:
            threads = 0 if self._workers else self._buffer
            options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads)
            dataset = self._dataset[self._step :].to_iter_dataset(options)
            if self._workers:
                if not flags.FLAGS.is_parsed():  # which grain's workers want
                    flags.FLAGS(["train"])
                dataset = dataset.mp_prefetch(
                    grain.MultiprocessingOptions(self._workers, self._buffer)
                )
            self._running = iter(dataset)
        return self._running

    def get_state(self) -> dict[str, int]:
        """Returns the number of the next step."""
        return {"step": self._step}

    def set_state(self, state: dict[str, int]) -> None:
        """Goes to a step."""
        self._stop()
        self._step = state["step"]

    def start_prefetch(self) -> None:
        """Begins to read."""
        self._start().start_prefetch()

    def close(self) -> None:
        """Ends the workers."""
        self._stop()
        super().close()

    def _stop(self) -> None:
        if self._running is not None:
            self._running.close()
            self._running = None


class ValidationBatches(Sequence[dict[str, np.ndarray]]):
    """The same few batches every time, read when they are asked for.

    Every validation utterance comes once, at the recorded speed and with the same prompt; the last
    batch is filled up with rows of weight 0.
    """

    def __init__(self, plan: BatchPlan, *, process: int = 0, processes: int = 1):
        """Prepares to read; arguments as those of `Batches`."""
        self._selections, self._load = plan.validation, LoadBatch(plan, process, processes)

    def __len__(self) -> int:
        return len(self._selections)

    def __getitem__(self, number: int) -> dict[str, np.ndarray]:  # type: ignore[override]
        """Loads a batch."""
        return self._load(self._selections[number])


def open_plan(cfg: DataConfig) -> BatchPlan:
    """Plans batches of data directories.

    Args:
      cfg: of which, and how.

    Raises:
      InputError: if there is no data, or no batches can be made of it.
    """
    return BatchPlan(cfg, [Index.load(pathlib.Path(path)) for path in cfg.paths])

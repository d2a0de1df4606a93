"""The frozen encoders on batches: recordings -> utterances.

    take input [T, 160] -> w2v-BERT -> standardised features [T, F] -> codec -> codes
    bank [B, 80]        -> CAMPPlus -> style [192]

Inputs wait in queues by padded length, and a full queue is computed; padding changes nothing. At
the end what is left in a queue rides in the next longer one, so that few data need few programs. An
utterance leaves when all of it is there.

Dims: N rows of a batch, T 50 Hz tokens, S padded tokens, B bank frames of 10 ms, F feature width.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from indextts2_jax import programs
from indextts2_jax.checkpoint.networks import Networks
from indextts2_jax.prompt.w2v_bert import normalize
from train.corpus.recordings import CODE_SECONDS, Recording, TakeInput
from train.data.shards import Take, Utterance

_BANK_FRAMES = 2  # per token, at most
_STYLE = -1  # place of the style among the results of an utterance; takes have 0, 1, ...


class Encoders:
    """Reads recordings with the encoders of a checkpoint."""

    def __init__(self, networks: Networks, batch_seconds: float):
        """Loads the networks.

        Args:
          networks: of an opened checkpoint.
          batch_seconds: speech of a batch, padding included.
        """
        self._w2v_bert = networks.w2v_bert
        self._codec, self._campplus = networks.semantic_codec, networks.campplus
        tables = networks.tables
        self._mean, self._variance = tables["feature_mean"], tables["feature_variance"]
        self._layer = networks.settings.feature_layer
        self._batch_tokens = round(batch_seconds / CODE_SECONDS)

    def __call__(self, recordings: Iterable[Recording]) -> Iterator[Utterance]:
        """Yields the utterances, in an order that depends on the recordings and the batch size."""
        takes = _Queues(self._takes, self._batch_tokens)
        styles = _Queues(self._styles, self._batch_tokens)
        for recording in recordings:
            unfinished = _Unfinished(recording, {})
            for place, take in enumerate(recording.takes):
                yield from takes.put(_Job(unfinished, place, take, len(take.features)))
            tokens = len(recording.takes[0].features)
            yield from styles.put(_Job(unfinished, _STYLE, recording.bank, tokens))
        yield from takes.flush()
        yield from styles.flush()

    def _takes(self, inputs: Sequence[TakeInput], size: int, rows: int) -> list[Take]:
        hidden = programs.hidden_states(
            self._w2v_bert,
            _batch([take.features for take in inputs], size, rows),
            _batch([take.mask for take in inputs], size, rows),
            layers=(self._layer,),
        )[0]  # [N, S, F]
        features = normalize(hidden, self._mean, self._variance)
        lengths = _batch([np.int32(len(take.features)) for take in inputs], 0, rows)
        codes = np.asarray(programs.quantize(self._codec, features, lengths)[0])  # [N, S_code]
        scale = self._codec.downsample_scale
        halves = np.asarray(features.astype(jnp.float16))
        # Copies: a view would keep the whole batch.
        return [
            Take(take.speed, codes[i, : -(-T // scale)].copy(), halves[i, :T].copy())
            for i, (take, T) in enumerate(zip(inputs, lengths, strict=False))
        ]

    def _styles(self, banks: Sequence[np.ndarray], size: int, rows: int) -> list[np.ndarray]:
        lengths = _batch([np.int32(len(bank)) for bank in banks], 0, rows)
        banks_ = _batch(banks, _BANK_FRAMES * size, rows)
        return list(np.asarray(programs.speaker_style(self._campplus, banks_, lengths)))


@dataclasses.dataclass
class _Unfinished:
    """An utterance in the making; `results` by place."""

    recording: Recording
    results: dict[int, Any]

    def finish(self, place: int, result: Any) -> Iterator[Utterance]:
        """Takes a result; yields the utterance if it was the last one."""
        self.results[place] = result
        recording, row = self.recording, self.recording.row
        if len(self.results) > len(recording.takes):
            yield Utterance(
                id=row.id,
                speaker=row.speaker,
                text=recording.text,
                text_ids=recording.text_ids,
                takes=tuple(self.results[i] for i in range(len(recording.takes))),
                mel=recording.mel,
                style=self.results[_STYLE],
                language=row.language,
                emotion=row.emotion,
                word_vectors=recording.word_vectors,
                word_frames=recording.word_frames,
            )


class _Job(NamedTuple):
    """One input of a network."""

    unfinished: _Unfinished
    place: int
    input: Any
    tokens: int  # its length


class _Queues:
    """The inputs of one network that wait, by padded length."""

    def __init__(self, compute: Callable[[list[Any], int, int], list[Any]], batch_tokens: int):
        self._compute, self._batch_tokens = compute, batch_tokens
        self._waiting: dict[int, list[_Job]] = {}

    def put(self, job: _Job) -> Iterator[Utterance]:
        """Adds an input; yields what gets finished by it."""
        size = programs.bucket(job.tokens)
        jobs = self._waiting.setdefault(size, [])
        jobs.append(job)
        if len(jobs) == self._rows(size):
            yield from self._run(self._waiting.pop(size), size)

    def flush(self) -> Iterator[Utterance]:
        """Computes what waits."""
        left: list[_Job] = []
        for size in sorted(self._waiting):
            left += self._waiting.pop(size)
            rows = self._rows(size)
            while left and (len(left) >= rows or not self._waiting):
                yield from self._run(left[:rows], size)
                left = left[rows:]

    def _rows(self, size: int) -> int:
        return max(1, self._batch_tokens // size)

    def _run(self, jobs: list[_Job], size: int) -> Iterator[Utterance]:
        results = self._compute([job.input for job in jobs], size, self._rows(size))
        for job, result in zip(jobs, results, strict=False):
            yield from job.unfinished.finish(job.place, result)


def _batch(items: Sequence[Any], size: int, rows: int) -> np.ndarray:
    """Pads items [T, ...] to [N, size, ...]; takes numbers [N] too; the first fills up the rows."""
    items = [programs.pad(x, size) if np.ndim(x) else x for x in items]
    return np.stack(items + items[:1] * (rows - len(items)))

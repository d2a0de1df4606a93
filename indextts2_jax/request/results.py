"""What is made: segments, the speech that they are joined to, and how long each stage took.

Dims: T 50 Hz codes, M mel frames, N samples.
"""

import contextlib
import dataclasses
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from indextts2_jax.audio import finish, wav
from indextts2_jax.request.options import Options

Trace = Callable[..., None]  # trace(stage, name=array, ...): sees every intermediate array
Progress = Callable[[str, int, int], None]  # progress(stage, done, total)


@dataclasses.dataclass(frozen=True)
class Segment:
    """One segment of a speech and how it was made."""

    text: str
    codes: np.ndarray  # [T] int32
    stopped: bool  # False: cut off at `max_codes`
    mel: np.ndarray  # [M, 80]
    trimmed: int  # frames that were cut off its end
    samples: np.ndarray  # [M * hop] float32


@dataclasses.dataclass(frozen=True)
class Speech:
    """The result: `samples` [N] float32 in [-1, 1] at `sample_rate` Hz."""

    samples: np.ndarray
    sample_rate: int
    segments: tuple[Segment, ...]
    starts: tuple[int, ...]  # sample that each segment begins at; before 0 if it was trimmed
    loudness: float | None  # LUFS; None where nobody asked for it
    seconds_by_stage: Mapping[str, float]

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return len(self.samples) / self.sample_rate

    def report(self) -> dict[str, Any]:
        """Returns what was made, as JSON values."""
        return {
            "sample_rate": self.sample_rate,
            "samples": len(self.samples),
            "duration_s": round(self.duration_s, 4),
            "codes": sum(len(s.codes) for s in self.segments),
            "segments": [
                {
                    "text": s.text,
                    "start_s": round(max(0, start) / self.sample_rate, 4),
                    "codes": len(s.codes),
                    "stopped": s.stopped,
                    "frames": len(s.mel),
                    "trimmed_frames": s.trimmed,
                }
                for s, start in zip(self.segments, self.starts, strict=True)
            ],
            "loudness": self.loudness and round(self.loudness, 2),
            "seconds_by_stage": {k: round(v, 3) for k, v in self.seconds_by_stage.items()},
        }

    def save(self, path: str | os.PathLike) -> None:
        """Writes a wav, flac, ogg, opus or mp3 by the suffix, whole or not at all."""
        wav.save(path, self.samples, self.sample_rate)


def join(
    segments: Sequence[Segment],
    options: Options,
    sample_rate: int,
    seconds_by_stage: Mapping[str, float],
) -> Speech:
    """Joins segments to a speech and finishes it: silences, trimmed ends, loudness."""
    silences = options.silences(sample_rate)
    pause = np.zeros(silences.interval, np.float32)
    samples = np.concatenate([x for s in segments for x in (pause, s.samples)][1:])
    steps = [len(s.samples) + silences.interval for s in segments[:-1]]
    starts = np.cumsum([silences.leading, *steps])
    if options.trim_silence:
        part = finish.speech_part(samples, sample_rate)
        samples, starts = samples[part], starts - part.start
        if options.fades:
            samples = finish.fade_out(samples, sample_rate)
    loudness = None
    if options.loudness is not None:
        samples, loudness = finish.normalize_loudness(samples, sample_rate, options.loudness)
    samples = np.pad(samples, (silences.leading, silences.trailing))
    return Speech(
        samples, sample_rate, tuple(segments), tuple(starts.tolist()), loudness, seconds_by_stage
    )


class Clock:
    """Adds up wall seconds by stage, and tells `progress` when one begins."""

    def __init__(self, progress: Progress | None):
        self.seconds: dict[str, float] = {}
        self.done = self.total = 0
        self._progress = progress

    @contextlib.contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Times a block."""
        if self._progress:
            self._progress(stage, self.done, self.total)
        start = time.perf_counter()
        yield
        self.done += 1
        self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - start

"""Waveforms: a file or an array -> mono float32 at the rate a network wants; and back to a file.

    path            -> load    -> [T] float32 at `sample_rate` -> resample_sinc -> features
    samples, rate   -> prepare ->
    [T] in [-1, 1]  -> save_pcm16 -> 16-bit wav

Dims: T samples, C channels.
Source: spec sections 0 and 6.3; `load` gives what `librosa.load(path, sr=sample_rate)` gives.
"""

import functools
import math
import os
import pathlib
import uuid
from typing import Any, Literal

import numpy as np
import soundfile
import soxr
from numpy.lib.stride_tricks import sliding_window_view

from indextts2_jax.errors import InputError

# Every feature of a prompt is defined from 45 ms on: the speaker encoder takes a standard deviation
# over at least 2 of its frames, which are 3 fbank frames (400 + 2 * 160 samples of 16 kHz); mel and
# w2v-BERT need less. Half a second (24 semantic frames) is no technical limit: what is shorter
# holds hardly a syllable of the voice, and is a mistake rather than a prompt.
MIN_PROMPT_SECONDS = 0.5
MIN_PEAK = 1e-4  # -80 dB of full scale, three steps of 16 bit: below it there is no voice

# More than the reach of soxr's filter: what lies behind it does not change the samples before.
_RESAMPLE_MARGIN_SECONDS = 0.5

Rounding = Literal["floor", "nearest"]


class AudioError(InputError):
    """Audio that cannot be used; the one-line message names the file and says why."""


def load(
    path: str | os.PathLike[str], sample_rate: int, *, max_seconds: float | None = None
) -> np.ndarray:
    """Reads an audio file as mono at `sample_rate`.

    Args:
      path: any file that libsndfile reads (wav, flac, ogg, mp3, ...).
      sample_rate: Hz wanted.
      max_seconds: keep only the first so many seconds; None keeps all.

    Returns:
      [T] float32, bit-equal to `librosa.load(path, sr=sample_rate)` (cut after resampling).

    Raises:
      AudioError: the file is missing, is no audio, or `prepare` refuses its samples.
    """
    path = pathlib.Path(path)
    if not path.exists():
        raise AudioError(f"{path}: no such file")
    if path.is_dir():
        raise AudioError(f"{path}: is a directory, want an audio file")
    try:
        with soundfile.SoundFile(path) as file:
            rate = file.samplerate
            frames = _frames_to_read(max_seconds, rate)
            samples = file.read(-1 if frames is None else frames, "float32", always_2d=True)
    except (soundfile.SoundFileError, TypeError) as error:  # TypeError: headerless formats
        reason = getattr(error, "error_string", str(error)).rstrip(".")
        raise AudioError(f"{path}: cannot be read as audio ({reason})") from error
    return prepare(samples, rate, sample_rate, max_seconds=max_seconds, name=str(path))


def prepare(
    samples: Any,
    rate: float,
    sample_rate: int,
    *,
    max_seconds: float | None = None,
    name: str = "samples",
) -> np.ndarray:
    """Mixes samples to mono, resamples them (soxr HQ) and checks that they can be a prompt.

    Args:
      samples: [T] or [T, C], float in [-1, 1] or signed integer (full scale = 1).
      rate: Hz of `samples`.
      sample_rate: Hz wanted.
      max_seconds: keep only the first so many seconds; None keeps all.
      name: what error messages call the samples.

    Returns:
      [ceil(T * sample_rate / rate)] float32, or its first `max_seconds`.

    Raises:
      AudioError: wrong dtype, shape or rate; no samples, NaN or infinite ones, shorter than
        MIN_PROMPT_SECONDS, or silent.
    """
    mono = _mono(np.asarray(samples), name)
    if not rate > 0:
        raise AudioError(f"{name}: sample rate is {rate} Hz, want more than 0")
    mono = mono[: _frames_to_read(max_seconds, rate)]
    seconds = len(mono) / rate
    if seconds < MIN_PROMPT_SECONDS:
        raise AudioError(f"{name}: {seconds:.3f} s long, want at least {MIN_PROMPT_SECONDS} s")
    _require_finite(mono, name)
    if rate != sample_rate:
        length = math.ceil(len(mono) * (float(sample_rate) / rate))  # librosa's length
        mono = soxr.resample(mono, rate, sample_rate, quality="HQ")[:length]
        mono = np.pad(mono, (0, length - len(mono)))
    if max_seconds is not None:
        mono = mono[: int(max_seconds * sample_rate)]
    peak = float(np.abs(mono).max())
    if peak < MIN_PEAK:
        raise AudioError(f"{name}: silent (peak {peak:.1e} of full scale, want {MIN_PEAK:.0e})")
    return mono


def resample_sinc(samples: np.ndarray, from_rate: int, to_rate: int) -> np.ndarray:
    """Resamples as torchaudio's `Resample` does (Hann-windowed sinc, 6 zeros, roll-off 0.99).

    The speaker prompt's 16 kHz signal is made from its 22.05 kHz one in this way.

    Args:
      samples: [T] float32 at `from_rate` Hz.
      from_rate: Hz of `samples`.
      to_rate: Hz wanted.

    Returns:
      [ceil(T * to_rate / from_rate)] float32.
    """
    if from_rate == to_rate:
        return samples
    taps, first = _sinc_taps(from_rate, to_rate)
    phases, width = taps.shape
    stride = from_rate // math.gcd(from_rate, to_rate)
    length = math.ceil(phases * len(samples) / stride)
    periods = math.ceil(length / phases)
    padded = np.pad(samples.astype(np.float32), (-int(first[0]), width + stride))
    windows = sliding_window_view(padded, width)
    start = np.arange(periods)[:, None] * stride + (first - first[0])  # [periods, phases]
    windows = windows[start].astype(np.float64)  # [periods, phases, taps]
    # Summed tap by tap with one rounding each, as a chain of fused multiply-adds does: bit-equal to
    # torchaudio, which matters where features take the log of near silence.
    out = np.zeros(windows.shape[:2], np.float32)
    for k in range(width):
        out = (windows[:, :, k] * taps[:, k] + out).astype(np.float32)
    return out.reshape(-1)[:length]


@functools.lru_cache(maxsize=8)
def _sinc_taps(from_rate: int, to_rate: int) -> tuple[np.ndarray, np.ndarray]:
    """Filter of each output phase [phases, taps] and the input position of its first tap."""
    zeros, rolloff = 6, 0.99
    divisor = math.gcd(from_rate, to_rate)
    old, new = from_rate // divisor, to_rate // divisor
    cutoff = rolloff * min(old, new)
    reach = math.ceil(zeros * old / cutoff)
    phase = np.arange(new)
    first = phase * old // new - reach
    position = first[:, None] + np.arange(2 * reach + 2)
    # torchaudio rounds the phase to float32, which moves the taps by 1e-6.
    offset = (phase / new).astype(np.float32)[:, None]
    u = np.clip(cutoff * (position / old - offset), -zeros, zeros)
    taps = cutoff / old * np.sinc(u) * np.cos(np.pi * u / (2 * zeros)) ** 2
    return taps.astype(np.float32), first


def to_pcm16(
    samples: np.ndarray, *, rounding: Rounding = "floor", name: str = "samples"
) -> np.ndarray:
    """Quantises samples to 16 bit; values out of range are clipped, never wrapped.

    Args:
      samples: [T] float in [-1, 1].
      rounding: "floor" is what the original's files hold (libsndfile drops low bits);
        "nearest" has half the error and no offset.
      name: what error messages call the samples.

    Returns:
      [T] int16.

    Raises:
      AudioError: the samples are not one channel, or not finite.
    """
    samples = np.asarray(samples, np.float32)
    if samples.ndim != 1:
        raise AudioError(f"{name}: shape {samples.shape}, want [T]")
    _require_finite(samples, name)
    steps = {"floor": np.floor, "nearest": np.rint}[rounding](samples * 2**15)
    return np.clip(steps, -(2**15), 2**15 - 1).astype(np.int16)


def save_pcm16(
    path: str | os.PathLike[str],
    samples: np.ndarray,
    sample_rate: int,
    *,
    rounding: Rounding = "floor",
) -> None:
    """Writes a mono 16-bit wav, whole or not at all; makes missing folders.

    Args:
      path: the file; replaced where it exists.
      samples: [T] float in [-1, 1].
      sample_rate: Hz.
      rounding: see `to_pcm16`.

    Raises:
      AudioError: see `to_pcm16`.
    """
    path = pathlib.Path(path)
    pcm = to_pcm16(samples, rounding=rounding, name=str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        with open(temporary, "xb") as file:
            soundfile.write(file, pcm, sample_rate, subtype="PCM_16", format="WAV")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _frames_to_read(max_seconds: float | None, rate: float) -> int | None:
    return None if max_seconds is None else int((max_seconds + _RESAMPLE_MARGIN_SECONDS) * rate)


def _mono(samples: np.ndarray, name: str) -> np.ndarray:
    """Float or integer samples [T] or [T, C] -> [T] float32."""
    if samples.ndim not in (1, 2):
        raise AudioError(f"{name}: shape {samples.shape}, want [T] or [T, C]")
    if samples.size == 0:
        raise AudioError(f"{name}: no samples")
    if samples.ndim == 2 and samples.shape[1] > samples.shape[0]:
        raise AudioError(f"{name}: shape {samples.shape}, want [T, C] (channels last)")
    if np.issubdtype(samples.dtype, np.signedinteger):
        samples = samples / 2 ** (8 * samples.dtype.itemsize - 1)
    elif not np.issubdtype(samples.dtype, np.floating):
        raise AudioError(f"{name}: dtype {samples.dtype}, want float or signed integer")
    samples = samples.astype(np.float32)
    return np.ascontiguousarray(samples if samples.ndim == 1 else samples.mean(axis=1))


def _require_finite(samples: np.ndarray, name: str) -> None:
    bad = int((~np.isfinite(samples)).sum())
    if bad:
        raise AudioError(f"{name}: {bad} samples are NaN or infinite")

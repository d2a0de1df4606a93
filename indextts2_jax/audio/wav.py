"""Waveforms: a file or an array -> mono float32 at the rate a network wants; and back to a file.

    path            -> load    -> [T] float32 at `sample_rate` -> resample_sinc -> features
    samples, rate   -> prepare ->
    [T] in [-1, 1]  -> save -> wav, flac, ogg, opus or mp3 by the suffix

Dims: T samples, C channels.
Source: spec sections 0 and 6.3; `load` gives what `librosa.load(path, sr=sample_rate)` gives.
"""

import functools
import io
import logging
import math
import os
import pathlib
import stat
from collections.abc import Iterable
from typing import Any, Literal

import numpy as np
import soundfile
import soxr
from numpy.lib.stride_tricks import sliding_window_view

from indextts2_jax import outputs
from indextts2_jax.errors import InputError, os_error

_log = logging.getLogger(__name__)

# Every feature of a prompt is defined from 45 ms on: the speaker encoder takes a standard deviation
# over at least 2 of its frames, which are 3 fbank frames (400 + 2 * 160 samples of 16 kHz); mel and
# w2v-BERT need less. Half a second (24 semantic frames) is no technical limit: what is shorter
# holds hardly a syllable of the voice, and is a mistake rather than a prompt.
MIN_PROMPT_SECONDS = 0.5
MIN_PEAK = 1e-4  # -80 dB of full scale, three steps of 16 bit: below it there is no voice

# Decoded mp3 and mixes go over full scale by a few dB; what is more than 18 dB over it was never
# scaled to [-1, 1]. Quiet speech of 16 bit has peaks of some hundred steps.
PEAK_LIMIT = 8.0
# Of the power of its channels, what is left when they are mixed: a half where they have nothing in
# common, and less where they cancel. Below this (-13 dB) one channel alone is the better voice.
MIN_MIX = 0.05
# Where the first seconds of a long recording hold no voice, it is looked for in so many seconds.
SEARCH_SECONDS = 600.0
FRAME_SECONDS = 0.01  # of which the power is taken
LOUD_FRAMES = 50  # the voice is as loud as its loudest half second
QUIET = 1e-4  # -40 dB: a frame with less of the voice's power is a pause
MIN_VOICED = 0.2  # of the seconds that are kept: with less, the voice is elsewhere
LEAD_FRAMES = 6  # are kept before the first frame of the voice

# Suffix -> libsndfile's format and subtype. Opus knows few sample rates.
FORMATS = {
    ".wav": ("WAV", "PCM_16"),
    ".flac": ("FLAC", "PCM_16"),
    ".ogg": ("OGG", "VORBIS"),
    ".opus": ("OGG", "OPUS"),
    ".mp3": ("MP3", "MPEG_LAYER_III"),
}
_WRITE_BLOCK = 2**16  # samples: Vorbis takes its room for a block from the stack
_OPUS_RATES = (8000, 12000, 16000, 24000, 48000)
# Suffixes of what libsndfile cannot read.
_FOREIGN = {"m4a", "mp4", "aac", "wma", "webm", "amr", "3gp", "mov", "mkv"}

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
    try:
        if not stat.S_ISREG(os.stat(path).st_mode) and not path.is_dir():
            raise AudioError(f"{path}: is no regular file")  # it is read twice
        # Python opens it, as libsndfile wants names in UTF-8.
        with open(path, "rb") as opened, soundfile.SoundFile(opened) as file:
            rate = file.samplerate
            if max_seconds is not None and file.frames > max_seconds * rate:
                file.seek(_start(_blocks(file), rate, max_seconds, str(path)))
            frames = _frames_to_read(max_seconds, rate)
            samples = file.read(-1 if frames is None else frames, "float32", always_2d=True)
    except FileNotFoundError:
        raise AudioError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise AudioError(f"{path}: is a directory, want an audio file") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        if isinstance(error, AudioError):
            raise
        raise AudioError(f"{str(path)!r}: cannot be read ({os_error(error)})") from None
    except (soundfile.SoundFileError, TypeError) as error:  # TypeError: headerless formats
        reason = getattr(error, "error_string", str(error)).rstrip(".")
        raise AudioError(f"{path}: cannot be read as audio ({reason}){_advice(path)}") from error
    return _prepare(samples, rate, sample_rate, max_seconds, str(path))


def _advice(path: pathlib.Path) -> str:
    """Returns what to do with a format that libsndfile does not know."""
    if path.suffix.lower().lstrip(".") not in _FOREIGN:
        return ""
    return f"; make a wav of it first: ffmpeg -i {path.name} {path.stem}.wav"


def _blocks(file: soundfile.SoundFile) -> Iterable[np.ndarray]:
    """Reads the first SEARCH_SECONDS of a file."""
    size = 100 * _frame(file.samplerate)
    yield from file.blocks(
        size, frames=int(SEARCH_SECONDS * file.samplerate), dtype="float32", always_2d=True
    )


def _frame(rate: float) -> int:
    return max(1, int(FRAME_SECONDS * rate))


def _start(blocks: Iterable[np.ndarray], rate: float, seconds: float, name: str) -> int:
    """Finds where a recording is to be cut that is longer than wanted: at 0, if its voice is there.

    Args:
      blocks: the recording [T, C] in pieces, each a multiple of a frame but the last.
      rate: Hz.
      seconds: that are kept.
      name: what the warning calls it.

    Returns:
      The first sample to keep.
    """
    size = _frame(rate)
    power = np.nan_to_num(np.concatenate([_power(x, size) for x in blocks]), posinf=0.0)
    loud = np.sort(power)[-LOUD_FRAMES:][0]
    voiced = np.concatenate([[0], np.cumsum(power > max(QUIET * loud, MIN_PEAK**2))])
    window = round(seconds / FRAME_SECONDS)
    starts = np.arange(len(power))
    counts = voiced[np.minimum(starts + window, len(power))] - voiced[:-1]  # of voiced frames
    if counts[0] >= MIN_VOICED * window or counts[0] == counts.max():
        return 0
    enough = counts >= counts.max() / 2
    begins = np.diff(voiced) > 0
    first = max(0, int(np.flatnonzero(enough & begins)[0]) - LEAD_FRAMES)
    _log.warning("%s: its voice is taken from %.1f s on", name, first * FRAME_SECONDS)
    return first * size


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
        MIN_PROMPT_SECONDS, silent, or far over full scale.
    """
    samples = _floats(np.asarray(samples), name)
    if not rate > 0:
        raise AudioError(f"{name}: sample rate is {rate} Hz, want more than 0")
    if max_seconds is not None and len(samples) > max_seconds * rate:
        searched = samples[: int(SEARCH_SECONDS * rate)]
        samples = samples[_start([searched], rate, max_seconds, name) :]
    return _prepare(samples, rate, sample_rate, max_seconds, name)


def _prepare(
    samples: np.ndarray, rate: float, sample_rate: int, max_seconds: float | None, name: str
) -> np.ndarray:
    """Does what `prepare` says with samples [T, C] float32 that begin where they are to be cut."""
    samples = samples[: _frames_to_read(max_seconds, rate)]
    seconds = len(samples) / rate
    if not len(samples):
        raise AudioError(f"{name}: no samples")
    if seconds < MIN_PROMPT_SECONDS:
        raise AudioError(f"{name}: {seconds:.3f} s long, want at least {MIN_PROMPT_SECONDS} s")
    _require_finite(samples, name)
    if (peak := float(np.abs(samples).max())) > PEAK_LIMIT:
        raise AudioError(
            f"{name}: the peak is {peak:.6g}, want samples in [-1, 1] (divide those of 16 bit by "
            "32768)"
        )
    mono = _mono(samples, name)
    mono = resample(mono, rate, sample_rate)
    if max_seconds is not None:
        mono = mono[: int(max_seconds * sample_rate)]
    peak = float(np.abs(mono).max())
    if peak < MIN_PEAK:
        raise AudioError(f"{name}: silent (peak {peak:.1e} of full scale, want {MIN_PEAK:.0e})")
    return mono


def _power(samples: np.ndarray, size: int) -> np.ndarray:
    """Measures the mean power of each whole frame of `size` samples of [T, C]."""
    whole = samples[: len(samples) // size * size]
    return np.square(whole, dtype=np.float64).mean(axis=1).reshape(-1, size).mean(axis=1)


def resample(samples: np.ndarray, from_rate: float, to_rate: int) -> np.ndarray:
    """Resamples with soxr (HQ), to as many samples as librosa gives.

    Args:
      samples: [T] float32 at `from_rate` Hz.
      from_rate: Hz of `samples`.
      to_rate: Hz wanted.

    Returns:
      [ceil(T * to_rate / from_rate)] float32.
    """
    if from_rate == to_rate:
        return samples
    length = math.ceil(len(samples) * (float(to_rate) / from_rate))
    samples = soxr.resample(samples, from_rate, to_rate, quality="HQ")[:length]
    return np.pad(samples, (0, length - len(samples)))


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
    """Designs the filters of output phases [phases, taps], and where their first taps lie."""
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


def save(
    path: str | os.PathLike[str],
    samples: np.ndarray,
    sample_rate: int,
    *,
    rounding: Rounding = "floor",
) -> None:
    """Writes a mono audio file of 16 bit, whole or not at all; makes missing folders.

    Args:
      path: the file, of a suffix in FORMATS; replaced where it exists.
      samples: [T] float in [-1, 1].
      sample_rate: Hz.
      rounding: see `to_pcm16`.

    Raises:
      AudioError: see `to_pcm16` and `check_suffix`.
      InputError: the system cannot write it.
    """
    check_suffix(path)
    pcm = to_pcm16(samples, rounding=rounding, name=str(path))
    kind, subtype = FORMATS[pathlib.Path(path).suffix.lower()]
    if subtype == "OPUS" and sample_rate not in _OPUS_RATES:
        rate = min((r for r in _OPUS_RATES if r > sample_rate), default=_OPUS_RATES[-1])
        pcm, sample_rate = soxr.resample(pcm, sample_rate, rate, quality="HQ"), rate
    memory = io.BytesIO()  # so that it is the system that says why the file cannot be written
    with soundfile.SoundFile(memory, "w", sample_rate, 1, subtype, format=kind) as file:
        for start in range(0, len(pcm), _WRITE_BLOCK):
            file.write(pcm[start : start + _WRITE_BLOCK])
    with outputs.replacing(path) as temporary:
        temporary.write_bytes(memory.getbuffer())


def check_suffix(path: str | os.PathLike[str]) -> None:
    """Refuses the name of a file that `save` cannot write.

    Raises:
      AudioError: its suffix is not in FORMATS.
    """
    if pathlib.Path(path).suffix.lower() not in FORMATS:
        raise AudioError(f"cannot write {path}: want a name that ends in {', '.join(FORMATS)}")


def _frames_to_read(max_seconds: float | None, rate: float) -> int | None:
    return None if max_seconds is None else int((max_seconds + _RESAMPLE_MARGIN_SECONDS) * rate)


def _floats(samples: np.ndarray, name: str) -> np.ndarray:
    """Makes float or integer samples [T] or [T, C] float32 ones [T, C]."""
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
    samples = samples if samples.ndim == 2 else samples[:, None]
    with np.errstate(over="ignore"):  # what is too large is infinite, and refused
        return samples.astype(np.float32)


def _mono(samples: np.ndarray, name: str) -> np.ndarray:
    """Mixes the channels of [T, C], or takes the loudest where they cancel: [T] float32."""
    if samples.shape[1] == 1:
        return np.ascontiguousarray(samples[:, 0])
    mono = samples.mean(axis=1)
    power = np.square(samples, dtype=np.float64).mean(axis=0)
    if np.square(mono, dtype=np.float64).mean() >= MIN_MIX * power.mean():
        return np.ascontiguousarray(mono)
    loudest = int(power.argmax())
    _log.warning("%s: its channels cancel each other; channel %d is used", name, loudest + 1)
    return np.ascontiguousarray(samples[:, loudest])


def _require_finite(samples: np.ndarray, name: str) -> None:
    bad = int((~np.isfinite(samples)).sum())
    if bad:
        raise AudioError(f"{name}: {bad} samples are NaN or infinite")

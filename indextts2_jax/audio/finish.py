"""What is done to mels and waves after the networks: trimming, fading, loudness. No weights.

    mel of a segment [M, 80] -> trim_tail() -> vocoder -> fade_out()
    joined speech [T]        -> speech_part() -> normalize_loudness()

Dims: M mel frames, T samples.

What counts as speech: a frame that is at most 40 dB below the loud ones of the same recording, and
60 ms around it. Both numbers come from 900 sentences read by Kokoro-82M voices: of their final
consonants, an s reaches -19 to -29 dB, an f -35 to -41 dB, and the release of a final k or t, which
looks like hiss (a short burst of high frequencies after a gap), is over -40 dB in all but 1 % of
the sentences. So hiss that is louder than this is left alone: it cannot be told from a consonant.
"""

import functools
import logging

import numpy as np

_log = logging.getLogger(__name__)

QUIET_DB = -40.0  # below the loud frames
MARGIN_S = 0.06  # seconds around speech that are speech, too
MAX_TAIL_S = 0.2  # seconds that `trim_tail` cuts at most; reports of hiss speak of 35 to 170 ms
FADE_S = 0.02
MAX_PEAK = 10 ** (-1 / 20)  # -1 dBFS
BLOCK_STEPS, STEPS_PER_SECOND = 4, 10  # loudness is measured over 400 ms, every 100 ms
SILENCE_LUFS, GATE_LU = -70.0, -10.0  # the two gates of ITU-R BS.1770


def trim_tail(log_mel: np.ndarray, frame_rate: float) -> np.ndarray:
    """Drops the frames after the last speech, where T2S said a few codes too many ("hiss").

    Args:
      log_mel: [M, 80] of one segment.
      frame_rate: frames per second.

    Returns:
      The mel without what is behind its speech, 200 ms shorter at most.
    """
    power = np.exp(2 * log_mel.astype(np.float64)).mean(axis=1)
    end = _speech_frames(power, frame_rate).stop
    return log_mel[: max(end, len(log_mel) - int(MAX_TAIL_S * frame_rate))]


def speech_part(samples: np.ndarray, sample_rate: int) -> slice:
    """Finds where a wave [T] is speech: all but near-silence at its beginning and end."""
    hop = sample_rate // 100
    frames = np.pad(samples, (0, -len(samples) % hop)).reshape(-1, hop)
    span = _speech_frames(np.square(frames, dtype=np.float64).mean(axis=1), 100)
    return slice(span.start * hop, min(span.stop * hop, len(samples)))


def _speech_frames(power: np.ndarray, frame_rate: float) -> slice:
    """Finds the first and last frame of speech, given the power [M] of all frames."""
    loud = np.percentile(power, 95)
    spoken = np.flatnonzero(~(power < loud * 10 ** (QUIET_DB / 10)))  # NaN is kept, to be reported
    margin = round(MARGIN_S * frame_rate)
    return slice(max(0, spoken[0] - margin), min(len(power), spoken[-1] + 1 + margin))


def fade_out(samples: np.ndarray, sample_rate: int) -> np.ndarray:
    """Lets the last 20 ms of a wave [T] fall to zero along half a cosine, against clicks."""
    length = min(round(FADE_S * sample_rate), len(samples))
    curve = 0.5 + 0.5 * np.cos(np.pi * (np.arange(length) + 1) / length)
    return np.concatenate([samples[:-length], samples[-length:] * curve.astype(np.float32)])


def loudness(samples: np.ndarray, sample_rate: int) -> float:
    """Measures the integrated loudness of a wave [T] in LUFS (ITU-R BS.1770-4); silence: -inf.

    Less than 400 ms are measured as one block.
    """
    import scipy.signal  # here: it takes a third of a second

    step = sample_rate // STEPS_PER_SECOND
    weighted = scipy.signal.sosfilt(_k_weighting(sample_rate), samples.astype(np.float64))
    power = np.square(weighted)
    if len(power) < BLOCK_STEPS * step:
        blocks = power.mean(keepdims=True)
    else:
        steps = power[: len(power) // step * step].reshape(-1, step).mean(axis=1)
        blocks = np.convolve(steps, np.full(BLOCK_STEPS, 1 / BLOCK_STEPS), "valid")
    blocks = blocks[blocks > _power(SILENCE_LUFS)]
    if not blocks.size:
        return -np.inf
    blocks = blocks[blocks > blocks.mean() * 10 ** (GATE_LU / 10)]
    return float(-0.691 + 10 * np.log10(blocks.mean()))


def normalize_loudness(
    samples: np.ndarray, sample_rate: int, target: float
) -> tuple[np.ndarray, float | None]:
    """Gives a mono wave the loudness that is wished, by one gain.

    No sample gets over -1 dBFS: where it would, the gain is less, the wave stays quieter than
    wished, and a warning says so. A silent wave stays as it is.

    Args:
      samples: [T] float32.
      sample_rate: Hz.
      target: LUFS.

    Returns:
      The wave [T], and its loudness now; None if it is silent.
    """
    present = loudness(samples, sample_rate)
    if present == -np.inf:
        return samples, None
    gain = 10 ** ((target - present) / 20)
    limit = MAX_PEAK / float(np.abs(samples).max())
    if gain > limit:
        gain = limit
        _log.warning(
            "the speech has %.1f LUFS: any louder, and its peak would be over -1 dBFS",
            present + 20 * np.log10(gain),
        )
    return samples * np.float32(gain), float(present + 20 * np.log10(gain))


def _power(lufs: float) -> float:
    return 10 ** ((lufs + 0.691) / 10)


@functools.lru_cache(maxsize=4)
def _k_weighting(sample_rate: int) -> np.ndarray:
    """Returns the K-weighting of BS.1770 as two biquads [2, 6].

    The standard lists coefficients for 48 kHz. These are bilinear transforms of the analogue
    filters that give them: a shelf of 4 dB at 1682 Hz, and a high pass at 38 Hz.
    """
    shelf_gain = 10 ** (3.999843853973347 / 20)
    shelf = (1, shelf_gain**0.4996667741545416, shelf_gain)
    sections = [
        _biquad(1681.974450955533 / sample_rate, 0.7071752369554196, shelf),
        _biquad(38.13547087602444 / sample_rate, 0.5003270373238773, (0, 0, 1)),
    ]
    sections[1][:3] = 1, -2, 1  # as the standard has it: a little more than the transform's
    return np.stack(sections)


def _biquad(frequency: float, q: float, gains: tuple[float, float, float]) -> np.ndarray:
    """Designs a biquad [6] with gains below, at and above `frequency` (of the sample rate)."""
    k = np.tan(np.pi * frequency)

    def bilinear(low: float, band: float, high: float) -> np.ndarray:
        low, band = low * k**2, band * k / q
        return np.array([high + band + low, 2 * (low - high), high - band + low])

    poles = bilinear(1, 1, 1)
    return np.concatenate([bilinear(*gains), poles]) / poles[0]

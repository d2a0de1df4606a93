"""Pitch and loudness of speech, one value per token of 20 ms, as targets to be predicted.

    16 kHz [N] -> windows of 64 ms around each token -> normalised autocorrelation
               -> prosody [T, 3]: log F0, voicing, log energy

Dims: N samples, T tokens, W samples of a window, L lags.
"""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from indextts2_jax.audio import fbank

LOW_HZ, HIGH_HZ = 60.0, 400.0
WINDOW = 1024  # samples: nearly four periods of the lowest voice
TOKEN = 2 * fbank.FRAME_SHIFT  # samples from one token to the next
VOICED = 0.6  # normalised autocorrelation of what is voiced
AS_GOOD = 0.9  # of the highest peak: the shortest such lag is the period, not a multiple of it
QUIET = 1e-4  # of the loudest window's energy; below, all is silence
FLOOR = 1e-8  # of an energy


def prosody(samples: np.ndarray, num_tokens: int) -> np.ndarray:
    """Measures pitch and loudness.

    Args:
      samples: [N] float in [-1, 1] at 16 kHz.
      num_tokens: T, those of `m4t_features`.

    Returns:
      [T, 3] float32: natural log of F0 in Hz (0 where unvoiced), 1 where voiced and else 0, natural
      log of the mean square.
    """
    middle = (fbank.FRAME_LENGTH + fbank.FRAME_SHIFT) // 2  # of the first token
    before = WINDOW // 2 - middle
    after = max(0, (num_tokens - 1) * TOKEN + WINDOW - before - len(samples))
    padded = np.pad(samples.astype(np.float32), (before, after))
    windows = sliding_window_view(padded, WINDOW)[::TOKEN][:num_tokens]
    energy = np.mean(windows**2, axis=1)
    windows = windows - windows.mean(axis=1, keepdims=True)
    correlation, first = _autocorrelation(windows)
    lag, height = _period(correlation, first)
    voiced = (height >= VOICED) & (energy > QUIET * energy.max())
    log_f0 = np.where(voiced, np.log(fbank.SAMPLE_RATE / lag), 0)
    return np.stack([log_f0, voiced, np.log(energy + FLOOR)], axis=1).astype(np.float32)


def _autocorrelation(windows: np.ndarray) -> tuple[np.ndarray, int]:
    """Correlates [T, L] each window with itself, equal energies 1; also returns the first lag."""
    first = int(fbank.SAMPLE_RATE / HIGH_HZ)
    last = int(fbank.SAMPLE_RATE / LOW_HZ) + 1
    spectrum = np.fft.rfft(windows, 2 * WINDOW)
    products = np.fft.irfft(spectrum.real**2 + spectrum.imag**2)[:, first : last + 1]
    sums = np.pad(np.cumsum(windows.astype(np.float64) ** 2, axis=1), ((0, 0), (1, 0)))
    lags = np.arange(first, last + 1)
    head = sums[:, WINDOW - lags]
    tail = sums[:, -1:] - sums[:, lags]
    return products / np.sqrt(head * tail + FLOOR), first


def _period(correlation: np.ndarray, first: int) -> tuple[np.ndarray, np.ndarray]:
    """Finds the period [T] in samples, between the lags, and the correlation [T] there."""
    inner = correlation[:, 1:-1]
    peak = (inner >= correlation[:, :-2]) & (inner >= correlation[:, 2:])
    heights = np.where(peak, inner, 0)
    place = np.argmax(heights >= AS_GOOD * heights.max(axis=1, keepdims=True), axis=1)
    rows = np.arange(len(inner))
    left, here, right = (correlation[rows, place + i] for i in range(3))
    bend = left - 2 * here + right
    shift = np.where(bend < 0, 0.5 * (left - right) / np.minimum(bend, -FLOOR), 0)
    return first + 1 + place + np.clip(shift, -0.5, 0.5), heights[rows, place]

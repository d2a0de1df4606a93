"""Kaldi's log filterbank, and the w2v-BERT input made of it.

    16 kHz [T] -> 25 ms frames every 10 ms -> 80 band energies [F, 80]
               -> log: `kaldi_fbank` [F, 80], for the speaker encoder
               -> log, normalised, two frames a token: `m4t_features` [T_token, 160]

Dims: T samples, F frames, T_token tokens (ceil(F / 2)).
Source: spec sections 6.1 and 6.2. Both are computed in float64, as transformers does.
"""

import functools

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

SAMPLE_RATE = 16000  # Hz
NUM_BANDS = 80
FRAME_LENGTH, FRAME_SHIFT, N_FFT = 400, 160, 512  # samples
MIN_HZ = 20.0
FLOOR = 2.0**-23  # float32's epsilon, Kaldi's floor of an energy


def kaldi_fbank(samples: np.ndarray) -> np.ndarray:
    """Computes the log filterbank of Kaldi (no dither), as torchaudio computes it.

    Args:
      samples: [T] float in [-1, 1] at 16 kHz, T >= 400.

    Returns:
      [F, 80] float32, F = floor((T - 400) / 160) + 1; no mean is subtracted.
    """
    # In float32 like torchaudio: the speaker encoder amplifies what its rounding does.
    return np.log(np.maximum(_band_energies(samples, np.float32), np.float32(FLOOR)))


def m4t_features(samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Computes the input of w2v-BERT 2.0, as transformers' SeamlessM4TFeatureExtractor computes it.

    Args:
      samples: [T] float in [-1, 1] at 16 kHz, T >= 560 (two frames).

    Returns:
      Features [T_token, 160] float32 and mask [T_token] bool. Of an odd number of frames the last
      token is half padding, and masked.
    """
    energies = _band_energies(samples, np.float64) * 2.0**30  # of 16-bit samples
    features = np.log(np.maximum(energies, FLOOR))  # [F, 80]
    features -= features.mean(axis=0)
    features /= np.sqrt(features.var(axis=0, ddof=1) + 1e-7)
    missing = len(features) % 2
    features = np.pad(features, ((0, missing), (0, 0)), constant_values=1.0)
    mask = np.ones(len(features) // 2, bool)
    mask[len(mask) - missing :] = False
    return features.reshape(len(mask), 2 * NUM_BANDS).astype(np.float32), mask


def _band_energies(samples: np.ndarray, dtype: type) -> np.ndarray:
    """Energies [F, 80] of the bands of each frame, computed in `dtype`."""
    frames = sliding_window_view(samples.astype(dtype), FRAME_LENGTH)[::FRAME_SHIFT]
    frames = frames - frames.mean(axis=1, keepdims=True)  # [F, 400]
    previous = np.concatenate([frames[:, :1], frames[:, :-1]], axis=1)
    spectrum = np.fft.rfft((frames - dtype(0.97) * previous) * _povey_window(dtype), N_FFT)
    return (spectrum.real**2 + spectrum.imag**2) @ _filters(dtype)  # [F, 257] @ [257, 80]


@functools.cache
def _povey_window(dtype: type) -> np.ndarray:
    phase = np.arange(FRAME_LENGTH) / (FRAME_LENGTH - 1)
    return ((0.5 - 0.5 * np.cos(2 * np.pi * phase)) ** 0.85).astype(dtype)


@functools.cache
def _filters(dtype: type) -> np.ndarray:
    """Triangles on the mel axis between MIN_HZ and half the rate, [257, 80]."""
    mel = _mel(np.fft.rfftfreq(N_FFT, 1 / SAMPLE_RATE).astype(dtype))[:, None]
    low_mel, high_mel = float(_mel(MIN_HZ)), float(_mel(SAMPLE_RATE / 2))
    step = (high_mel - low_mel) / (NUM_BANDS + 1)
    low, centre, high = (
        dtype(low_mel) + (np.arange(NUM_BANDS) + i).astype(dtype) * dtype(step) for i in range(3)
    )
    rising, falling = (mel - low) / (centre - low), (high - mel) / (high - centre)
    return np.maximum(0, np.minimum(rising, falling))


def _mel(hz: np.ndarray | float) -> np.ndarray:
    return 1127 * np.log(1 + np.asarray(hz) / 700)

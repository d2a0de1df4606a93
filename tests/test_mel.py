"""The log-mel spectrogram."""

import dataclasses

import librosa.filters
import numpy as np
import pytest

from indextts2_jax.audio.mel import MelConfig, log_mel, mel_filters
from tests.common import SHARED, load_golden, needs_shared, relative_error

RELEASED = {"n_fft": 1024, "win_length": 1024, "hop_length": 256, "n_mels": 80, "fmin": 0}


def test_log_mel_equals_bigvgan():
    golden = load_golden("features")
    got = log_mel(golden["pcm_22k"] / np.float32(2**15), MelConfig())
    assert got.dtype == np.float32
    assert relative_error(got, golden["log_mel"]) < 1e-4


@pytest.mark.parametrize("fmin, fmax", [(0.0, None), (0.0, 8000.0), (1500.0, 8000.0)])
def test_filters_equal_librosa(fmin, fmax):
    cfg = MelConfig(fmin=fmin, fmax=fmax)
    want = librosa.filters.mel(sr=22050, n_fft=1024, n_mels=80, fmin=fmin, fmax=fmax)
    assert relative_error(mel_filters(cfg).T, want) < 1e-6


@pytest.mark.parametrize("length", [512, 513, 767, 768, 5000])
def test_every_full_hop_is_a_frame(length):
    assert log_mel(np.zeros(length, np.float32), MelConfig()).shape == (length // 256, 80)


def test_silence_is_the_floor():
    np.testing.assert_allclose(log_mel(np.zeros(2048), MelConfig()), np.log(1e-5), rtol=1e-6)


def test_released_configuration():
    assert MelConfig.from_release(RELEASED, 22050) == MelConfig()
    assert MelConfig.from_release({**RELEASED, "fmax": "None"}, 22050) == MelConfig()
    assert MelConfig.from_release({**RELEASED, "fmax": 10000}, 24000) == dataclasses.replace(
        MelConfig(), sample_rate=24000, fmax=8000.0
    )
    with pytest.raises(ValueError, match="win_length 800"):
        MelConfig.from_release({**RELEASED, "win_length": 800}, 22050)


@needs_shared
def test_log_mel_equals_the_shared_goldens():
    golden = np.load(SHARED / "golden" / "s2m" / "mel.npz")
    got = log_mel(golden["in_wav"][0], MelConfig())
    assert relative_error(got.T, golden["out_mel"][0]) < 1e-4
    assert relative_error(mel_filters(MelConfig()).T, golden["out_filterbank"]) < 1e-6
    dump = np.load(SHARED / "golden" / "pipeline" / "dumps" / "a_english.npz")
    got = log_mel(dump["spk_audio_loaded"][0], MelConfig())
    assert relative_error(got.T, dump["ref_mel"][0]) < 1e-4

"""Kaldi's filterbank and the M4T features."""

import numpy as np
import pytest

from indextts2_jax.audio.fbank import kaldi_fbank, m4t_features
from tests.common import SHARED, load_golden, needs_shared, relative_error


def samples_of(golden: dict[str, np.ndarray], name: str) -> np.ndarray:
    length = {"even": 6000, "odd": 5900}[name]
    return golden["pcm_16k"][:length] / np.float32(2**15)


@pytest.mark.parametrize("name", ["even", "odd"])
def test_fbank_equals_kaldi(name):
    golden = load_golden("features")
    got = kaldi_fbank(samples_of(golden, name))
    assert got.dtype == np.float32
    assert relative_error(got, golden[f"fbank_{name}"]) < 2e-4


@pytest.mark.parametrize("name", ["even", "odd"])
def test_m4t_features_equal_transformers(name):
    golden = load_golden("features")
    features, mask = m4t_features(samples_of(golden, name))
    assert features.dtype == np.float32
    assert relative_error(features, golden[f"m4t_{name}"]) < 1e-5
    np.testing.assert_array_equal(mask, golden[f"mask_{name}"])
    assert mask.all() == (name == "even")


@pytest.mark.parametrize("length, frames", [(400, 1), (559, 1), (560, 2), (16000, 98)])
def test_only_whole_frames_count(length, frames):
    assert kaldi_fbank(np.zeros(length, np.float32)).shape == (frames, 80)


def test_silence_is_finite():
    silence = np.zeros(16000, np.float32)
    np.testing.assert_allclose(kaldi_fbank(silence), np.log(2.0**-23), rtol=1e-6)
    np.testing.assert_allclose(m4t_features(silence)[0], 0, atol=1e-6)


@needs_shared
def test_features_equal_the_shared_goldens():
    golden = np.load(SHARED / "golden" / "s2m" / "features16k.npz")
    assert relative_error(kaldi_fbank(golden["out_wav16"][0]), golden["out_fbank"]) < 2e-4
    for wave, suffix in (("out_wav16", ""), ("in_wav16_odd", "_odd")):
        features, mask = m4t_features(golden[wave][0])
        assert relative_error(features, golden[f"out_m4t_features{suffix}"][0]) < 1e-5
        np.testing.assert_array_equal(mask, golden[f"out_m4t_mask{suffix}"][0])
    dump = np.load(SHARED / "golden" / "pipeline" / "dumps" / "b_emo_audio.npz")
    for prompt in ("spk", "emo"):
        features, mask = m4t_features(dump[f"{prompt}_audio_16k"][0])
        assert relative_error(features, dump[f"{prompt}_input_features"][0]) < 1e-5
        np.testing.assert_array_equal(mask, dump[f"{prompt}_attention_mask"][0])
    bank = kaldi_fbank(dump["spk_audio_16k"][0])
    assert relative_error(bank, dump["fbank"]) < 2e-4
    assert relative_error(bank - bank.mean(0), dump["fbank_centered"][0]) < 2e-4

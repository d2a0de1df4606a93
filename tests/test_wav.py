"""Loading, checking, resampling and saving of audio."""

import errno
import math
import os
import pathlib

import librosa
import numpy as np
import pytest
import soundfile

from indextts2_jax.audio import fbank, mel, wav
from indextts2_jax.errors import InputError
from tests.common import SHARED, needs_shared


def voice(length: int, channels: int = 0, seed: int = 0) -> np.ndarray:
    shape = (length, channels) if channels else length
    return (0.1 * np.random.default_rng(seed).normal(size=shape)).astype(np.float32)


@pytest.mark.parametrize(
    "rate, channels, wanted",
    [(24000, 1, 22050), (44100, 2, 16000), (44100, 2, 24000), (8000, 1, 22050), (16000, 2, 16000)],
)
def test_load_equals_librosa(tmp_path, rate, channels, wanted):
    path = tmp_path / "voice.wav"
    soundfile.write(path, voice(30_011, channels), rate)
    want, _ = librosa.load(path, sr=wanted)
    got = wav.load(path, wanted)
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, want)


def test_load_reads_flac_and_plain_strings(tmp_path):
    samples = voice(16000)
    soundfile.write(tmp_path / "voice.flac", samples, 16000)
    np.testing.assert_allclose(wav.load(str(tmp_path / "voice.flac"), 16000), samples, atol=2**-15)


@pytest.mark.parametrize("rate", [22050, 44100])
def test_max_seconds_equals_cutting_the_whole(tmp_path, rate):
    path = tmp_path / "voice.wav"
    soundfile.write(path, voice(3 * rate), rate)
    np.testing.assert_array_equal(
        wav.load(path, 22050, max_seconds=1.0), wav.load(path, 22050)[:22050]
    )


def test_arrays_are_treated_as_files_are(tmp_path):
    pcm = np.round(voice(20_000, 2) * 2**15).astype(np.int16)
    soundfile.write(tmp_path / "voice.wav", pcm, 24000)
    want = wav.load(tmp_path / "voice.wav", 16000)
    np.testing.assert_array_equal(wav.prepare(pcm, 24000, 16000), want)
    np.testing.assert_array_equal(wav.prepare(pcm / 2**15, 24000, 16000), want)


def with_value(value: float) -> np.ndarray:
    samples = voice(16000)
    samples[100] = value
    return samples


@pytest.mark.parametrize(
    "samples, reason",
    [
        (voice(0), "no samples"),
        (with_value(np.nan), "1 samples are NaN or infinite"),
        (with_value(np.inf), "1 samples are NaN or infinite"),
        (np.zeros(16000, np.float32), "silent"),
        (voice(16000) * 1e-5, "silent"),
        (voice(16000) * 32768, "the peak is 1.* want samples in"),
        (voice(16000) * 1e30, "the peak is "),
        (voice(7000), "0.438 s long, want at least 0.5 s"),
    ],
)
def test_unusable_audio_is_refused_by_name(tmp_path, samples, reason):
    path = tmp_path / "voice.wav"
    soundfile.write(path, samples, 16000, subtype="FLOAT")
    with pytest.raises(wav.AudioError, match=reason) as error:
        wav.load(path, 22050)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "name, content, reason",
    [
        ("missing.wav", None, "no such file"),
        ("", None, "is a directory"),
        ("text.wav", b"not audio at all", "cannot be read as audio"),
        ("empty.wav", b"", "cannot be read as audio"),
        ("headerless.raw", b"\0" * 64_000, "cannot be read as audio"),
        (
            "me.m4a",
            b"\0\0\0\x20ftypM4A ",
            "as audio .*; make a wav .*ffmpeg -i me.m4a",
        ),
        ("x" * 256 + ".wav", None, "File name too long"),
    ],
)
def test_unreadable_files_are_refused_by_name(tmp_path, name, content, reason):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(wav.AudioError, match=reason) as error:
        wav.load(path, 22050)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "samples, rate, reason",
    [
        (voice(16000, 2).T, 16000, r"shape \(2, 16000\), want \[T, C\] \(channels last\)"),
        (voice(16000)[None, None], 16000, "shape"),
        (np.float32(0.1), 16000, "shape"),
        (np.full(16000, 128, np.uint8), 16000, "dtype uint8"),
        (voice(16000), 0, "sample rate is 0 Hz"),
    ],
)
def test_unusable_arrays_are_refused_by_name(samples, rate, reason):
    with pytest.raises(wav.AudioError, match=f"^the prompt: .*{reason}"):
        wav.prepare(samples, rate, 22050, name="the prompt")


def test_a_name_need_not_be_utf8(tmp_path):
    path = tmp_path / os.fsdecode(b"latin_\xe9.wav")
    wav.save(path, voice(16000), 16000)
    assert len(wav.load(path, 22050)) == 22050


def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "v.wav")
    with pytest.raises(wav.AudioError, match="is no regular file"):
        wav.load(tmp_path / "v.wav", 22050)


@pytest.mark.parametrize("second", [-1.0, -0.8, 0.0, 1.0])
def test_channels_that_cancel_leave_the_louder_one(second, caplog):
    x = voice(16000)
    got = wav.prepare(np.stack([x, second * x], axis=1), 16000, 16000)
    cancel = second < 0
    np.testing.assert_allclose(got, x if cancel else x * (1 + second) / 2, atol=1e-6)
    assert ("its channels cancel each other; channel 1 is used" in caplog.text) == cancel


def silence_and_voice(*seconds: float, noise: float = 0.0) -> np.ndarray:
    """Silence and voice by turns, 8 kHz."""
    parts = [voice(round(8000 * s)) * (i % 2) for i, s in enumerate(seconds)]
    samples = np.concatenate(parts)
    return samples + noise * voice(len(samples), seed=9)


@pytest.mark.parametrize(
    "seconds, noise, start",
    [
        ((20, 5), 0.0, 20),
        ((20, 30), 0.0, 20),
        ((16, 3, 30), 0.0, 16),
        ((16, 3, 30), 1e-3, 16),
        ((0, 1, 40, 10), 0.0, 41),
        ((14.5, 20), 0.0, 14.5),
        ((10, 20), 0.0, None),  # enough of it is in the first 15 s
        ((0, 5, 20, 30), 0.0, None),
        ((0, 60), 0.0, None),
        ((0, 2, 30), 0.0, None),  # there is no more of it
    ],
)
def test_a_prompt_is_cut_from_where_its_voice_is(tmp_path, caplog, seconds, noise, start):
    samples = silence_and_voice(*seconds, noise=noise)
    soundfile.write(tmp_path / "v.wav", samples, 8000, subtype="FLOAT")
    first = 0 if start is None else round((start - 0.06) * 8000)
    want = wav.prepare(samples[first : first + 15 * 8000], 8000, 16000)
    for got in (
        wav.load(tmp_path / "v.wav", 16000, max_seconds=15),
        wav.prepare(samples, 8000, 16000, max_seconds=15),
    ):
        np.testing.assert_allclose(got[:-500], want[: len(got) - 500], atol=1e-6)
    assert caplog.text.count(f"is taken from {(start or 0) - 0.06:.1f} s on") == 2 * bool(start)


def test_the_shortest_prompt_has_every_feature():
    samples = voice(int(wav.MIN_PROMPT_SECONDS * 22050))
    samples_16k = wav.resample_sinc(wav.prepare(samples, 22050, 22050), 22050, 16000)
    bank = fbank.kaldi_fbank(samples_16k)
    features, mask = fbank.m4t_features(samples_16k)
    assert len(bank) >= 3 and mask.sum() >= 20
    for feature in (bank, features, mel.log_mel(samples, mel.MelConfig())):
        assert len(feature) and np.isfinite(feature).all()


def sinc_directly(x: np.ndarray, from_rate: int, to_rate: int) -> np.ndarray:
    """Formula 6.3 of the spec, output sample by output sample."""
    divisor = math.gcd(from_rate, to_rate)
    a, b = from_rate // divisor, to_rate // divisor
    base = 0.99 * min(a, b)
    out = []
    for n in range(math.ceil(b * len(x) / a)):
        u = base * (np.arange(len(x)) / a - n / b)
        inside = np.abs(u) < 6
        kernel = base / a * np.sinc(u) * np.cos(np.pi * u / 12) ** 2
        out.append((x * kernel)[inside].sum())
    return np.array(out)


@pytest.mark.parametrize("from_rate, to_rate", [(22050, 16000), (16000, 22050), (24000, 16000)])
@pytest.mark.parametrize("length", [1, 440, 441, 442, 1501])
def test_resample_sinc_equals_its_formula(from_rate, to_rate, length):
    x = voice(length)
    got, want = wav.resample_sinc(x, from_rate, to_rate), sinc_directly(x, from_rate, to_rate)
    assert got.dtype == np.float32 and got.shape == want.shape
    np.testing.assert_allclose(got, want, atol=1e-5)


def test_resample_sinc_keeps_a_sine():
    seconds, hz = 0.5, 440.0
    got = wav.resample_sinc(
        np.sin(2 * np.pi * hz * np.arange(int(22050 * seconds)) / 22050), 22050, 16000
    )
    want = np.sin(2 * np.pi * hz * np.arange(len(got)) / 16000)
    np.testing.assert_allclose(got[100:-100], want[100:-100], atol=2e-3)


def test_resample_sinc_to_the_same_rate_is_the_identity():
    x = voice(100)
    np.testing.assert_array_equal(wav.resample_sinc(x, 16000, 16000), x)


@pytest.mark.parametrize(
    "rounding, want", [("floor", [-2, -1, 0, 0, 1]), ("nearest", [-2, 0, 0, 0, 2])]
)
def test_pcm16_rounding(rounding, want):
    samples = np.array([-1.6, -0.4, 0.0, 0.4, 1.6]) / 2**15
    np.testing.assert_array_equal(wav.to_pcm16(samples, rounding=rounding), want)


def test_pcm16_clips_and_never_wraps():
    samples = np.array([-1e9, -1.5, -1.0, 1.0, 1.5, 1e9])
    got = wav.to_pcm16(samples)
    assert got.dtype == np.int16
    np.testing.assert_array_equal(got, [-32768] * 3 + [32767] * 3)


def test_saved_samples_come_back(tmp_path):
    path, samples = tmp_path / "new" / "voice.wav", voice(16000)
    wav.save(path, samples, 16000)
    got, rate = soundfile.read(path, dtype="int16")
    assert rate == 16000 and soundfile.info(path).subtype == "PCM_16"
    np.testing.assert_array_equal(got, wav.to_pcm16(samples))
    assert os.listdir(path.parent) == ["voice.wav"]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "voice.wav"
    wav.save(path, voice(16000), 16000)
    before = path.read_bytes()

    def full_disk(path, content):
        path.touch()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pathlib.Path, "write_bytes", full_disk)
    with pytest.raises(InputError, match=r"cannot write .*voice\.wav: No space left"):
        wav.save(path, voice(16000, seed=1), 16000)
    assert os.listdir(tmp_path) == ["voice.wav"] and path.read_bytes() == before


@pytest.mark.parametrize(
    "suffix, kind, rate",
    [("wav", "WAV", 22050), ("FLAC", "FLAC", 22050), ("ogg", "OGG", 22050), ("opus", "OGG", 24000),
     ("mp3", "MP3", 22050)],
)  # fmt: skip
def test_the_suffix_is_the_format(tmp_path, suffix, kind, rate):
    samples = 0.5 * np.sin(2 * np.pi * 440 * np.arange(2 * 22050) / 22050)
    path = tmp_path / f"x.{suffix}"
    wav.save(path, samples, 22050)
    info = soundfile.info(path)
    assert (info.format, info.samplerate, info.channels) == (kind, rate, 1)
    assert abs(info.duration - 2) < 0.06  # mp3 has whole frames
    got = wav.load(path, 22050)[5000:15000]
    assert abs(np.abs(got).max() - 0.5) < 0.03


@pytest.mark.parametrize("name", ["x", "x.m4a", "x.npz", "x.wav.txt"])
def test_other_suffixes_are_refused_and_the_known_ones_named(tmp_path, name):
    with pytest.raises(InputError, match=r"want a name that ends in \.wav, \.flac, \.ogg, "):
        wav.save(tmp_path / name, voice(16000), 22050)
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("samples", [voice(16)[None], with_value(np.nan)])
def test_unusable_samples_are_not_saved(tmp_path, samples):
    with pytest.raises(wav.AudioError, match=r"voice\.wav: "):
        wav.save(tmp_path / "voice.wav", samples, 16000)
    assert not os.listdir(tmp_path)


@needs_shared
@pytest.mark.parametrize("case", ["a_english", "b_emo_audio"])
def test_prompts_and_files_equal_the_shared_golden(case):
    folder = SHARED / "golden" / "pipeline"
    golden = np.load(folder / "dumps" / f"{case}.npz")
    audio = wav.load(folder / "prompts" / "a_24k_mono.wav", 22050)
    np.testing.assert_array_equal(audio, golden["spk_audio_loaded"][0])
    audio_16k = wav.resample_sinc(audio, 22050, 16000)
    np.testing.assert_allclose(audio_16k, golden["spk_audio_16k"][0], atol=2e-7)
    emotion = {"a_english": "a_24k_mono", "b_emo_audio": "b_44k_stereo"}[case]
    emotion_16k = wav.load(folder / "prompts" / f"{emotion}.wav", 16000)
    np.testing.assert_array_equal(emotion_16k, golden["emo_audio_16k"][0])
    pcm = wav.to_pcm16(golden["wav_pcm_float"][0] / np.float32(32767))
    np.testing.assert_array_equal(pcm, golden["wav_int16_file"])

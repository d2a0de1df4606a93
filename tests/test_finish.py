"""Trimming, fading and loudness, on mels and waves made by hand."""

import numpy as np
import pytest

from indextts2_jax.audio import finish

RATE = 22050
FRAME_RATE = RATE / 256


def _ms(frames):
    return frames * 1000 / FRAME_RATE


def _mel(*parts):
    """Mel frames of (milliseconds, level in dB) one after the other; the first is the speech."""
    rng = np.random.default_rng(0)
    levels = np.concatenate([np.full(round(ms * FRAME_RATE / 1000), db) for ms, db in parts])
    noise = rng.uniform(-0.5, 0.5, (len(levels), 80))
    return (np.log(10) * levels[:, None] / 20 + noise).astype(np.float32)


def _trimmed_ms(*parts):
    mel = _mel(*parts)
    kept = finish.trim_tail(mel, FRAME_RATE)
    np.testing.assert_array_equal(kept, mel[: len(kept)])
    return _ms(len(mel) - len(kept))


@pytest.mark.parametrize("level", [-10, 5])  # of the recording
@pytest.mark.parametrize("hiss_ms", [100, 170])
def test_hiss_behind_speech_is_trimmed(level, hiss_ms):
    trimmed = _trimmed_ms((800, level), (40, level - 70), (hiss_ms, level - 45))
    assert trimmed == pytest.approx(40 + hiss_ms - 60, abs=24)


@pytest.mark.parametrize(
    "end",
    [
        [(150, -35)],  # an f
        [(60, -65), (120, -25)],  # ts after its closure
        [(80, -65), (40, -38)],  # the release of a k
        [(50, -50)],  # a decay within the margin
        [],
    ],
)
def test_consonants_and_decays_stay(end):
    assert _trimmed_ms((800, 0), *end) == 0


def test_no_more_than_200_ms_and_never_the_whole_segment_is_trimmed():
    assert 185 < _trimmed_ms((300, 0), (900, -60)) <= 200
    assert _trimmed_ms((23, 0), (150, -60)) == pytest.approx(90, abs=24)  # two loud frames are left
    assert _trimmed_ms((500, -100)) == 0
    silence = np.full((40, 80), np.log(1e-5), np.float32)
    assert len(finish.trim_tail(silence, FRAME_RATE)) == 40
    assert len(finish.trim_tail(silence[:1], FRAME_RATE)) == 1


def test_what_is_not_finite_is_kept_for_others_to_report():
    mel = _mel((300, 0), (300, -60))
    mel[3] = np.nan
    assert len(finish.trim_tail(mel, FRAME_RATE)) == len(mel)


def test_the_speech_part_of_a_wave():
    wave = np.concatenate([np.zeros(RATE), _sine(0.5, -20, RATE), np.zeros(RATE // 2)])
    part = finish.speech_part(wave.astype(np.float32), RATE)
    assert part.start / RATE == pytest.approx(1 - 0.06, abs=0.011)
    assert part.stop / RATE == pytest.approx(1.5 + 0.06, abs=0.011)
    for whole in (np.zeros(1000, np.float32), wave[RATE : RATE + 9999], wave[RATE : RATE + 1]):
        assert finish.speech_part(whole, RATE) == slice(0, len(whole))


def test_the_fade_ends_at_zero():
    faded = finish.fade_out(np.ones(1000, np.float32), RATE)
    assert (faded[:-441] == 1).all() and (np.diff(faded[-441:]) < 0).all()
    assert abs(faded[-1]) < 1e-7
    assert abs(finish.fade_out(np.ones(4, np.float32), RATE)[-1]) < 1e-7


def _sine(seconds, dbfs, rate, hz=997):
    return 10 ** (dbfs / 20) * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate)) / rate)


def test_k_weighting_is_the_standards():
    want = [
        [1.53512485958697, -2.69169618940638, 1.19839281085285, 1, -1.69065929318241,
         0.73248077421585],
        [1, -2, 1, 1, -1.99004745483398, 0.99007225036621],
    ]  # fmt: skip
    np.testing.assert_allclose(finish._k_weighting(48000), want, atol=1e-8)


@pytest.mark.parametrize("rate", [22050, 24000, 48000])
def test_a_full_scale_sine_has_minus_3_lufs(rate):
    assert finish.loudness(_sine(3, 0, rate), rate) == pytest.approx(-3.01, abs=0.04)
    assert finish.loudness(_sine(3, -20, rate), rate) == pytest.approx(-23.01, abs=0.04)
    assert finish.loudness(_sine(0.2, 0, rate), rate) == pytest.approx(-3.01, abs=0.2)


@pytest.mark.parametrize(
    "parts",  # cases 3, 4 and 5 of EBU Tech 3341: one channel has half the power of its two
    [
        [(10, -36), (60, -23), (10, -36)],
        [(10, -72), (10, -36), (60, -23), (10, -36), (10, -72)],
        [(20, -26), (20.1, -20), (20, -26)],
    ],
)
def test_quiet_parts_do_not_count(parts):
    wave = np.concatenate([_sine(seconds, dbfs + 3.01, RATE, 1000) for seconds, dbfs in parts])
    assert finish.loudness(wave, RATE) == pytest.approx(-23, abs=0.1)


def test_loudness_is_what_was_asked_for_unless_peaks_forbid(caplog):
    speech = _sine(2, -30, RATE).astype(np.float32)
    louder, loudness = finish.normalize_loudness(speech, RATE, -23)
    assert loudness == pytest.approx(-23) and louder.dtype == np.float32
    assert finish.loudness(louder, RATE) == pytest.approx(-23, abs=1e-3)
    quieter, _ = finish.normalize_loudness(louder, RATE, -40)
    assert finish.loudness(quieter, RATE) == pytest.approx(-40, abs=1e-3)
    assert not caplog.text
    speech[5000] = 0.5
    limited, loudness = finish.normalize_loudness(speech, RATE, -15)
    assert np.abs(limited).max() == pytest.approx(10 ** (-1 / 20))
    assert finish.loudness(limited, RATE) == pytest.approx(loudness, abs=1e-3)
    assert "any louder, and its peak would be over -1 dBFS" in caplog.text


def test_silence_stays_silent():
    for silence in (np.zeros(RATE, np.float32), np.full(9, 1e-9, np.float32)):
        same, loudness = finish.normalize_loudness(silence, RATE, -23)
        assert same is silence and loudness is None

"""The pipeline and its command line: what a user sees, good input and bad."""

import dataclasses
import json

import jax
import numpy as np
import pytest
import soundfile

from indextts2_jax import programs
from indextts2_jax.audio import finish
from indextts2_jax.cli import main
from indextts2_jax.commands.dump import Dump
from indextts2_jax.errors import InputError
from indextts2_jax.pipeline import IndexTTS2
from indextts2_jax.request.duration import Duration
from indextts2_jax.request.options import Emotion, Options, Request
from indextts2_jax.request.results import join
from indextts2_jax.request.speaker import Speaker
from indextts2_jax.t2s.generate import generate
from tests.common import SHARED, needs_shared, relative_error

SHORT = Options(max_codes=20, steps=3, num_beams=1)


@pytest.fixture(scope="module")
def speaker(tts, voice):
    return tts.speaker(voice)


def _synthesize(*args) -> int:
    return main(["synthesize", *map(str, args)])


@pytest.fixture
def command(converted, voice, tmp_path):
    """Runs the command with few codes and steps; returns exit code and the wav's path."""

    def run(*args, checkpoint=converted, text="Hello there.", out=tmp_path / "o.wav", **_):
        args = [
            *("--checkpoint", checkpoint, "--out", out),
            *(() if "--speaker" in args else ("--voice", voice)),
            *("--max-codes", 20, "--steps", 3, "--beams", 1),
            *(("--text", text) if text is not None else ()),
            *args,
        ]
        return _synthesize(*args), out

    return run


def test_the_command_writes_a_wav_and_says_what_it_made(command, capsys, tmp_path):
    code, out = command("--json", "--plot", tmp_path / "p.png", "--dump", tmp_path / "d.npz")
    assert code == 0
    report = json.loads(capsys.readouterr().out)
    info = soundfile.info(out)
    assert (info.samplerate, info.channels, info.subtype) == (22050, 1, "PCM_16")
    assert info.frames == report["samples"] == 256 * report["segments"][0]["frames"]
    assert report["segments"][0]["text"] == "HELLO THERE."
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")
    dump = np.load(tmp_path / "d.npz")
    assert dump["seg0_codes"].shape == (1, report["segments"][0]["codes"])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["d.npz", "o.wav", "p.png"]


def test_same_seed_same_samples(tts, speaker):
    first, again, other = (
        tts.synthesize("Hello.", speaker, options=dataclasses.replace(SHORT, seed=seed))
        for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first.samples, again.samples)
    assert not np.array_equal(first.segments[0].codes, other.segments[0].codes)


@pytest.mark.slow
def test_buckets_change_nothing(tts, voice, speaker, monkeypatch):
    """The same run in other padded sizes: codes equal, waves equal to float rounding."""
    before = tts.synthesize("Hello there, you.", speaker, options=SHORT)
    jax.clear_caches()
    monkeypatch.setattr(programs, "bucket", lambda n, smallest=128: n + 5)
    monkeypatch.setattr("indextts2_jax.pipeline.bucket", lambda n, smallest=128: n + 5)
    after = tts.synthesize("Hello there, you.", tts.speaker(voice), options=SHORT)
    np.testing.assert_array_equal(before.segments[0].codes, after.segments[0].codes)
    assert relative_error(after.segments[0].mel, before.segments[0].mel) < 1e-4
    assert relative_error(after.samples, before.samples) < 1e-3


def test_a_batch_of_mixed_requests_equals_singles(tts, speaker):
    rng = np.random.default_rng(0)
    other = dataclasses.replace(speaker, features=speaker.features[:40], mel=speaker.mel[:70])
    features = rng.standard_normal((33, speaker.features.shape[1])).astype(np.float32)
    requests = [
        Request("Hello there.", speaker, options=SHORT),
        Request(
            "How are you today?", other, Emotion(features, 0.5), dataclasses.replace(SHORT, seed=5)
        ),
        Request("Hello.", speaker, options=dataclasses.replace(SHORT, greedy=True, steps=2)),
        Request(
            "Hello there, you. " * 3, other, options=dataclasses.replace(SHORT, max_text_tokens=30)
        ),
        Request("Well.", speaker, Emotion(weights=np.eye(8)[1]), SHORT, Duration(tokens=11)),
        Request("Well, well.", other, options=SHORT, duration=Duration(seconds=0.5)),
    ]
    together = tts.synthesize_batch(requests, batch_size=4)
    for request, speech in zip(requests, together, strict=True):
        alone = tts.synthesize_batch([request], batch_size=1)[0]
        for ours, single in zip(speech.segments, alone.segments, strict=True):
            np.testing.assert_array_equal(ours.codes, single.codes)
        assert relative_error(speech.samples, alone.samples) < 1e-3
        streamed = list(tts.stream(request))
        np.testing.assert_array_equal(streamed[-1].samples, alone.segments[-1].samples)


def test_as_many_codes_as_the_model_has_speak_and_one_more_is_refused(tts, speaker):
    most = tts.t2s.cfg.max_codes - 1  # and the stop code: padded, more than the table has rows
    assert programs.bucket(most) > tts.t2s.cfg.code_positions
    requests = [
        Request("Hello.", speaker, options=SHORT, duration=Duration(tokens=tokens))
        for tokens in (most, 9)
    ]
    longest, short = tts.synthesize_batch(requests)
    for speech in (longest, short):
        assert np.isfinite(speech.samples).all() and speech.samples.any()
    assert (longest.report()["codes"], short.report()["codes"]) == (most, 9)
    with pytest.raises(InputError, match=f"would have {most + 1} codes; the model has {most}"):
        tts.synthesize("Hello.", speaker, options=SHORT, duration=Duration(tokens=most + 1))
    with pytest.raises(InputError, match=f"there are {most + 2} codes"):
        tts.speak_codes(Request("Hello.", speaker), np.zeros(most + 2, np.int32))


@pytest.mark.slow
def test_beams_are_the_default_of_a_converted_checkpoint_that_samples(tts, speaker):
    def codes(**options):
        options = Options(max_codes=20, steps=1, seed=3, **options)
        return tts.synthesize("Hello there.", speaker, options=options).segments[0].codes.tolist()

    assert codes() == codes(num_beams=3)
    assert codes(greedy=True) == codes(greedy=True, num_beams=1)
    assert codes() != codes(num_beams=1)


@pytest.mark.slow
def test_the_same_request_may_come_twice(tts, speaker):
    request = Request("Hello.", speaker, options=SHORT)
    first, second = tts.synthesize_batch([request, request])
    np.testing.assert_array_equal(first.samples, second.samples)
    assert len(first.segments) == 1


@pytest.mark.parametrize("factor", [0.5, 1.0, 2.0])
def test_durations_are_exact(tts, speaker, factor):
    options = dataclasses.replace(SHORT, max_text_tokens=30, max_codes=60)
    text = "Hello there, you. " * 3
    tokens = int(40 * factor)
    speech = tts.synthesize(text, speaker, options=options, duration=Duration(tokens=tokens))
    assert sum(len(s.codes) for s in speech.segments) == tokens
    seconds = 0.9 * factor
    for by in ("tokens", "stretch"):
        duration = Duration(seconds=seconds, by=by)
        speech = tts.synthesize(text, speaker, options=options, duration=duration)
        assert abs(speech.duration_s - seconds) <= 256 / 22050
    greedy = dataclasses.replace(options, greedy=True)
    natural = tts.synthesize(text, speaker, options=greedy)
    speech = tts.synthesize(text, speaker, options=options, duration=Duration(speed=1 / factor))
    for ours, free in zip(speech.segments, natural.segments, strict=True):
        assert len(ours.codes) == round(len(free.codes) * factor)


@pytest.mark.slow
def test_the_natural_mode_is_the_plain_model_with_a_duration_vector(tts, speaker, monkeypatch):
    """No mask, no forcing: the same codes as a free run whose duration slots are replaced."""
    duration = Duration(tokens=30, mode="natural")
    got = tts.synthesize("Hello there.", speaker, options=SHORT, duration=duration)
    embed = programs.embed_prefix
    row = tts.settings.decoding.row_offset + 30
    monkeypatch.setattr(
        programs,
        "embed_prefix",
        lambda *args, num_codes, slots, row_offset: embed(
            *args, num_codes=np.full_like(num_codes, row), slots=slots
        ),
    )
    by_hand = tts.synthesize("Hello there.", speaker, options=SHORT)
    np.testing.assert_array_equal(got.segments[0].codes, by_hand.segments[0].codes)


@pytest.mark.slow
def test_the_duration_vector_changes_what_is_said(tts, speaker):
    codes = [
        tts.synthesize(
            "Hello there.",
            speaker,
            options=dataclasses.replace(SHORT, seed=seed),
            duration=duration,
        )
        .segments[0]
        .codes.tolist()
        for duration in (Duration(), Duration(tokens=30, mode="natural"))
        for seed in range(3)
    ]
    assert codes[:3] != codes[3:]


def test_impossible_durations_are_refused(tts, speaker):
    for duration, message in [
        (Duration(tokens=5000), "would have 5000 codes; the model has 160 at most"),
        (Duration(seconds=0.001), "leave no time to speak"),
        (Duration(seconds=1000.0, by="stretch"), "mel frames; that is too long"),
    ]:
        with pytest.raises(InputError, match=message):
            tts.synthesize("Hello.", speaker, options=SHORT, duration=duration)


def test_guidance_is_that_of_the_checkpoint(tts, speaker, monkeypatch):
    def mel(**options):
        options = dataclasses.replace(SHORT, **options)
        return tts.synthesize("Hello.", speaker, options=options).segments[0].mel

    guided, unguided = mel(guidance=0.7), mel(guidance=0.0)
    assert relative_error(guided, unguided) > 1e-2
    np.testing.assert_array_equal(mel(), guided)
    monkeypatch.setattr(tts, "settings", dataclasses.replace(tts.settings, guidance=0.0))
    np.testing.assert_array_equal(mel(), unguided)


def test_a_saved_speaker_speaks_as_the_recording(command, converted, voice, tmp_path):
    speaker = tmp_path / "s.npz"
    assert command("--save-speaker", speaker)[0] == 0
    args = ["--checkpoint", converted, "--speaker", speaker, "--text", "Hello there."]
    args += ["--out", tmp_path / "p.wav", "--max-codes", 20, "--steps", 3, "--beams", 1]
    code = _synthesize(*args)
    assert code == 0
    assert (tmp_path / "o.wav").read_bytes() == (tmp_path / "p.wav").read_bytes()


def test_a_speaker_of_other_encoders_is_refused(tts, speaker, tmp_path):
    dataclasses.replace(speaker, fingerprint="other").save(tmp_path / "s.npz")
    with pytest.raises(InputError, match="made by other encoders"):
        tts.load_speaker(tmp_path / "s.npz")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04junk", None])
def test_a_broken_speaker_file_is_refused(content, tmp_path):
    if content is None:
        np.savez(tmp_path / "s.npz", format=np.int32(99))
    else:
        (tmp_path / "s.npz").write_bytes(content)
    with pytest.raises(InputError, match=r"s\.npz is no speaker file"):
        Speaker.load(tmp_path / "s.npz")


@pytest.mark.slow
def test_silence_stands_between_segments(tts, speaker):
    options = dataclasses.replace(SHORT, max_text_tokens=30, interval_silence_ms=100)
    speech = tts.synthesize("Hello there, you. " * 4, speaker, options=options)
    assert len(speech.segments) > 1
    gap = 2205 * (len(speech.segments) - 1)
    assert len(speech.samples) == gap + sum(len(s.samples) for s in speech.segments)
    first = len(speech.segments[0].samples)
    assert not speech.samples[first : first + 2205].any()


def test_silence_is_added_around_the_speech_and_counts_as_seconds(tts, speaker):
    def speak(**settings):
        duration = Duration(seconds=settings.pop("seconds", None))
        options = dataclasses.replace(SHORT, **settings)
        return tts.synthesize("Hello there.", speaker, options=options, duration=duration)

    plain = speak()
    around = speak(leading_silence_ms=100, trailing_silence_ms=50)
    assert around.starts == (2205,)
    np.testing.assert_array_equal(around.samples, np.pad(plain.samples, (2205, 1102)))
    exact = speak(leading_silence_ms=100, trailing_silence_ms=50, seconds=0.5)
    assert abs(exact.duration_s - 0.5) <= 256 / 22050
    assert not exact.samples[:2205].any() and not exact.samples[-1102:].any()


def test_trimmed_speech_begins_and_ends_where_it_sounds(tts, speaker):
    options = dataclasses.replace(SHORT, trim_silence=True, leading_silence_ms=100, loudness=-30)
    segment = tts.synthesize("Hello there.", speaker, options=options).segments[0]
    quiet = np.concatenate([np.zeros(22050, np.float32), segment.samples])
    speech = join([dataclasses.replace(segment, samples=quiet)], options, 22050, {})
    assert 0.03 < 1 + speech.starts[0] / 22050 - 0.1 < 0.08  # of the silence before the sound
    assert speech.report()["segments"][0]["start_s"] == 0
    assert not speech.samples[:2205].any() and abs(speech.samples[-1]) < 1e-6
    assert speech.report()["loudness"] == -30
    with pytest.raises(InputError, match="exact seconds cannot have its silence trimmed"):
        Request("Hello.", speaker, options=options, duration=Duration(seconds=2))


def test_tails_are_trimmed_where_the_duration_is_free(tts, speaker, monkeypatch):
    monkeypatch.setattr(finish, "trim_tail", lambda mel, frame_rate: mel[:-5])

    def trimmed(duration=Duration(), **settings):
        options = dataclasses.replace(SHORT, **settings)
        speech = tts.synthesize("Hello there.", speaker, options=options, duration=duration)
        segment = speech.segments[0]
        assert len(speech.samples) == 256 * len(segment.mel)
        assert segment.trimmed == speech.report()["segments"][0]["trimmed_frames"]
        return segment.trimmed

    assert trimmed() == 5
    assert trimmed(trim_tail=False) == trimmed(compat=True) == 0
    for duration in (Duration(tokens=15), Duration(seconds=0.4), Duration(speed=1.1)):
        assert trimmed(duration) == 0
    assert trimmed(Duration(speed=1.1, by="stretch")) == 0


def test_the_end_of_a_segment_fades(tts, speaker):
    plain, faded = (
        tts.synthesize("Hello.", speaker, options=dataclasses.replace(SHORT, fade=fade)).samples
        for fade in (False, True)
    )
    np.testing.assert_array_equal(plain[:-441], faded[:-441])
    np.testing.assert_array_equal(finish.fade_out(plain, 22050), faded)
    assert abs(faded[-1]) < 1e-6


def _emotion(tts, speaker, emotion, **options):
    return tts.conditions(Request("x", speaker, emotion, Options(**options)))[1]


def test_alpha_moves_from_the_prompt_to_the_other_recording(tts, speaker):
    rng = np.random.default_rng(0)
    other = rng.standard_normal(speaker.features.shape).astype(np.float32)
    ends = [_emotion(tts, speaker, Emotion(other, alpha)) for alpha in (0.0, 0.25, 1.0)]
    np.testing.assert_allclose(ends[1], 0.75 * ends[0] + 0.25 * ends[2], atol=1e-5)
    assert relative_error(ends[0], ends[2]) > 1e-2


def test_emotion_vectors_are_computed_once(tts, speaker, monkeypatch):
    calls, compute = [], programs.emotion_vector

    def count(*args):
        calls.append(args)
        return compute(*args)

    monkeypatch.setattr(programs, "emotion_vector", count)
    other, seen = speaker.features[::-1], {}

    def computed(emotion, **settings):
        calls.clear()
        tts.conditions(Request("x", speaker, emotion), **settings)
        return len(calls)

    def trace(stage, **arrays):
        seen[stage] = arrays

    assert [computed(Emotion()), computed(Emotion(other))] == [1, 2]
    assert computed(Emotion(), trace=trace) == 2  # that of the timbre, too
    assert seen["conditions"]["other"] is seen["conditions"]["merged"]
    assert computed(Emotion(other, 0.5), trace=trace) == 2
    middle = (seen["conditions"]["base"] + seen["conditions"]["other"]) / 2
    np.testing.assert_allclose(seen["conditions"]["merged"], middle, atol=1e-5)


def test_weights_over_the_limit_are_scaled_unless_raw(tts, speaker):
    weights = np.array([1.0, 0.6, 0, 0, 0, 0, 0, 0])
    scaled = _emotion(tts, speaker, Emotion(weights=weights))
    by_hand = _emotion(tts, speaker, Emotion(weights=weights / 2, raw=True))
    raw = _emotion(tts, speaker, Emotion(weights=weights, raw=True))
    compat = _emotion(tts, speaker, Emotion(weights=weights), compat=True)
    np.testing.assert_allclose(scaled, by_hand, rtol=1e-5)
    np.testing.assert_allclose(raw, compat, rtol=1e-6)
    assert relative_error(scaled, raw) > 1e-2


def test_a_noise_bank_replaces_the_seed(tts, speaker):
    bank = np.random.default_rng(0).standard_normal((1, 80, 600)).astype(np.float32)
    dump = Dump()
    options = Options(num_beams=1, max_codes=20, steps=13, greedy=True)
    tts.synthesize("Hello.", speaker, options=options, noise=bank, trace=dump)
    used = dump.arrays["seg0_cfm_noise"]
    np.testing.assert_array_equal(used, bank[:, :, : used.shape[2]])
    with pytest.raises(InputError, match="noise bank has 10 columns left"):
        tts.synthesize("Hello.", speaker, options=options, noise=bank[:, :, :10])


@pytest.mark.slow
def test_latents_of_decoding_spare_the_second_pass_and_change_nothing(tts, speaker, monkeypatch):
    options = dataclasses.replace(SHORT, positions="plain", greedy=True)

    def arrays():
        dump = Dump()
        tts.synthesize("Hello there.", speaker, options=options, trace=dump)
        return dump.arrays

    second_pass = programs.gpt_latents
    monkeypatch.setattr(programs, "gpt_latents", None)
    spared = arrays()
    monkeypatch.setattr(programs, "gpt_latents", second_pass)
    monkeypatch.setattr(
        "indextts2_jax.pipeline.generate.generate",
        lambda *args, **settings: dataclasses.replace(generate(*args, **settings), latents=None),
    )
    for name, x in arrays().items():
        assert relative_error(spared[name], x) < 1e-4, name


@pytest.mark.slow
@pytest.mark.parametrize("positions", ["plain", "released"])
def test_bfloat16_speaks(converted, speaker, positions):
    speech = IndexTTS2(converted, dtype=jax.numpy.bfloat16).synthesize(
        "Hello.", speaker, options=dataclasses.replace(SHORT, positions=positions)
    )
    assert np.isfinite(speech.samples).all() and speech.samples.any()


def test_without_a_checkpoint_it_babbles_and_says_so(tmp_path, capsys):
    code = _synthesize("--text", "Hello.", "--out", tmp_path / "o.wav", "--max-codes", 15,
                       "--steps", 2)  # fmt: skip
    assert code == 0
    assert "babble" in capsys.readouterr().err
    assert soundfile.info(tmp_path / "o.wav").frames > 0


# Bad input: exit code 2, one line, no output.


@pytest.fixture
def refused(command, capsys, tmp_path):
    def run(*args, **settings):
        before = set(tmp_path.iterdir())
        code, _ = command(*args, **settings)
        lines = capsys.readouterr().err.strip().splitlines()
        assert code == 2
        assert lines[-1].startswith("indextts2: error: ")
        assert "Traceback" not in "".join(lines)
        assert set(tmp_path.iterdir()) == before
        return lines[-1]

    return run


@pytest.mark.parametrize("text", ["", " \n\t"])
def test_empty_text_is_refused(refused, text):
    assert "the text is empty" in refused(text=text)


@pytest.mark.parametrize("text", ["...", "!!!", "-", '""', "。", "♪♪", "😀 ☃", "안녕하세요"])
def test_text_with_nothing_to_say_is_refused(tts, text):
    with pytest.raises(InputError, match="nothing of the text is left to say"):
        tts.segments(text, SHORT)


def test_nothing_to_say_is_one_line_and_compat_says_it_all_the_same(refused, tts):
    assert "nothing of the text is left to say" in refused(text="...")
    assert tts.segments("...", dataclasses.replace(SHORT, compat=True))
    assert tts.segments("5!", SHORT)


def test_text_must_come_once(refused, tmp_path):
    assert "one of --text and --text-file" in refused(text=None)
    assert "cannot read" in refused("--text-file", tmp_path / "none.txt", text=None)


@pytest.mark.parametrize(
    "content, message",
    [
        (None, "no such file"),
        (b"", "cannot be read as audio"),
        (b"RIFF" + bytes(100), "cannot be read as audio"),
        (np.zeros(24000), "silent"),
        (np.ones(4000), "0.167 s long"),
        (np.zeros(0), "no samples"),
    ],
)
@pytest.mark.parametrize("flag", ["--voice", "--emotion-voice"])
def test_unusable_recordings_are_refused(refused, tmp_path, content, message, flag):
    path = tmp_path / "bad.wav"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        soundfile.write(path, content, 24000)
    line = refused(flag, path)
    assert message in line and "bad.wav" in line


@pytest.mark.parametrize(
    "args, message",
    [
        (["--emotion-alpha", "1.5"], "emotion_alpha is 1.5"),
        (["--emotion-alpha", "nan"], "emotion_alpha is nan"),
        (["--emotion-weights", "happy=2"], "want 0 to 1"),
        (["--emotion-weights", "hapy=.2"], "did you mean 'happy'"),
        (["--emotion-weights", ".1 .2"], "got 2 emotion weights, want name=weight or 8 numbers"),
        (["--emotion-weights", "happy=nan"], "want 0 to 1"),
        (["--temperature", "0"], "temperature is 0.0"),
        (["--top-p", "nan"], "top_p is nan"),
        (["--max-codes", "0"], "max_codes is 0"),
        (["--steps", "0"], "steps is 0"),
        (["--seed", "-1"], "seed is -1"),
        (["--leading-silence", "-5"], "leading_silence_ms is -5"),
        (["--trailing-silence", "nan"], "trailing_silence_ms is nan"),
        (["--loudness", "3"], "loudness is 3.0; it must be in -60 .. 0"),
        (["--seconds", "2", "--trim-silence"], "exact seconds cannot have its silence trimmed"),
        (["--checkpoint", "nowhere"], "no checkpoint directory at nowhere"),
        (["--speaker", "nowhere.npz"], "nowhere.npz is no speaker file"),
        (["--noise", "nowhere.npz"], "nowhere.npz is no noise bank"),
        (["--glossary", "nowhere.yaml"], "nowhere.yaml"),
        (["--seconds", "nan"], "seconds is nan"),
        (["--tokens", "0"], "tokens is 0"),
        (["--tokens", "9999"], "would have 9999 codes"),
        (["--speed", "100"], "speed is 100.0"),
        (["--length-factor", "0"], "length factor is 0.0"),
        (["--out", "/"], "is a directory"),
        (["--out", "/dev/null/o.wav"], "not a writable directory"),
    ],
)
def test_bad_settings_are_refused(refused, args, message):
    assert message in refused(*args)


@pytest.mark.parametrize(
    "noise, message",
    [
        (np.zeros((80, 5)), "want float"),
        (np.zeros((1, 80, 5), int), "want float"),
        (np.full((1, 80, 900), np.nan), "NaN"),
        (np.zeros((1, 70, 900)), "want 80 mel bins"),
        (np.zeros((1, 80, 9)), "has 9 columns left"),
    ],
)
def test_broken_noise_banks_are_refused(refused, tmp_path, noise, message):
    np.savez(tmp_path / "n.npz", noise=noise)
    assert message in refused("--noise", tmp_path / "n.npz")


def test_a_damaged_checkpoint_is_refused(refused, converted, tmp_path):
    import shutil

    damaged = shutil.copytree(converted, tmp_path / "damaged")
    shutil.rmtree(damaged / "weights" / "vocoder")
    assert "weights/vocoder is missing" in refused(checkpoint=damaged)
    (damaged / "checkpoint.json").write_text("{")
    assert "checkpoint.json is damaged" in refused(checkpoint=damaged)


def test_unknown_tokens_are_named_and_kept(tts, monkeypatch, caplog):
    monkeypatch.setattr(type(tts.tokenizer()), "unknown", lambda self, pieces: ["☃"])
    assert tts.segments("Hello.", SHORT) == tts.segments("Hello.", SHORT)
    assert "not in the vocabulary: ☃" in caplog.text


def test_speech_that_does_not_end_is_reported(command, capsys):
    assert command("--max-codes", 3)[0] == 0
    warning = "indextts2: warning: segment 1 was cut off after 3 codes (max_codes)\n"
    assert capsys.readouterr().err.count(warning) == 1


def test_an_interruption_exits_with_130(command, monkeypatch, tmp_path):
    def interrupt(*args, **settings):
        raise KeyboardInterrupt

    monkeypatch.setattr(IndexTTS2, "synthesize", interrupt)
    assert command()[0] == 130
    assert not list(tmp_path.iterdir())


# Parity: whole runs of a small release, every intermediate array.


@pytest.fixture(scope="module")
def golden_checkpoint(tmp_path_factory):
    from indextts2_jax.release.convert import convert_release

    path = tmp_path_factory.mktemp("golden") / "checkpoint"
    convert_release(SHARED / "golden/pipeline/release", path)
    return path


@needs_shared
@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["a_english", "b_emo_audio", "c_emo_vector", "d_emo_text", "e_long_segments"]
)
def test_whole_runs_equal_torch(golden_checkpoint, name, tmp_path):
    folder = SHARED / "golden" / "pipeline"
    case = json.loads((folder / "cases" / f"{name}.json").read_text())
    args = [
        *("--checkpoint", golden_checkpoint, "--text", case["text"], "--greedy", "--compat"),
        *("--voice", folder / "cases" / case["spk_audio_prompt"], "--max-codes", 300),
        *("--noise", folder / "cfm_noise_bank.npz", "--out", tmp_path / "o.wav"),
        *("--dump", tmp_path / "d.npz"),
    ]
    if "emo_audio_prompt" in case:
        args += ["--emotion-voice", folder / "cases" / case["emo_audio_prompt"]]
        args += ["--emotion-alpha", case["emo_alpha"]]
    if "emo_text" in case:
        args += ["--emotion-text", case["emo_text"], "--emotion-alpha", case["emo_alpha"]]
    if "emo_vector" in case:
        args += ["--emotion-weights", " ".join(map(str, case["emo_vector"]))]
    if "interval_silence" in case:
        args += ["--interval-silence", case["interval_silence"]]
        args += ["--max-text-tokens", case["max_text_tokens_per_segment"]]
    for key, value in case.get("generation", {}).items():
        args += [f"--{key.replace('_', '-')}", value]
    assert _synthesize(*args) == 0
    ours, golden = np.load(tmp_path / "d.npz"), np.load(folder / "dumps" / f"{name}.npz")
    assert set(golden.files) <= set(ours.files)
    for key in golden.files:
        got, want = ours[key], golden[key]
        assert (got.shape, got.dtype) == (want.shape, want.dtype), key
        if key == "wav_int16_file":
            assert np.abs(got.astype(int) - want).max() <= 4  # 1e-4 of full scale
        elif want.dtype.kind == "i":
            np.testing.assert_array_equal(got, want, err_msg=key)
        else:
            assert relative_error(got, want) < 1e-3, key

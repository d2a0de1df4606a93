"""Speech with word vectors, without GPT latents, and from codes that are given."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from indextts2_jax.cli import main
from indextts2_jax.commands.dump import Dump
from indextts2_jax.errors import InputError
from indextts2_jax.nn import pytree
from indextts2_jax.pipeline import IndexTTS2
from indextts2_jax.request.duration import Duration
from indextts2_jax.request.options import Options, Request
from indextts2_jax.request.words import Words
from indextts2_jax.s2m.text_features import TextFeatures
from tests.common import relative_error

SHORT = Options(max_codes=20, steps=3, num_beams=1)
WIDTH = 3


@pytest.fixture(scope="module")
def speaker(tts, voice):
    return tts.speaker(voice)


@pytest.fixture(scope="module")
def reader(converted, tts):
    """The checkpoint's networks, with an S2M that has learned to read word vectors."""
    out = IndexTTS2(converted)
    out.t2s, out.semantic_codec, out.vocoder = tts.t2s, tts.semantic_codec, tts.vocoder
    s2m = tts.s2m
    features = TextFeatures(
        WIDTH, s2m.cfg.length_regulator.width, rngs=pytree.Keys(jax.random.key(0))
    )
    features.projection.kernel[...] = jnp.ones_like(features.projection.kernel[...])
    out.s2m = pytree.fill(s2m, pytree.params(s2m))
    out.s2m.cfg = dataclasses.replace(s2m.cfg, word_width=WIDTH)
    out.s2m.text_features = features
    return out


def words(count=4, scale=1.0) -> Words:
    vectors = scale * np.random.default_rng(0).standard_normal((count, WIDTH))
    return Words(vectors.astype(np.float16), np.arange(1, count + 1, dtype=np.int32))


@pytest.mark.parametrize("num_frames", [1, 7, 10, 33, 100])
def test_words_are_stretched_to_the_frames(num_frames):
    fitted = words().fit(num_frames)
    assert fitted.frames.sum() == num_frames and fitted.frames.min() >= 0
    want = num_frames * np.arange(1, 5) / 10
    assert np.abs(fitted.frames - want).max() <= 1


@pytest.mark.slow
def test_words_are_added_to_the_conditions_of_their_frames(reader, speaker):
    duration = Duration(seconds=0.4)

    def run(words):
        dump = Dump()
        reader.synthesize(
            "Hello.", speaker, options=SHORT, duration=duration, words=words, trace=dump
        )
        return dump.arrays["seg0_cond"][0]

    given = words()
    without, added = run(None), run(given)
    fitted = given.fit(len(without))
    want = np.repeat(given.vectors.astype(np.float32).sum(axis=1), fitted.frames)
    difference = added - without
    assert relative_error(difference, np.broadcast_to(want[:, None], difference.shape)) < 1e-5


@pytest.mark.slow
def test_a_batch_with_and_without_words_equals_singles(reader, speaker):
    requests = [
        Request("Hello.", speaker, options=SHORT, words=words()),
        Request("Well, well.", speaker, options=SHORT),
    ]
    together = reader.synthesize_batch(requests)
    for request, speech in zip(requests, together, strict=True):
        alone = reader.synthesize_batch([request])[0]
        assert relative_error(speech.samples, alone.samples) < 1e-3


def test_words_that_do_not_fit_are_refused(reader, tts, speaker):
    with pytest.raises(InputError, match="width 3; the checkpoint reads none"):
        tts.synthesize("Hello.", speaker, options=SHORT, words=words())
    wide = Words(np.zeros((2, 5), np.float16), np.ones(2, np.int32))
    with pytest.raises(InputError, match="width 5; the checkpoint reads 3"):
        reader.synthesize("Hello.", speaker, options=SHORT, words=wide)
    short = dataclasses.replace(SHORT, max_text_tokens=8)
    with pytest.raises(InputError, match="of one segment, and the text has"):
        reader.synthesize("Hello there, you. " * 3, speaker, options=short, words=words())


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"vectors": np.zeros((2, 3))}, "is no file of word vectors"),
        ({"vectors": np.zeros((2, 3)), "frames": np.ones(3)}, r"want \[W, E\] and \[W\]"),
        ({"vectors": np.zeros((2, 3)), "frames": np.zeros(2)}, "frames are counts"),
        ({"vectors": np.zeros((2, 3)), "frames": np.array([3, -1])}, "frames are counts"),
    ],
)
def test_broken_files_of_words_are_refused(tmp_path, arrays, message):
    np.savez(tmp_path / "w.npz", **arrays)
    with pytest.raises(InputError, match=message):
        Words.load(tmp_path / "w.npz")


@pytest.mark.slow
def test_the_command_refuses_words_for_a_checkpoint_without_them(
    converted, voice, tmp_path, capsys
):
    np.savez(tmp_path / "w.npz", vectors=np.zeros((2, 3)), frames=np.ones(2))
    args = ["synthesize", "--checkpoint", converted, "--voice", voice, "--text", "Hello."]
    args += ["--out", tmp_path / "o.wav", "--words", tmp_path / "w.npz"]
    assert main([str(x) for x in args]) == 2
    assert "the checkpoint reads none" in capsys.readouterr().err
    assert not (tmp_path / "o.wav").exists()


@pytest.mark.slow
def test_without_latents_s2m_reads_the_codes_alone(tts, speaker):
    def run(**changes):
        dump = Dump()
        options = dataclasses.replace(SHORT, **changes)
        tts.synthesize("Hello.", speaker, options=options, trace=dump)
        return dump.arrays

    with_latents, without = run(), run(latents=False)
    embedded = without["seg0_vq2emb"].swapaxes(1, 2)
    assert relative_error(without["seg0_S_infer"], embedded) < 1e-6
    np.testing.assert_array_equal(with_latents["seg0_codes"], without["seg0_codes"])
    assert relative_error(with_latents["seg0_S_infer"], embedded) > 0.01


def test_codes_of_a_speech_are_spoken_as_they_were(tts, speaker):
    options = dataclasses.replace(SHORT, trim_tail=False)
    request = Request("Hello there.", speaker, options=options)
    spoken = tts.synthesize_batch([request])[0]
    codes = spoken.segments[0].codes
    again = tts.speak_codes(request, codes)
    assert relative_error(again.samples, spoken.samples) < 1e-3
    alone = tts.speak_codes(dataclasses.replace(request, text=""), codes)
    options = dataclasses.replace(options, latents=False)
    without = tts.speak_codes(dataclasses.replace(request, options=options), codes)
    np.testing.assert_array_equal(alone.samples, without.samples)
    longer = tts.speak_codes(request, codes, num_frames=60)
    assert len(longer.segments[0].mel) == 60
    short = dataclasses.replace(options, max_text_tokens=8)
    with pytest.raises(InputError, match="codes are of one segment"):
        tts.speak_codes(Request("Hello there, you. " * 3, speaker, options=short), codes)

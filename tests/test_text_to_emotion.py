"""The generator's answers, the classifier's distributions, and the way from a text to weights."""

import dataclasses
import json
import logging
import shutil

import jax
import numpy as np
import pytest

from indextts2_jax.checkpoint import demo
from indextts2_jax.checkpoint.parts import Settings, save_part
from indextts2_jax.emotion import mixing, qwen3, text_to_emotion
from indextts2_jax.emotion.qwen3 import Qwen3, Qwen3Config
from indextts2_jax.emotion.text_to_emotion import (
    EmotionSet,
    TextToDistribution,
    TextToEmotion,
    chat_tokens,
    distribution_loss,
    emotion_reader,
    parse_emotions,
)
from indextts2_jax.errors import InputError
from indextts2_jax.nn import pytree
from indextts2_jax.pipeline import IndexTTS2
from tests.common import SHARED, needs_shared, relative_error

EIGHT, SEVEN = EmotionSet.indextts2(), EmotionSet.paper()
GENERATOR = dataclasses.replace(Qwen3Config.tiny(), tied_head=False)
CLASSIFIER = dataclasses.replace(Qwen3Config.tiny(), labels=SEVEN.keys[::-1])  # order is data
PIPELINE = SHARED / "golden" / "pipeline"
RELEASE = PIPELINE / "release" / "qwen0.6bemo4-merge"
CHAT_TEMPLATE = (
    "{% for m in messages %}{{ m.role + ' ' + m.content + ' ' }}{% endfor %}"
    "{% if add_generation_prompt %}assistant {% endif %}"
    "{% if enable_thinking is false %}<think></think>{% endif %}"
)


def nonzero(parsed):
    return {name: weight for name, weight in parsed.weights.items() if weight}


@pytest.mark.parametrize(
    ("generated", "source", "want"),
    [
        ('{"高兴": 0.9, "惊讶": 0.1}', "fine", {"happy": 0.9, "surprised": 0.1}),
        ('{"高兴": 1.5, "愤怒": -0.3}', "fine", {"happy": 1.2}),
        ('{"高兴": "0.5", "愤怒": true}', "fine", {"happy": 0.5, "angry": 1.0}),
        ('{"悲伤": 0.7, "低落": 0.2}', "fine", {"sad": 0.7, "melancholic": 0.2}),
        ('{"悲伤": 0.7, "低落": 0.2}', "So DEPRESSED", {"sad": 0.2, "melancholic": 0.7}),
        ('{"悲伤": 0.7}', "他很低落", {"melancholic": 0.7}),
        ('"happy"', "fine", {"happy": 1.0}),
        ('{"emotion": "sad"}', "fine", {"sad": 1.0}),
        ('{"情感": " Surprised "}', "fine", {"surprised": 1.0}),
        ('{"情绪": "恐惧", "高兴": 0.1}', "fine", {"happy": 0.1}),
        ('{"高兴": "愤怒"}', "fine", {"angry": 1.0}),
        ("高兴:0.5, 惊讶:0.3", "fine", {"happy": 0.5, "surprised": 0.3}),
        ('{"高兴": 0.5', "fine", {"happy": 0.5}),
    ],
)
def test_answers_in_every_understood_form(generated, source, want):
    parsed = parse_emotions(generated, source, EIGHT)
    assert nonzero(parsed) == want
    assert tuple(parsed.weights) == EIGHT.names
    assert parsed.fallback is None


@pytest.mark.parametrize(
    ("generated", "source"),
    [
        ("", "fine"),
        ("no numbers here", "fine"),
        ("0.7", "fine"),
        ("[]", "fine"),
        ("null", "gloomy"),
        ('"happy"', "gloomy"),
        ('{"emotion": "sad"}', "gloomy"),
        ('{"unknown": 1.0}', "fine"),
        ('{"高兴": 0.0, "自然": 0.0}', "fine"),
        ('{"高兴": null}', "fine"),
        ('{"高兴": "abc"}', "fine"),
        ('{"高兴": [1]}', "fine"),
        ('{"高兴": 1' + 400 * "0" + "}", "fine"),
        ("[" * 100_000, "fine"),
        ("高兴: 1.2.3", "fine"),
    ],
    ids=lambda value: value[:20],
)
def test_unreadable_answers_are_neutral_and_say_so(generated, source, caplog):
    with caplog.at_level(logging.WARNING):
        parsed = parse_emotions(generated, source, EIGHT)
    assert nonzero(parsed) == {"calm": 1.0}
    assert parsed.fallback
    assert parsed.fallback in caplog.text


def test_the_papers_set_reads_the_papers_example():
    generated = (
        '{"Anger": 0.05, "Happiness": 0.02, "Fear": 0.01, "Disgust": 0.85, "Sadness": 0.04, '
        '"Surprise": 0.02, "Neutral": 0.01}'
    )
    parsed = parse_emotions(generated, "You should no longer be involved in this matter.", SEVEN)
    assert list(parsed.weights.values()) == [0.05, 0.02, 0.01, 0.85, 0.04, 0.02, 0.01]
    assert tuple(parsed.weights) == SEVEN.names
    assert set(SEVEN.names) == set(EIGHT.names) - {"melancholic"}
    assert SEVEN.messages("Hi {x}") == [{"role": "user", "content": "<input>Hi {x}</input>"}]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A checkpoint directory with a tokenizer of one id per character, 57 of them."""
    tokenizers = pytest.importorskip("tokenizers")
    transformers = pytest.importorskip("transformers")
    characters = 'abcdefghijklmnopqrstuvwxyz0123456789 .:{}"文本情感分类高兴愤怒'
    specials = ["<unk>", "<end>", "<think>", "</think>"]
    vocab = {token: i for i, token in enumerate([*specials, *characters])}
    raw = tokenizers.Tokenizer(tokenizers.models.BPE(vocab, [], unk_token="<unk>"))
    raw.add_special_tokens(specials[:2])
    raw.add_tokens(specials[2:])
    raw.decoder = tokenizers.decoders.Fuse()
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=raw, unk_token="<unk>", eos_token="<end>", chat_template=CHAT_TEMPLATE
    )
    directory = tmp_path_factory.mktemp("emotion")
    tokenizer.save_pretrained(directory)
    settings = {"eos_token_id": [1, 0], "do_sample": True, "top_k": 2}
    (directory / "generation_config.json").write_text(json.dumps(settings))
    return directory


def test_a_sentence_becomes_the_chat_that_the_generator_was_trained_on(checkpoint):
    tokenizer = TextToEmotion(None, checkpoint, EIGHT).tokenizer
    chat = tokenizer.decode(chat_tokens(tokenizer, EIGHT, "oh no"))
    assert chat == "system 文本情感分类 user oh no assistant <think></think>"


def test_settings_come_from_the_checkpoint_directory(checkpoint):
    from_directory = TextToEmotion(None, str(checkpoint), EIGHT)
    assert from_directory.eos_ids == (1, 0)
    assert from_directory.sampling.top_k == 2
    from_tokenizer = TextToEmotion(None, from_directory.tokenizer, EIGHT)
    assert from_tokenizer.eos_ids == (1,)
    assert from_tokenizer.sampling is None


def test_thoughts_are_left_out_of_the_answer(checkpoint, monkeypatch):
    to_emotion = TextToEmotion(None, checkpoint, EIGHT)
    written = '<think>{"愤怒": 1}</think>hm</think>{"高兴": 0.5}<end>'
    tokens = to_emotion.tokenizer(written, return_tensors="np")["input_ids"]
    monkeypatch.setattr(text_to_emotion, "generate", lambda *args, **kwargs: tokens)
    assert nonzero(to_emotion("oh")) == {"happy": 0.5}


def random_arrays(cfg):
    return pytree.random_arrays(lambda rngs: Qwen3(cfg, rngs=rngs), seed=0)


@pytest.fixture(scope="module")
def classifier():
    model = pytree.abstract(lambda rngs: Qwen3(CLASSIFIER, rngs=rngs))
    return pytree.fill(model, random_arrays(CLASSIFIER))


def test_distributions_of_a_batch_are_those_of_its_texts_alone(classifier, checkpoint):
    to_emotion = TextToDistribution(classifier, checkpoint, SEVEN)
    texts = ["oh no", "a text that is somewhat longer than the others", "you scared me"]
    got = to_emotion.distribution(texts)
    assert got.shape == (3, 7) and got.dtype == np.float32
    np.testing.assert_allclose(got.sum(axis=1), 1, rtol=1e-6)
    for text, row in zip(texts, got, strict=True):
        assert relative_error(row, to_emotion.distribution([text])[0]) < 1e-5
        assert relative_error(row, list(to_emotion(text).weights.values())) < 1e-5
    assert np.abs(got[0] - got[1]).max() > 0.01  # it does read the text


def test_a_distribution_has_the_order_of_the_emotions_not_of_the_labels(classifier, checkpoint):
    parsed = TextToDistribution(classifier, checkpoint, SEVEN)("oh no")
    assert tuple(parsed.weights) == SEVEN.names
    assert parsed.fallback is None
    tokenizer = text_to_emotion.load_tokenizer(checkpoint)
    prompt = np.array([chat_tokens(tokenizer, SEVEN, "oh no")])
    [logits] = jax.jit(Qwen3.label_logits)(classifier, prompt, np.array([prompt.size]))
    by_label = dict(zip(CLASSIFIER.labels, np.exp(logits) / np.exp(logits).sum(), strict=True))
    want = [by_label[key] for key in SEVEN.keys]
    assert relative_error(list(parsed.weights.values()), want) < 1e-5


def test_the_config_of_the_model_says_which_form_it_has(classifier, checkpoint):
    generator = pytree.abstract(lambda rngs: Qwen3(GENERATOR, rngs=rngs))
    assert isinstance(emotion_reader(classifier, checkpoint, SEVEN), TextToDistribution)
    assert isinstance(emotion_reader(generator, checkpoint, SEVEN), TextToEmotion)
    with pytest.raises(InputError, match=r"text model are Neutral, .*; the emotions are"):
        emotion_reader(classifier, checkpoint, EIGHT)


@pytest.mark.parametrize(
    "labels", [SEVEN.keys[:6], (*SEVEN.keys, "Anger"), (*SEVEN.keys[:6], "Anger")]
)
def test_labels_that_are_not_the_emotions_are_refused(labels):
    with pytest.raises(InputError, match="labels of the text model are Anger, "):
        SEVEN.columns(labels)


def test_labels_tell_which_emotions_a_model_knows():
    assert EmotionSet.of_labels(CLASSIFIER.labels) == SEVEN
    assert EmotionSet.of_labels(SEVEN.names) == SEVEN
    assert EmotionSet.of_labels(EIGHT.keys) == EIGHT
    with pytest.raises(InputError, match="no known set of emotions has the labels LABEL_0, LABEL"):
        EmotionSet.of_labels(("LABEL_0", "LABEL_1"))


def test_the_loss_is_the_papers_cross_entropy():
    rng = np.random.default_rng(0)
    logits, teacher = 5 * rng.normal(size=(4, 7)), rng.dirichlet(np.ones(7), size=4)
    student = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    want = np.mean([-sum(p * np.log(q)) for p, q in zip(teacher, student, strict=True)])
    logits, teacher = logits.astype(np.float32), teacher.astype(np.float32)
    loss, gradient = jax.value_and_grad(distribution_loss)(logits, teacher)
    assert loss.shape == () and loss.dtype == np.float32
    np.testing.assert_allclose(loss, want, rtol=1e-5)
    np.testing.assert_allclose(gradient, (student - teacher) / 4, atol=1e-6)
    certain = distribution_loss(np.float32([[1000, 0]]), np.float32([[1, 0]]))
    assert certain == 0  # neither NaN nor infinite


def with_qwen3(path, tokenizer, emotions, cfg, arrays, prototypes):
    """The demo checkpoint with a text model and `prototypes` per emotion."""
    shutil.copytree(demo.random_checkpoint(), path)
    shutil.copytree(tokenizer, path / "tokenizer" / "qwen3")
    settings = Settings.load(path)
    tables, rng = IndexTTS2(path).tables, np.random.default_rng(0)
    arrays_of_prototypes = {}
    for name in ("emotion_styles", "emotion_vectors"):
        shape = len(emotions.names) * prototypes, tables[name].shape[1]
        arrays_of_prototypes[name] = rng.standard_normal(shape, np.float32)
    shutil.rmtree(path / "weights" / "prototypes")
    dataclasses.replace(
        settings,
        configs={**settings.configs, "qwen3": cfg},
        emotions=emotions,
        emotion_groups=(prototypes,) * len(emotions.names),
        fingerprints={
            **settings.fingerprints,
            "prototypes": save_part(path, "prototypes", arrays_of_prototypes),
            "qwen3": save_part(path, "qwen3", arrays),
        },
    ).save(path)
    return IndexTTS2(path)


def test_a_checkpoint_of_the_papers_form_mixes_mean_prototypes_alone(checkpoint, tmp_path):
    arrays = random_arrays(CLASSIFIER)
    tts = with_qwen3(tmp_path / "paper", checkpoint, SEVEN, CLASSIFIER, arrays, prototypes=5)
    weights = tts.emotion_weights("You scared me to death!")
    assert weights.shape == (7,)
    np.testing.assert_allclose(weights.sum(), 1, rtol=1e-6)
    means = tts.tables["emotion_vectors"].reshape(7, 5, -1).mean(axis=1)
    limited = mixing.normalize_weights(weights, tts.settings.emotions.max_sum)
    other_voice = np.random.default_rng(1).normal(size=192)
    for rows in (tts.prototypes.rows(other_voice), tts.prototypes.random_rows(jax.random.key(1))):
        got = mixing.mix(limited, tts.prototypes, rows, np.full(means.shape[1], 1e3, np.float32))
        np.testing.assert_allclose(got, weights @ means, atol=1e-3)  # base: 1e3 times rounding


def test_prototypes_of_other_emotions_than_the_weights_are_refused():
    settings = Settings.load(demo.random_checkpoint())
    with pytest.raises(InputError, match="prototypes are of 8 emotions, the weights of 7"):
        dataclasses.replace(settings, emotions=SEVEN)


@pytest.fixture(scope="module")
def babbling(checkpoint, tmp_path_factory):
    path = tmp_path_factory.mktemp("babbling") / "checkpoint"
    return with_qwen3(path, checkpoint, EIGHT, GENERATOR, random_arrays(GENERATOR), prototypes=1)


def answer_of(tts, monkeypatch):
    """What the text model writes when it is asked for weights, which must come out neutral."""
    written = []

    def spy(*args, **kwargs):
        written.extend(qwen3.generate(*args, **kwargs))
        return written

    monkeypatch.setattr(text_to_emotion, "generate", spy)
    np.testing.assert_array_equal(tts.emotion_weights("oh no"), [0, 0, 0, 0, 0, 0, 0, 1])
    return written[0]


def test_a_text_model_that_babbles_means_neutral_and_one_warning(babbling, monkeypatch, caplog):
    assert 0 < len(answer_of(babbling, monkeypatch)) <= 256
    [warning] = caplog.messages
    assert warning.startswith("text emotion is calm: no emotion has a score in ")


def test_thoughts_without_end_are_cut_after_256_tokens(babbling, monkeypatch, caplog):
    think = babbling.text_to_emotion.tokenizer.convert_tokens_to_ids("<think>")
    arrays = random_arrays(GENERATOR)
    for name, array in arrays.items():  # every token says <think>
        if name.endswith(("out.kernel", "down.kernel", "head.kernel")):
            array[:] = 0
    arrays["embed.embedding"][:] = 1
    arrays["head.kernel"][:, think] = 1
    endless = pytree.fill(babbling.text_to_emotion.model, arrays)
    monkeypatch.setattr(babbling.text_to_emotion, "model", endless)
    assert answer_of(babbling, monkeypatch).tolist() == [think] * 256
    [warning] = caplog.messages
    assert warning.startswith("text emotion is calm: no emotion has a score in '<think><think>")


def test_a_missing_directory_is_not_looked_up_on_a_hub():
    with pytest.raises(InputError, match="no such tokenizer directory: nowhere/at-all"):
        TextToEmotion(None, "nowhere/at-all", EIGHT)


@needs_shared
def test_the_recorded_answers_parse_as_in_the_original():
    raised = 0
    for case in json.loads((PIPELINE / "emo_mapping.json").read_text())["mapping"]:
        parsed = parse_emotions(case["generated"], case["text"], EIGHT)
        if "error" in case["result"]:
            raised += 1
            assert nonzero(parsed) == {"calm": 1.0}
            assert parsed.fallback, case
        else:
            assert parsed.weights == case["result"], case
    assert raised == 16


@needs_shared
def test_the_recorded_prompts_have_the_same_tokens():
    to_emotion = TextToEmotion(None, RELEASE, EIGHT)
    assert to_emotion.eos_ids == (632, 633)
    for case in json.loads((PIPELINE / "emo_mapping.json").read_text())["prompts"]:
        assert chat_tokens(to_emotion.tokenizer, EIGHT, case["text"]) == case["ids"]
    dump = json.loads((PIPELINE / "dumps" / "d_emo_text.json").read_text())
    prompt = chat_tokens(to_emotion.tokenizer, EIGHT, dump["case"]["emo_text"])
    assert prompt == dump["qwen_input_ids"]
    answer = to_emotion.answer(dump["qwen_output_ids"])
    assert answer == dump["qwen_output_text"]
    parsed = parse_emotions(answer, dump["case"]["emo_text"], EIGHT)
    assert parsed.weights == dump["emo_dict"]

"""The generator's answers, its chat, and the path from a sentence to weights."""

import json
import logging

import pytest
from flax import nnx

from indextts2_jax.emotion import text_to_emotion
from indextts2_jax.emotion.qwen3 import Qwen3, Qwen3Config
from indextts2_jax.emotion.text_to_emotion import EmotionSet, TextToEmotion, parse_emotions
from indextts2_jax.errors import InputError
from tests.common import SHARED, needs_shared

EIGHT, SEVEN = EmotionSet.indextts2(), EmotionSet.paper()
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
    to_emotion = TextToEmotion(None, checkpoint, EIGHT)
    chat = to_emotion.tokenizer.decode(to_emotion.prompt("oh no"))
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


def test_an_untrained_model_gives_some_emotion(checkpoint, monkeypatch):
    monkeypatch.setattr(text_to_emotion, "MAX_NEW_TOKENS", 4)
    model = Qwen3(Qwen3Config.tiny(), rngs=nnx.Rngs(0))
    parsed = TextToEmotion(model, checkpoint, EIGHT)("oh no")
    assert sum(parsed.weights.values()) > 0


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
        assert to_emotion.prompt(case["text"]) == case["ids"]
    dump = json.loads((PIPELINE / "dumps" / "d_emo_text.json").read_text())
    assert to_emotion.prompt(dump["case"]["emo_text"]) == dump["qwen_input_ids"]
    answer = to_emotion.answer(dump["qwen_output_ids"])
    assert answer == dump["qwen_output_text"]
    parsed = parse_emotions(answer, dump["case"]["emo_text"], EIGHT)
    assert parsed.weights == dump["emo_dict"]

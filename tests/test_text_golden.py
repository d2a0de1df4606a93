"""The text front end in compat mode against recordings of the original and of its engine."""

import itertools
import json
import re

import pytest

from indextts2_jax.text import Normalizer, Tokenizer, pinyin, split_segments
from indextts2_jax.text.language import whole_language
from tests.common import SHARED, needs_shared

pytestmark = needs_shared

PIPELINE = SHARED / "golden" / "pipeline"
PLACEHOLDER = re.compile("<n_[a-z]>|<pinyin_[a-z]>|PRONPLACEHOLDER[a-z]PRONPLACEHOLDER")


@pytest.fixture(scope="module")
def golden():
    return json.loads((PIPELINE / "textfront.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer(PIPELINE / "release" / "bpe.model", compat=True)


class RecordedEngine:
    """Answers as the original's engine did; the letters of its placeholders came from a set."""

    def __init__(self, pairs):
        self.pairs = pairs

    def __call__(self, language, text):
        [(recorded_language, recorded, answer)] = self.pairs
        assert language == recorded_language
        assert PLACEHOLDER.split(text) == PLACEHOLDER.split(recorded)
        ours, theirs = PLACEHOLDER.findall(text), PLACEHOLDER.findall(recorded)
        renamed = dict(zip(theirs, ours, strict=True))
        return PLACEHOLDER.sub(lambda m: renamed[m[0]], answer)


def test_normalized_text_tokens_and_ids_equal_the_original(golden, tokenizer):
    for case in golden["cases"]:
        text = case["text"]
        normalized = Normalizer(RecordedEngine(case["wfst"]), compat=True)(text)
        assert normalized == case["normalized"], text
        # The original gives a text of one character to its tokenizer as it is.
        pieces = tokenizer.encode(text if len(text.strip()) == 1 else normalized)
        assert pieces == case["tokens"], text
        assert tokenizer.ids(pieces) == case["ids"], text


def test_segments_equal_the_original(golden):
    for case in golden["cases"]:
        for limit in (120, 80, 40, 20, 5):
            got = split_segments(case["tokens"], limit, compat=True)
            assert [len(segment) for segment in got] == case["segments"][str(limit)], case["text"]
            if recorded := case["segments"].get(f"{limit}_tokens"):
                assert got == recorded
            else:
                assert list(itertools.chain(*got)) == case["tokens"]


def test_whole_language_equals_the_original(golden):
    for case in golden["cases"]:
        assert (whole_language(case["text"]) == "zh") == case["use_chinese"], case["text"]


def test_glossary_equals_the_original(golden):
    def engine(language, text):
        return text.replace("4.0", "four point oh")

    normalizer = Normalizer(engine, golden["glossary"], compat=True)
    for case in golden["glossary_cases"]:
        assert normalizer(case["text"]) == case["normalized"]


def test_every_pinyin_piece_of_the_vocabulary_can_be_written(tokenizer):
    syllables = [syllable + tone for syllable in pinyin.SYLLABLES for tone in "12345"]
    spelled = {pinyin.spell(syllable) for syllable in syllables}
    unknown = set(tokenizer.unknown(sorted(spelled)))
    assert len(spelled - unknown) == 1728

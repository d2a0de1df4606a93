import itertools
import json

import pytest

from indextts2_jax.errors import InputError
from indextts2_jax.text import Tokenizer
from train import tokenizer

ENGLISH = ["The quick brown fox jumps over the lazy dog.", "Hello there, how are you today?"]
CHINESE = ["你好，世界！", "他说晕XVAN4是一个词。", "hello 世界"]


@pytest.fixture(scope="module")
def chinese(tmp_path_factory):
    path = tmp_path_factory.mktemp("bpe") / "bpe.model"
    path.write_bytes(tokenizer.train([*ENGLISH, *CHINESE] * 3, 2450))
    return Tokenizer(path)


def test_the_layout_is_the_releases(chinese):
    assert chinese.ids(["<s>", "</s>", "<unk>"]) == [0, 1, 2]
    assert chinese.vocab_size == 2450


def test_pinyin_is_one_piece_where_there_is_chinese(chinese, tmp_path):
    assert {"XVAN4", "JV4", "LV3", "YUAN2"} <= set(chinese.encode("XVAN4 JV4晕LV3，YUAN2"))
    (tmp_path / "en.model").write_bytes(tokenizer.train(ENGLISH, 330))
    assert "XVAN4" not in Tokenizer(tmp_path / "en.model").encode("XVAN4")


@pytest.mark.parametrize("text", [*ENGLISH, *CHINESE, " a  b ", "你"])
def test_training_texts_are_spelled_as_the_tokenizer_spells_them(chinese, text):
    assert chinese._model.encode(tokenizer.spell(text), out_type=str) == chinese.encode(text)


def test_coverage_tells_what_has_no_piece(tmp_path):
    model = tokenizer.train(ENGLISH, 100, byte_fallback=False)
    (tmp_path / "bpe.model").write_bytes(model)
    report = tokenizer.coverage(Tokenizer(tmp_path / "bpe.model"), ["HELLO ÉÉ é ß"])
    assert report["most_frequent_of_these"] == "É"
    assert report["share_unknown"] > 0
    assert report["texts"] == 1


def test_what_the_texts_cannot_fill_is_refused():
    with pytest.raises(InputError, match="5000 pieces: Vocabulary size too high"):
        tokenizer.train(ENGLISH, 5000)
    with pytest.raises(InputError, match="10 pieces: Vocabulary size is smaller"):
        tokenizer.train(ENGLISH, 10, byte_fallback=False)


@pytest.mark.parametrize("workers", [0, 1])
def test_texts_are_streamed(monkeypatch, workers):
    monkeypatch.setattr(tokenizer, "_AT_ONCE", 3)
    endless = itertools.cycle(["", *ENGLISH])
    texts = tokenizer.normalized(endless, workers)
    assert list(itertools.islice(texts, 9)) == list(itertools.islice(texts, 1, 10))
    texts.close()


def test_a_sample_is_the_same_each_time(tmp_path):
    with open(tmp_path / "texts", "w+b") as file:
        texts = tokenizer.Texts(map(str, range(100)), file)
        sample = texts.sample(10)
        assert len(set(sample)) == 10
        assert sample == texts.sample(10) != list(texts)[:10]
        assert texts.sample(100) == list(texts)


def test_the_command_trains_on_corpora_and_text_files(tmp_path, capsys):
    (tmp_path / "texts.txt").write_text("\n".join([*ENGLISH, "", "Room 101."]))
    rows = [{"audio": "a.wav", "text": text, "speaker": "ann", "mos": 4} for text in ENGLISH]
    (tmp_path / "list.jsonl").write_text("\n".join(map(json.dumps, rows)))
    out = tmp_path / "out" / "bpe.model"
    sources = [str(tmp_path / "texts.txt"), str(tmp_path / "list.jsonl")]
    command = ["--src", *sources, "--ignore", "mos", "--out", str(out), "--size", "330"]
    assert tokenizer.main(command) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["texts"], report["pieces"]) == (5, 330)
    pieces = Tokenizer(out).encode("one hundred and one")  # numbers are learned as they are spoken
    assert len(pieces) < 16
    assert tokenizer.main(command) == 2
    assert "exists already" in capsys.readouterr().err

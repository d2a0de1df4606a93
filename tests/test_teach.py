"""A corpus of teacher voices: what is read aloud, by whom, and going on after a kill."""

import json
import pathlib
import random
import sys
import types

import numpy as np
import pytest
import soundfile

from indextts2_jax.errors import InputError
from train import teach
from train.corpus import corpora, sentences, teachers

TEXTS = [f"This is the sentence number {word}." for word in ["one", "two", "three", "four", "five"]]
VOICES = ("af_one", "af_two", "bm_three")


class Whistle:
    """A teacher that whistles as long as the text is."""

    sample_rate, voices = 24_000, VOICES

    def __init__(self, stop_after: int = 1000):
        self.left = stop_after

    def speak(self, text, voice, speed, seed):
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        return np.sin(np.arange(int(len(text) * 1200 / speed)) / 9).astype(np.float32)


@pytest.fixture
def word_list(monkeypatch, tmp_path):
    module = types.ModuleType("better_profanity")
    module.__file__ = str(tmp_path / "words" / "__init__.py")
    (tmp_path / "words").mkdir()
    (tmp_path / "words" / "profanity_wordlist.txt").write_text("blast\nblazes\n")
    monkeypatch.setitem(sys.modules, "better_profanity", module)


def recipe(**changes):
    return teach.Recipe(VOICES, TEXTS, **({"crossed": True} | changes))


def test_a_stopped_run_goes_on_to_the_same_corpus(tmp_path):
    teach.teach(Whistle(), recipe(), tmp_path / "whole", 0.01, (0, 1))
    with pytest.raises(KeyboardInterrupt):
        teach.teach(Whistle(3), recipe(), tmp_path / "cut", 0.01, (0, 1))
    with open(tmp_path / "cut" / "manifest.jsonl", "a") as file:
        file.write('{"audio": "half a li')
    teach.teach(Whistle(), recipe(), tmp_path / "cut", 0.01, (0, 1))
    texts = [(tmp_path / name / "manifest.jsonl").read_text() for name in ("whole", "cut")]
    assert texts[0] == texts[1]
    with pytest.raises(InputError, match="use another --out"):
        teach.teach(Whistle(), recipe(seed=1), tmp_path / "cut", 0.02, (0, 1))


def test_rows_are_a_corpus_that_prepare_reads(tmp_path):
    hours = teach.teach(Whistle(), recipe(), tmp_path, 0.01, (0, 1))
    ignored = ("style", "speed", "seconds")
    layout, rows = corpora.read_corpus(tmp_path / "manifest.jsonl", ignored=ignored)
    rows = list(rows)
    lines = [json.loads(line) for line in (tmp_path / "manifest.jsonl").read_text().splitlines()]
    assert layout == "manifest" and hours >= 0.01
    assert [row.text for row in rows] == [line["text"] for line in lines]
    seconds = [soundfile.info(row.audio).duration for row in rows]
    np.testing.assert_allclose(seconds, [line["seconds"] for line in lines], atol=0.02)


def test_workers_share_the_lines(tmp_path):
    for worker in range(2):
        teach.teach(Whistle(), recipe(), tmp_path / str(worker), 0.005, (worker, 2))
    texts = [(tmp_path / worker / "manifest.jsonl").read_text() for worker in "01"]
    ids = [[json.loads(line)["id"] for line in text.splitlines()] for text in texts]
    assert all(int(i) % 2 == worker for worker in range(2) for i in ids[worker])


def test_lines_cross_timbre_and_prosody_and_repeat_no_text_early():
    lines = [recipe().line(number) for number in range(300)]
    kinds = [sum(mark in line.voice for line in lines) for mark in "+/"]
    assert all(70 < kind < 130 for kind in kinds)
    assert all(0.75 <= line.speed <= 1.3 for line in lines)
    plain = teach.Recipe(VOICES, TEXTS, crossed=False)
    spoken = [plain.line(n).text for n in range(5)]
    read = [text for text in spoken if text in TEXTS]
    assert len(set(read)) == len(read)
    assert {line.voice for line in map(plain.line, range(50))} == set(VOICES)


def test_templates_are_sentences_of_every_length():
    texts = {sentences.template(random.Random(seed)) for seed in range(400)}
    assert {1, 2} <= {len(text.split()) for text in texts}
    assert all(text[-1] in ".?!" and text[0].isupper() and "{" not in text for text in texts)


def test_sentences_are_filtered(tmp_path, word_list):
    file = tmp_path / "texts.txt"
    lines = [
        "A good one.",
        "a good  one",
        "Oh blast it.",
        "Held out.",
        "Caf\u00e9.",
        "",
        "#3",
        "So.",
    ]
    file.write_text("\n".join(lines), encoding="utf-8")
    assert sentences.read([file], ["held OUT"]) == ["A good one.", "So."]
    with pytest.raises(InputError, match="no sentence"):
        sentences.read([file], ["a good one", "so", "held out"])


def test_command_says_in_one_line_what_is_wrong(tmp_path, word_list, capsys):
    texts = tmp_path / "texts.txt"
    texts.write_text("Hello there.\n")
    common = ["--texts", str(texts), "--out", str(tmp_path / "out")]

    def refused(*arguments):
        assert teach.main([*common, *arguments]) == 2
        return capsys.readouterr().err

    assert "--hours" in refused("--teacher", "hibari", "--hours", "0")
    assert "npm pack" in refused("--teacher", "kokoro", "--hours", "1")
    held = str(tmp_path / "missing.json")
    assert "missing.json" in refused("--teacher", "hibari", "--hours", "1", "--held-out", held)


@pytest.mark.parametrize("text", ["2/2", "0", "x/1", "1/0"])
def test_a_worker_is_one_of_several(text):
    with pytest.raises(InputError, match="I/N"):
        teach._worker(text)


def test_styles_of_voices_mix_and_cross(tmp_path):
    rng = np.random.default_rng(0)
    tables = {name: rng.standard_normal((4, 256)).astype("<f4") for name in ("a", "b")}
    kokoro = object.__new__(teachers.Kokoro)
    kokoro._files = {name: pathlib.Path(tmp_path / f"{name}.bin") for name in tables}
    for name, table in tables.items():
        table.tofile(kokoro._files[name])
    np.testing.assert_array_equal(kokoro.style("a"), tables["a"])
    mixed = kokoro.style("a:0.6+b:0.4")
    np.testing.assert_allclose(mixed, 0.6 * tables["a"] + 0.4 * tables["b"], rtol=1e-5, atol=1e-6)
    crossed = kokoro.style("a/b")
    np.testing.assert_array_equal(crossed[:, :128], tables["a"][:, :128])
    np.testing.assert_array_equal(crossed[:, 128:], tables["b"][:, 128:])
    with pytest.raises(InputError, match="no voice 'c'"):
        kokoro.style("a+c")

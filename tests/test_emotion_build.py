"""The builder of the emotion model's sentences: templates, and a teacher on 127.0.0.1."""

import http.server
import itertools
import json
import re
import threading

import numpy as np
import pytest

from indextts2_jax.emotion.text_to_emotion import EmotionSet
from train import emotion_build
from train.corpus import emotion_sentences
from train.corpus.emotion_sentences import DEGREES, KEYS, THINGS, UTTERANCES, soft_label
from train.corpus.emotion_teacher import split_of
from train.emotion_data import load

SEVEN = EmotionSet.paper()


@pytest.fixture(scope="module")
def lines():
    return emotion_sentences.sentences(3000, ("en", "zh"), 0)


def test_templates_give_thousands_of_sound_sentences_of_every_kind(lines, tmp_path):
    out = tmp_path / "new" / "sentences.jsonl"
    assert emotion_build.main(["templates", "--out", str(out), "--count", "3000"]) == 0
    sentences = load(out, SEVEN)  # without errors
    assert [json.loads(line) for line in out.read_text().splitlines()] == lines
    assert len(sentences) > 2900
    for emotion, kind, lang, split in itertools.product(
        KEYS, ("script", "descriptive"), ("en", "zh"), ("train", "valid", "test")
    ):
        found = [
            s
            for s in sentences
            if (s.emotion, s.type, s.lang, s.split) == (emotion, kind, lang, split)
        ]
        assert len(found) >= (80 if split == "train" else 4)
        assert {KEYS[s.distribution.argmax()] for s in found} == {emotion}


def test_templates_replace_nothing(tmp_path, capsys):
    out = tmp_path / "sentences.jsonl"
    out.write_text("mine")
    assert emotion_build.main(["templates", "--out", str(out)]) == 2
    assert "exists already" in capsys.readouterr().err
    assert out.read_text() == "mine"


def test_a_seed_decides_on_the_sentences(lines):
    assert emotion_sentences.sentences(3000, ("en", "zh"), 0) == lines
    other = emotion_sentences.sentences(3000, ("en", "zh"), 1)
    assert len({x["text"] for x in other} & {x["text"] for x in lines}) < len(lines) / 2


def template_of(line):
    """The template of an English utterance, exclamation left out."""
    for template in (*UTTERANCES["en"][line["emotion"]], *UTTERANCES["en"]["Neutral"]):
        body = re.escape(template).replace(r"\{t\}", "[a-z]+")
        if re.search(f"{body}$", line["text"], re.IGNORECASE):
            return template
    raise AssertionError(line["text"])


def test_held_out_sentences_have_new_templates_and_those_of_the_test_new_words(lines):
    english = [x for x in lines if x["lang"] == "en"]
    templates = {"train": set(), "valid": set(), "test": set()}
    for line in english:
        if line["type"] == "script":
            templates[line["split"]].add(template_of(line))
    for a, b in itertools.combinations(templates.values(), 2):
        assert a and b and not a & b

    def words(split):
        text = " ".join(x["text"] for x in english if x["split"] == split)
        things = {t for t in THINGS["en"] if re.search(rf"\b{t}\b", text)}
        listed = emotion_sentences.WORDS["en"]["Anger"].values()
        return things | {w for ws in listed for w in ws.split() if re.search(rf"\b{w}\b", text)}

    assert len(words("test")) >= 8
    assert not words("train") & words("test")
    assert words("valid") <= words("train")


@pytest.mark.parametrize("emotion", KEYS)
def test_soft_labels_are_hundredths_that_sum_to_1(emotion):
    factors = {f for degrees in DEGREES.values() for f in degrees.values()}
    for share, factor in itertools.product((0.65, 0.8, 0.9), factors):
        label = soft_label(emotion, share, factor)
        values = np.array(list(label.values()))
        assert tuple(label) == KEYS
        np.testing.assert_allclose(values * 100, (values * 100).round(), atol=1e-9)
        np.testing.assert_allclose(values.sum(), 1)
        assert max(label, key=lambda key: label[key]) == emotion
    plain, hedged = soft_label("Anger", 0.8), soft_label("Anger", 0.8, 0.75)
    assert hedged["Neutral"] > plain["Neutral"] and hedged["Anger"] < plain["Anger"]


class Server(http.server.ThreadingHTTPServer):
    """An endpoint that answers by what it is told.

    Attributes:
      answers: what it says before it is well, each (status, content).
      questions: what it was asked.
    """

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers, self.questions, self.headers = [], [], []
        self.lock, self.number = threading.Lock(), 0

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/v1"

    def answer(self, question):
        with self.lock:
            self.questions.append(question)
            if self.answers:
                return self.answers.pop(0)
            self.number += 1
            if "JSON object alone" in question:
                emotion = re.search("Sentence: about ([A-Za-z]+)", question)[1]
                label = {k: 0.7 if k == emotion else 0.05 for k in reversed(KEYS)}
                return 200, f"<think>[hm]</think>```json\n{json.dumps(label)}\n```"
            emotion = re.search("emotion: ([A-Za-z]+)", question)[1]
            texts = [f"about {emotion} {self.number} {i}" for i in range(4)]
            return 200, json.dumps({"sentences": [*texts, "x" * 60]})


class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.headers.append(dict(self.headers))
        assert self.path == "/v1/chat/completions" and body["model"] == "teacher-1"
        status, content = self.server.answer(body["messages"][0]["content"])
        reply = {"choices": [{"message": {"role": "assistant", "content": content}}]}
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(reply).encode())

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        monkeypatch.setenv("OPENAI_MODEL", "teacher-1")
        monkeypatch.setenv("OPENAI_API_KEY", "secret")
        monkeypatch.setattr("train.corpus.emotion_teacher.time.sleep", lambda _: None)
        yield server
        server.shutdown()
        thread.join()


def build(out, *args):
    return emotion_build.main(["teacher", "--out", str(out), "--lang", "en", *args])


def test_a_teacher_writes_and_weighs_sentences_of_every_kind(server, tmp_path):
    out = tmp_path / "new" / "sentences.jsonl"
    assert build(out, "--count", "70", "--answers", "2") == 0
    sentences = load(out, SEVEN)
    assert len(sentences) == 70
    for emotion, kind in itertools.product(KEYS, ("script", "descriptive")):
        found = [s for s in sentences if (s.emotion, s.type) == (emotion, kind)]
        assert len(found) == 5
        for s in found:
            assert (s.teacher, s.split) == ("teacher-1", split_of(s.text))
            assert SEVEN.keys[s.distribution.argmax()] == emotion
    assert sum("JSON object alone" in question for question in server.questions) == 140
    assert {headers["Authorization"] for headers in server.headers} == {"Bearer secret"}


def test_the_same_command_goes_on_where_it_was_killed(server, tmp_path):
    out = tmp_path / "sentences.jsonl"
    assert build(out, "--count", "14") == 0
    whole = out.read_text()
    out.write_text(whole + whole[:50])  # killed while it wrote a line
    asked = len(server.questions)
    assert build(out, "--count", "28") == 0
    assert out.read_text().startswith(whole)
    sentences = load(out, SEVEN)
    assert len(sentences) == 28
    assert sum("JSON object alone" in q for q in server.questions[asked:]) == 14
    asked = len(server.questions)
    assert build(out, "--count", "28") == 0  # nothing is missing
    assert len(server.questions) == asked


def test_busy_servers_and_unreadable_answers_are_asked_again(server, tmp_path):
    server.answers = [
        (503, ""),
        (429, ""),
        (200, "I cannot do that."),
        (200, '{"sentences": "one"}'),
        (200, '{"Anger": 1.0}'),
    ]
    out = tmp_path / "sentences.jsonl"
    assert build(out, "--count", "14", "--workers", "1") == 0
    assert len(load(out, SEVEN)) == 14
    assert len(server.questions) == 14 + 14 + 5


def test_a_refusal_is_one_line_without_the_key_and_keeps_what_is_there(server, tmp_path, capsys):
    out = tmp_path / "sentences.jsonl"
    assert build(out, "--count", "14") == 0
    before = out.read_text()
    server.answers = [(401, "")] * 100
    assert build(out, "--count", "28") == 2
    error = capsys.readouterr().err.strip()
    assert error == f"error: {server.url}: HTTP 401 Unauthorized"
    assert out.read_text() == before


def test_a_sentence_that_is_never_weighed_is_left_out(server, tmp_path):
    out = tmp_path / "sentences.jsonl"
    written = [(200, json.dumps({"sentences": [f"about {key} {kind}"]})) for kind in "ab"
               for key in SEVEN.keys]  # fmt: skip
    server.answers = [*written, *[(200, '{"Anger": 2}')] * 6]
    assert build(out, "--count", "14", "--workers", "1") == 0
    texts = [s.text for s in load(out, SEVEN)]
    assert len(texts) == 14
    assert "about Anger a" not in texts and "about Happiness a" in texts


def test_a_teacher_with_nothing_new_to_say_comes_to_an_end(server, tmp_path):
    server.answers = [(200, '{"sentences": []}')] * 1000
    out = tmp_path / "sentences.jsonl"
    assert build(out, "--count", "14") == 0
    assert out.read_text() == ""


def test_a_teacher_has_to_be_named(monkeypatch, tmp_path, capsys):
    for name in ("OPENAI_BASE_URL", "OPENAI_MODEL", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    assert build(tmp_path / "x") == 2
    assert "set OPENAI_BASE_URL and OPENAI_MODEL" in capsys.readouterr().err
    assert build(tmp_path / "x", "--url", "ftp://host", "--model", "m") == 2
    assert "want http(s)" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()

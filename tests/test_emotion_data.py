"""The checker of the teacher's sentences and distributions."""

import json

import numpy as np
import pytest

from indextts2_jax.emotion.text_to_emotion import EmotionSet
from indextts2_jax.errors import InputError
from train.emotion_data import check, load, main

SEVEN = EmotionSet.paper()
DISGUST = dict(zip(SEVEN.keys, (0.05, 0.02, 0.01, 0.85, 0.04, 0.02, 0.01), strict=True))
LINE = {
    "id": "a",
    "type": "script",
    "lang": "en",
    "text": "You should no longer be involved in this matter.",
    "emotion": "Disgust",
    "distribution": DISGUST,
    "teacher": "somebody",
    "split": "train",
}
OTHER = {**LINE, "id": "b", "text": "我真的非常非常高兴！", "lang": "zh", "split": "test"}


def checked(*lines):
    return check([x if isinstance(x, str) else json.dumps(x) for x in lines], SEVEN)


def test_good_lines_are_read_in_the_order_of_the_emotions():
    backwards = {**LINE, "distribution": dict(reversed(DISGUST.items()))}
    got = checked(backwards, "", OTHER, " ")
    assert (got.errors, got.notes) == ((), ())
    assert [s.id for s in got.sentences] == ["a", "b"]
    np.testing.assert_allclose(got.sentences[0].distribution, list(DISGUST.values()), rtol=1e-12)


@pytest.mark.parametrize("anger", [0.04, 0.06])
def test_a_sum_that_rounding_has_moved_becomes_one(anger):
    got = checked({**LINE, "distribution": {**DISGUST, "Anger": anger}})
    assert got.errors == ()
    np.testing.assert_allclose(got.sentences[0].distribution.sum(), 1, rtol=1e-12)


def without(key, values=LINE):
    return {k: v for k, v in values.items() if k != key}


def probability(key, value):
    return {**LINE, "distribution": {**DISGUST, key: value}}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "Expecting property name"),
        ("[" * 100_000, "recursion"),
        ("[]", "no JSON object"),
        (json.dumps(LINE)[:-1] + ', "id": "c"}', "id given twice"),
        (without("teacher"), "keys: missing teacher"),
        ({**LINE, "mood": 1}, "keys: unknown mood"),
        ({**without("lang"), "language": "en"}, "keys: missing lang; unknown language"),
        ({**LINE, "id": 3}, "id is 3, want a text"),
        ({**LINE, "teacher": " "}, "teacher is ' ', want a text"),
        ({**LINE, "type": "poem"}, "type is 'poem', want one of descriptive, script"),
        ({**LINE, "lang": "fr"}, "lang is 'fr', want one of en, zh"),
        ({**LINE, "split": "dev"}, "split is 'dev', want one of train, valid, test"),
        ({**LINE, "emotion": "disgust"}, "emotion is 'disgust', want one of Anger, "),
        ({**LINE, "text": ""}, "text is '', want a text"),
        ({**LINE, "text": "x" * 51}, "51 characters, want 50 at most"),
        ({**LINE, "distribution": [1]}, "distribution is [1], want an object"),
        (
            {**LINE, "distribution": without("Fear", DISGUST)},
            "emotions of the distribution: missing Fear",
        ),
        (probability("Calm", 0.0), "emotions of the distribution: unknown Calm"),
        (probability("Fear", -0.01), "probability of Fear is -0.01, want 0 to 1"),
        (probability("Fear", float("nan")), "probability of Fear is nan, want 0 to 1"),
        (probability("Fear", "0.01"), "probability of Fear is '0.01', want 0 to 1"),
        (probability("Fear", False), "probability of Fear is False, want 0 to 1"),
        (probability("Anger", 0.07), "the probabilities sum to 1.02, want 1 to 0.011"),
        (probability("Anger", 0.03), "the probabilities sum to 0.98, want 1 to 0.011"),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)
def test_what_is_wrong_with_a_line_is_said_with_its_number(line, message):
    got = checked(OTHER, line)
    [error] = got.errors
    assert error.startswith("line 2: ")
    assert message in error
    assert [s.id for s in got.sentences] == ["b"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"id": "a", "text": "Hm."}, "line 3: the id 'a' of line 1"),
        ({"id": "c"}, "line 3: the text of line 1"),
        (
            {"id": "c", "text": " you SHOULD no  longer be involved in this matter."},
            "line 3: the text of line 1",
        ),
        ({"id": "c", "split": "test"}, "line 3: the text of line 1, which is in another split, tr"),
    ],
    ids=["id", "text", "folded text", "two splits"],
)
def test_ids_and_texts_occur_once(change, message):
    [error] = checked(LINE, OTHER, {**LINE, **change}).errors
    assert error.startswith(message)


def test_an_emotion_that_is_not_the_likeliest_is_noted():
    got = checked({**LINE, "emotion": "Anger"})
    assert got.errors == () and len(got.sentences) == 1
    assert got.notes == ("line 1: Disgust is likelier than Anger",)
    equal = {**DISGUST, "Anger": 0.45, "Disgust": 0.45}
    assert checked({**LINE, "emotion": "Anger", "distribution": equal}).notes == ()


def test_the_command_reports_and_refuses(tmp_path, capsys):
    good, bad = tmp_path / "good.jsonl", tmp_path / "bad.jsonl"
    lines = f"{json.dumps(LINE)}\n{json.dumps(OTHER, ensure_ascii=False)}\n"
    good.write_text(lines, encoding="utf-8-sig")
    assert main([str(good)]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[4].split() == ["Disgust", "1", "0", "1"]
    assert out[8:] == [
        "type: script 2",
        "lang: en 1, zh 1",
        "teacher: somebody 2",
        "0 notes",
        "0 errors",
        "2 sentences can be used",
    ]
    bad.write_text("{}\n" * 25)
    assert main([str(bad)]) == 2
    assert "25 errors\n  line 1: keys: missing id, type" in (out := capsys.readouterr().out)
    assert "  ... and 5 more\n0 sentences can be used" in out
    assert main([str(tmp_path / "none")]) == 2
    assert capsys.readouterr().err.startswith(f"error: cannot read {tmp_path / 'none'}: ")


def test_a_trainer_gets_a_file_without_errors_or_none(tmp_path):
    path = tmp_path / "data.jsonl"
    path.write_text(json.dumps(LINE))
    assert [s.text for s in load(path, SEVEN)] == [LINE["text"]]
    path.write_text(json.dumps(LINE) + "\n{}\n")
    with pytest.raises(
        InputError, match=r"data\.jsonl: line 2: keys: missing .*\(errors in all: 1\)"
    ):
        load(path, SEVEN)
    path.write_text("\n")
    with pytest.raises(InputError, match="there are no sentences"):
        load(path, SEVEN)

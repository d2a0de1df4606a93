"""Forced alignment: words and pieces where they are, and the command that writes them."""

import json
import shutil

import jax
import numpy as np
import pytest

from indextts2_jax.request.words import Words
from tests.hearing_common import hearing_checkpoint, noise_data, pieces_of
from tests.train_common import random_utterances, save
from train import align
from train.recognition import recognizer, times
from train.recognition.recognizer import Units

TEXTS = ("HELLO THERE", "A QUICK FOX", "THE LAZY DOG")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return hearing_checkpoint(tmp_path_factory.mktemp("base") / "checkpoint")


@pytest.fixture(scope="module")
def data(tmp_path_factory, checkpoint):
    """The last recording is too short for its text."""
    return noise_data(tmp_path_factory.mktemp("data") / "data", checkpoint, TEXTS, (60, 80, 5))


def heard(units, labels, lasting=3, gap=2):
    """Log-probabilities of labels that last some frames each, with gaps between; their starts."""
    starts = gap + (lasting + gap) * np.arange(len(labels))
    best = np.zeros(starts[-1] + lasting + 2 * gap, int)
    for start, label in zip(starts, labels, strict=True):
        best[start : start + lasting] = label
    noise = np.random.default_rng(0).normal(scale=0.5, size=(len(best), len(units.names)))
    logits = noise + 12 * (np.arange(len(units.names)) == best[:, None])
    return np.asarray(jax.nn.log_softmax(logits)), starts


@pytest.mark.parametrize("kind", ["characters", "pieces"])
@pytest.mark.parametrize("text", TEXTS)
def test_words_are_found_where_they_were_said(checkpoint, kind, text):
    units = Units.of(checkpoint / "tokenizer" / "bpe.model", kind)
    pieces = pieces_of(checkpoint, text)
    labels = units.labels(pieces)
    log_probabilities, starts = heard(units, labels)
    found = times.times_of(log_probabilities, pieces, units)
    assert [word.text for word in found.words] == text.split()
    sounding = [start for start, x in zip(starts, labels, strict=True) if units.names[x] != "▁"]
    assert abs(found.words[0].first - sounding[0]) <= 1
    assert abs(found.words[-1].stop - (sounding[-1] + 3)) <= 1
    for label, start in zip(labels, starts, strict=True):
        if units.names[label] == "▁":  # what follows begins a word
            assert min(abs(word.first - (start + 5)) for word in found.words) <= 1
    assert "".join(x.text for x in found.pieces).replace("▁", "") == text.replace(" ", "")
    assert all(a.stop <= b.first for a, b in zip(found.pieces, found.pieces[1:], strict=False))
    assert -0.3 < found.score < 0


def test_frames_of_words_cover_the_mel():
    timed = (times.Timed("A", 2, 4), times.Timed("B", 10, 12), times.Timed("C", 12, 13))
    frames = times.Times(timed, (), 0.0).word_frames(20, 40)
    assert frames == [14, 10, 16]  # 7 and 12 are the middles of the gaps


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def command(checkpoint, data, out, *more):
    return align.main(
        ["--checkpoint", str(checkpoint), "--data", str(data), "--out", str(out), *more]
    )


def test_a_corpus_is_aligned_and_goes_on_where_it_stopped(checkpoint, data, tmp_path, capsys):
    out = tmp_path / "times.jsonl"
    assert command(checkpoint, data, out, "--pictures", "1") == 0
    rows = lines(out)
    assert [row["text"] for row in rows] == list(TEXTS)
    assert [word for word, _, _ in rows[0]["words"]] == ["HELLO", "THERE"]
    assert rows[1]["words"][-1][2] <= 80 * 0.02
    words = Words(np.zeros((2, 4), np.float16), np.array(rows[0]["word_frames"], np.int32))
    assert words.frames.sum() == round(1.7227 * 60)  # as train.prepare demands
    assert "cannot hold" in rows[2]["error"]
    assert (tmp_path / "times.jsonl.pictures" / "00000.png").stat().st_size > 1000

    whole = out.read_bytes()
    out.write_bytes(whole[: whole.index(b"\n") + 20])  # killed in the second line
    assert command(checkpoint, data, out) == 0
    assert [row["id"] for row in lines(out)] == ["0", "1", "2"]
    assert out.read_bytes()[: whole.index(b"\n")] == whole[: whole.index(b"\n")]
    assert command(checkpoint, data, out) == 0  # nothing left to do
    assert len(lines(out)) == 3
    assert "3 utterances" in capsys.readouterr().err


def test_what_cannot_be_aligned_is_said_in_a_line(checkpoint, data, tmp_path, capsys):
    bare = tmp_path / "bare"
    shutil.copytree(checkpoint, bare)
    (bare / recognizer.FILE).unlink()
    assert command(bare, data, tmp_path / "a.jsonl") == 2
    assert "holds no recognizer; train first" in capsys.readouterr().err
    other = tmp_path / "other.jsonl"
    other.write_text("my notes\n")
    assert command(checkpoint, data, other) == 2
    assert other.read_text() == "my notes\n"
    assert "holds something else than alignments" in capsys.readouterr().err
    other.write_text('{"id": "0", "recognizer": "another"}\n')
    assert command(checkpoint, data, other) == 2
    assert "not of this recognizer; choose another --out" in capsys.readouterr().err
    encoded = save(tmp_path / "encoded", checkpoint, random_utterances(2))
    assert command(checkpoint, encoded, tmp_path / "b.jsonl") == 2
    assert "has no filterbank; prepare it with --features fbank" in capsys.readouterr().err

"""Emotion prototypes of a T2S of one's own."""

import collections
import dataclasses
import os

import numpy as np
import pytest

from indextts2_jax import programs
from indextts2_jax.checkpoint.demo import random_checkpoint
from indextts2_jax.checkpoint.networks import Networks
from indextts2_jax.emotion.text_to_emotion import EmotionSet
from tests.train_common import random_utterances, save
from train import prototypes
from train.data import shards
from train.data.records import Records

LABELS = ("Happy", "Angry", "Neutral", "Surprise", "whatever")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return random_checkpoint(tmp_path_factory.mktemp("base") / "checkpoint")


def write_data(path, checkpoint, labels=LABELS, count=40):
    utterances = [
        dataclasses.replace(utterance, speaker=f"s{i * 7 % 3}", emotion=labels[i % len(labels)])
        for i, utterance in enumerate(random_utterances(count))
    ]
    return save(path, checkpoint, utterances)


@pytest.fixture(scope="module")
def data(tmp_path_factory, base):
    return write_data(tmp_path_factory.mktemp("data") / "data", base)


def test_recordings_are_drawn_from_all_speakers(data):
    index = shards.Index.load(data)
    chosen = prototypes.choose(index, EmotionSet.indextts2(), 5, seed=0)
    assert chosen.keys() == {"happy", "angry", "calm", "surprised"}
    for rows in chosen.values():
        assert len(set(rows)) == 5
        voices = collections.Counter(index.table["speaker"][rows].tolist())
        assert sorted(voices.values()) == [1, 2, 2]
    assert chosen == prototypes.choose(index, EmotionSet.indextts2(), 5, seed=0)
    assert chosen != prototypes.choose(index, EmotionSet.indextts2(), 5, seed=1)
    assert len(prototypes.choose(index, EmotionSet.indextts2(), 99, seed=0)["happy"]) == 8


def test_prototypes_are_vectors_of_the_recordings(base, data, tmp_path, capsys):
    out = tmp_path / "checkpoint"
    command = ["--checkpoint", base, "--data", data, "--out", out, "--count", 2]
    assert prototypes.main([*map(str, command)]) == 0
    assert capsys.readouterr().out == "happy 2, angry 2, surprised 2, calm 2\n"
    made = Networks(out)
    assert made.settings.emotions.names == ("happy", "angry", "surprised", "calm")
    assert made.settings.emotions.melancholic is None
    assert made.prototypes.group_sizes == (2, 2, 2, 2)
    chosen = prototypes.choose(shards.Index.load(data), EmotionSet.indextts2(), 2, seed=0)
    utterance = Records.of(shards.Index.load(data))[chosen["angry"][1]]
    features = utterance.takes[0].features.astype(np.float32)
    want = programs.emotion_vector(made.t2s, *programs.padded(features))[0]
    np.testing.assert_allclose(made.prototypes.vectors[3], want, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(made.prototypes.styles[3], utterance.style)
    kept = "weights/t2s"
    for name in os.listdir(out / kept):
        if (out / kept / name).is_file():
            assert (out / kept / name).samefile(base / kept / name)
    assert prototypes.main([*map(str, command)]) == 2
    assert capsys.readouterr().err == f"error: {out} exists\n"


def test_data_without_calm_speech_are_refused(base, tmp_path, capsys):
    path = write_data(tmp_path / "data", base, ("Happy", "Angry"), 8)
    out = tmp_path / "checkpoint"
    assert prototypes.main([f"--checkpoint={base}", f"--data={path}", f"--out={out}"]) == 2
    error = capsys.readouterr().err
    assert "calm; its labels are Angry, Happy" in error
    assert error.startswith(f"error: {path} has no recordings of sad, afraid, ")
    assert not out.exists()

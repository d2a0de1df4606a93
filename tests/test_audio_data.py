"""Data for the trainers that hear: prepared without encoders, loaded whole or in pieces."""

import dataclasses

import numpy as np
import pytest

from indextts2_jax.audio import fbank, mel, wav
from indextts2_jax.checkpoint.demo import train_tokenizer
from indextts2_jax.checkpoint.parts import Settings
from indextts2_jax.errors import InputError
from tests.test_prepare import TEXT, read_all, vowel, write_corpus
from train import prepare
from train.corpus.empty import empty_checkpoint
from train.corpus.prosody import prosody
from train.corpus.recordings import Limits
from train.data import shards
from train.data.batches import LoadBatch, open_plan
from train.data.config import DataConfig

HERTZ = {"ann/0": 200, "ann/1": 210, "ann/2": 220, "bob/0": 110, "bob/1": 120, "bob/2": 130}
ALONE = "eve/0"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """One without any network."""
    folder = tmp_path_factory.mktemp("empty")
    (folder / "bpe.model").write_bytes(train_tokenizer())
    empty_checkpoint(folder / "bpe.model", folder / "checkpoint")
    return folder / "checkpoint"


@pytest.fixture(scope="module")
def data(checkpoint, tmp_path_factory):
    sounds = {n: (vowel(1.2 + 0.1 * i, h), TEXT) for i, (n, h) in enumerate(HERTZ.items())}
    sounds[ALONE] = vowel(1.0, 170), TEXT
    corpus = tmp_path_factory.mktemp("corpus")
    write_corpus(corpus, sounds)
    out = tmp_path_factory.mktemp("out") / "data"
    arguments = ["--src", corpus, "--checkpoint", checkpoint, "--out", out, "--features", "fbank"]
    arguments += ["--bpe", checkpoint.with_name("bpe.model")]  # the checkpoint is there
    assert prepare.main([*map(str, arguments), "--workers", "0"]) == 0
    return corpus, out


def test_an_empty_checkpoint_is_made_where_there_is_none_or_one_of_its_tokenizer(
    checkpoint, data, tmp_path, capsys
):
    bpe, out = checkpoint.with_name("bpe.model"), tmp_path / "checkpoint"
    arguments = ["--src", str(data[0]), "--checkpoint", str(out), "--out", str(tmp_path / "data")]
    assert prepare.main([*arguments, "--bpe", str(bpe)]) == 2
    assert "add --features fbank" in capsys.readouterr().err and not out.exists()
    empty_checkpoint(bpe, out)
    assert Settings.load(out) == Settings.load(checkpoint)
    other = tmp_path / "other.model"
    other.write_bytes(b"another")
    assert prepare.main([*arguments, "--features", "fbank", "--bpe", str(other)]) == 2
    assert "has not the tokenizer" in capsys.readouterr().err


def config(path, fields, **changes):
    settings = {"measure": "codes", "budget": 400, "speed_probability": 0.0, "max_rows": 3}
    return DataConfig((str(path),), fields, **(settings | changes))


def test_an_utterance_without_encoders_is_what_the_networks_would_hear(data):
    corpus, out = data
    for utterance in read_all(out):
        audio = wav.load(corpus / f"{utterance.id}.wav", 22050)
        audio_16k = wav.resample_sinc(audio, 22050, fbank.SAMPLE_RATE)
        features, _ = fbank.m4t_features(audio_16k)
        np.testing.assert_allclose(utterance.takes[0].features, features, atol=4e-3)
        bank = fbank.kaldi_fbank(audio_16k)
        bank = bank - bank.mean(axis=0)
        rows = utterance.bank.reshape(-1, 80)
        assert len(rows) == len(bank) // 2 * 2
        np.testing.assert_allclose(rows, bank[: len(rows)], atol=1e-2)
        heard = utterance.audio.reshape(-1)
        np.testing.assert_allclose(heard / 32768, audio[: len(heard)], atol=2**-15)
        assert len(utterance.audio) == len(utterance.mel)
        again = mel.log_mel(np.pad(heard / 32768, (0, 255)), mel.MelConfig())
        np.testing.assert_allclose(utterance.mel[5:-5], again[5 : len(utterance.mel) - 5], atol=0.3)


def test_prosody_is_the_pitch_of_the_voice(data):
    for utterance in read_all(data[1]):
        hertz = HERTZ.get(utterance.id, 170)
        log_f0, voiced, energy = utterance.prosody.astype(np.float32).T
        assert len(log_f0) == len(utterance.takes[0].features)
        assert voiced[2:-3].mean() > 0.98
        np.testing.assert_allclose(np.exp(log_f0[voiced > 0]), hertz, rtol=0.01)
        assert -6 < energy.mean() < -2


def test_silence_and_noise_are_unvoiced():
    rng = np.random.default_rng(0)
    tone = np.sin(2 * np.pi * 150 * np.arange(16000) / 16000) * 0.3
    sound = np.concatenate([tone, np.zeros(16000), 0.3 * rng.standard_normal(16000)])
    log_f0, voiced, energy = prosody(sound, 149).T
    assert voiced[3:45].all() and not voiced[55:95].any() and voiced[105:].mean() < 0.05
    np.testing.assert_allclose(log_f0[3:45], np.log(150), atol=2e-3)
    assert np.all(log_f0[voiced == 0] == 0) and energy[55:95].max() < -15
    assert prosody(np.zeros(560), 1).shape == (1, 3)


def test_fingerprints_tell_such_data_from_encoded_ones(checkpoint, data):
    index = shards.Index.load(data[1])
    assert index.fingerprints == shards.audio_fingerprints(checkpoint, Settings.load(checkpoint))
    with pytest.raises(InputError, match="lacks w2v_bert, semantic_codec, campplus"):
        prepare.prepare([], checkpoint, data[1], prepare.Options(Limits()))


def test_without_prompts_a_voice_may_be_heard_once(data):
    plan = open_plan(config(data[1], ("features", "text", "speaker")))
    seen = {int(i) for step in range(12) for i in plan[step].rows}
    assert len(seen) == 7
    assert plan.summary()["left_out"]["alone_of_their_speaker"] == 0
    alone = open_plan(config(data[1], ("features", "prompt_features")))
    assert alone.summary()["left_out"]["alone_of_their_speaker"] == 1
    held_out = open_plan(config(data[1], ("features",), validation=2))
    assert sum(len(x.rows) for x in held_out.validation) == 3  # one fills up the batch
    assert all(len(held_out[step].rows) for step in range(5))


def test_pieces_of_mel_and_audio_are_of_the_same_time(data):
    utterances = read_all(data[1])
    fields = ("mel", "audio", "speaker")
    plan = open_plan(config(data[1], fields, measure="frames", budget=96, crop=32))
    load = LoadBatch(plan)
    starts = set()
    for step in range(6):
        batch = load(plan[step])
        assert batch["mel"].shape == (3, 32, 80) and batch["audio"].shape == (3, 32, 256)
        assert batch["audio"].dtype == np.float32
        assert batch["audio_lengths"].tolist() == [32] * 3
        for b, row in enumerate(plan[step].rows):
            whole = utterances[row]
            distance = np.abs(whole.mel[:, :8].astype(np.float32) - batch["mel"][b, 0, :8])
            start = int(distance.sum(axis=1).argmin())
            starts.add(start)
            np.testing.assert_array_equal(batch["mel"][b], whole.mel[start : start + 32])
            want = whole.audio[start : start + 32] / np.float32(32768)
            np.testing.assert_array_equal(batch["audio"][b], want)
    assert len(starts) > 6  # they are drawn


def test_short_recordings_are_loaded_whole_where_others_are_cropped(data):
    plan = open_plan(config(data[1], ("bank", "prosody"), crop=60, max_rows=7))
    lengths = np.concatenate([LoadBatch(plan)(plan[step])["bank_lengths"] for step in range(2)])
    # 49 tokens of the second that eve speaks; a bank drops a last frame without a pair
    assert {lengths.min(), lengths.max()} == {49, 60} or {lengths.min(), lengths.max()} == {48, 60}


def test_what_has_no_audio_or_cannot_be_cropped_is_refused(data, tmp_path):
    with pytest.raises(InputError, match="crop is 8; want 0, since text, audio cannot be cropped"):
        config(data[1], ("features", "text", "audio"), crop=8)
    with pytest.raises(InputError, match="speed_probability"):
        config(data[1], ("audio",), speed_probability=0.5)
    utterance = dataclasses.replace(read_all(data[1])[0], audio=None)
    rows = shards.write_shard(shards.shard_path(tmp_path, 0), [utterance])
    shards.Index.build(tmp_path, {}, [rows], 0.0116).save()
    for crop in (0, 8):
        plan = open_plan(config(tmp_path, ("audio",), measure="frames", crop=crop))
        with pytest.raises(shards.DataError, match="record 0 cannot be read: it has no audio"):
            LoadBatch(plan)(plan[0])

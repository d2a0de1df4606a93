"""A checkpoint that hears, of random weights, and data for it."""

import pathlib
from collections.abc import Sequence

import jax
import numpy as np

from indextts2_jax.checkpoint import store
from indextts2_jax.checkpoint.demo import random_checkpoint
from indextts2_jax.checkpoint.parts import Settings, save_part
from indextts2_jax.nn import pytree
from indextts2_jax.text.tokenize import Tokenizer
from train.data import shards
from train.data.shards import Take, Utterance
from train.recognition import recognizer
from train.recognition.recognizer import Heads, RecognizerConfig, Units


def hearing_checkpoint(path: pathlib.Path) -> pathlib.Path:
    """A demo whose encoder has a recognizer."""
    random_checkpoint(path)
    settings = Settings.load(path)
    units = Units.of(path / "tokenizer" / "bpe.model", "characters")
    cfg = RecognizerConfig("characters", len(units.names), settings.configs["w2v_bert"].width)
    store.write_json(path / recognizer.FILE, store.to_dict(cfg))
    arrays = pytree.params(Heads(cfg, rngs=pytree.Keys(jax.random.key(0))))
    arrays = {name: np.asarray(x) for name, x in arrays.items()}
    settings.fingerprints[recognizer.PART] = save_part(path, recognizer.PART, arrays)
    (path / "checkpoint.json").unlink()
    settings.save(path)
    return path


def pieces_of(checkpoint: pathlib.Path, text: str) -> list[int]:
    """The numbers of the pieces of a text."""
    tokenizer = Tokenizer(checkpoint / "tokenizer" / "bpe.model")
    return list(tokenizer.ids(tokenizer.encode(text)))


def noise_data(
    path: pathlib.Path, checkpoint: pathlib.Path, texts: Sequence[str], lengths: Sequence[int]
) -> pathlib.Path:
    """Data of `--features fbank`: noise of so many tokens for every text."""
    path.mkdir()
    rng, utterances = np.random.default_rng(0), []
    for number, (text, T) in enumerate(zip(texts, lengths, strict=True)):
        features = rng.standard_normal((T, 160)).astype(np.float16)
        take = Take(1.0, np.zeros(T, np.int32), features)
        mel = np.zeros((round(1.7227 * T), 80), np.float16)
        ids = np.array(pieces_of(checkpoint, text), np.int32)
        style, prosody = np.zeros(0, np.float32), np.zeros((T, 3), np.float16)
        utterances.append(
            Utterance(f"{number}", "s", text, ids, (take,), mel, style, prosody=prosody)
        )
    rows = shards.write_shard(shards.shard_path(path, 0), utterances)
    made_with = shards.audio_fingerprints(checkpoint, Settings.load(checkpoint))
    shards.Index.build(path, made_with, [rows], 256 / 22050).save()
    return path

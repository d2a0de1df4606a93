"""The trainer of the semantic encoder: units, what it learns, on several devices, resumed."""

import csv
import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from indextts2_jax import sharding
from indextts2_jax.checkpoint.demo import random_checkpoint
from indextts2_jax.checkpoint.parts import Settings, load_part, load_tables
from indextts2_jax.errors import InputError
from indextts2_jax.prompt.semantic_codec import SemanticCodecConfig
from indextts2_jax.prompt.w2v_bert import W2VBertConfig, normalize
from indextts2_jax.text.tokenize import Tokenizer
from tests.common import ROOT
from tests.train_common import StopAt, make_step, run
from train import encoder
from train.data import shards
from train.data.shards import Take, Utterance
from train.recognition import hearing, recognizer, transcripts
from train.recognition.hearing import Hearing, Method
from train.recognition.recognizer import RecognizerConfig, Units
from train.run import config, loop

CFG = W2VBertConfig(2, 24, 3, 40, 160, conv_kernel=7, max_left=6, max_right=3)
CODEC = SemanticCodecConfig(24, 40, 8, 16, 32, num_blocks=1, downsample_scale=2)
TEXTS = ("HELLO THERE", "A QUICK FOX", "THE LAZY DOG", "GOOD MORNING")
TOKENS = 6  # of 20 ms, that a character lasts
K = 9


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return random_checkpoint(tmp_path_factory.mktemp("base") / "checkpoint")


@pytest.fixture(scope="module")
def units(checkpoint):
    return Units.of(checkpoint / "tokenizer" / "bpe.model", "characters")


def ids_of(checkpoint, text):
    tokenizer = Tokenizer(checkpoint / "tokenizer" / "bpe.model")
    return np.array(tokenizer.ids(tokenizer.encode(text)), np.int32)


@pytest.mark.parametrize("text", [*TEXTS, "你好 世界"])
@pytest.mark.parametrize("kind", ["characters", "pieces"])
def test_labels_spell_the_text(checkpoint, kind, text):
    units = Units.of(checkpoint / "tokenizer" / "bpe.model", kind)
    pieces = ids_of(checkpoint, text)
    labels = units.labels(pieces)
    assert 0 not in labels and max(labels) < len(units.names)
    if kind == "characters" and text.isascii():
        assert units.text(labels) == text and len(labels) == len(text)
    if kind == "pieces":
        spelled = "".join(units.names[i] for i in pieces)
        assert "".join(units.names[i] for i in labels) in (spelled, spelled[1:])


def test_units_of_another_kind_are_refused(checkpoint):
    with pytest.raises(InputError, match="units is 'words'; want one of characters, pieces"):
        Units.of(checkpoint / "tokenizer" / "bpe.model", "words")


def test_a_text_that_is_too_long_keeps_its_length(units):
    text = np.full((1, 40), units.table.index(max(units.table, key=len)), np.int32)
    batch = {"features": np.zeros((1, 16, 160)), "text": text, "text_lengths": np.array([40])}
    out = units.batch(batch)
    assert out["labels"].shape == (1, 8) and out["label_lengths"][0] > 8 and "text" not in out


def test_masks_hide_no_more_than_they_may():
    method = Method(time_masks=3, time_width=10, band_masks=1, band_width=16)
    lengths = np.array([100, 20, 50], np.int32)
    draws = hearing.draw_masks(jax.random.key(0), 3, method)
    features = np.ones((3, 100, 160), np.float32)
    out = np.asarray(hearing.augment(features, lengths, draws, method))
    hidden = out == 0
    times = hidden.all(axis=2).sum(axis=1)
    bands = hidden.all(axis=1).sum(axis=1)
    assert np.all(times <= 3 * np.minimum(10, lengths // 5)) and times.any()
    assert np.all(bands <= 2 * 16) and bands.any()
    np.testing.assert_array_equal(hidden[..., :80], hidden[..., 80:])  # of both frames of a token
    assert not hidden.all(axis=2)[1, 20:].any()


def test_prosody_loss_judges_pitch_where_there_is_some():
    target = np.array([[[5.4, 1, -6], [0, 0, -9], [0, 0, 0]]], np.float32)
    mask = np.array([[True, True, False]])
    perfect = np.array([[[1, 50, 0], [7, -50, -1], [9, 9, 9]]], np.float32)
    np.testing.assert_allclose(hearing.prosody_loss(perfect, target, mask), [0], atol=1e-5)
    wrong = perfect + np.array([0.5, 0, 0.25], np.float32)
    np.testing.assert_allclose(hearing.prosody_loss(wrong, target, mask), [0.75], atol=1e-5)


def make_hearing(codec=CODEC, layer=1):
    heads = RecognizerConfig("characters", K, CFG.width, prosody=True)
    return Hearing(
        encoder=CFG,
        heads=heads,
        codec=codec,
        layer=layer,
        mean=np.zeros(24, np.float32),
        variance=np.ones(24, np.float32),
    )


def make_batch(rows=8, length=16):
    rng = np.random.default_rng(0)
    lengths = rng.integers(10, length + 1, rows).astype(np.int32)
    valid = np.arange(length) < lengths[:, None]
    prosody = rng.standard_normal((rows, length, 3)).astype(np.float32)
    prosody[..., 1] = prosody[..., 1] > 0
    return {
        "features": rng.standard_normal((rows, length, 160)).astype(np.float32) * valid[..., None],
        "feature_lengths": lengths,
        "labels": rng.integers(1, K, (rows, 8)).astype(np.int32),
        "label_lengths": rng.integers(1, 5, rows).astype(np.int32),
        "prosody": prosody * valid[..., None],
        "weight": np.ones(rows, np.float32),
    }


@functools.cache
def filled(layer=1):
    task = make_hearing(layer=layer).task(Method())
    return task.fill(jax.jit(lambda k: task.random(k, task.shapes))(jax.random.key(0)))


def test_padding_changes_nothing_of_what_is_heard():
    batch, own, modules = make_batch(2), make_hearing(), filled()
    length = int(batch["feature_lengths"][0])
    features = batch["features"][:1]
    padded = np.where(np.arange(16)[:, None] < length, features, 7)
    hear = jax.jit(lambda x, mask: own.hear(modules, x, mask, through=True))
    short = hear(features[:, :length], np.ones((1, length), bool))
    long = hear(padded, np.arange(16)[None] < length)
    np.testing.assert_allclose(long.logits[:, :length], short.logits, atol=1e-4)
    codes = -(-length // 2)
    np.testing.assert_array_equal(long.quantized.codes[:, :codes], short.quantized.codes)
    assert long.quantized.mask.sum() == codes


def test_what_is_heard_plainly_is_the_encoder_alone():
    batch, own, modules = make_batch(2), make_hearing(), filled()
    mask = np.arange(16) < batch["feature_lengths"][:, None]
    heard = own.hear(modules, batch["features"], mask, through=False)
    features, last = modules["w2v_bert"].hidden_states(batch["features"], mask, (1, 2))
    np.testing.assert_allclose(heard.features, normalize(features, 0, 1), atol=1e-5)
    np.testing.assert_allclose(heard.logits, modules["recognizer"](last), atol=1e-5)


@pytest.mark.slow
def test_codes_alone_are_heard_as_the_features_that_they_stand_for():
    rng = np.random.default_rng(1)
    mean, variance = rng.standard_normal((2, 24)).astype(np.float32)
    own = dataclasses.replace(make_hearing(), mean=mean, variance=variance**2 + 0.5)
    batch, modules, mask = make_batch(2), filled(), np.ones((2, 16), bool)
    mask[1, 12:] = False
    heard = own.hear(modules, batch["features"], mask, through=True)
    logits = own.hear_codes(modules, heard.quantized.codes, heard.quantized.mask)
    for row, length in enumerate((16, 12)):
        np.testing.assert_allclose(logits[row, :length], heard.logits[row, :length], atol=1e-4)


@functools.cache
def losses_on(*sizes: int, devices: int = 8, accumulation: int = 1, quantize: bool = False):
    changes = {"quantize": quantize, "prosody": 0.2}
    stage = encoder.stage(steps=10, rate=1e-3, warmup=0, **changes)
    mesh = sharding.make_mesh(*sizes, devices=jax.devices()[:devices])
    task = make_hearing().without_codec(not quantize).task(Method.of(stage))
    return run(make_step(task, stage, mesh, accumulation=accumulation), make_batch())[0]


@pytest.mark.slow
@pytest.mark.parametrize(
    "sizes, devices, accumulation, quantize",
    [((2, 2, 2), 8, 1, True), ((1, 1, 1), 1, 4, False)],
)
def test_sharded_and_accumulated_equal_single(sizes, devices, accumulation, quantize):
    got = losses_on(*sizes, devices=devices, accumulation=accumulation, quantize=quantize)
    want = losses_on(1, 1, 1, devices=1, quantize=quantize)
    np.testing.assert_allclose(got, want, rtol=1e-4)


@pytest.mark.slow
def test_remat_changes_no_gradient():
    batch, task = make_batch(), make_hearing().task(Method(quantize=True, prosody=0.2))
    again = make_hearing().task(Method(quantize=True, prosody=0.2), remat=True)
    arrays = jax.jit(lambda k: task.random(k, task.shapes))(jax.random.key(0))

    def total(of):
        draws = of.draw(jax.random.key(1), batch)
        key = jax.random.key(2)
        return jax.jit(jax.grad(lambda x: of.loss(of.fill(x), batch, draws, key, 0.0)[0].mean()))(
            arrays
        )

    want, got = total(task), total(again)
    for name in want:
        np.testing.assert_allclose(got[name], want[name], atol=1e-5, err_msg=name)
        assert np.any(want[name]), name


def test_flops_are_those_of_xla():
    own = make_hearing()
    wide = Hearing(
        encoder=W2VBertConfig(
            num_layers=2, width=128, num_heads=4, ffn_width=256, feature_width=160, conv_kernel=7,
            max_left=6, max_right=3,
        ),
        heads=RecognizerConfig("characters", 40, 128, prosody=False),
        codec=SemanticCodecConfig(
            feature_width=128, codebook_size=256, codebook_width=8, backbone_width=96,
            ffn_width=192, num_blocks=1, downsample_scale=2,
        ),
        layer=own.layer, mean=np.zeros(128, np.float32), variance=np.ones(128, np.float32),
    )  # fmt: skip
    task = wide.task(Method(quantize=True, revival=0.0))
    rows, length = 4, 64

    def array(*shape, dtype=jnp.int32):
        return jax.ShapeDtypeStruct((rows, *shape), dtype)

    batch = {
        "features": array(length, 160, dtype=jnp.float32),
        "feature_lengths": array(),
        "labels": array(8),
        "label_lengths": array(),
        "prosody": array(length, 3, dtype=jnp.float32),
    }
    modules = {name: module.abstract for name, module in task.modules.items()}
    lowered = jax.jit(lambda m, b: task.loss(m, b, {}, None, 0.0)[0]).lower(modules, batch)
    counted = lowered.cost_analysis()
    assert counted is not None
    assert task.flops(batch) / 3 == pytest.approx(counted["flops"], rel=0.1)


@functools.cache
def sound(character: str) -> np.ndarray:
    rng = np.random.default_rng(ord(character))
    return rng.standard_normal(160).astype(np.float32)


@pytest.fixture(scope="module")
def data(tmp_path_factory, checkpoint):
    """A few texts, each character of which has a sound of its own."""
    path = tmp_path_factory.mktemp("data") / "data"
    path.mkdir()
    rng = np.random.default_rng(0)
    utterances = []
    for number, text in enumerate(TEXTS):
        features = np.repeat([sound(x) for x in text], TOKENS, axis=0)
        features += 0.1 * rng.standard_normal(features.shape)
        T = len(features)
        prosody = np.zeros((T, 3), np.float16)
        prosody[:, 0] = 5 + 0.4 * features[:, 0]
        prosody[:, 1] = 1
        prosody[:, 2] = -6
        take = Take(1.0, np.zeros(T, np.int32), features.astype(np.float16))
        mel = np.zeros((2 * T, 80), np.float16)
        utterances.append(
            Utterance(
                id=str(number), speaker=f"s{number % 2}", text=text,
                text_ids=ids_of(checkpoint, text), takes=(take,), mel=mel,
                style=np.zeros(0, np.float32), prosody=prosody,
            )
        )  # fmt: skip
    rows = shards.write_shard(shards.shard_path(path, 0), utterances)
    made_with = shards.audio_fingerprints(checkpoint, Settings.load(checkpoint))
    shards.Index.build(path, made_with, [rows], 256 / 22050).save()
    return path


SMALL = (
    "model.num_layers=2", "model.width=48", "model.num_heads=2", "model.ffn_width=96",
    "model.conv_kernel=5", "model.max_left=8", "model.max_right=8", "layer=1",
    "codec.codebook_size=64", "codec.codebook_width=8", "codec.backbone_width=48",
    "codec.ffn_width=64", "codec.num_blocks=1", "data.validation=0", "data.max_rows=4",
    "data.budget=400", "statistics_batches=1",
)  # fmt: skip


def make_run(checkpoint, data, out, *changes):
    values = (f"checkpoint={checkpoint}", f"data.paths={data}", f"out={out}", *SMALL, *changes)
    return config.load(ROOT / "configs" / "encoder_tiny.py", values)


def setup_of(run):
    """On one device: four rows do not divide by eight."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            loop, "make_mesh", lambda _: sharding.make_mesh(1, 1, 1, devices=jax.devices()[:1])
        )
        return encoder.setup(run)


def column(out, name):
    with open(out / "metrics.csv") as file:
        return [float(row[name]) for row in csv.DictReader(file) if row.get(name)]


@pytest.mark.slow
def test_a_few_texts_are_learned_by_heart_and_published(checkpoint, data, tmp_path):
    out = tmp_path / "run"
    few = "stages.0.steps=150", "stages.1.steps=150", "sample_every=150"
    loop.run(setup_of(make_run(checkpoint, data, out, *few, "checkpoints.every=500")))
    assert column(out, "sample_cer")[0] < 0.05  # before there is a codec
    assert column(out, "sample_cer_codes")[-1] < 0.05
    assert column(out, "sample_f0_codes")[-1] > 0.5
    lines = (out / "samples" / "00000300" / "transcripts.jsonl").read_text().splitlines()
    assert {json.loads(line)["text"] for line in lines} == set(TEXTS)

    path = out / "checkpoint"
    after, before = Settings.load(path), Settings.load(checkpoint)
    assert after.configs["w2v_bert"].width == after.configs["semantic_codec"].feature_width == 48
    assert after.feature_layer == 1 and after.emotion_groups == ()
    assert after.frames_per_code == pytest.approx(22050 / 256 / 25)
    assert after.fingerprints["vocoder"] == before.fingerprints["vocoder"]
    tables = load_tables(path)
    np.testing.assert_array_equal(tables["feature_mean"], np.zeros(48))
    # What was published hears, by itself.
    bert, heads = load_part(path, after, "w2v_bert"), recognizer.load(path)
    units = Units.of(path / "tokenizer" / "bpe.model", recognizer.config_of(path).units)
    utterance = next(shards.read_shard(shards.shard_path(data, 0)))
    best = heads(bert(utterance.takes[0].features[None].astype(np.float32))).argmax(axis=2)[0]
    heard = units.text(transcripts.ctc.read(np.asarray(best)))
    assert transcripts.error_rate([(utterance.text, heard)]) < 0.2

    more = "stages.0.steps=1", "stages.1.steps=1", "sample_every=0", "log_every=1"
    start = f"init={path}", "stages.0.warmup=1000000"
    loop.run(setup_of(make_run(checkpoint, data, tmp_path / "more", *start, *more)))
    assert column(tmp_path / "more", "ctc_loss")[0] < 0.5
    assert recognizer.fits(tmp_path / "more" / "checkpoint", recognizer.config_of(path))


@pytest.mark.slow
def test_statistics_make_the_features_standard(checkpoint, data, tmp_path):
    out = tmp_path / "run"
    few = "stages.0.steps=3", "stages.1.steps=1", "stages.1.quantize=False", "sample_every=0"
    loop.run(setup_of(make_run(checkpoint, data, out, *few, "data.budget=100000")))
    path = out / "checkpoint"
    after = Settings.load(path)
    assert after.configs["semantic_codec"] == Settings.load(checkpoint).configs["semantic_codec"]
    assert after.frames_per_code == Settings.load(checkpoint).frames_per_code
    bert, tables = load_part(path, after, "w2v_bert"), load_tables(path)
    frames = np.concatenate(
        [
            bert(utterance.takes[0].features[None].astype(np.float32), num_layers=1)[0]
            for utterance in shards.read_shard(shards.shard_path(data, 0))
        ]
    )
    x = np.asarray(normalize(frames, tables["feature_mean"], tables["feature_variance"]))
    np.testing.assert_allclose(x.mean(axis=0), 0, atol=1e-3)
    np.testing.assert_allclose(x.std(axis=0), 1, atol=1e-3)


@pytest.mark.slow
def test_stopped_and_resumed_equals_uninterrupted(checkpoint, data, tmp_path):
    short = "stages.0.steps=2", "stages.1.steps=2", "sample_every=0", "log_every=1"
    short += "model.num_layers=1", "data.ladder_ratio=4.0"  # little to compile
    whole, parts = (
        make_run(checkpoint, data, tmp_path / name, *short) for name in ("whole", "parts")
    )
    loop.run(setup_of(whole))
    loop.run(setup_of(parts), StopAt(3))  # in the second stage
    assert not (tmp_path / "parts" / "checkpoint").exists()
    loop.run(setup_of(parts))
    got, want = (column(tmp_path / name, "loss") for name in ("parts", "whole"))
    np.testing.assert_allclose(got, want, rtol=1e-5)
    assert len(got) == 4


@pytest.mark.parametrize(
    "change, error",
    [
        ("layer=3", "layer is 3, the encoder has 2 layers"),
        ("units=words", "units is 'words'"),
    ],
)
def test_what_cannot_be_trained_is_refused(checkpoint, data, tmp_path, change, error):
    with pytest.raises(InputError, match=error):
        setup_of(make_run(checkpoint, data, tmp_path, change))


def test_a_checkpoint_without_recognizer_says_who_makes_one(checkpoint):
    with pytest.raises(InputError, match=r"holds no recognizer; train first: .*train\.encoder"):
        recognizer.load(checkpoint)

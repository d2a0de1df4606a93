"""The speaker trainer: pieces and pairs, on several devices, resumed, by heart, and published."""

import csv
import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from indextts2_jax import sharding
from indextts2_jax.audio import fbank, wav
from indextts2_jax.checkpoint.demo import random_checkpoint
from indextts2_jax.checkpoint.parts import Settings
from indextts2_jax.errors import InputError
from indextts2_jax.nn import pytree
from indextts2_jax.pipeline import IndexTTS2
from indextts2_jax.prompt.campplus import CAMPPlus, CAMPPlusConfig
from tests.common import ROOT
from tests.train_common import StopAt, begin, make_step, run
from train import plan, speaker
from train.data import shards
from train.data.batch_plan import BatchPlan
from train.data.shards import Index, Take, Utterance
from train.objectives.perturbation import change_speed
from train.run import config, loop
from train.speaker import Method, Pieces

CFG = CAMPPlusConfig.tiny()
B, T, M = 8, 20, CFG.feat_dim
PIECES = Pieces((0, -1, 1, 2), (1.0, 1.1), 0.5)
VOICES = (100, 170, 240, 320)  # Hz


def make_batch():
    rng = np.random.default_rng(0)
    lengths = rng.integers(12, T + 1, B).astype(np.int32)
    bank = rng.normal(size=(B, T, 2 * M)) * (np.arange(T) < lengths[:, None])[..., None]
    return {
        "bank": bank.astype(np.float16),
        "bank_lengths": lengths,
        "speaker": np.array([0, 2, 3, 0, 2, 3, 0, 2], np.int32),
        "weight": np.ones(B, np.float32),
    }


# Pieces


def test_pieces_are_free_of_their_mean_and_as_long_as_drawn():
    batch = make_batch()
    draws = {"speed": jnp.zeros(B, jnp.int32), "share": jnp.linspace(0.5, 1, B)}
    bank, lengths, classes = PIECES.read(batch, draws)
    assert bank.shape == (B, 2 * T, M) and PIECES.num_classes == 6
    np.testing.assert_array_equal(classes, 2 * np.array([0, 1, 2, 0, 1, 2, 0, 1]))
    np.testing.assert_array_equal(lengths, (2 * batch["bank_lengths"] * draws["share"]).astype(int))
    for row, length, stored in zip(bank, lengths, batch["bank"], strict=True):
        frames = stored.reshape(-1, M)[:length].astype(np.float32)
        np.testing.assert_allclose(row[:length], frames - frames.mean(axis=0), atol=1e-5)
        assert not row[length:].any()


def test_another_speed_is_another_class_and_moves_pitch_and_time():
    batch = make_batch()
    draws = {"speed": jnp.ones(B, jnp.int32), "share": jnp.ones(B)}
    _, lengths, classes = PIECES.read(batch, draws)
    np.testing.assert_array_equal(classes % 2, np.ones(B))
    np.testing.assert_array_equal(lengths, (2 * batch["bank_lengths"] / 1.1).astype(int))

    # A tone that glides: the bank of the resampled one is the changed bank.
    rate, speed = fbank.SAMPLE_RATE, 1.1
    time = np.arange(rate) / rate
    tone = 0.3 * np.sin(2 * np.pi * (700 * time + 400 * time**2)).astype(np.float32)
    faster = np.interp(np.arange(int(rate / speed)) * speed, np.arange(rate), tone)
    bank, want = fbank.kaldi_fbank(tone), fbank.kaldi_fbank(faster.astype(np.float32))
    got, lengths = change_speed(jnp.asarray(bank)[None], jnp.array([len(bank)]), jnp.array([speed]))
    assert abs(int(lengths[0]) - len(want)) <= 2
    peaks = np.argmax(got[0, : len(want)], axis=1) - np.argmax(want, axis=1)
    assert np.abs(peaks[2:-2]).max() <= 1
    plain, _ = change_speed(jnp.asarray(bank)[None], jnp.array([len(bank)]), jnp.array([1.0]))
    np.testing.assert_allclose(plain[0], bank, atol=2e-3)


@pytest.mark.parametrize(
    "changes, error", [({"speeds": (3.0,)}, "speeds is"), ({"shortest": 0.0}, "shortest is 0.0")]
)
def test_pieces_that_make_no_sense_are_refused(changes, error):
    with pytest.raises(InputError, match=error):
        Pieces((0, 1), **changes)


# The step


def make_task(method=Method(margin_begin=0.0, margin_end=0.0)):  # noqa: B008
    return speaker.make_task(CFG, PIECES, method)


def step_of(*sizes, devices=8, accumulation=1, method=None):
    stage = speaker.stage(steps=10, rate=1e-3, warmup=0)
    mesh = sharding.make_mesh(*sizes, devices=jax.devices()[:devices])
    task = make_task(method) if method else make_task()
    return make_step(task, stage, mesh, accumulation=accumulation)


@functools.cache
def trained_on(*sizes, devices=8, accumulation=1):
    """Losses of two steps, and the statistics after them."""
    step = step_of(*sizes, devices=devices, accumulation=accumulation)
    losses, _, _, state = run(step, make_batch())
    return losses, {n: np.asarray(x) for n, x in (state.statistics or {}).items()}


@pytest.mark.slow
def test_sharded_equals_single():
    losses, statistics = trained_on(2, 2, 2)
    single, wanted = trained_on(1, 1, 1, devices=1)
    np.testing.assert_allclose(losses, single, rtol=1e-4)
    assert statistics.keys() == wanted.keys()
    for name, x in statistics.items():
        np.testing.assert_allclose(x, wanted[name], rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_statistics_of_accumulated_parts_are_their_mean():
    step = step_of(1, 1, 1, devices=1, accumulation=2)
    frozen, state = begin(step)
    before = {n: np.asarray(x) for n, x in {**frozen, **state.current}.items()}
    batch = jax.tree.map(jnp.asarray, make_batch())
    key, progress = jax.random.key(3), jnp.float32(0)
    arrays = {**frozen, **(state.statistics or {})}
    *_, got = jax.jit(step.gradients)(state.params, arrays, batch, key, progress)
    draws = step.task.draw(jax.random.split(key)[0], batch)

    @jax.jit
    def moved(some, draws):
        modules = step.task.fill({n: jnp.asarray(x) for n, x in before.items()})
        step.task.loss(modules, some, draws, None, progress)
        return step.task.moved_statistics(modules)

    parts = []
    for first in (0, 1):  # every device keeps its rows
        parts.append(moved(*jax.tree.map(lambda x, i=first: x[i::2], (batch, draws))))
    for name, x in got.items():
        want = (parts[0][name] + parts[1][name]) / 2
        np.testing.assert_allclose(x, want, rtol=1e-4, atol=1e-6)
        assert np.any(x != before[name]), name


@pytest.mark.slow
def test_stored_statistics_stay_where_a_stage_says_so():
    step = step_of(1, 1, 1, devices=1, method=Method(batch_statistics=False))
    _, first, _, state = run(step, make_batch(), steps=1)
    assert state.statistics
    for name, x in state.statistics.items():
        np.testing.assert_array_equal(x, first[name])


# Whole runs


def voice(hertz, seed, seconds=1.0):
    """A voice of some pitch, whose vowel changes: [T] at 16 kHz."""
    rng = np.random.default_rng(seed)
    time = np.arange(int(seconds * fbank.SAMPLE_RATE)) / fbank.SAMPLE_RATE
    pitch = hertz * (1 + 0.05 * np.sin(2 * np.pi * (rng.uniform(1, 4) * time + rng.uniform())))
    phase = 2 * np.pi * np.cumsum(pitch) / fbank.SAMPLE_RATE
    harmonics = sum(rng.uniform(0.3, 1) * np.sin(k * phase) / k for k in range(1, 20))
    return (0.1 * harmonics + 0.003 * rng.standard_normal(len(time))).astype(np.float32)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return random_checkpoint(tmp_path_factory.mktemp("base") / "checkpoint")


@pytest.fixture(scope="module")
def data(tmp_path_factory, checkpoint):
    """Six recordings of each of four voices."""
    path = tmp_path_factory.mktemp("data") / "data"
    path.mkdir()
    utterances = []
    for hertz in VOICES:
        for number in range(6):
            bank = fbank.kaldi_fbank(voice(hertz, hertz + number))
            bank = (bank - bank.mean(axis=0))[: len(bank) // 2 * 2]
            T = len(bank) // 2
            take = Take(1.0, np.zeros(T, np.int32), np.zeros((T, 160), np.float16))
            utterances.append(
                Utterance(
                    f"{hertz}-{number}", f"v{hertz}", "A", np.array([3], np.int32), (take,),
                    np.zeros((86, 80), np.float16), np.zeros(0, np.float32),
                    bank=bank.reshape(T, 160).astype(np.float16),
                )
            )  # fmt: skip
    rows = shards.write_shard(shards.shard_path(path, 0), utterances)
    made_with = shards.audio_fingerprints(checkpoint, Settings.load(checkpoint))
    Index.build(path, made_with, [rows], 256 / 22050).save()
    return path


SMALL = (
    "model.head_channels=4", "model.init_channels=16", "model.growth=8", "model.bn_size=2",
    "model.block_layers=(1, 1, 1)", "data.crop=40", "data.budget=320", "data.max_rows=8",
    "data.validation=0", "data.held_out_share=0.0", "speeds=(1.0,)", "keep_best=",
)  # fmt: skip


def files(checkpoint, data, out):
    return f"checkpoint={checkpoint}", f"data.paths={data}", f"out={out}"


@pytest.fixture
def one_device(monkeypatch):
    mesh = sharding.make_mesh(1, 1, 1, devices=jax.devices()[:1])
    monkeypatch.setattr(loop, "make_mesh", lambda _: mesh)


def settings(*assignments):
    return config.load(ROOT / "configs" / "speaker_tiny.py", assignments)


def column(out, name):
    with open(out / "metrics.csv") as file:
        return [float(row[name]) for row in csv.DictReader(file) if row.get(name)]


@pytest.mark.slow
def test_four_voices_are_told_apart(checkpoint, data, tmp_path, one_device):
    out = tmp_path / "run"
    args = (*files(checkpoint, data, out), *SMALL, "stages.0.steps=120", "stages.0.warmup=10")
    path = str(ROOT / "configs" / "speaker_tiny.py")
    more = "sample_every=120", "checkpoints.every=500"
    assert loop.main(speaker.setup, None, ["--config", path, *args, *more]) == 0
    assert column(out, "training_eer") == [0.0]
    assert np.mean(column(out, "accuracy")[-3:]) > 0.95
    assert (out / "samples" / "00000120" / "pairs.png").is_file()
    after, before = Settings.load(out / "checkpoint"), Settings.load(checkpoint)
    assert after.fingerprints["campplus"] != before.fingerprints["campplus"]
    assert after.fingerprints["t2s"] == before.fingerprints["t2s"]
    assert after.emotion_groups == ()

    # From there on, with the statistics that it has.
    start = f"init={out / 'checkpoint'}"
    args = (*files(checkpoint, data, tmp_path / "more"), *SMALL, start, "log_every=1")
    loop.run(speaker.setup(settings(*args, "stages.0.steps=1", "sample_every=1")))
    assert column(tmp_path / "more", "training_eer") == [0.0]


@pytest.mark.slow
@pytest.mark.parametrize("ema", [0.0, 0.5])
def test_stopped_and_resumed_equals_uninterrupted(checkpoint, data, tmp_path, one_device, ema):
    short = (*SMALL, "stages.0.steps=4", "sample_every=2", "log_every=1", f"ema={ema}")
    for name in ("whole", "parts"):
        args = settings(*files(checkpoint, data, tmp_path / name), *short)
        if name == "parts":
            loop.run(speaker.setup(args), StopAt(2))
            assert not (tmp_path / name / "checkpoint").exists()
        loop.run(speaker.setup(args))
    for name in ("loss", "training_eer"):
        parts, whole = (column(tmp_path / which, name) for which in ("parts", "whole"))
        np.testing.assert_allclose(parts, whole, rtol=1e-5)
    assert len(whole) == 2


@pytest.mark.slow
def test_the_pipeline_gives_the_embedding_of_the_run(checkpoint, data, tmp_path, one_device):
    args = (*SMALL, "stages.0.steps=3", "stages.0.warmup=0", "sample_every=0")
    setup = speaker.setup(settings(*files(checkpoint, data, tmp_path / "run"), *args))
    kept = {}

    def publish(arrays, **changes):
        kept.update(arrays)
        setup.publish(arrays, **changes)

    loop.run(dataclasses.replace(setup, publish=publish))
    cfg = Settings.load(tmp_path / "run" / "checkpoint").configs["campplus"]
    own = {n.removeprefix("campplus."): x for n, x in kept.items() if n.startswith("campplus.")}
    assert np.abs(own["style_norm.mean"]).max() > 0
    model = pytree.fill(pytree.abstract(lambda rngs: CAMPPlus(cfg, rngs=rngs)), own)

    path = tmp_path / "voice.wav"
    samples = wav.resample_sinc(voice(150, 1, 2.0), fbank.SAMPLE_RATE, 22050)
    wav.save(path, samples, 22050)
    style = IndexTTS2(tmp_path / "run" / "checkpoint").speaker(path).style
    audio = wav.resample_sinc(wav.load(path, 22050), 22050, fbank.SAMPLE_RATE)
    bank = fbank.kaldi_fbank(audio)
    want = model(jnp.asarray(bank - bank.mean(axis=0))[None])[0]
    np.testing.assert_allclose(style, want, rtol=1e-3, atol=1e-3 * np.abs(want).max())


# Who is held out, and what is refused


def test_of_speakers_who_are_held_out_nothing_is_trained(checkpoint, data):
    index = Index.load(data)
    values = {"paths": (str(data),), "fields": speaker.FIELDS, "measure": "codes", "budget": 320}
    cfg = shards_config(**values, held_out=("v1.*", "v999"), validation=6)
    made = BatchPlan(cfg, [index])
    assert made.trained.tolist() == [False, False, True, True]
    drawn = {int(s) for number in range(20) for s in made[number].speakers}
    held = {int(s) for batch in made.validation for s in batch.speakers}
    assert drawn == {2, 3} and held == {0, 1}
    assert sum(batch.weight.sum() for batch in made.validation) == 6
    assert speaker.classes_of(made.trained.tolist()) == (-1, -1, 0, 1)


def shards_config(**values):
    from train.data.config import DataConfig

    return DataConfig(**values, speed_probability=0.0, max_rows=8, crop=40, ladder_ratio=32.0)


def test_a_share_of_the_speakers_is_held_out_by_their_names():
    cfg = shards_config(
        paths=("x",), fields=("bank",), measure="codes", budget=320, held_out_share=0.2
    )
    held = [cfg.holds_out(f"speaker {n}") for n in range(2000)]
    assert 0.17 < np.mean(held) < 0.23
    wider = dataclasses.replace(cfg, held_out_share=0.3)
    assert all(wider.holds_out(f"speaker {n}") for n in np.flatnonzero(held))


@pytest.mark.parametrize(
    "changes, error",
    [
        (("model.feat_dim=40",), "model.feat_dim is 40; the filterbank has 80 bands"),
        (("model.embedding=64",), "the style would be 64 wide; S2M of .* reads one of 192"),
        (("remat=True",), "remat is not there"),
        (('data.held_out=("v100",)', "data.validation=4"), "leave no pairs of one speaker and of"),
    ],
)
def test_what_cannot_be_trained_is_refused(checkpoint, data, tmp_path, one_device, changes, error):
    with pytest.raises(InputError, match=error):
        speaker.setup(settings(*files(checkpoint, data, tmp_path), *SMALL, *changes))


def test_a_margin_beyond_a_right_angle_is_refused():
    with pytest.raises(InputError, match=r"margin is 2\.0; want 0 to 1\.57"):
        Method.of(speaker.stage(margin=2.0))


def test_products_of_the_released_encoder_are_counted():
    cfg = CAMPPlusConfig.indextts2()
    # 2-D convolutions of 3 x 3 over 80, 40, 20 and 10 bands; two blocks of them have two strides.
    head = 9 * 32 * (80 + 32 * (4 * 40 + 4 * 20 + 10)) + 32**2 * (40 + 20)
    rest = 5.95e6 / 2  # nearly all other weights, at every second frame
    assert 0.97 < speaker.frame_products(cfg) / (head + rest) < 1.03


@pytest.mark.slow
def test_the_plan_counts_the_speaker_encoder():
    run = config.load(ROOT / "configs" / "speaker_tiny.py")
    made = plan.make_plan(run, 1)
    assert made.trainer == "speaker" and made.largest.rows == 32
    assert made.parameters["campplus.style_norm"] == (384, 0)
    assert made.activations > 0 and "speaker" in plan.report(made)

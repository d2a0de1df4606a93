"""The vocoder trainer: who learns from what, on several devices, resumed, and by heart."""

import csv
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from indextts2_jax import sharding
from indextts2_jax.audio.mel import MelConfig, log_mel
from indextts2_jax.checkpoint.demo import random_checkpoint
from indextts2_jax.checkpoint.parts import Settings
from indextts2_jax.errors import InputError
from indextts2_jax.nn import pytree
from indextts2_jax.vocoder.bigvgan import BigVGANConfig
from tests.common import ROOT
from tests.train_common import StopAt, make_step, run
from train import vocoder
from train.data import shards
from train.data.shards import Take, Utterance
from train.objectives import discriminators, spectra
from train.objectives.discriminators import DiscriminatorConfig
from train.run import config, loop

pytestmark = pytest.mark.slow

CFG = BigVGANConfig(80, 16, (16, 16), block_kernels=(3,), block_dilations=((1,),))
B, FRAMES, HOP, RATE = 8, 8, 256, 22050


@functools.cache
def wave(hertz: int, num_frames: int) -> np.ndarray:
    """Harmonics that come and go, and a little noise."""
    time = np.arange(num_frames * HOP) / RATE
    harmonics = sum(np.sin(2 * np.pi * hertz * k * time) / k for k in range(1, 12))
    swell = 0.6 + 0.4 * np.sin(2 * np.pi * 3 * time)
    noise = np.random.default_rng(hertz).standard_normal(len(time))
    return (0.15 * swell * harmonics + 0.003 * noise).astype(np.float32)


def make_batch() -> dict[str, np.ndarray]:
    audio = np.stack([wave(100 + 20 * b, FRAMES) for b in range(B)])
    lengths = np.full(B, FRAMES, np.int32)
    lengths[1], audio[1, 6 * HOP :] = 6, 0
    mel = np.stack([log_mel(x, MelConfig()) for x in audio])
    mel[1, 6:] = 0
    return {
        "audio": audio.reshape(B, FRAMES, HOP),
        "mel": mel,
        "mel_lengths": lengths,
        "weight": np.ones(B, np.float32),
    }


def make_task():
    return vocoder.make_task(CFG, DiscriminatorConfig.tiny(), MelConfig(), vocoder.Losses())


def test_each_network_learns_from_its_own_loss_alone():
    task, batch = make_task(), make_batch()
    arrays = {
        f"{prefix}.{name}": jnp.asarray(x)
        for prefix, module in task.modules.items()
        for name, x in pytree.random_arrays(module.build, seed=len(prefix)).items()
    }
    arrays["vocoder.conv_out.gain"] *= 0.05
    recorded = batch["audio"].reshape(B, -1)
    valid = np.arange(FRAMES) < batch["mel_lengths"][:, None]
    mel = np.where(valid[..., None], batch["mel"], vocoder.SILENCE)

    def together(arrays):
        losses, _ = task.loss(task.fill(arrays), batch, {}, None, 0.0)
        return losses.mean()

    def of_generator(arrays):
        nets = task.fill(arrays)
        generated, judge = nets["vocoder"](mel), nets["discriminators"]
        seen = judge(generated)
        return (
            15 * spectra.multi_scale_mel_loss(generated, recorded, RATE)
            + discriminators.generator_loss(seen)
            + 2 * discriminators.feature_loss(judge(recorded), seen)
        ).mean()

    def of_discriminators(arrays):
        nets = task.fill(arrays)
        judge = nets["discriminators"]
        return discriminators.discriminator_loss(
            judge(recorded), judge(nets["vocoder"](mel))
        ).mean()

    losses = together, of_generator, of_discriminators
    got, generator, judges = jax.jit(lambda x: [jax.grad(f)(x) for f in losses])(arrays)
    for name, gradient in got.items():
        want = generator[name] if name.startswith("vocoder.") else judges[name]
        assert np.abs(gradient - want).max() <= 1e-4 * np.abs(want).max() + 1e-6, name
        assert name == "vocoder.fir" or np.any(want), name


@functools.cache
def losses_on(*sizes: int, devices: int = 8, accumulation: int = 1) -> list[float]:
    stage = vocoder.stage(steps=10, rate=1e-3, warmup=0)
    mesh = sharding.make_mesh(*sizes, devices=jax.devices()[:devices])
    step = make_step(make_task(), stage, mesh, accumulation=accumulation)
    return run(step, make_batch())[0]


@pytest.mark.parametrize("sizes, devices, accumulation", [((2, 2, 2), 8, 1), ((1, 1, 1), 1, 4)])
def test_sharded_and_accumulated_equal_single(sizes, devices, accumulation):
    got = losses_on(*sizes, devices=devices, accumulation=accumulation)
    np.testing.assert_allclose(got, losses_on(1, 1, 1, devices=1), rtol=1e-4)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return random_checkpoint(tmp_path_factory.mktemp("base") / "checkpoint")


@pytest.fixture(scope="module")
def data(tmp_path_factory, checkpoint):
    """Two sounds of a second, without what the encoders would say of them."""
    path = tmp_path_factory.mktemp("data") / "data"
    path.mkdir()
    utterances = []
    for hertz in (130, 210):
        samples = np.rint(wave(hertz, 86) * 32768).astype(np.int16)
        mel = log_mel(samples / np.float32(32768), MelConfig()).astype(np.float16)
        take = Take(1.0, np.zeros(50, np.int32), np.zeros((50, 160), np.float16))
        utterances.append(
            Utterance(
                id=str(hertz), speaker=str(hertz), text="A", text_ids=np.array([3], np.int32),
                takes=(take,), mel=mel, style=np.zeros(0, np.float32),
                audio=samples.reshape(-1, HOP),
            )
        )  # fmt: skip
    rows = shards.write_shard(shards.shard_path(path, 0), utterances)
    made_with = shards.audio_fingerprints(checkpoint, Settings.load(checkpoint))
    shards.Index.build(path, made_with, [rows], HOP / RATE).save()
    return path


def make_run(checkpoint, data, out, *changes):
    values = (f"checkpoint={checkpoint}", f"data.paths={data}", f"out={out}", *changes)
    return config.load(ROOT / "configs" / "vocoder_tiny.py", values)


def setup_of(run):
    """On one device: two rows do not divide by eight."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            loop, "make_mesh", lambda _: sharding.make_mesh(1, 1, 1, devices=jax.devices()[:1])
        )
        return vocoder.setup(run)


def column(out, name):
    with open(out / "metrics.csv") as file:
        return [float(row[name]) for row in csv.DictReader(file) if row.get(name)]


def test_two_sounds_are_learned_by_heart(checkpoint, data, tmp_path):
    out = tmp_path / "run"
    few = "stages.0.steps=200", "stages.1.steps=20", "sample_every=220", "checkpoints.every=500"
    loop.run(setup_of(make_run(checkpoint, data, out, *few)))
    distance = column(out, "mel_l1")
    assert distance[0] > 1.5 and np.mean(distance[-3:]) < 0.7, distance
    assert (out / "samples" / "00000220" / "1" / "mel.png").is_file()
    after, before = Settings.load(out / "checkpoint"), Settings.load(checkpoint)
    assert after.configs["vocoder"].width == 64
    assert after.fingerprints["vocoder"] != before.fingerprints["vocoder"]
    assert after.fingerprints["s2m"] == before.fingerprints["s2m"]

    more = "stages.0.steps=2", "stages.1.steps=1", "sample_every=0", "log_every=1"
    start = f"init={out / 'checkpoint'}"
    loop.run(setup_of(make_run(checkpoint, data, tmp_path / "more", start, *more)))
    assert column(tmp_path / "more", "mel_l1")[0] < 0.8


@pytest.mark.parametrize("stop", [1, 4])
def test_stopped_and_resumed_equals_uninterrupted(checkpoint, data, tmp_path, stop):
    short = "stages.0.steps=2", "stages.1.steps=4", "sample_every=0", "log_every=1"
    for name in ("whole", "parts"):
        run = make_run(checkpoint, data, tmp_path / name, *short)
        if name == "parts":
            loop.run(setup_of(run), StopAt(stop))
            assert not (tmp_path / name / "checkpoint").exists()
        loop.run(setup_of(run))
    parts, whole = (column(tmp_path / name, "loss") for name in ("parts", "whole"))
    np.testing.assert_allclose(parts, whole, rtol=1e-5)
    assert len(parts) == 6


@pytest.mark.parametrize(
    "change, error",
    [
        ("data.crop=4", "data.crop is 4; want 5 frames or more"),
        ("model.upsample_rates=(8, 8)", "the vocoder makes 64 samples of 80 bins"),
        ("remat=True", "remat is not there for the vocoder"),
    ],
)
def test_what_cannot_be_trained_is_refused(checkpoint, data, tmp_path, change, error):
    with pytest.raises(InputError, match=error):
        setup_of(make_run(checkpoint, data, tmp_path, change))


def test_products_of_the_released_generator_are_counted():
    # Blocks: 6 convolutions of 3 + 7 + 11 taps; every stage halves the width, and has 4 or 2 times
    # as many samples.
    blocks = 6 * 21 * 768**2 * (4 + 4 + 2 + 1 + 1 / 2 + 1 / 4)
    assert blocks < vocoder.frame_weights(BigVGANConfig.indextts2()) < 1.04 * blocks

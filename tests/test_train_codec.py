"""The trainer of the codec: what learns and what stays, on several devices, resumed."""

import csv
import functools
import shutil

import jax
import numpy as np
import pytest

from indextts2_jax import sharding
from indextts2_jax.checkpoint.parts import Settings, load_part
from indextts2_jax.errors import InputError
from indextts2_jax.nn import pytree
from indextts2_jax.prompt.semantic_codec import SemanticCodecConfig
from indextts2_jax.prompt.w2v_bert import W2VBertConfig
from tests.common import ROOT
from tests.hearing_common import hearing_checkpoint, noise_data
from tests.train_common import StopAt, make_step, run
from train import codec
from train.recognition import recognizer
from train.recognition.hearing import Hearing, Method
from train.recognition.recognizer import RecognizerConfig
from train.run import config, loop

SMALL = (
    "model.codebook_size=32", "model.codebook_width=8", "model.backbone_width=24",
    "model.ffn_width=32", "model.num_blocks=1", "data.validation=0", "data.max_rows=4",
    "data.budget=400", "log_every=1",
)  # fmt: skip


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return hearing_checkpoint(tmp_path_factory.mktemp("base") / "checkpoint")


@pytest.fixture(scope="module")
def data(tmp_path_factory, checkpoint):
    path = tmp_path_factory.mktemp("data") / "data"
    return noise_data(path, checkpoint, ("HELLO", "A FOX", "GOOD", "DOG"), (24, 20, 22, 24))


def train(checkpoint, data, out, *changes, stop=None):
    """On one device: four rows do not divide by eight."""
    values = (f"checkpoint={checkpoint}", f"data.paths={data}", f"out={out}", *SMALL, *changes)
    settings = config.load(ROOT / "configs" / "codec_tiny.py", values)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            loop, "make_mesh", lambda _: sharding.make_mesh(1, 1, 1, devices=jax.devices()[:1])
        )
        setup = codec.setup(settings)
    loop.run(setup, *([] if stop is None else [StopAt(stop)]))


def column(out, name):
    with open(out / "metrics.csv") as file:
        return [float(row[name]) for row in csv.DictReader(file) if row.get(name)]


def arrays(path, part):
    return pytree.params(load_part(path, Settings.load(path), part))


@pytest.mark.slow
def test_the_codec_learns_and_the_encoder_stays(checkpoint, data, tmp_path):
    out = tmp_path / "run"
    train(checkpoint, data, out, "stages.0.steps=80", "stages.0.warmup=5", "sample_every=80")
    falls = column(out, "reconstruction_loss")
    assert falls[-1] < 0.6 * falls[0]
    assert 1 < column(out, "perplexity")[-1] <= 32 and 0 < column(out, "used")[-1] <= 1
    assert not column(out, "ctc_loss")  # the recognizer judges, and teaches nothing
    for name in ("sample_cer", "sample_cer_codes", "sample_perplexity", "sample_used"):
        assert len(column(out, name)) == 1, name

    path = out / "checkpoint"
    after = Settings.load(path)
    assert after.configs["semantic_codec"].downsample_scale == 2
    assert after.frames_per_code == pytest.approx(22050 / 256 / 25)
    before, now = arrays(checkpoint, "w2v_bert"), arrays(path, "w2v_bert")
    for name in before:
        np.testing.assert_array_equal(now[name], before[name], err_msg=name)
    np.testing.assert_array_equal(
        recognizer.load(path).units.kernel, recognizer.load(checkpoint).units.kernel
    )
    # Goes on from what was published.
    more = f"init={path}", "stages.0.steps=1", "sample_every=0"
    train(checkpoint, data, tmp_path / "more", *more)
    assert column(tmp_path / "more", "reconstruction_loss")[0] < 1.2 * falls[-1]


@pytest.mark.slow
def test_stopped_and_resumed_equals_uninterrupted(checkpoint, data, tmp_path):
    short = "stages.0.steps=4", "sample_every=0"
    train(checkpoint, data, tmp_path / "whole", *short)
    train(checkpoint, data, tmp_path / "parts", *short, stop=2)
    assert not (tmp_path / "parts" / "checkpoint").exists()
    train(checkpoint, data, tmp_path / "parts", *short)
    got, want = (column(tmp_path / name, "loss") for name in ("parts", "whole"))
    np.testing.assert_allclose(got, want, rtol=1e-5)
    assert len(got) == 4


@functools.cache
def losses_on(*sizes: int, devices: int):
    stage = codec.stage(steps=10, rate=1e-3, warmup=0)
    width = 24
    hearing = Hearing(
        encoder=W2VBertConfig(1, width, 3, 40, 160, conv_kernel=7, max_left=6, max_right=3),
        heads=RecognizerConfig("characters", 9, width),
        codec=SemanticCodecConfig(width, 40, 8, 16, 32, num_blocks=1),
        layer=1, mean=np.zeros(width, np.float32), variance=np.ones(width, np.float32),
    )  # fmt: skip
    rng = np.random.default_rng(0)
    batch = {
        "features": rng.standard_normal((8, 16, 160)).astype(np.float32),
        "feature_lengths": rng.integers(10, 17, 8).astype(np.int32),
        "labels": rng.integers(1, 9, (8, 8)).astype(np.int32),
        "label_lengths": np.full(8, 4, np.int32),
        "prosody": np.zeros((8, 16, 3), np.float32),
        "weight": np.ones(8, np.float32),
    }
    mesh = sharding.make_mesh(*sizes, devices=jax.devices()[:devices])
    losses, _, frozen, state = run(make_step(hearing.task(Method.of(stage)), stage, mesh), batch)
    assert {name.partition(".")[0] for name in state.params} == {"semantic_codec"}
    assert {name.partition(".")[0] for name in frozen} == {"w2v_bert", "recognizer"}
    return losses


@pytest.mark.slow
def test_sharded_equals_single():
    np.testing.assert_allclose(
        losses_on(2, 2, 2, devices=8), losses_on(1, 1, 1, devices=1), rtol=1e-4
    )


def test_a_checkpoint_without_recognizer_is_refused(checkpoint, data, tmp_path):
    bare = tmp_path / "bare"
    shutil.copytree(checkpoint, bare)
    (bare / recognizer.FILE).unlink()
    with pytest.raises(InputError, match=r"holds no recognizer; train first"):
        train(bare, data, tmp_path / "run")

"""The speaker encoder against speakerlab, its padding, its weights."""

import functools
import os
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from indextts2_jax.convert import to_jax, to_torch
from indextts2_jax.nn.pytree import abstract, fill, params, shapes
from indextts2_jax.prompt import campplus
from indextts2_jax.prompt.campplus import CAMPPlus, CAMPPlusConfig
from tests.common import SHARED, load_golden, manifest, needs_shared, relative_error, weights_of

REAL_WEIGHTS = os.environ.get(
    "INDEXTTS2_CAMPPLUS", ""
)  # path of 3D-Speaker's campplus_cn_common.bin
encode = jax.jit(lambda model, fbank, lengths=None: model(fbank, lengths))


def load(weights):
    cfg = CAMPPlusConfig.from_shapes({name: w.shape for name, w in weights.items()})
    model = abstract(lambda rngs: CAMPPlus(cfg, rngs=rngs))
    arrays = to_jax(weights, campplus.TORCH_RULES, shapes(model), campplus.TORCH_UNUSED)
    return fill(model, {name: jnp.asarray(x, jnp.float32) for name, x in arrays.items()})


@functools.cache
def golden_model():
    return load(weights_of(load_golden("campplus")))


def test_style_equals_that_of_speakerlab():
    golden = load_golden("campplus")
    for name in ("long", "short"):
        style = encode(golden_model(), golden[f"fbank_{name}"])
        assert relative_error(style, golden[f"style_{name}"]) < 1e-5


@pytest.mark.slow
def test_padded_batch_equals_single():
    fbank, model = load_golden("campplus")["fbank_long"], golden_model()
    for lengths in ((263, 198), (58, 57), (3, 4)):  # segments of 132 and 99 frames; odd; shortest
        padded = np.pad(fbank, ((0, 0), (0, 150), (0, 0)))
        for item, length in zip(padded, lengths, strict=True):
            item[length:] = np.nan
        got = encode(model, padded, jnp.array(lengths))
        for i, length in enumerate(lengths):
            assert relative_error(got[i], encode(model, fbank[i : i + 1, :length])[0]) < 1e-5


def test_a_silent_channel_has_a_finite_gradient():
    lengths = jnp.array([4])
    gradient = jax.grad(lambda x: campplus.mean_and_deviation(x, lengths, None).sum())
    np.testing.assert_allclose(gradient(jnp.zeros((1, 4, 2))), 0.25)


def test_architecture_is_read_from_shapes():
    weights = weights_of(load_golden("campplus"))
    got = CAMPPlusConfig.from_shapes({name: w.shape for name, w in weights.items()})
    assert got == CAMPPlusConfig.tiny()


def test_weights_convert_both_ways():
    weights = weights_of(load_golden("campplus"))
    back = to_torch(params(golden_model()), campplus.TORCH_RULES)
    assert {name for name in weights if "num_batches" not in name} == back.keys()
    for name, want in back.items():
        np.testing.assert_array_equal(weights[name], want)


@needs_shared
def test_released_shapes_match_the_manifest():
    released = manifest("campplus")
    assert CAMPPlusConfig.from_shapes(released) == CAMPPlusConfig.indextts2()
    model = abstract(lambda rngs: CAMPPlus(CAMPPlusConfig.indextts2(), rngs=rngs))
    tensors = {name: np.broadcast_to(np.float32(0), shape) for name, shape in released.items()}
    arrays = to_jax(tensors, campplus.TORCH_RULES, shapes(model), campplus.TORCH_UNUSED)
    trained = [x.size for name, x in arrays.items() if not name.endswith((".mean", ".var"))]
    assert sum(trained) == 6_848_544


@needs_shared
@pytest.mark.slow
def test_style_of_the_small_golden():
    safetensors = pytest.importorskip("safetensors.numpy")
    folder = SHARED / "golden" / "s2m"
    model = load(safetensors.load_file(folder / "campplus.safetensors"))
    with np.load(folder / "campplus.npz") as golden:
        for suffix in ("", "_short"):
            style = encode(model, golden[f"in_feat{suffix}"])
            assert relative_error(style, golden[f"out_emb{suffix}"]) < 1e-5


@needs_shared
@pytest.mark.slow
def test_style_of_a_golden_run():
    torch = pytest.importorskip("torch")
    folder = SHARED / "golden" / "pipeline"
    file = folder / "release" / "hf_cache" / "campplus_cn_common.bin"
    weights = torch.load(file, map_location="cpu", weights_only=True)
    model = load({name: w.numpy() for name, w in weights.items()})
    with np.load(folder / "dumps" / "a_english.npz") as golden:
        fbank, want = golden["fbank_centered"], golden["style"]
    assert relative_error(encode(model, fbank.reshape(1, -1, 80)), want) < 1e-4


@needs_shared
@pytest.mark.slow
@pytest.mark.skipif(not REAL_WEIGHTS, reason="INDEXTTS2_CAMPPLUS names no weight file")
def test_real_weights_equal_speakerlab():
    torch = pytest.importorskip("torch")
    peer = pytest.importorskip("speakerlab.models.campplus.DTDNN").CAMPPlus(embedding_size=192)
    weights = torch.load(pathlib.Path(REAL_WEIGHTS), map_location="cpu", weights_only=True)
    peer.load_state_dict(weights)
    model = load({name: w.numpy() for name, w in weights.items()})
    with np.load(SHARED / "golden" / "pipeline" / "dumps" / "a_english.npz") as golden:
        fbank = golden["fbank_centered"].reshape(1, -1, 80)
    with torch.no_grad():
        want = peer.eval()(torch.from_numpy(fbank)).numpy()
    assert relative_error(encode(model, fbank), want) < 1e-5

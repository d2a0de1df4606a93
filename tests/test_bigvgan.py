"""The vocoder against NVIDIA's bigvgan, its padding, its weights."""

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from indextts2_jax.convert import to_jax, to_torch
from indextts2_jax.nn.conv import fold_weight_norm
from indextts2_jax.nn.pytree import abstract, fill, params, shapes
from indextts2_jax.vocoder import bigvgan
from indextts2_jax.vocoder.bigvgan import BigVGAN, BigVGANConfig, sin_squared
from tests.common import SHARED, load_golden, manifest, needs_shared, relative_error, weights_of

CONFIG_JSON = {
    "resblock": "1",
    "num_mels": 8,
    "upsample_rates": [4, 2],
    "upsample_kernel_sizes": [8, 4],
    "upsample_initial_channel": 16,
    "resblock_kernel_sizes": [3, 7],
    "resblock_dilation_sizes": [[1, 3], [5]],
    "use_tanh_at_final": False,
    "use_bias_at_final": False,
    "activation": "snakebeta",
    "snake_logscale": True,
    "hop_size": 8,
}
synthesize = jax.jit(lambda model, mel, lengths=None: model(mel, lengths))


def load(cfg, weights):
    model = abstract(lambda rngs: BigVGAN(cfg, rngs=rngs))
    rules, unused = bigvgan.TORCH_RULES, bigvgan.TORCH_UNUSED
    arrays = to_jax(weights, rules, shapes(model), unused)
    return fill(model, {name: jnp.asarray(x, jnp.float32) for name, x in arrays.items()})


@functools.cache
def golden_model():
    return load(BigVGANConfig.tiny(), weights_of(load_golden("bigvgan")))


def test_wave_equals_that_of_nvidia_bigvgan():
    golden = load_golden("bigvgan")
    assert relative_error(synthesize(golden_model(), golden["mel"]), golden["wav_clip"]) < 1e-5


def test_wave_with_tanh_and_final_bias_equals_that_of_nvidia_bigvgan():
    golden = load_golden("bigvgan")
    cfg = dataclasses.replace(BigVGANConfig.tiny(), final_tanh=True, final_bias=True)
    model = load(cfg, {**weights_of(golden), "conv_post.bias": golden["final_bias"]})
    assert relative_error(synthesize(model, golden["mel"]), golden["wav_tanh"]) < 1e-5


def test_padded_batch_equals_single():
    model, hop = golden_model(), BigVGANConfig.tiny().hop_length
    mel, lengths = load_golden("bigvgan")["mel"], (19, 2)
    padded = np.pad(mel, ((0, 0), (0, 6), (0, 0)), constant_values=np.nan)
    padded[1, lengths[1] :] = 9.0
    got = np.asarray(synthesize(model, padded, jnp.array(lengths)))
    assert got.shape == (2, padded.shape[1] * hop)
    for i, length in enumerate(lengths):
        bare = synthesize(model, mel[:, :length])[i]
        assert relative_error(got[i, : length * hop], bare) < 2e-6
        assert not got[i, length * hop :].any()


def test_folded_weight_norm_gives_the_same_wave():
    mel = load_golden("bigvgan")["mel"]
    model = load(BigVGANConfig.tiny(), weights_of(load_golden("bigvgan")))
    want = synthesize(model, mel)
    fold_weight_norm(model)
    assert not any(name.endswith("gain") for name in params(model))
    assert relative_error(synthesize(model, mel), want) < 1e-5


def test_bfloat16_weights_give_nearly_the_same_wave():
    golden, model = load_golden("bigvgan"), golden_model()
    graphdef, state, fir = nnx.split(model, nnx.Param, ...)
    low = nnx.merge(graphdef, jax.tree.map(lambda x: x.astype(jnp.bfloat16), state), fir)
    got = synthesize(low, golden["mel"])
    assert got.dtype == jnp.float32
    assert relative_error(got, golden["wav_clip"]) < 0.05


def test_gradients_reach_every_parameter():
    cfg = BigVGANConfig(
        num_mels=4, width=8, upsample_rates=(2,), block_kernels=(3,), block_dilations=((1,),)
    )
    model, rng = abstract(lambda rngs: BigVGAN(cfg, rngs=rngs)), np.random.default_rng(0)
    draw = {name: rng.normal(0, 0.2, shape).astype("f4") for name, shape in shapes(model).items()}
    graphdef, state, fir = nnx.split(fill(model, draw), nnx.Param, ...)
    mel = rng.normal(size=(2, 6, 4))

    @jax.jit
    @jax.grad
    def gradient(state):
        wav = nnx.merge(graphdef, state, fir)(mel, jnp.array([6, 3]))
        return jnp.sum(wav * np.arange(12))

    for name, value in params(gradient(state)).items():
        assert np.isfinite(value).all() and np.any(value), name


def test_sin_squared_is_accurate_to_float32():
    for limit in (2.0, 100.0, 1e4):
        x = np.linspace(-limit, limit, 100_001, dtype=np.float32)
        want = np.sin(x.astype(np.float64)) ** 2
        np.testing.assert_allclose(jax.jit(sin_squared)(x), want, atol=4e-7)


def test_weights_convert_both_ways():
    weights = weights_of(load_golden("bigvgan"))
    back = to_torch(params(golden_model()), bigvgan.TORCH_RULES)
    for name, want in back.items():
        np.testing.assert_array_equal(weights[name], want)
    for name in weights.keys() - back.keys():
        assert name.endswith(".filter")
        np.testing.assert_array_equal(weights[name], back["activation_post.upsample.filter"])


def test_own_fir_equals_that_of_nvidia_bigvgan():
    want = load_golden("bigvgan")["w/activation_post.upsample.filter"]
    np.testing.assert_allclose(bigvgan.kaiser_sinc(), want[0, 0], atol=1e-7)


def test_config_json_is_read():
    assert BigVGANConfig.from_release(CONFIG_JSON) == BigVGANConfig.tiny()
    old = {k: v for k, v in CONFIG_JSON.items() if not k.endswith("at_final")}
    want = dataclasses.replace(BigVGANConfig.tiny(), final_tanh=True, final_bias=True)
    assert BigVGANConfig.from_release(old) == want


@pytest.mark.parametrize(
    "change, error",
    [
        ({"resblock": "2"}, "resblock: got '2', want '1'"),
        ({"activation": "snake"}, "activation: got 'snake'"),
        ({"snake_logscale": False}, "snake_logscale"),
        ({"upsample_kernel_sizes": [9, 4]}, "upsample_kernel_sizes"),
        ({"hop_size": 256}, "hop_size: got 256, want 8"),
        (
            {"upsample_rates": [3, 2], "upsample_kernel_sizes": [6, 4], "hop_size": 6},
            "even numbers",
        ),
    ],
)
def test_unsupported_config_is_refused(change, error):
    with pytest.raises(ValueError, match=error):
        BigVGANConfig.from_release({**CONFIG_JSON, **change})


def test_samples_that_are_too_loud_are_clipped_and_still_learn():
    model = BigVGAN(BigVGANConfig.tiny(), rngs=nnx.Rngs(0))
    model.conv_out.gain[...] *= 1e9
    mel = jax.random.normal(jax.random.key(1), (1, 6, model.cfg.num_mels))
    np.testing.assert_array_equal(jnp.abs(model(mel)), 1)
    gradient = nnx.grad(lambda model: jnp.mean(model(mel) ** 2))(model)
    assert jnp.abs(gradient.conv_out.gain[...]).sum() > 0


@needs_shared
def test_released_shapes_match_the_manifest():
    released = {k.removeprefix("generator/"): v for k, v in manifest("bigvgan").items()}
    model = abstract(lambda rngs: BigVGAN(BigVGANConfig.indextts2(), rngs=rngs))
    tensors = {name: np.broadcast_to(np.float32(0), shape) for name, shape in released.items()}
    arrays = to_jax(tensors, bigvgan.TORCH_RULES, shapes(model), bigvgan.TORCH_UNUSED)
    assert sum(x.size for x in arrays.values()) == 112_231_249 + arrays["fir"].size
    assert BigVGANConfig.indextts2().hop_length == 256


@needs_shared
def test_wave_of_the_small_golden():
    safetensors = pytest.importorskip("safetensors.numpy")
    folder = SHARED / "golden" / "s2m"
    config = json.loads((folder / "bigvgan.json").read_text())["config"]
    cfg = BigVGANConfig.from_release({**config, "hop_size": 8})
    model = load(cfg, safetensors.load_file(folder / "bigvgan.safetensors"))
    with np.load(folder / "bigvgan.npz") as golden:
        got = synthesize(model, golden["in_mel"].transpose(0, 2, 1))
        assert relative_error(got, golden["out_wav"][:, 0]) < 1e-5


@needs_shared
@pytest.mark.slow
def test_wave_of_a_golden_run():
    torch = pytest.importorskip("torch")
    folder = SHARED / "golden" / "pipeline"
    release = folder / "release" / "hf_cache" / "bigvgan"
    cfg = BigVGANConfig.from_release(json.loads((release / "config.json").read_text()))
    weights = torch.load(release / "bigvgan_generator.pt", map_location="cpu", weights_only=True)
    weights = {name: w.float().numpy() for name, w in weights["generator"].items()}
    model = fold_weight_norm(load(cfg, weights))
    with np.load(folder / "dumps" / "a_english.npz") as golden:
        mel, want = golden["seg0_mel"], golden["seg0_wav"]
    got = synthesize(model, mel.transpose(0, 2, 1))
    assert relative_error(got[0], want.reshape(-1)) < 1e-4

"""w2v-BERT 2.0."""

import dataclasses
import functools
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import AxisType, NamedSharding

from indextts2_jax import convert
from indextts2_jax.nn import pytree
from indextts2_jax.prompt.w2v_bert import (
    SHARDING_RULES,
    TORCH_RULES,
    TORCH_UNUSED,
    W2VBert,
    W2VBertConfig,
    normalize,
)
from tests.common import (
    SHARED,
    load_golden,
    manifest,
    needs_shared,
    relative_error,
    weights_of,
)

CFG = W2VBertConfig.tiny()
RELEASED = {
    "position_embeddings_type": "relative_key",
    "hidden_act": "swish",
    "add_adapter": False,
    "layer_norm_eps": 1e-5,
    "num_hidden_layers": 24,
    "hidden_size": 1024,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
    "feature_projection_input_dim": 160,
    "conv_depthwise_kernel_size": 31,
    "left_max_position_embeddings": 64,
    "right_max_position_embeddings": 8,
}
run = jax.jit(W2VBert.__call__, static_argnames="num_layers")
hidden_states = jax.jit(W2VBert.hidden_states, static_argnames="layers")


def build(cfg: W2VBertConfig, weights: dict[str, np.ndarray]) -> W2VBert:
    model = pytree.abstract(lambda rngs: W2VBert(cfg, rngs=rngs))
    arrays = convert.to_jax(weights, TORCH_RULES, pytree.shapes(model), TORCH_UNUSED)
    return pytree.fill(model, arrays)


@functools.cache
def golden() -> dict[str, np.ndarray]:
    return load_golden("w2v_bert")


@functools.cache
def golden_model() -> W2VBert:
    return build(CFG, weights_of(golden()))


def test_hidden_states_equal_transformers():
    layers = range(CFG.num_layers + 1)
    hidden = hidden_states(golden_model(), golden()["features"], golden()["mask"], layers)
    for i in layers:
        assert relative_error(hidden[i], golden()[f"hidden_{i}"]) < 1e-5


def test_fewer_layers_equal_the_hidden_state_of_that_layer():
    features, mask = golden()["features"], golden()["mask"]
    assert relative_error(run(golden_model(), features, mask, 1), golden()["hidden_1"]) < 1e-5
    weights = {k: w for k, w in weights_of(golden()).items() if "layers.1." not in k}
    short = build(dataclasses.replace(CFG, num_layers=1), weights)
    assert relative_error(run(short, features, mask), golden()["hidden_1"]) < 1e-5


def test_padded_batch_equals_single():
    lengths, total = (14, 9), 21
    rng = np.random.default_rng(0)
    features = rng.normal(size=(2, total, CFG.feature_width)).astype(np.float32)
    mask = np.arange(total) < np.array(lengths)[:, None]
    features[~mask] = 1e4
    batch = run(golden_model(), features, mask)
    for b, length in enumerate(lengths):
        single = run(golden_model(), features[b : b + 1, :length])
        assert relative_error(batch[b, :length], single[0]) < 1e-5


def test_a_masked_last_token_does_not_depend_on_further_padding():
    features = np.random.default_rng(0).normal(size=(1, 16, CFG.feature_width))
    mask = np.arange(16)[None] < 9
    got = run(golden_model(), features, mask)[:, :10]
    assert relative_error(got, run(golden_model(), features[:, :10], mask[:, :10])) < 1e-5


def test_computes_in_the_dtype_of_its_weights():
    model = nnx.eval_shape(lambda: W2VBert(CFG, rngs=nnx.Rngs(0)))
    graphdef, state = nnx.split(model)
    state = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, jnp.bfloat16), state)
    features = jax.ShapeDtypeStruct((1, 5, CFG.feature_width), jnp.float32)
    out = jax.eval_shape(lambda s, x: nnx.merge(graphdef, s)(x), state, features)
    assert out.dtype == jnp.bfloat16


def test_normalize_standardises():
    hidden = np.random.default_rng(0).normal(3.0, 2.0, size=(1, 500, 4)).astype(np.float32)
    got = normalize(hidden, hidden.mean((0, 1)), hidden.var((0, 1)))
    np.testing.assert_allclose(np.mean(got, (0, 1)), 0, atol=1e-5)
    np.testing.assert_allclose(np.std(got, (0, 1)), 1, atol=1e-5)


def test_weights_convert_both_ways():
    weights = weights_of(golden())
    back = convert.to_torch(pytree.params(golden_model()), TORCH_RULES)
    assert back.keys() == weights.keys() - {"masked_spec_embed"}
    for name, value in back.items():
        np.testing.assert_array_equal(value, weights[name])


def test_released_configuration():
    assert W2VBertConfig.from_release(RELEASED) == W2VBertConfig.indextts2()
    with pytest.raises(ValueError, match="position_embeddings_type is 'rotary'"):
        W2VBertConfig.from_release({**RELEASED, "position_embeddings_type": "rotary"})


def test_sharded_equals_unsharded():
    mesh = jax.make_mesh((4, 2), ("fsdp", "tensor"), axis_types=(AxisType.Auto,) * 2)
    model, used = golden_model(), set()
    arrays = pytree.params(model)
    for name, value in arrays.items():
        pattern, spec = next(r for r in SHARDING_RULES if re.fullmatch(r[0], name))
        used.add(pattern)
        arrays[name] = jax.device_put(value, NamedSharding(mesh, spec))
    assert used == {pattern for pattern, _ in SHARDING_RULES}
    got = run(pytree.fill(model, arrays), golden()["features"], golden()["mask"])
    assert relative_error(got, run(model, golden()["features"], golden()["mask"])) < 1e-5


@needs_shared
def test_released_weights_fit():
    cfg = W2VBertConfig.indextts2()
    expected = pytree.shapes(pytree.abstract(lambda rngs: W2VBert(cfg, rngs=rngs)))
    tensors = {
        name: np.broadcast_to(np.float32(0), shape) for name, shape in manifest("w2v_bert").items()
    }
    convert.to_jax(tensors, TORCH_RULES, expected, TORCH_UNUSED)
    assert sum(np.prod(shape) for shape in expected.values()) == 580_493_120 - cfg.width


@needs_shared
def test_hidden_states_equal_the_shared_goldens():
    load_file = pytest.importorskip("safetensors.numpy").load_file
    folder = SHARED / "golden" / "s2m"
    want = np.load(folder / "w2v_bert.npz")
    config = json.loads((folder / "w2v_bert.json").read_text())["config"]
    cfg = W2VBertConfig.from_release({**RELEASED, **config})
    model = build(cfg, load_file(folder / "w2v_bert.safetensors"))
    got = hidden_states(model, want["in_features"], want["in_mask"] > 0, range(4))
    for i, hidden in enumerate(got):
        assert relative_error(hidden, want[f"out_hidden_{i}"]) < 1e-5
    chain = np.load(folder / "e2e.npz")
    got = normalize(chain["mid_w2v_hidden"], chain["in_stat_mean"], chain["in_stat_var"])
    assert relative_error(got, chain["mid_spk_cond"]) < 1e-6


@needs_shared
@pytest.mark.slow
def test_speech_equals_the_shared_pipeline():
    load_file = pytest.importorskip("safetensors.numpy").load_file
    folder = SHARED / "golden" / "pipeline"
    release = folder / "release" / "hf_cache" / "w2v-bert-2.0"
    cfg = W2VBertConfig.from_release(json.loads((release / "config.json").read_text()))
    model = build(cfg, load_file(release / "model.safetensors"))
    want = np.load(folder / "dumps" / "b_emo_audio.npz")
    inputs = want["emo_input_features"], want["emo_attention_mask"] > 0  # the last is masked
    for i, hidden in zip((0, 1, 17), hidden_states(model, *inputs, (0, 1, 17)), strict=True):
        assert relative_error(hidden, want[f"emo_w2v_hidden{i}"]) < 2e-5

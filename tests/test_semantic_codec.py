"""The semantic codec."""

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
from indextts2_jax.prompt.semantic_codec import (
    SHARDING_RULES,
    TORCH_RULES,
    TORCH_UNUSED,
    Quantizer,
    SemanticCodec,
    SemanticCodecConfig,
)
from tests.common import SHARED, load_golden, manifest, needs_shared, relative_error, weights_of

CFG = SemanticCodecConfig.tiny()
HALF = dataclasses.replace(CFG, downsample_scale=2)
quantize = jax.jit(SemanticCodec.quantize)
decode = jax.jit(SemanticCodec.decode)


def build(cfg: SemanticCodecConfig, weights: dict[str, np.ndarray]) -> SemanticCodec:
    model = pytree.abstract(lambda rngs: SemanticCodec(cfg, rngs=rngs))
    arrays = convert.to_jax(weights, TORCH_RULES, pytree.shapes(model), TORCH_UNUSED)
    return pytree.fill(model, arrays)


@functools.cache
def golden() -> dict[str, np.ndarray]:
    return load_golden("semantic_codec")


@functools.cache
def golden_model(cfg: SemanticCodecConfig) -> SemanticCodec:
    weights = weights_of(golden())
    if cfg.downsample_scale == 1:
        weights = {k: w for k, w in weights.items() if not k.startswith(("down.", "up."))}
    return build(cfg, weights)


def test_codes_and_embeddings_equal_torch():
    model, want = golden_model(CFG), golden()
    codes, embedding = quantize(model, want["features"])
    assert codes.dtype == jnp.int32
    np.testing.assert_array_equal(codes, want["codes"])
    assert relative_error(embedding, want["embedding"]) < 1e-6
    assert relative_error(decode(model, embedding), want["decoded"]) < 1e-5


def test_one_code_for_two_frames_equals_torch():
    model, want = golden_model(HALF), golden()
    codes, embedding = quantize(model, want["features"])
    np.testing.assert_array_equal(codes, want["half_codes"])
    assert relative_error(decode(model, embedding), want["half_decoded"]) < 1e-5


def test_embed_gives_the_embeddings_of_quantize():
    model = golden_model(CFG)
    codes, embedding = quantize(model, golden()["features"])
    np.testing.assert_allclose(model.embed(codes), embedding, atol=1e-6)


@pytest.mark.parametrize("cfg", [CFG, HALF], ids=["full", "half"])
def test_padded_batch_equals_single(cfg):
    model, lengths, total = golden_model(cfg), (13, 6), 24
    rng = np.random.default_rng(0)
    features = rng.normal(size=(2, total, cfg.feature_width)).astype(np.float32)
    mask = np.arange(total) < np.array(lengths)[:, None]
    features[~mask] = 1e4

    @jax.jit
    def round_trip(model, features, mask=None):
        codes, embedding = model.quantize(features, mask)
        decoded = model.decode(embedding, model.code_mask(mask))
        return codes, model.project(features, mask), decoded

    batch = round_trip(model, features, mask)
    for b, length in enumerate(lengths):
        single = round_trip(model, features[b : b + 1, :length])
        valid = -(-length // cfg.downsample_scale)
        assert model.code_mask(mask)[b].sum() == valid == single[0].shape[1]
        np.testing.assert_array_equal(batch[0][b, :valid], single[0][0])
        for got, want in zip(batch[1:], single[1:], strict=True):
            assert relative_error(got[b, : want.shape[1]], want[0]) < 1e-5


def test_codes_do_not_depend_on_the_default_matmul_precision():
    cfg = dataclasses.replace(CFG, codebook_size=4096)
    quantizer = Quantizer(cfg, rngs=nnx.Rngs(0))
    z = jax.random.normal(jax.random.key(0), (1, 300, cfg.codebook_width))
    rows = np.asarray(quantizer.codebook.embedding[...], np.float64)
    cosine = np.asarray(z[0], np.float64) @ (rows / np.linalg.norm(rows, axis=1)[:, None]).T
    with jax.default_matmul_precision("bfloat16"):
        nearest = jax.jit(Quantizer.nearest).lower(quantizer, z)
    assert "precision = [HIGHEST, HIGHEST]" in nearest.as_text()
    codes = nearest.compile()(quantizer, z)
    np.testing.assert_array_equal(codes[0], np.argmax(cosine, axis=1))


def test_weights_convert_both_ways():
    weights = weights_of(golden())
    back = convert.to_torch(pytree.params(golden_model(HALF)), TORCH_RULES)
    assert back.keys() == weights.keys()
    for name, value in back.items():
        np.testing.assert_array_equal(value, weights[name])


def test_released_configuration():
    block = {
        "codebook_size": 8192,
        "hidden_size": 1024,
        "codebook_dim": 8,
        "vocos_dim": 384,
        "vocos_intermediate_dim": 2048,
        "vocos_num_layers": 12,
    }
    assert SemanticCodecConfig.from_release(block) == SemanticCodecConfig.indextts2()
    got = SemanticCodecConfig.from_release({**block, "downsample_scale": 2})
    assert got.downsample_scale == 2


def test_unknown_downsampling_is_refused():
    with pytest.raises(ValueError, match="downsample_scale is 3, want 1 or 2"):
        dataclasses.replace(CFG, downsample_scale=3)


def test_sharded_equals_unsharded():
    mesh = jax.make_mesh((4, 2), ("fsdp", "tensor"), axis_types=(AxisType.Auto,) * 2)
    model, used = golden_model(CFG), set()
    arrays = pytree.params(model)
    for name, value in arrays.items():
        pattern, spec = next(r for r in SHARDING_RULES if re.fullmatch(r[0], name))
        used.add(pattern)
        arrays[name] = jax.device_put(value, NamedSharding(mesh, spec))
    assert used == {pattern for pattern, _ in SHARDING_RULES}
    codes, embedding = quantize(pytree.fill(model, arrays), golden()["features"])
    np.testing.assert_array_equal(codes, golden()["codes"])
    assert relative_error(embedding, golden()["embedding"]) < 1e-5


@needs_shared
def test_released_weights_fit():
    cfg = SemanticCodecConfig.from_shapes(manifest("semantic_codec"))
    assert cfg == SemanticCodecConfig.indextts2()
    expected = pytree.shapes(pytree.abstract(lambda rngs: SemanticCodec(cfg, rngs=rngs)))
    tensors = {
        name: np.broadcast_to(np.float32(0), shape)
        for name, shape in manifest("semantic_codec").items()
    }
    convert.to_jax(tensors, TORCH_RULES, expected, TORCH_UNUSED)
    assert sum(np.prod(shape) for shape in expected.values()) == 44_289_808


@needs_shared
@pytest.mark.parametrize("name", ["repcodec", "repcodec_ds2"])
def test_codec_equals_the_shared_goldens(name):
    load_file = pytest.importorskip("safetensors.numpy").load_file
    folder = SHARED / "golden" / "s2m"
    want = np.load(folder / f"{name}.npz")
    config = json.loads((folder / f"{name}.json").read_text())["config"]
    model = build(
        SemanticCodecConfig.from_release(config), load_file(folder / f"{name}.safetensors")
    )
    codes, embedding = quantize(model, want["in_feat"])
    np.testing.assert_array_equal(codes, want["out_codes"].reshape(codes.shape))
    decoded = decode(model, embedding)
    if name == "repcodec_ds2":
        assert relative_error(decoded, want["out_rec"]) < 1e-5
        return
    assert relative_error(embedding, want["out_quantized"]) < 1e-6
    assert relative_error(model.embed(codes), want["out_vq2emb"].swapaxes(1, 2)) < 1e-6
    assert relative_error(decoded, want["out_reconstruct"]) < 1e-5
    chain = np.load(folder / "e2e.npz")
    codes, embedding = quantize(model, chain["mid_spk_cond"])
    np.testing.assert_array_equal(codes, chain["mid_ref_codes"])
    assert relative_error(embedding, chain["mid_S_ref"]) < 1e-6


@needs_shared
def test_speech_equals_the_shared_pipeline():
    load_file = pytest.importorskip("safetensors.numpy").load_file
    yaml = pytest.importorskip("yaml")
    folder = SHARED / "golden" / "pipeline"
    release = yaml.safe_load((folder / "release" / "config.yaml").read_text())
    model = build(
        SemanticCodecConfig.from_release(release["semantic_codec"]),
        load_file(folder / "release" / "hf_cache" / "semantic_codec_model.safetensors"),
    )
    want = np.load(folder / "dumps" / "b_emo_audio.npz")
    codes, embedding = quantize(model, want["spk_cond_emb"])
    np.testing.assert_array_equal(codes, want["prompt_codes"])
    assert relative_error(embedding, want["S_ref"]) < 1e-6

import re

import jax
import numpy as np
import pytest
import yaml
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from indextts2_jax import convert
from indextts2_jax.nn import pytree
from indextts2_jax.s2m import flow_matching
from indextts2_jax.s2m import model as s2m
from indextts2_jax.s2m.conditions import Conditions
from tests.common import SHARED, load_golden, manifest, needs_shared, relative_error, weights_of
from tests.s2m_common import build, conditions_of, golden_model, load_shared, shared_model

RELEASE = s2m.S2MConfig.indextts2()


def released_block():
    """The options of the released config.yaml that are not widths."""
    return {
        "style_encoder": {"dim": 192},
        "length_regulator": {"channels": 512, "is_discrete": False, "f0_condition": False},
        "DiT": {
            "hidden_dim": 512,
            "num_heads": 8,
            "depth": 13,
            "in_channels": 80,
            "content_dim": 512,
            "style_condition": True,
            "final_layer_type": "wavenet",
            "is_causal": False,
            "long_skip_connection": True,
            "time_as_token": False,
            "style_as_token": False,
            "uvit_skip_connection": True,
        },
        "wavenet": {
            "hidden_dim": 512,
            "num_layers": 8,
            "kernel_size": 5,
            "dilation_rate": 1,
            "p_dropout": 0.2,
        },
    }


def abstract(cfg):
    return pytree.abstract(lambda rngs: s2m.S2M(cfg, rngs=rngs))


def test_latent_projection_matches_the_formulas():
    golden = load_golden("s2m")
    got = golden_model().latent_projection(golden["latents"])
    assert relative_error(got, golden["out_projected"]) < 1e-5


def test_latents_are_added_where_they_are_used():
    golden, model = load_golden("s2m"), golden_model()
    embedding, latents = golden["s"], golden["latents"]
    use = np.arange(embedding.shape[1]) >= np.array([[2], [7]])
    got = model.semantic(embedding, latents, use)
    want = embedding + np.where(use[..., None], golden["out_projected"], 0)
    assert relative_error(got, want) < 1e-5
    assert (
        relative_error(model.semantic(embedding, latents), embedding + golden["out_projected"])
        < 1e-5
    )
    np.testing.assert_array_equal(model.semantic(embedding), embedding)


def test_semantic_frames_are_stretched_as_the_formulas_say():
    golden = load_golden("s2m")
    lengths = golden["code_lengths"], golden["frame_lengths"]
    got = golden_model().regulate(golden["s"], *lengths, num_frames=12)
    assert relative_error(got, golden["out_regulated"]) < 1e-5


def test_targets_stand_right_behind_their_prompts():
    rng = np.random.default_rng(0)
    prompt_lengths, frame_lengths = np.array([5, 2]), np.array([3, 4])
    before, after = (rng.normal(size=(2, n, 3)).astype(np.float32) for n in (5, 4))
    prompt_mel, style = rng.normal(size=(2, 5, 8)), rng.normal(size=(2, 4))
    got = Conditions.behind_prompt(
        before,
        after,
        prompt_mel=prompt_mel,
        prompt_lengths=prompt_lengths,
        style=style,
        frame_lengths=frame_lengths,
        num_frames=9,
    )
    np.testing.assert_array_equal(got.lengths, [8, 6])
    for b, (p, n) in enumerate(zip(prompt_lengths, frame_lengths, strict=True)):
        np.testing.assert_array_equal(got.mu[b, :p], before[b, :p])
        np.testing.assert_array_equal(got.mu[b, p : p + n], after[b, :n])
        np.testing.assert_array_equal(np.flatnonzero(got.is_prompt()[b]), np.arange(p))
        np.testing.assert_array_equal(np.flatnonzero(got.is_target()[b]), np.arange(p, p + n))
        placed = got.placed_prompt()[b]
        np.testing.assert_allclose(placed[:p], prompt_mel[b, :p], rtol=1e-6)
        assert placed.shape == (9, 8) and not np.any(placed[p:])


def test_weights_survive_the_way_to_jax_and_back():
    tensors = weights_of(load_golden("s2m"))
    back = convert.to_torch(pytree.params(golden_model()), s2m.TORCH_RULES)
    for name, value in back.items():
        np.testing.assert_array_equal(value, tensors.pop(name).astype(np.float32))
    unused = s2m.torch_unused(s2m.S2MConfig.tiny())
    assert all(any(re.fullmatch(p, name) for p in unused) for name in tensors)


def test_skip_of_a_late_block_must_be_there():
    tensors = weights_of(load_golden("s2m"))
    del tensors["net/cfm/estimator.transformer.layers.3.skip_in_linear.weight"]
    with pytest.raises(
        convert.ConversionError, match=r"layers\.3\.skip_in_linear\.weight: missing"
    ):
        build(s2m.S2MConfig.tiny(), tensors)


def test_unknown_variants_of_the_release_are_refused():
    block = released_block()
    block["DiT"]["time_as_token"] = True
    with pytest.raises(ValueError, match=r"s2mel\.DiT\.time_as_token is True"):
        s2m.S2MConfig.from_release(block, {})


def spec_of(name):
    return next(spec for rule, spec in s2m.SHARDING_RULES if re.fullmatch(rule, name))


@pytest.mark.slow
def test_sharded_model_equals_unsharded():
    mesh = jax.make_mesh((4, 2), ("fsdp", "tensor"), axis_types=(AxisType.Auto,) * 2)
    arrays = {
        name: jax.device_put(x, NamedSharding(mesh, spec_of(name)))
        for name, x in pytree.params(golden_model()).items()
    }
    sharded = pytree.fill(abstract(s2m.S2MConfig.tiny()), arrays)
    golden = load_golden("s2m")
    inputs = golden["x"], golden["t"], conditions_of(golden)
    got = jax.jit(lambda model, *args: model.velocity(*args))(sharded, *inputs)
    assert relative_error(got[0], golden["out_velocity"][0]) < 1e-5


def test_all_large_weights_are_sharded():
    released = pytree.shapes(abstract(RELEASE))
    whole = {name: np.prod(s) for name, s in released.items() if spec_of(name) == P()}
    assert max(whole.values()) < 2**19


@needs_shared
def test_released_shapes_are_those_of_the_manifest():
    want = manifest("s2mel")
    assert s2m.S2MConfig.from_release(released_block(), want) == RELEASE
    tensors = {name: np.broadcast_to(np.float32(0), shape) for name, shape in want.items()}
    shapes = pytree.shapes(abstract(RELEASE))
    convert.to_jax(tensors, s2m.TORCH_RULES, shapes, s2m.torch_unused(RELEASE))
    used = sum(np.prod(shape) for shape in shapes.values())
    # All parameters, less those without effect, plus the two tables of frequencies.
    dead = 4_240_384 + 2048 * 512 + 512
    assert used == 103_668_688 - dead + 2 * 128


@needs_shared
def test_latent_projection_matches_the_original():
    golden = load_shared("gpt_layer")
    got = shared_model().latent_projection(golden["in_latent"])
    assert relative_error(got, golden["out"]) < 1e-5


def regulate(model, semantic, num_frames):
    lengths = np.array([semantic.shape[1]]), np.array([num_frames])
    return model.regulate(semantic, *lengths, num_frames=num_frames)


def behind_prompt(before, after, prompt_mel, style):
    prompt_length, length = before.shape[1], after.shape[1]
    return Conditions.behind_prompt(
        before,
        after,
        prompt_mel=prompt_mel,
        prompt_lengths=np.array([prompt_length]),
        style=style,
        frame_lengths=np.array([length]),
        num_frames=prompt_length + length,
    )


@needs_shared
def test_chain_matches_the_original():
    golden, model = load_shared("e2e"), shared_model()
    before, after = (
        regulate(model, golden["mid_S_ref"], 66),
        regulate(model, golden["mid_S_infer"], 32),
    )
    assert relative_error(before, golden["mid_prompt_condition"]) < 1e-5
    assert relative_error(after, golden["mid_cond"]) < 1e-5
    conditions = behind_prompt(before, after, golden["mid_ref_mel"], golden["mid_style"])
    noise = golden["in_noise"]
    mel, _ = flow_matching.sample(model.velocity, conditions, noise, steps=6, guidance=0.7)
    assert relative_error(mel[:, 66:], golden["out_mel"]) < 1e-5


@needs_shared
@pytest.mark.slow
@pytest.mark.parametrize("case", ["a_english", "b_emo_audio"])
def test_whole_stage_matches_the_original(case):
    torch = pytest.importorskip("torch")
    pipeline = SHARED / "golden" / "pipeline"
    nets = torch.load(pipeline / "release" / "s2mel.pth", weights_only=True)["net"]
    tensors = {
        f"net/{net}/{name}": value.numpy()
        for net, state in nets.items()
        for name, value in state.items()
    }
    block = yaml.safe_load((pipeline / "release" / "config.yaml").read_text())["s2mel"]
    shapes = {name: value.shape for name, value in tensors.items()}
    model = build(s2m.S2MConfig.from_release(block, shapes), tensors)
    with np.load(pipeline / "dumps" / f"{case}.npz") as file:
        golden = dict(file)

    semantic = model.semantic(golden["seg0_vq2emb"].swapaxes(1, 2), golden["seg0_gpt_latent"])
    assert relative_error(semantic, golden["seg0_S_infer"]) < 1e-5

    prompt_length, length = golden["ref_mel"].shape[2], golden["seg0_cat_condition"].shape[1]
    before = regulate(model, golden["S_ref"], prompt_length)
    after = regulate(model, semantic, length - prompt_length)
    conditions = behind_prompt(before, after, golden["ref_mel"].swapaxes(1, 2), golden["style"])
    assert relative_error(conditions.mu, golden["seg0_cat_condition"]) < 1e-5

    noise = golden["seg0_cfm_noise"].swapaxes(1, 2)
    mel, path = flow_matching.sample(
        model.velocity, conditions, noise, steps=25, guidance=0.7, record=True
    )
    assert path is not None
    got = {
        "dit_out_step0": path.velocities[0, :, 0],
        "cfm_x_step1": path.states[1],
        "cfm_x_step12": path.states[12],
        "mel_with_prompt": mel,
    }
    for name, value in got.items():
        assert relative_error(value.swapaxes(1, 2), golden[f"seg0_{name}"]) < 1e-4, name

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
from tests.common import SHARED, load_golden, manifest, needs_shared, relative_error, weights_of
from tests.s2m_common import build, golden_model, load_shared, shared_model

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
    inputs = [golden[k] for k in ("x", "prompt_x", "t", "style", "mu", "lengths")]
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


@needs_shared
def test_chain_matches_the_original():
    golden, model = load_shared("e2e"), shared_model()

    def regulate(s, num_frames):
        lengths = np.array([s.shape[1]]), np.array([num_frames])
        return model.length_regulator(s, *lengths, num_frames)

    prompt_mu, mu = regulate(golden["mid_S_ref"], 66), regulate(golden["mid_S_infer"], 32)
    assert relative_error(prompt_mu, golden["mid_prompt_condition"]) < 1e-5
    assert relative_error(mu, golden["mid_cond"]) < 1e-5
    mel = flow_matching.sample(
        model.velocity,
        np.concatenate([prompt_mu, mu], axis=1),
        *(golden["mid_ref_mel"], np.array([66]), golden["mid_style"], np.array([98])),
        golden["in_noise"],
        steps=6,
        guidance=0.7,
    )
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

    semantic = golden["seg0_vq2emb"].swapaxes(1, 2) + model.latent_projection(
        golden["seg0_gpt_latent"]
    )
    assert relative_error(semantic, golden["seg0_S_infer"]) < 1e-5

    def regulate(s, num_frames):
        lengths = np.array([s.shape[1]]), np.array([num_frames])
        return model.length_regulator(s, *lengths, num_frames)

    prompt_length, length = golden["ref_mel"].shape[2], golden["seg0_cat_condition"].shape[1]
    prompt_mu = regulate(golden["S_ref"], prompt_length)
    mu = np.concatenate([prompt_mu, regulate(semantic, length - prompt_length)], axis=1)
    assert relative_error(mu, golden["seg0_cat_condition"]) < 1e-5

    mel, trajectory = flow_matching.trajectory(
        model.velocity,
        mu,
        golden["ref_mel"].swapaxes(1, 2),
        np.array([prompt_length]),
        golden["style"],
        np.array([length]),
        golden["seg0_cfm_noise"].swapaxes(1, 2),
        steps=25,
        guidance=0.7,
    )
    got = {
        "dit_out_step0": trajectory.velocities[0, :, 0],
        "cfm_x_step1": trajectory.states[1],
        "cfm_x_step12": trajectory.states[12],
        "mel_with_prompt": mel,
    }
    for name, value in got.items():
        assert relative_error(value.swapaxes(1, 2), golden[f"seg0_{name}"]) < 1e-4, name

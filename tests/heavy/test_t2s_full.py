"""T2S at the released size against torch: 866 M random weights, 12 GB of memory, minutes.

By hand: pytest tests/heavy/test_t2s_full.py   (needs ../shared)
"""

import importlib.util
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from indextts2_jax import convert
from indextts2_jax.nn import pytree
from indextts2_jax.t2s import generate as gen
from indextts2_jax.t2s import gpt
from tests.common import SHARED, manifest, needs_shared, relative_error

pytestmark = needs_shared


@pytest.fixture(scope="module")
def golden():
    spec = importlib.util.spec_from_file_location("draw", SHARED / "golden" / "draw.py")
    draw = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(draw)
    shapes = manifest("gpt")
    block = json.loads((SHARED / "golden/t2s_full/t2s_full.json").read_text())["config"]
    cfg = gpt.T2SConfig.from_release(block, shapes)
    empty = pytree.abstract(lambda rngs: gpt.T2S(cfg, rngs=rngs))
    tensors = {
        name: np.zeros(shape, np.float32) if name.endswith(".pe") else draw.draw(name, shape, 0)
        for name, shape in shapes.items()
    }
    arrays = convert.to_jax(tensors, gpt.TORCH_RULES, pytree.shapes(empty), gpt.torch_unused(cfg))
    model = pytree.fill(empty, {k: jnp.asarray(v) for k, v in arrays.items()})
    with np.load(SHARED / "golden/t2s_full/t2s_full_io.npz") as io:
        return model, dict(io)


@pytest.mark.parametrize("part, module", [("spk", "speaker"), ("emo", "emotion")])
def test_conditioner_equals_torch(golden, part, module):
    model, io = golden
    latents = jax.jit(lambda m, x: m(x))(
        getattr(model, f"{module}_conditioner"), io[f"in.{part}_feat"]
    )
    assert relative_error(latents, io[f"{part}.perceiver_out"]) < 1e-4


def test_latents_and_logits_equal_torch(golden):
    model, io = golden

    @jax.jit
    def run(model, latents, emotion, text, codes):
        prefix = model.prefix(latents, emotion, text, jnp.asarray([text.shape[1]]))
        hidden = model.teacher_forced(prefix, codes)[:, prefix.x.shape[1] :]
        return prefix, hidden, model.code_logits(hidden)

    prefix, hidden, logits = run(
        model,
        io["cond.spk_latents"],
        io["cond.emovec_merge_0.6"],
        io["in.text"],
        io["in.codes"],
    )
    assert relative_error(prefix.x, io["dec.prefix"]) < 1e-6
    M = io["in.codes"].shape[1]
    assert relative_error(hidden[:, :M], io["fwd.latent"]) < 1e-4
    selected = logits[:, jnp.asarray([0, 1, 7, M])].swapaxes(1, 2)
    assert relative_error(selected, io["fwd.mel_logits_sel"]) < 1e-4


@pytest.mark.parametrize("name, positions", [("greedy", "released"), ("plain", "plain")])
def test_greedy_codes_equal_torch(golden, name, positions):
    model, io = golden
    prefix = gpt.Prefix(jnp.asarray(io["dec.prefix"]), jnp.ones(io["dec.prefix"].shape[:2], bool))
    out = gen.generate(
        model,
        prefix,
        gen.Sampling.make(1, greedy=True, repetition_penalty=1.0),
        jax.random.split(jax.random.key(0), 1),
        gen.CodeLimits.make(1, 8),
        rules=gen.DecodingRules(positions),
        trace=True,
    )
    np.testing.assert_array_equal(out.codes[:, :8], io[f"dec.{name}_tokens"])
    assert relative_error(out.trace.logits[:, :8], io[f"dec.{name}_logits"]) < 1e-4
    print(name, relative_error(out.trace.logits[:, :8], io[f"dec.{name}_logits"]))

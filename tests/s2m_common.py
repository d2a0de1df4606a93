"""Models and inputs that the S2M tests share."""

import dataclasses
import functools
import json
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from safetensors.numpy import load_file

from indextts2_jax import convert
from indextts2_jax.nn import pytree
from indextts2_jax.s2m import model as s2m
from indextts2_jax.s2m.conditions import Conditions
from tests.common import SHARED, load_golden, weights_of

SHARED_S2M = SHARED / "golden" / "s2m"


def build(cfg: s2m.S2MConfig, tensors: dict[str, np.ndarray]) -> s2m.S2M:
    """The model of `cfg` with torch weights, in float32."""
    model = pytree.abstract(lambda rngs: s2m.S2M(cfg, rngs=rngs))
    arrays = convert.to_jax(tensors, s2m.TORCH_RULES, pytree.shapes(model), s2m.torch_unused(cfg))
    return pytree.fill(model, {k: jnp.asarray(v, jnp.float32) for k, v in arrays.items()})


@functools.cache
def golden_model() -> s2m.S2M:
    """The model of `tests/golden/s2m.npz`."""
    return build(s2m.S2MConfig.tiny(), weights_of(load_golden("s2m")))


def in_bfloat16(model: nnx.Module):
    """A copy whose parameters are bfloat16."""
    graphdef, params, rest = nnx.split(model, nnx.Param, ...)
    return nnx.merge(graphdef, jax.tree.map(lambda p: p.astype(jnp.bfloat16), params), rest)


@functools.cache
def shared_model() -> s2m.S2M:
    """The model of the development goldens, made by the original implementation."""
    block = json.loads((SHARED_S2M / "dit_estimator.json").read_text())["config"]["s2mel"]
    tensors = load_file(SHARED_S2M / "s2mel.safetensors")
    tensors = {"net/" + name.replace(".", "/", 1): value for name, value in tensors.items()}
    shapes = {name: value.shape for name, value in tensors.items()}
    return build(s2m.S2MConfig.from_release(block, shapes), tensors)


def load_shared(name: str) -> dict[str, np.ndarray]:
    """Inputs and outputs of a development golden; mels become channels last."""
    with np.load(SHARED_S2M / f"{name}.npz") as file:
        arrays = dict(file)
    return {
        k: v.swapaxes(-1, -2) if v.ndim > 2 and v.shape[-2] == 20 else v for k, v in arrays.items()
    }


def conditions_of(golden: Mapping[str, np.ndarray]) -> Conditions:
    """The conditions in `tests/golden/s2m.npz`."""
    names = (field.name for field in dataclasses.fields(Conditions))
    return Conditions(**{name: jnp.asarray(golden[name]) for name in names})


def lengthened(x: jax.Array, length: int, seed: int = 0) -> np.ndarray:
    """x [B, T, D] with noise behind it: [B, length, D]."""
    x = np.asarray(x)
    shape = (x.shape[0], length - x.shape[1], x.shape[2])
    rest = np.random.default_rng(seed).normal(size=shape).astype(x.dtype)
    return np.concatenate([x, 10 * rest], axis=1)

"""LoRA on flat parameter dicts: low-rank changes of some kernels, without a change to any module.

    W [I, O]  ->  W + alpha / rank * A B          A [I, R], B [R, O], named W.lora_a and W.lora_b

Only the adapters are trained. A network reads merged weights, in training steps as in exported
checkpoints, so it does not know about them. Where a kernel is sharded, its product A B is computed
in the same slices, without communication.

Dims: I in, O out, R rank.

Source: LoRA (arXiv 2106.09685); initial values as in Hugging Face's peft.
"""

import dataclasses
import re
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from indextts2_jax.errors import InputError

A, B = ".lora_a", ".lora_b"  # what follows the name of the kernel

# Attention and feed-forward of the blocks, bare or under the module's name. Not the conditioners.
T2S_TARGETS = (r"(t2s\.)?blocks\.\d+\.(qkv|out|ffn_up|ffn_down)\.kernel",)
# Likewise of the DiT. Not the norms under the flow time, the skips, the WaveNet, the regulator.
S2M_TARGETS = (
    r"(s2m\.)?velocity\.blocks\.\d+\.(attention\.(qkv|out)|feed_forward\.(gate|up|down))\.kernel",
)
QWEN3_TARGETS = (r"(qwen3\.)?blocks\.\d+\.(query|key|value|out|gate|up|down)\.kernel",)


@dataclasses.dataclass(frozen=True)
class LoraConfig:
    """Which kernels have adapters, and of what size.

    Attributes:
      rank: R.
      alpha: the product A B counts alpha / rank.
      targets: regexes of whole names, e.g. T2S_TARGETS.
    """

    rank: int
    alpha: float
    targets: tuple[str, ...]

    def __post_init__(self):
        if self.rank < 1:
            raise InputError(f"LoRA rank is {self.rank}; it must be at least 1")

    @property
    def scale(self) -> float:
        """Factor of the product A B."""
        return self.alpha / self.rank


def adapter_shapes(
    shapes: Mapping[str, tuple[int, ...]], cfg: LoraConfig
) -> dict[str, tuple[int, ...]]:
    """Finds the adapters that parameters get.

    Args:
      shapes: flat name -> shape of the parameters, e.g. from `convert.shapes`.
      cfg: which and how large.

    Returns:
      Flat name -> shape of every A and B.

    Raises:
      InputError: if a target matches nothing, or something that is no kernel of a Linear.
    """
    out: dict[str, tuple[int, ...]] = {}
    refused: list[str] = []
    for target in cfg.targets:
        names = [name for name in shapes if re.fullmatch(target, name)]
        if not names:
            raise InputError(f"LoRA target {target!r} matches no parameter")
        for name in names:
            if _is_linear(name, shapes):
                fan_in, fan_out = shapes[name]
                out |= {name + A: (fan_in, cfg.rank), name + B: (cfg.rank, fan_out)}
            else:
                refused.append(f"{name} {shapes[name]}")
    if refused:
        raise InputError(f"LoRA adapts kernels of plain Linear layers, not {', '.join(refused)}")
    return out


def _is_linear(name: str, shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Tells whether the product with this array is all that its layer does, but for the bias.

    Depthwise kernels [K, C] have two axes as well; their layers are called so.
    """
    layer, _, leaf = name.rpartition(".")
    convolution = layer.rpartition(".")[2] in ("conv", "depthwise")
    weight_normed = f"{layer}.gain" in shapes
    return leaf == "kernel" and len(shapes[name]) == 2 and not convolution and not weight_normed


def init(
    key: jax.Array, shapes: Mapping[str, tuple[int, ...]], cfg: LoraConfig
) -> dict[str, jax.Array]:
    """Makes adapters that change nothing yet.

    Args:
      key: of the random draws.
      shapes: as in `adapter_shapes`.
      cfg: which and how large.

    Returns:
      Flat name -> float32 array. A is uniform in +-1/sqrt(I) (Kaiming's with a = sqrt(5)), B zero.

    Raises:
      InputError: as `adapter_shapes`.
    """
    wanted = adapter_shapes(shapes, cfg)
    keys = jax.random.split(key, len(wanted))
    out = {}
    for name, one_key in zip(sorted(wanted), keys, strict=True):
        shape = wanted[name]
        if name.endswith(A):
            bound = shape[0] ** -0.5
            out[name] = jax.random.uniform(one_key, shape, minval=-bound, maxval=bound)
        else:
            out[name] = jnp.zeros(shape)
    return out


def split_names(names: Iterable[str]) -> tuple[list[str], list[str]]:
    """Splits flat names into those of parameters and those of adapters."""
    parameters: list[str] = []
    adapters: list[str] = []
    for name in names:
        (adapters if name.endswith((A, B)) else parameters).append(name)
    return parameters, adapters


def merge(arrays: Mapping[str, Any], cfg: LoraConfig) -> dict[str, Any]:
    """Adds the adapters to their kernels; differentiable, and shards as the kernels do.

    Args:
      arrays: flat name -> array, parameters and adapters.
      cfg: what the adapters were made with.

    Returns:
      The parameters alone, in their dtypes; the sums are computed in float32.

    Raises:
      InputError: if an adapter has no partner or kernel, or does not fit it.
    """
    parameters, adapters = split_names(arrays)
    out = {name: arrays[name] for name in parameters}
    for name in sorted({adapter.removesuffix(A).removesuffix(B) for adapter in adapters}):
        weight, a, b = (arrays.get(n) for n in (name, name + A, name + B))
        if weight is None or a is None or b is None:
            raise InputError(f"{name}: the kernel or a half of its LoRA adapter is missing")
        if a.shape != (weight.shape[0], cfg.rank) or b.shape != (cfg.rank, *weight.shape[1:]):
            raise InputError(
                f"{name} {weight.shape}: adapter {a.shape}, {b.shape} is not of rank {cfg.rank}"
            )
        a, b = a.astype(jnp.float32), b.astype(jnp.float32)
        change = cfg.scale * jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)  # [I, O]
        out[name] = (weight.astype(jnp.float32) + change).astype(weight.dtype)
    return out


def sharding_rules(rules: Iterable[tuple[str, P]]) -> tuple[tuple[str, P], ...]:
    """Derives the sharding of adapters from that of the kernels.

    Args:
      rules: of the parameters, (regex of whole names, spec), first match wins.

    Returns:
      Rules of adapter names alone: of a kernel P(x, y), A is P(x, None) and B is P(None, y).
    """
    out = []
    for pattern, spec in rules:
        if len(spec) <= 2:  # others are for convolutions
            rows, columns = (*spec, None, None)[:2]
            out.append((rf"(?:{pattern}){re.escape(A)}", P(rows, None)))
            out.append((rf"(?:{pattern}){re.escape(B)}", P(None, columns)))
    return tuple(out)

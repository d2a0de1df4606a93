"""Velocity field of S2M: a diffusion transformer with U-shaped skips and a WaveNet head.

Data flow:  noisy mel | prompt mel, condition, style -> linear -> L x Block
            -> linear (noisy mel again) -> WaveNet + residual -> adaptive norm -> velocity

Everything but the noisy mel and the time is constant while the flow is integrated. So the first
linear layer is split: `encode_condition` once, `evaluate` at each step.

Dims: B batch, T mel frames (prompt first), M mel bins, D width, C condition width, S style width,
N heads, H head dim, F feed-forward width.

Source: paper section 3.2; the released IndexTTS2 `s2mel.pth`, net `cfm`.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import PartitionSpec as P

from indextts2_jax.convert import (
    GAIN_LINEAR,
    LINEAR,
    POINTWISE,
    Rule,
    linear,
    prefixed,
    weight_norm,
)
from indextts2_jax.nn.attention import attention
from indextts2_jax.nn.barrier import gradient_barrier
from indextts2_jax.nn.conv import WeightNormLinear
from indextts2_jax.nn.masking import length_mask
from indextts2_jax.s2m import wavenet
from indextts2_jax.s2m.conditions import Conditions
from indextts2_jax.s2m.wavenet import WaveNet, WaveNetConfig

LOG_MEL_MEAN = -5.0  # of speech, roughly


@dataclasses.dataclass(frozen=True)
class VelocityConfig:
    """Architecture of the velocity field. The released model is `indextts2()`."""

    num_mels: int
    condition_width: int
    style_width: int
    width: int
    num_layers: int
    num_heads: int
    feed_forward_width: int
    wavenet: WaveNetConfig

    @classmethod
    def indextts2(cls) -> "VelocityConfig":
        """Returns the released size."""
        return cls(
            num_mels=80,
            condition_width=512,
            style_width=192,
            width=512,
            num_layers=13,
            num_heads=8,
            feed_forward_width=1536,
            wavenet=WaveNetConfig.indextts2(),
        )

    @classmethod
    def tiny(cls) -> "VelocityConfig":
        """Returns a size for tests."""
        return cls(
            num_mels=8,
            condition_width=12,
            style_width=8,
            width=16,
            num_layers=5,
            num_heads=2,
            feed_forward_width=24,
            wavenet=WaveNetConfig.tiny(),
        )


def rotate_pairs(x: jax.Array) -> jax.Array:
    """Applies the rotary position embedding to x [B, T, N, H] on adjacent pairs (2 j, 2 j + 1)."""
    time, width = x.shape[1], x.shape[3]
    angle = np.outer(np.arange(time), 10000.0 ** (-np.arange(0, width, 2) / width))  # [T, H / 2]
    cos = np.repeat(np.cos(angle), 2, axis=1).astype(np.float32)[:, None]  # [T, 1, H]
    sin = np.repeat(np.sin(angle), 2, axis=1).astype(np.float32)[:, None]
    y = x.astype(jnp.float32)
    turned = jnp.stack([-y[..., 1::2], y[..., ::2]], axis=-1).reshape(x.shape)
    return (y * cos + turned * sin).astype(x.dtype)


class TimeEmbedding(nnx.Module):
    """Flow time in [0, 1] -> sinusoids -> two linear layers."""

    def __init__(self, width: int, *, rngs: nnx.Rngs):
        # Never trained, yet read from files: half-precision files hold rounded frequencies, which
        # the network that they come from used. Must stay float32: angles reach 1000.
        frequencies = 10000.0 ** (-np.arange(128) / 128)
        self.frequencies = nnx.BatchStat(jnp.asarray(frequencies, jnp.float32))
        self.up = nnx.Linear(2 * len(frequencies), width, rngs=rngs)
        self.out = nnx.Linear(width, width, rngs=rngs)

    def __call__(self, t: jax.Array) -> jax.Array:
        """Maps t [B] to [B, D]."""
        angle = 1000 * t.astype(jnp.float32)[:, None] * self.frequencies[...].astype(jnp.float32)
        waves = jnp.concatenate([jnp.cos(angle), jnp.sin(angle)], axis=-1)
        return self.out(jax.nn.silu(self.up(waves.astype(self.up.kernel.dtype))))


class AdaptiveRMSNorm(nnx.Module):
    """RMSNorm whose output is scaled and shifted by the time embedding."""

    def __init__(self, width: int, *, rngs: nnx.Rngs):
        self.scale = nnx.Param(jnp.ones(width))
        # A new model starts from the plain RMSNorm: there is no 1 + in front of the scale.
        bias = jnp.repeat(jnp.array([1.0, 0.0]), width)
        self.modulation = nnx.Linear(width, 2 * width, bias_init=lambda *_: bias, rngs=rngs)

    def __call__(self, x: jax.Array, time: jax.Array) -> jax.Array:
        """Normalizes x [B, T, D] under time [B, D]."""
        scale, shift = jnp.split(self.modulation(time)[:, None].astype(jnp.float32), 2, axis=-1)
        y = x.astype(jnp.float32)
        y = y * jax.lax.rsqrt(jnp.mean(y**2, axis=-1, keepdims=True) + 1e-5)
        return (y * self.scale[...] * scale + shift).astype(x.dtype)


class Attention(nnx.Module):
    """Bidirectional self-attention with rotary positions."""

    def __init__(self, cfg: VelocityConfig, *, rngs: nnx.Rngs):
        self.qkv = nnx.Linear(cfg.width, 3 * cfg.width, use_bias=False, rngs=rngs)
        self.out = nnx.Linear(cfg.width, cfg.width, use_bias=False, rngs=rngs)
        self.num_heads = cfg.num_heads

    def __call__(self, x: jax.Array, mask: jax.Array) -> jax.Array:
        """Maps x [B, T, D]; keys of padded frames (mask [B, T] False) are not seen."""
        B, T, D = x.shape
        qkv = self.qkv(x).reshape(B, T, 3, self.num_heads, -1)  # [B, T, 3, N, H]
        q, k, v = rotate_pairs(qkv[:, :, 0]), rotate_pairs(qkv[:, :, 1]), qkv[:, :, 2]
        return self.out(attention(q, k, v, mask).reshape(B, T, D))


class FeedForward(nnx.Module):
    """SwiGLU."""

    def __init__(self, cfg: VelocityConfig, *, rngs: nnx.Rngs):
        D, F = cfg.width, cfg.feed_forward_width
        self.gate = nnx.Linear(D, F, use_bias=False, rngs=rngs)
        self.up = nnx.Linear(D, F, use_bias=False, rngs=rngs)
        self.down = nnx.Linear(F, D, use_bias=False, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [B, T, D] to [B, T, D]."""
        return self.down(jax.nn.silu(self.gate(x)) * self.up(x))


class Block(nnx.Module):
    """Pre-norm transformer block; in the second half with a layer that merges in a skip."""

    def __init__(self, cfg: VelocityConfig, *, takes_skip: bool, rngs: nnx.Rngs):
        D = cfg.width
        self.skip = nnx.Linear(2 * D, D, rngs=rngs) if takes_skip else None
        self.attention_norm = AdaptiveRMSNorm(D, rngs=rngs)
        self.attention = Attention(cfg, rngs=rngs)
        self.feed_forward_norm = AdaptiveRMSNorm(D, rngs=rngs)
        self.feed_forward = FeedForward(cfg, rngs=rngs)

    def __call__(
        self, x: jax.Array, time: jax.Array, mask: jax.Array, skip: jax.Array | None = None
    ) -> jax.Array:
        """Maps x [B, T, D] under time [B, D], with its skip [B, T, D] if it takes one."""
        if self.skip is not None:
            assert skip is not None
            x = self.skip(jnp.concatenate([x, skip], axis=-1))
        x = x + self.attention(self.attention_norm(x, time), mask)
        return x + self.feed_forward(self.feed_forward_norm(x, time))


def _identity(key: jax.Array, shape: tuple[int, int], dtype: Any = jnp.float32) -> jax.Array:
    del key
    return jnp.eye(*shape, dtype=dtype)


class Velocity(nnx.Module):
    """The velocity that carries noise to mel, given prompt mel, condition and style."""

    def __init__(self, cfg: VelocityConfig, *, rngs: nnx.Rngs):
        D, M = cfg.width, cfg.num_mels
        self.time_embedding = TimeEmbedding(D, rngs=rngs)
        self.condition = nnx.Linear(cfg.condition_width, D, rngs=rngs)
        self.merge = nnx.Linear(2 * M + D + cfg.style_width, D, rngs=rngs)
        self.middle = cfg.num_layers // 2  # blocks before it give skips, blocks after it take them
        self.blocks = nnx.List(
            [Block(cfg, takes_skip=i > self.middle, rngs=rngs) for i in range(cfg.num_layers)]
        )
        self.norm = AdaptiveRMSNorm(D, rngs=rngs)
        # A new model starts near `LOG_MEL_MEAN` - x, the velocity for t = 0 if nothing is known: x
        # goes on undistorted from `long_skip` to `output`. Through layers of random weights it
        # comes out so distorted that a model first learns to ignore it, and its mels stay noisy.
        enter = nnx.initializers.orthogonal()(rngs.params(), (M, D))
        self.long_skip = nnx.Linear(D + M, D, rngs=rngs)
        self.long_skip.kernel[D:] = enter

        self.wavenet_time_embedding = TimeEmbedding(D, rngs=rngs)
        self.wavenet_input = nnx.Linear(D, D, rngs=rngs)
        self.wavenet = WaveNet(cfg.wavenet, rngs=rngs)
        self.wavenet_residual = nnx.Linear(D, D, kernel_init=_identity, rngs=rngs)

        self.final_norm = nnx.LayerNorm(
            D, epsilon=1e-6, use_bias=False, use_scale=False, use_fast_variance=False, rngs=rngs
        )
        self.final_modulation = nnx.Linear(D, 2 * D, rngs=rngs)
        self.final = WeightNormLinear(D, D, kernel_init=_identity, rngs=rngs)
        self.output = nnx.Linear(
            D,
            M,
            kernel_init=lambda *_: -enter.T,
            bias_init=nnx.initializers.constant(LOG_MEL_MEAN),
            rngs=rngs,
        )
        self.num_mels = M

    def __call__(
        self,
        x: jax.Array,
        t: jax.Array,
        conditions: Conditions,
        *,
        drop_condition: jax.Array | None = None,
        key: jax.Array | None = None,
        remat: bool = False,
    ) -> jax.Array:
        """Evaluates the velocity field.

        Args:
          x: [B, T, M] noisy mel.
          t: [B] flow time in [0, 1]; 0 is noise, 1 is mel.
          conditions: of the B items.
          drop_condition: [B] bool, True takes all conditions away (training); None drops none.
          key: dropout key; None turns dropout off.
          remat: trade time for memory in gradients.

        Returns:
          [B, T, M] velocity; arbitrary in padded frames.
        """
        condition = self.encode_condition(conditions, drop_condition=drop_condition)
        return self.evaluate(x, t, condition, conditions.lengths, key=key, remat=remat)

    def encode_condition(
        self, conditions: Conditions, *, drop_condition: jax.Array | None = None
    ) -> jax.Array:
        """Returns what the first layer [B, T, D] would be at x = 0; it does not depend on t.

        The null condition of guidance is that of all-zero conditions. It is not that of
        `drop_condition`, which takes away the bias of the projected `mu` too.
        """
        B, T, _ = conditions.mu.shape
        dtype = self.merge.kernel.dtype
        style = conditions.style.astype(dtype)[:, None]
        inputs = [
            conditions.placed_prompt().astype(dtype),
            self.condition(conditions.mu.astype(dtype)),
            jnp.broadcast_to(style, (B, T, style.shape[-1])),
        ]
        inputs = jnp.concatenate([jnp.zeros((B, T, self.num_mels), dtype), *inputs], axis=-1)
        if drop_condition is not None:
            inputs = jnp.where(drop_condition[:, None, None], 0, inputs)
        return self.merge(inputs)

    def evaluate(
        self,
        x: jax.Array,
        t: jax.Array,
        condition: jax.Array,
        lengths: jax.Array,
        *,
        key: jax.Array | None = None,
        remat: bool = False,
    ) -> jax.Array:
        """Does as `__call__`, with the result of `encode_condition` for the conditions."""
        mask = length_mask(lengths, x.shape[1])
        x = x.astype(self.merge.kernel.dtype)
        time = self.time_embedding(t)  # [B, D]

        h = x @ self.merge.kernel[: self.num_mels] + condition  # [B, T, D]
        skips = []

        def run(block: Block, h: jax.Array, time: jax.Array, skip: jax.Array | None) -> jax.Array:
            return block(h, time, mask, skip)

        for i, block in enumerate(self.blocks):
            skip = skips.pop() if block.skip is not None else None
            h = gradient_barrier(h)
            h = (jax.checkpoint(run) if remat else run)(block, h, time, skip)
            if i < self.middle:
                skips.append(h)
        h = self.long_skip(jnp.concatenate([self.norm(h, time), x], axis=-1))

        y = self.wavenet(
            self.wavenet_input(h), self.wavenet_time_embedding(t), lengths, key=key, remat=remat
        ) + self.wavenet_residual(h)
        shift, scale = jnp.split(self.final_modulation(jax.nn.silu(time))[:, None], 2, axis=-1)
        return self.output(self.final(self.final_norm(y) * (1 + scale) + shift))


_BLOCK_RULES = (
    *linear("skip_in_linear", "skip"),
    *linear("attention.wqkv", "attention.qkv", bias=False),
    *linear("attention.wo", "attention.out", bias=False),
    *linear("feed_forward.w1", "feed_forward.gate", bias=False),
    *linear("feed_forward.w3", "feed_forward.up", bias=False),
    *linear("feed_forward.w2", "feed_forward.down", bias=False),
)


def _adaptive_norm(torch: str, jax: str) -> tuple[Rule, ...]:
    return (
        Rule(f"{torch}.norm.weight", f"{jax}.scale"),
        *linear(f"{torch}.project_layer", f"{jax}.modulation"),
    )


def _time_embedding(torch: str, jax: str) -> tuple[Rule, ...]:
    return (
        Rule(f"{torch}.freqs", f"{jax}.frequencies"),
        *linear(f"{torch}.mlp.0", f"{jax}.up"),
        *linear(f"{torch}.mlp.2", f"{jax}.out"),
    )


# Names below `net/cfm/estimator.` of `s2mel.pth`.
TORCH_RULES = (
    *_time_embedding("t_embedder", "time_embedding"),
    *linear("cond_projection", "condition"),
    *linear("cond_x_merge_linear", "merge"),
    *prefixed(_BLOCK_RULES, "transformer.layers.{i}.", "blocks.{i}."),
    *_adaptive_norm("transformer.layers.{i}.attention_norm", "blocks.{i}.attention_norm"),
    *_adaptive_norm("transformer.layers.{i}.ffn_norm", "blocks.{i}.feed_forward_norm"),
    *_adaptive_norm("transformer.norm", "norm"),
    *linear("skip_linear", "long_skip"),
    *_time_embedding("t_embedder2", "wavenet_time_embedding"),
    *linear("conv1", "wavenet_input"),
    *prefixed(wavenet.TORCH_RULES, "wavenet.", "wavenet."),
    *linear("res_projection", "wavenet_residual"),
    *linear("final_layer.adaLN_modulation.1", "final_modulation"),
    *weight_norm("final_layer.linear", "final", LINEAR, GAIN_LINEAR),
    *linear("conv2", "output", POINTWISE),
)


def torch_unused(cfg: VelocityConfig) -> tuple[str, ...]:
    """Regexes of the torch names without effect: a buffer, and layers that are never called."""
    without_skip = "|".join(str(i) for i in range(cfg.num_layers // 2 + 1))
    return (
        "input_pos",
        r"x_embedder\.(weight_g|weight_v|bias)",
        r"cond_embedder\.weight",
        r"content_mask_embedder\.weight",
        rf"transformer\.layers\.({without_skip})\.skip_in_linear\.(weight|bias)",
    )


SHARDING_RULES = (
    *((f"wavenet.{name}", spec) for name, spec in wavenet.SHARDING_RULES[:-1]),
    (r"blocks\.\d+\.(attention\.qkv|feed_forward\.(gate|up))\.kernel", P("fsdp", "tensor")),
    (r"blocks\.\d+\.(attention\.out|feed_forward\.down)\.kernel", P("tensor", "fsdp")),
    (r".*(modulation|skip|condition|wavenet_input|wavenet_residual)\.kernel", P("fsdp", None)),
    (r".*", P()),
)

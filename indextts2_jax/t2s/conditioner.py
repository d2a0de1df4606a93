"""Conformer + Perceiver: a recording's features -> a few latents (speaker), or one (emotion).

Data flow:  features [B, T, F] -> subsample [B, T', D] -> L x ConformerBlock -> perceiver [B, N, W]

Dims: B batch, T feature frames (50 Hz), S subsampled frames (T' = (T - 1) // 2), F feature width,
D conformer width, H heads, K head dim, N latents, W latent width, C subsampling channels (= D).

Source: paper section 3.1 and its appendix C (conditioner tables), released IndexTTS-2. Padding is
exact here: the released model lets the depthwise convolution see padded frames, which no user of
single prompts can notice.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import PartitionSpec as P

from indextts2_jax import convert
from indextts2_jax.nn.barrier import gradient_barrier
from indextts2_jax.nn.conv import DepthwiseConv
from indextts2_jax.nn.masking import zero_padding
from indextts2_jax.nn.norm import layer_norm

BINS = 128  # of the subsampled features, at a time


@dataclasses.dataclass(frozen=True)
class ConditionerConfig:
    """Sizes of one conditioner."""

    feature_dim: int
    width: int
    ffn_width: int
    num_heads: int
    num_blocks: int
    num_latents: int
    latent_width: int
    perceiver_mult: int = 2
    perceiver_depth: int = 2
    perceiver_head_dim: int = 64
    conv_kernel: int = 15
    num_positions: int = 0  # rows of a table of positions from a release; 0 = `sinusoid`

    @property
    def subsampled_features(self) -> int:
        """Feature bins that are left after the stride-2 convolution."""
        return (self.feature_dim - 1) // 2


def sinusoid(length: int, width: int) -> np.ndarray:
    """Returns sine and cosine of position j at even and odd columns, [length, width] float32."""
    # In float64, so that every machine rounds to the same table.
    angle = np.arange(length)[:, None] * np.exp(-math.log(1e4) * np.arange(0, width, 2) / width)
    table = np.zeros((length, width), np.float32)
    table[:, 0::2], table[:, 1::2] = np.sin(angle), np.cos(angle)
    return table


class ConformerBlock(nnx.Module):
    """Attention, convolution, feed-forward, each pre-norm and residual; then a last norm."""

    def __init__(self, cfg: ConditionerConfig, *, rngs: nnx.Rngs):
        D, heads = cfg.width, cfg.num_heads
        self.norm_attention = layer_norm(D, rngs=rngs)
        self.query = nnx.Linear(D, D, rngs=rngs)
        self.key = nnx.Linear(D, D, rngs=rngs)
        self.value = nnx.Linear(D, D, rngs=rngs)
        self.out = nnx.Linear(D, D, rngs=rngs)
        self.position = nnx.Linear(D, D, use_bias=False, rngs=rngs)
        self.content_bias = nnx.Param(jnp.zeros((heads, D // heads)))  # u
        self.position_bias = nnx.Param(jnp.zeros((heads, D // heads)))  # v
        self.norm_conv = layer_norm(D, rngs=rngs)
        self.conv_in = nnx.Linear(D, 2 * D, rngs=rngs)
        half = (cfg.conv_kernel - 1) // 2
        self.depthwise = DepthwiseConv(D, cfg.conv_kernel, padding=(half, half), rngs=rngs)
        self.norm_depthwise = layer_norm(D, rngs=rngs)
        self.conv_out = nnx.Linear(D, D, rngs=rngs)
        self.norm_ffn = layer_norm(D, rngs=rngs)
        self.ffn_up = nnx.Linear(D, cfg.ffn_width, rngs=rngs)
        self.ffn_down = nnx.Linear(cfg.ffn_width, D, rngs=rngs)
        self.norm_final = layer_norm(D, rngs=rngs)
        self.num_heads = heads

    def __call__(self, x: jax.Array, mask: jax.Array | None, table: jax.Array) -> jax.Array:
        """Maps x [B, S, D] to [B, S, D]; `mask` [B, S], `table` of positions [S, D]."""
        x = x + self._attention(self.norm_attention(x), mask, table)
        x = x + self._convolution(self.norm_conv(x), mask)
        x = x + self.ffn_down(jax.nn.silu(self.ffn_up(self.norm_ffn(x))))
        return self.norm_final(x)

    def _attention(self, x: jax.Array, mask: jax.Array | None, table: jax.Array) -> jax.Array:
        """Computes attention with absolute key positions.

        score[i, j] = (q_i + u) k_j + (q_i + v) p_j = q_i (k_j + p_j) + (u k_j + v p_j): p_j belongs
        to key j alone, upstream does no relative shift.
        """
        B, S, D = x.shape
        split = (B, S, self.num_heads, D // self.num_heads)
        query, key, value = (f(x).reshape(split) for f in (self.query, self.key, self.value))
        position = self.position(table).reshape(split[1:])  # [S, H, K]
        bias = jnp.einsum("hk,bshk->bhs", self.content_bias[...], key)
        bias += jnp.einsum("hk,shk->hs", self.position_bias[...], position)
        score = jnp.einsum("bqhk,bshk->bhqs", query, key + position) + bias[:, :, None]
        score = score.astype(jnp.float32) / math.sqrt(split[-1])
        if mask is not None:
            score = jnp.where(mask[:, None, None], score, -1e30)
        weight = jax.nn.softmax(score, axis=-1).astype(x.dtype)
        return self.out(jnp.einsum("bhqs,bshk->bqhk", weight, value).reshape(B, S, D))

    def _convolution(self, x: jax.Array, mask: jax.Array | None) -> jax.Array:
        content, gate = jnp.split(self.conv_in(x), 2, axis=-1)
        x = self.depthwise(zero_padding(content * jax.nn.sigmoid(gate), mask))
        return self.conv_out(jax.nn.silu(self.norm_depthwise(x)))


class PerceiverLayer(nnx.Module):
    """Latents read [latents | context]; then a gated feed-forward. Nothing is normalised inside."""

    def __init__(self, cfg: ConditionerConfig, *, rngs: nnx.Rngs):
        W, inner = cfg.latent_width, cfg.num_heads * cfg.perceiver_head_dim
        hidden = int(W * cfg.perceiver_mult * 2 / 3)
        self.query = nnx.Linear(W, inner, use_bias=False, rngs=rngs)
        self.key_value = nnx.Linear(W, 2 * inner, use_bias=False, rngs=rngs)
        self.out = nnx.Linear(inner, W, use_bias=False, rngs=rngs)
        self.ffn_up = nnx.Linear(W, 2 * hidden, rngs=rngs)
        self.ffn_down = nnx.Linear(hidden, W, rngs=rngs)
        self.num_heads, self.head_dim = cfg.num_heads, cfg.perceiver_head_dim

    def __call__(self, latents: jax.Array, context: jax.Array, mask: jax.Array) -> jax.Array:
        """Updates latents [B, N, W] from context [B, S, W]; `mask` [B, N + S]."""
        B, N, _ = latents.shape
        heads = (self.num_heads, self.head_dim)
        query = self.query(latents).reshape(B, N, *heads)
        both = self.key_value(jnp.concatenate([latents, context], axis=1))
        key, value = jnp.split(both.reshape(B, -1, 2 * heads[0], heads[1]), 2, axis=2)
        score = jnp.einsum("bnhk,bshk->bhns", query, key).astype(jnp.float32)
        score = jnp.where(mask[:, None, None], score / math.sqrt(heads[1]), -1e30)
        weight = jax.nn.softmax(score, axis=-1).astype(latents.dtype)
        latents = latents + self.out(jnp.einsum("bhns,bshk->bnhk", weight, value).reshape(B, N, -1))
        content, gate = jnp.split(self.ffn_up(latents), 2, axis=-1)
        return latents + self.ffn_down(content * jax.nn.gelu(gate, approximate=False))


def _subsample(conv: nnx.Conv, out: nnx.Linear, features: jax.Array) -> jax.Array:
    """Maps features [B, T, F] to frames [B, S, D], a part of the bins at a time.

    What is between the layers, [B, S, F', D], would be the largest array of all by far: it is never
    whole, and its gradient computes it again, which is cheap.
    """
    x = features.astype(conv.kernel.dtype)[..., None]  # [B, T, F, 1]
    kernel = out.kernel.reshape(conv.out_features, -1, out.out_features)  # [D, F', D]

    @jax.checkpoint
    def part(conv: nnx.Conv, x: jax.Array, kernel: jax.Array) -> jax.Array:
        return jnp.einsum("bsfc,cfd->bsd", jax.nn.relu(conv(x)), kernel)

    assert out.bias is not None
    num_bins, y = kernel.shape[1], out.bias[...]
    for start in range(0, num_bins, BINS):
        stop = min(start + BINS, num_bins)
        y = y + part(conv, x[:, :, 2 * start : 2 * stop + 1], kernel[:, start:stop])
    return y * math.sqrt(out.out_features)


class Conditioner(nnx.Module):
    """Features of a recording -> `num_latents` latents."""

    def __init__(self, cfg: ConditionerConfig, *, rngs: nnx.Rngs):
        D, W = cfg.width, cfg.latent_width
        self.subsample = nnx.Conv(1, D, (3, 3), strides=2, padding="VALID", rngs=rngs)
        self.subsample_out = nnx.Linear(D * cfg.subsampled_features, D, rngs=rngs)
        self.positions = (
            nnx.BatchStat(jnp.asarray(sinusoid(cfg.num_positions, D)))
            if cfg.num_positions
            else None
        )
        self.blocks = nnx.List([ConformerBlock(cfg, rngs=rngs) for _ in range(cfg.num_blocks)])
        self.norm_blocks = layer_norm(D, rngs=rngs)
        self.project_context = nnx.Linear(D, W, rngs=rngs) if D != W else None
        self.latents = nnx.Param(0.02 * jax.random.normal(rngs.params(), (cfg.num_latents, W)))
        self.layers = nnx.List([PerceiverLayer(cfg, rngs=rngs) for _ in range(cfg.perceiver_depth)])
        self.norm_latents = nnx.Param(jnp.ones(W))

    def encode(
        self, features: jax.Array, mask: jax.Array | None = None, *, remat: bool = False
    ) -> tuple[jax.Array, jax.Array | None]:
        """Runs the conformer.

        Args:
          features: [B, T, F] normalised w2v-BERT features.
          mask: [B, T] bool, True = valid; None when all frames are.
          remat: keep only features and inputs of the blocks, and compute the rest again for
            gradients.

        Returns:
          Encoded frames [B, S, D] and their mask [B, S] (None if `mask` is).

        Raises:
          ValueError: for more frames than the release has positions.
        """
        maybe_checkpoint = jax.checkpoint if remat else lambda f: f
        x = maybe_checkpoint(_subsample)(self.subsample, self.subsample_out, features)
        mask = None if mask is None else mask[:, 2::2][:, : x.shape[1]]
        table = self._positions(*x.shape[1:]).astype(x.dtype)
        for block in self.blocks:
            x = gradient_barrier(x)
            x = maybe_checkpoint(ConformerBlock.__call__)(block, x, mask, table)
        return self.norm_blocks(x), mask

    def _positions(self, length: int, width: int) -> jax.Array:
        """Returns the rows of the table of positions, [length, width] float32."""
        if self.positions is None:
            return jnp.asarray(sinusoid(length, width))
        if length > self.positions.shape[0]:
            raise ValueError(f"{length} frames, but {self.positions.shape[0]} positions")
        return self.positions[:length]

    def __call__(
        self, features: jax.Array, mask: jax.Array | None = None, *, remat: bool = False
    ) -> jax.Array:
        """Maps features [B, T, F] (`mask` [B, T]) to latents [B, N, W]; `remat` as in `encode`."""
        context, mask = self.encode(features, mask, remat=remat)
        if self.project_context is not None:
            context = self.project_context(context)
        B, S, W = context.shape
        latents = jnp.broadcast_to(self.latents[...], (B, *self.latents.shape))
        own = jnp.ones(latents.shape[:2], bool)
        mask = jnp.ones((B, S), bool) if mask is None else mask
        for layer in self.layers:
            latents = layer(latents, context, jnp.concatenate([own, mask], axis=1))
        x = latents.astype(jnp.float32)
        length = jnp.maximum(jnp.linalg.norm(x, axis=-1, keepdims=True), 1e-12)
        return (x / length * math.sqrt(W)).astype(latents.dtype) * self.norm_latents[...]


_BLOCK_RULES = convert.prefixed(
    (
        *convert.norm("norm_mha", "norm_attention"),
        *convert.linear("self_attn.linear_q", "query"),
        *convert.linear("self_attn.linear_k", "key"),
        *convert.linear("self_attn.linear_v", "value"),
        *convert.linear("self_attn.linear_out", "out"),
        *convert.linear("self_attn.linear_pos", "position", bias=False),
        convert.Rule("self_attn.pos_bias_u", "content_bias"),
        convert.Rule("self_attn.pos_bias_v", "position_bias"),
        *convert.norm("norm_conv", "norm_conv"),
        *convert.linear("conv_module.pointwise_conv1", "conv_in", convert.POINTWISE),
        *convert.linear("conv_module.depthwise_conv", "depthwise", convert.DEPTHWISE),
        *convert.norm("conv_module.norm", "norm_depthwise"),
        *convert.linear("conv_module.pointwise_conv2", "conv_out", convert.POINTWISE),
        *convert.norm("norm_ff", "norm_ffn"),
        *convert.linear("feed_forward.w_1", "ffn_up"),
        *convert.linear("feed_forward.w_2", "ffn_down"),
        *convert.norm("norm_final", "norm_final"),
    ),
    "encoders.{i}.",
    "blocks.{i}.",
)
TABLE = convert.Layout("table", lambda w: w[0], lambda w: w[None])  # [1, P, D] <-> [P, D]
ENCODER_RULES = (
    convert.Rule("embed.pos_enc.pe", "positions", TABLE),
    *convert.linear("embed.conv.0", "subsample", convert.CONV_2D),
    *convert.linear("embed.out.0", "subsample_out"),
    *_BLOCK_RULES,
    *convert.norm("after_norm", "norm_blocks"),
)
PERCEIVER_RULES = (
    *convert.linear("proj_context", "project_context"),
    convert.Rule("latents", "latents"),
    *convert.linear("layers.{i}.0.to_q", "layers.{i}.query", bias=False),
    *convert.linear("layers.{i}.0.to_kv", "layers.{i}.key_value", bias=False),
    *convert.linear("layers.{i}.0.to_out", "layers.{i}.out", bias=False),
    *convert.linear("layers.{i}.1.0", "layers.{i}.ffn_up"),
    *convert.linear("layers.{i}.1.2", "layers.{i}.ffn_down"),
    convert.Rule("norm.gamma", "norm_latents"),
)

SHARDING_RULES = (
    (r".*subsample_out\.kernel", P("fsdp", "tensor")),
    (r".*(query|key|value|key_value|conv_in|ffn_up)\.kernel", P("fsdp", "tensor")),
    (r".*(out|conv_out|ffn_down)\.kernel", P("tensor", "fsdp")),
)

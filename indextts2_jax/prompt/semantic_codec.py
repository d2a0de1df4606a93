"""Semantic codec (RepCodec of MaskGCT): w2v-BERT features <-> one code every 20 ms.

    features [B, T, D] -> (down) -> Backbone -> Linear -> Quantizer -> codes [B, T_code]
    codes -> embed -> S_ref / S_infer [B, T_code, D] (what S2M reads)
          -> decode: Backbone -> Linear -> (up) -> features [B, T, D] (training only)

The release has `downsample_scale` 1: T_code = T.

Dims: B batch, T frames, T_code codes, D feature width, W backbone width, Z codebook width,
V codes in the codebook, K kernel.
Source: spec section 5.2.
"""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import PartitionSpec as P

from indextts2_jax.convert import CONV_1D, DEPTHWISE, POINTWISE, Rule, linear, norm, weight_norm
from indextts2_jax.nn.conv import DepthwiseConv, WeightNormLinear
from indextts2_jax.nn.masking import zero_padding
from indextts2_jax.nn.norm import layer_norm

_KERNEL = 7
_NORM_EPSILON = 1e-6


@dataclasses.dataclass(frozen=True)
class SemanticCodecConfig:
    """Architecture of the codec. The released model is `indextts2()`."""

    feature_width: int
    codebook_size: int
    codebook_width: int
    backbone_width: int
    ffn_width: int
    num_blocks: int
    downsample_scale: int = 1  # features per code: 1 or 2

    def __post_init__(self):
        """Refuses what the reference has no layers for."""
        if self.downsample_scale not in (1, 2):
            raise ValueError(f"downsample_scale is {self.downsample_scale}, want 1 or 2")

    @classmethod
    def indextts2(cls) -> "SemanticCodecConfig":
        """Returns the released codec of MaskGCT and IndexTTS2."""
        return cls(
            feature_width=1024,
            codebook_size=8192,
            codebook_width=8,
            backbone_width=384,
            ffn_width=2048,
            num_blocks=12,
        )

    @classmethod
    def tiny(cls) -> "SemanticCodecConfig":
        """Returns a model for tests."""
        return cls(
            feature_width=24,
            codebook_size=40,
            codebook_width=8,
            backbone_width=16,
            ffn_width=32,
            num_blocks=2,
        )

    @classmethod
    def from_release(cls, config: Mapping[str, Any]) -> "SemanticCodecConfig":
        """Reads the `semantic_codec` block of a released config.yaml."""
        return cls(
            feature_width=config["hidden_size"],
            codebook_size=config["codebook_size"],
            codebook_width=config["codebook_dim"],
            backbone_width=config["vocos_dim"],
            ffn_width=config["vocos_intermediate_dim"],
            num_blocks=config["vocos_num_layers"],
            downsample_scale=config.get("downsample_scale") or 1,
        )

    @classmethod
    def from_shapes(cls, shapes: Mapping[str, tuple[int, ...]]) -> "SemanticCodecConfig":
        """Reads the architecture off the shapes of released weights, by torch name."""
        codes, code_width = shapes["quantizer.quantizers.0.codebook.weight"]
        ffn_width, width = shapes["encoder.0.convnext.0.pwconv1.weight"]
        return cls(
            feature_width=shapes["encoder.0.embed.weight"][1],
            codebook_size=codes,
            codebook_width=code_width,
            backbone_width=width,
            ffn_width=ffn_width,
            num_blocks=len(
                [k for k in shapes if re.fullmatch(r"encoder\.0\.convnext.*\.gamma", k)]
            ),
            downsample_scale=2 if "down.weight" in shapes else 1,
        )


class ConvNeXtBlock(nnx.Module):
    """Depthwise convolution and a gated residual feed-forward."""

    def __init__(self, cfg: SemanticCodecConfig, *, rngs: nnx.Rngs):
        half = _KERNEL // 2
        self.conv = DepthwiseConv(cfg.backbone_width, _KERNEL, padding=(half, half), rngs=rngs)
        self.norm = layer_norm(cfg.backbone_width, epsilon=_NORM_EPSILON, rngs=rngs)
        self.up = nnx.Linear(cfg.backbone_width, cfg.ffn_width, rngs=rngs)
        self.down = nnx.Linear(cfg.ffn_width, cfg.backbone_width, rngs=rngs)
        self.gamma = nnx.Param(jnp.full(cfg.backbone_width, 1 / cfg.num_blocks))

    def __call__(self, x: jax.Array, mask: jax.Array | None) -> jax.Array:
        """Maps [B, T, W] to [B, T, W]."""
        y = self.norm(self.conv(zero_padding(x, mask)))
        y = self.down(jax.nn.gelu(self.up(y), approximate=False))
        return x + self.gamma[...] * y


class Backbone(nnx.Module):
    """Vocos' ConvNeXt stack with a linear read-out; both halves of the codec are one."""

    def __init__(self, cfg: SemanticCodecConfig, *, rngs: nnx.Rngs):
        width = cfg.backbone_width
        self.embed = nnx.Conv(cfg.feature_width, width, _KERNEL, padding=_KERNEL // 2, rngs=rngs)
        self.norm = layer_norm(width, epsilon=_NORM_EPSILON, rngs=rngs)
        self.blocks = nnx.List(ConvNeXtBlock(cfg, rngs=rngs) for _ in range(cfg.num_blocks))
        self.final_norm = layer_norm(width, epsilon=_NORM_EPSILON, rngs=rngs)
        self.out = nnx.Linear(width, cfg.feature_width, rngs=rngs)

    def __call__(self, x: jax.Array, mask: jax.Array | None) -> jax.Array:
        """Maps [B, T, D] to [B, T, D]; frames outside `mask` [B, T] count as zero."""
        x = self.norm(self.embed(zero_padding(x, mask)))  # [B, T, W]
        for block in self.blocks:
            x = block(x, mask)
        return self.out(self.final_norm(x))


class Quantizer(nnx.Module):
    """A codebook in a low-dimensional projection, searched by cosine."""

    def __init__(self, cfg: SemanticCodecConfig, *, rngs: nnx.Rngs):
        self.in_proj = WeightNormLinear(cfg.feature_width, cfg.codebook_width, rngs=rngs)
        self.codebook = nnx.Embed(cfg.codebook_size, cfg.codebook_width, rngs=rngs)
        self.out_proj = WeightNormLinear(cfg.codebook_width, cfg.feature_width, rngs=rngs)

    def nearest(self, z: jax.Array) -> jax.Array:
        """Returns codes [B, T] int32 whose rows have the largest cosine with z [B, T, Z].

        In full float32: the best two of 8192 rows are often closer than a TF32 product is exact.
        """
        z = _unit(z.astype(jnp.float32))
        rows = _unit(self.codebook.embedding[...].astype(jnp.float32))
        cosine = jnp.einsum("btz,vz->btv", z, rows, precision=jax.lax.Precision.HIGHEST)
        return jnp.argmax(cosine, axis=-1).astype(jnp.int32)

    def __call__(self, codes: jax.Array) -> jax.Array:
        """Returns the projected codebook rows [B, T, D] of codes [B, T]."""
        return self.out_proj(self.codebook(codes))


class SemanticCodec(nnx.Module):
    """Encoder, quantizer and decoder."""

    def __init__(self, cfg: SemanticCodecConfig, *, rngs: nnx.Rngs):
        self.encoder = Backbone(cfg, rngs=rngs)
        self.quantizer = Quantizer(cfg, rngs=rngs)
        self.decoder = Backbone(cfg, rngs=rngs)
        self.downsample_scale = cfg.downsample_scale
        if cfg.downsample_scale == 2:
            width = cfg.feature_width
            self.down = nnx.Conv(width, width, 3, strides=2, padding=1, rngs=rngs)
            self.up = nnx.Conv(width, width, 3, padding=1, rngs=rngs)

    def project(self, features: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        """Projects features [B, T, D] to the space of the codebook, [B, T_code, Z]."""
        x = features.astype(self.encoder.embed.kernel.dtype)
        if self.downsample_scale == 2:
            x = jax.nn.gelu(self.down(zero_padding(x, mask)), approximate=False)
        return self.quantizer.in_proj(self.encoder(x, self.code_mask(mask)))

    def encode(self, features: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        """Turns features into codes.

        Args:
          features: [B, T, D] float, standardised w2v-BERT hidden states.
          mask: [B, T] bool, True = valid; None = all valid.

        Returns:
          [B, T_code] int32; those outside `code_mask(mask)` mean nothing.
        """
        return self.quantizer.nearest(self.project(features, mask))

    def quantize(
        self, features: jax.Array, mask: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array]:
        """Returns codes [B, T_code] and their embeddings [B, T_code, D] (S_ref)."""
        codes = self.encode(features, mask)
        return codes, self.embed(codes)

    def embed(self, codes: jax.Array) -> jax.Array:
        """Looks up embeddings [B, T_code, D] of codes [B, T_code] int32 (upstream's `vq2emb`)."""
        return self.quantizer(codes)

    def decode(self, embedding: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        """Reconstructs features.

        Args:
          embedding: [B, T_code, D] float, from `embed`.
          mask: [B, T_code] bool, True = valid; None = all valid.

        Returns:
          [B, T_code * downsample_scale, D].
        """
        x = self.decoder(embedding.astype(self.decoder.embed.kernel.dtype), mask)
        if self.downsample_scale == 2:
            x = self.up(jnp.repeat(zero_padding(x, mask), 2, axis=1))
        return x

    def code_mask(self, mask: jax.Array | None) -> jax.Array | None:
        """Returns the mask [B, T_code] of the codes of features with `mask` [B, T]."""
        return None if mask is None else mask[:, :: self.downsample_scale]


def _unit(x: jax.Array) -> jax.Array:
    return x / jnp.maximum(jnp.linalg.norm(x, axis=-1, keepdims=True), 1e-12)


def _backbone_rules(name: str) -> tuple[Rule, ...]:
    torch_block, our_block = f"{name}.0.convnext.{{i}}", f"{name}.blocks.{{i}}"
    return (
        *linear(f"{name}.0.embed", f"{name}.embed", CONV_1D),
        *norm(f"{name}.0.norm", f"{name}.norm"),
        *linear(f"{torch_block}.dwconv", f"{our_block}.conv", DEPTHWISE),
        *norm(f"{torch_block}.norm", f"{our_block}.norm"),
        *linear(f"{torch_block}.pwconv1", f"{our_block}.up"),
        *linear(f"{torch_block}.pwconv2", f"{our_block}.down"),
        Rule(f"{torch_block}.gamma", f"{our_block}.gamma"),
        *norm(f"{name}.0.final_layer_norm", f"{name}.final_norm"),
        *linear(f"{name}.1", f"{name}.out"),
    )


# Names as in `semantic_codec/model.safetensors` of amphion/MaskGCT.
TORCH_RULES = (
    *_backbone_rules("encoder"),
    *_backbone_rules("decoder"),
    *weight_norm("quantizer.quantizers.0.in_project", "quantizer.in_proj", POINTWISE),
    *weight_norm("quantizer.quantizers.0.out_project", "quantizer.out_proj", POINTWISE),
    Rule("quantizer.quantizers.0.codebook.weight", "quantizer.codebook.embedding"),
    *linear("down", "down", CONV_1D),
    *linear("up", "up", CONV_1D),
)

TORCH_UNUSED = ()

SHARDING_RULES = (
    (r"(encoder|decoder)\.blocks\.\d+\.up\.kernel", P("fsdp", "tensor")),
    (r"(encoder|decoder)\.blocks\.\d+\.down\.kernel", P("tensor", "fsdp")),
    (r"(encoder|decoder)\.embed\.kernel", P(None, "fsdp", "tensor")),
    (r"(encoder|decoder)\.out\.kernel", P("fsdp", "tensor")),
    (r".*", P()),
)

"""w2v-BERT 2.0: filterbank features of 16 kHz speech -> semantic features (50 Hz).

    features [B, T, F] -> LayerNorm, Linear -> L x Conformer layer -> hidden states [B, T, D]

IndexTTS2 reads the output of layer 17 of 24 and standardises it (`normalize`); a model built with
`dataclasses.replace(cfg, num_layers=17)` is all that it needs.

Dims: B batch, T tokens, F feature width, D width, N heads, H head dim, R relative positions,
K kernel.
Source: spec section 5.1; `Wav2Vec2BertModel` of transformers with relative-key positions.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import PartitionSpec as P
from jax.typing import ArrayLike

from indextts2_jax.convert import DEPTHWISE, POINTWISE, Rule, linear, norm
from indextts2_jax.nn.barrier import gradient_barrier
from indextts2_jax.nn.conv import DepthwiseConv
from indextts2_jax.nn.masking import zero_padding
from indextts2_jax.nn.norm import layer_norm


@dataclasses.dataclass(frozen=True)
class W2VBertConfig:
    """Architecture of the encoder. The released model is `indextts2()`."""

    num_layers: int
    width: int
    num_heads: int
    ffn_width: int
    feature_width: int  # two stacked filterbank frames
    conv_kernel: int
    max_left: int  # keys further back than this share one position embedding
    max_right: int

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.width // self.num_heads

    @classmethod
    def indextts2(cls) -> "W2VBertConfig":
        """Returns the settings of facebook/w2v-bert-2.0."""
        return cls(
            num_layers=24,
            width=1024,
            num_heads=16,
            ffn_width=4096,
            feature_width=160,
            conv_kernel=31,
            max_left=64,
            max_right=8,
        )

    @classmethod
    def tiny(cls) -> "W2VBertConfig":
        """Returns a model for tests."""
        return cls(
            num_layers=2,
            width=24,
            num_heads=3,
            ffn_width=40,
            feature_width=160,
            conv_kernel=7,
            max_left=6,
            max_right=3,
        )

    @classmethod
    def from_release(cls, config: Mapping[str, Any]) -> "W2VBertConfig":
        """Reads the `config.json` beside the released weights.

        Raises:
          ValueError: the file describes a variant that this module does not compute.
        """
        wanted = {
            "position_embeddings_type": ("relative_key",),
            "hidden_act": ("swish", "silu"),
            "add_adapter": (False,),
            "layer_norm_eps": (1e-5,),
        }
        for key, values in wanted.items():
            if config[key] not in values:
                raise ValueError(f"w2v-BERT config: {key} is {config[key]!r}, want {values[0]!r}")
        return cls(
            num_layers=config["num_hidden_layers"],
            width=config["hidden_size"],
            num_heads=config["num_attention_heads"],
            ffn_width=config["intermediate_size"],
            feature_width=config["feature_projection_input_dim"],
            conv_kernel=config["conv_depthwise_kernel_size"],
            max_left=config["left_max_position_embeddings"],
            max_right=config["right_max_position_embeddings"],
        )


class FeedForward(nnx.Module):
    """LayerNorm, Linear, SiLU, Linear."""

    def __init__(self, cfg: W2VBertConfig, *, rngs: nnx.Rngs):
        self.norm = layer_norm(cfg.width, rngs=rngs)
        self.up = nnx.Linear(cfg.width, cfg.ffn_width, rngs=rngs)
        self.down = nnx.Linear(cfg.ffn_width, cfg.width, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [B, T, D] to [B, T, D]."""
        return self.down(jax.nn.silu(self.up(self.norm(x))))


class RelativeAttention(nnx.Module):
    """Self-attention; a key's score is q . (k + e), e an embedding of its clipped distance."""

    def __init__(self, cfg: W2VBertConfig, *, rngs: nnx.Rngs):
        self.norm = layer_norm(cfg.width, rngs=rngs)
        self.query = nnx.Linear(cfg.width, cfg.width, rngs=rngs)
        self.key = nnx.Linear(cfg.width, cfg.width, rngs=rngs)
        self.value = nnx.Linear(cfg.width, cfg.width, rngs=rngs)
        self.out = nnx.Linear(cfg.width, cfg.width, rngs=rngs)
        self.distance = nnx.Embed(cfg.max_left + cfg.max_right + 1, cfg.head_dim, rngs=rngs)
        self.num_heads, self.max_left, self.max_right = cfg.num_heads, cfg.max_left, cfg.max_right

    def __call__(self, x: jax.Array, mask: jax.Array | None) -> jax.Array:
        """Maps [B, T, D] to [B, T, D]; keys outside `mask` [B, T] are not seen."""
        B, T, D = x.shape
        x = self.norm(x)
        q, k, v = (
            project(x).reshape(B, T, self.num_heads, -1).transpose(2, 0, 1, 3)  # [N, B, T, H]
            for project in (self.query, self.key, self.value)
        )
        q = q * q.shape[-1] ** -0.5
        table = self.distance.embedding[...].astype(x.dtype).T  # [H, R]
        position = np.arange(T)
        distance = np.clip(position - position[:, None], -self.max_left, self.max_right)
        index = jnp.asarray(distance + self.max_left)[None]  # [1, T query, T key]

        def attend(head: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
            q, k, v = head  # [B, T, H]
            bias = jnp.take_along_axis(q @ table, index, axis=-1, mode="clip")
            scores = (q @ k.swapaxes(1, 2) + bias).astype(jnp.float32)  # [B, T, T]
            if mask is not None:
                scores = jnp.where(mask[:, None], scores, jnp.finfo(jnp.float32).min)
            return jax.nn.softmax(scores).astype(v.dtype) @ v

        # Head by head, so that the scores stay in the cache: 3 times faster on CPU at T = 750.
        y = jax.lax.map(attend, (q, k, v))  # [N, B, T, H]
        return self.out(y.transpose(1, 2, 0, 3).reshape(B, T, D))


class CausalConvolution(nnx.Module):
    """LayerNorm, gated Linear, causal depthwise convolution, LayerNorm, SiLU, Linear."""

    def __init__(self, cfg: W2VBertConfig, *, rngs: nnx.Rngs):
        self.norm = layer_norm(cfg.width, rngs=rngs)
        self.gated = nnx.Linear(cfg.width, 2 * cfg.width, use_bias=False, rngs=rngs)
        self.conv = DepthwiseConv(
            cfg.width, cfg.conv_kernel, padding=(cfg.conv_kernel - 1, 0), use_bias=False, rngs=rngs
        )
        self.conv_norm = layer_norm(cfg.width, rngs=rngs)
        self.out = nnx.Linear(cfg.width, cfg.width, use_bias=False, rngs=rngs)

    def __call__(self, x: jax.Array, mask: jax.Array | None) -> jax.Array:
        """Maps [B, T, D] to [B, T, D]; tokens outside `mask` [B, T] count as zero."""
        x = jax.nn.glu(self.gated(zero_padding(self.norm(x), mask)))
        # Else XLA computes the gradient behind the convolution again for each of its taps.
        y = gradient_barrier(self.conv(gradient_barrier(x)))
        return self.out(jax.nn.silu(self.conv_norm(y)))


class ConformerLayer(nnx.Module):
    """Half feed-forward, attention, convolution, half feed-forward, LayerNorm."""

    def __init__(self, cfg: W2VBertConfig, *, rngs: nnx.Rngs):
        self.ffn_1 = FeedForward(cfg, rngs=rngs)
        self.attention = RelativeAttention(cfg, rngs=rngs)
        self.convolution = CausalConvolution(cfg, rngs=rngs)
        self.ffn_2 = FeedForward(cfg, rngs=rngs)
        self.norm = layer_norm(cfg.width, rngs=rngs)

    def __call__(self, x: jax.Array, mask: jax.Array | None) -> jax.Array:
        """Maps [B, T, D] to [B, T, D]."""
        x = x + 0.5 * self.ffn_1(x)
        x = x + self.attention(x, mask)
        x = x + self.convolution(x, mask)
        x = x + 0.5 * self.ffn_2(x)
        return self.norm(x)


class W2VBert(nnx.Module):
    """The encoder, up to its last layer."""

    def __init__(self, cfg: W2VBertConfig, *, rngs: nnx.Rngs):
        self.feature_norm = layer_norm(cfg.feature_width, rngs=rngs)
        self.feature_proj = nnx.Linear(cfg.feature_width, cfg.width, rngs=rngs)
        self.layers = nnx.List(ConformerLayer(cfg, rngs=rngs) for _ in range(cfg.num_layers))

    def __call__(
        self, features: jax.Array, mask: jax.Array | None = None, num_layers: int | None = None
    ) -> jax.Array:
        """Encodes speech.

        Args:
          features: [B, T, F] float, from `audio.fbank.m4t_features`.
          mask: [B, T] bool, True = valid; None = all valid.
          num_layers: stop after so many layers; None runs all of them.

        Returns:
          [B, T, D]: `hidden_states[num_layers]` of transformers. Masked tokens hold what a query
          from that place sees; the original passes the masked last token of a prompt on.
        """
        last = len(self.layers) if num_layers is None else num_layers
        return self.hidden_states(features, mask, (last,))[0]

    def hidden_states(
        self, features: jax.Array, mask: jax.Array | None, layers: Sequence[int]
    ) -> tuple[jax.Array, ...]:
        """Returns the outputs [B, T, D] of several layers; layer 0 is the projected features."""
        x = features.astype(self.feature_proj.kernel.dtype)
        x = zero_padding(self.feature_proj(self.feature_norm(x)), mask)
        hidden = [x]
        for layer in self.layers[: max(layers)]:
            hidden.append(layer(hidden[-1], mask))
        return tuple(hidden[i] for i in layers)


def normalize(hidden: ArrayLike, mean: ArrayLike, variance: ArrayLike) -> jax.Array:
    """Standardises hidden states [..., D] with `mean` and `variance` [D] of the training corpus.

    The numbers are those of the released `wav2vec2bert_stats.pt` (`mean`, `var`).
    """
    return jnp.subtract(hidden, mean) / jnp.sqrt(variance)


_LAYER = ("encoder.layers.{i}", "layers.{i}")


def _feed_forward_rules(number: int) -> tuple[Rule, ...]:
    torch, ours = f"{_LAYER[0]}.ffn{number}", f"{_LAYER[1]}.ffn_{number}"
    return (
        *norm(f"{torch}_layer_norm", f"{ours}.norm"),
        *linear(f"{torch}.intermediate_dense", f"{ours}.up"),
        *linear(f"{torch}.output_dense", f"{ours}.down"),
    )


# Names as in `model.safetensors` of facebook/w2v-bert-2.0.
TORCH_RULES = (
    *norm("feature_projection.layer_norm", "feature_norm"),
    *linear("feature_projection.projection", "feature_proj"),
    *_feed_forward_rules(1),
    *norm(f"{_LAYER[0]}.self_attn_layer_norm", f"{_LAYER[1]}.attention.norm"),
    *linear(f"{_LAYER[0]}.self_attn.linear_q", f"{_LAYER[1]}.attention.query"),
    *linear(f"{_LAYER[0]}.self_attn.linear_k", f"{_LAYER[1]}.attention.key"),
    *linear(f"{_LAYER[0]}.self_attn.linear_v", f"{_LAYER[1]}.attention.value"),
    *linear(f"{_LAYER[0]}.self_attn.linear_out", f"{_LAYER[1]}.attention.out"),
    Rule(
        f"{_LAYER[0]}.self_attn.distance_embedding.weight",
        f"{_LAYER[1]}.attention.distance.embedding",
    ),
    *norm(f"{_LAYER[0]}.conv_module.layer_norm", f"{_LAYER[1]}.convolution.norm"),
    *linear(
        f"{_LAYER[0]}.conv_module.pointwise_conv1",
        f"{_LAYER[1]}.convolution.gated",
        POINTWISE,
        bias=False,
    ),
    *linear(
        f"{_LAYER[0]}.conv_module.depthwise_conv",
        f"{_LAYER[1]}.convolution.conv",
        DEPTHWISE,
        bias=False,
    ),
    *norm(f"{_LAYER[0]}.conv_module.depthwise_layer_norm", f"{_LAYER[1]}.convolution.conv_norm"),
    *linear(
        f"{_LAYER[0]}.conv_module.pointwise_conv2",
        f"{_LAYER[1]}.convolution.out",
        POINTWISE,
        bias=False,
    ),
    *_feed_forward_rules(2),
    *norm(f"{_LAYER[0]}.final_layer_norm", f"{_LAYER[1]}.norm"),
)

TORCH_UNUSED = (r"masked_spec_embed",)  # replaces masked features in pre-training

SHARDING_RULES = (
    (r"layers\.\d+\.ffn_[12]\.up\.kernel", P("fsdp", "tensor")),
    (r"layers\.\d+\.ffn_[12]\.down\.kernel", P("tensor", "fsdp")),
    (r"layers\.\d+\.attention\.(query|key|value)\.kernel", P("fsdp", "tensor")),
    (r"layers\.\d+\.attention\.out\.kernel", P("tensor", "fsdp")),
    (r"layers\.\d+\.convolution\.gated\.kernel", P("fsdp", None)),  # the gate pairs both halves
    (r"layers\.\d+\.convolution\.out\.kernel", P(None, "fsdp")),
    (r".*", P()),
)

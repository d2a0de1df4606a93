"""S2M: semantic codes + GPT latents -> mel.

Data flow:  embeddings of the codes [B, T_code, C] and GPT latents [B, T_code, G] -> `semantic`
            -> `regulate` [with word vectors] -> mu [B, T_mel, D], behind that of the prompt
            -> `Conditions`, with the prompt's mel and style
            -> `flow_matching.sample` (`velocity`, conditions) -> mel [B, T_mel, M]

Dims: B batch, T_code semantic frames, T_mel mel frames, G latent width, C semantic width,
D condition width, M mel bins, W words, E width of their vectors.

Source: paper section 3.2; the released IndexTTS2 `s2mel.pth`.
"""

import dataclasses
import itertools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import PartitionSpec as P

from indextts2_jax.convert import linear, prefixed
from indextts2_jax.nn.masking import zero_padding
from indextts2_jax.s2m import dit, length_regulator
from indextts2_jax.s2m.dit import Velocity, VelocityConfig
from indextts2_jax.s2m.length_regulator import NUM_BLOCKS, LengthRegulator, LengthRegulatorConfig
from indextts2_jax.s2m.text_features import TextFeatures
from indextts2_jax.s2m.wavenet import WaveNetConfig


@dataclasses.dataclass(frozen=True)
class S2MConfig:
    """Architecture of S2M. The released model is `indextts2()`."""

    # From GPT latents through hidden layers to semantic embeddings; (): the model reads no latents.
    latent_widths: tuple[int, ...]
    length_regulator: LengthRegulatorConfig
    velocity: VelocityConfig
    word_width: int = 0  # of word vectors (paper appendix B); 0: the model reads none

    @classmethod
    def indextts2(cls) -> "S2MConfig":
        """Returns the released size."""
        return cls(
            latent_widths=(1280, 256, 128, 1024),
            length_regulator=LengthRegulatorConfig.indextts2(),
            velocity=VelocityConfig.indextts2(),
        )

    @classmethod
    def small(cls) -> "S2MConfig":
        """Returns a size of a few million parameters, which trains on a laptop."""
        released = cls.indextts2()
        return dataclasses.replace(
            released,
            length_regulator=dataclasses.replace(released.length_regulator, width=128),
            velocity=dataclasses.replace(
                released.velocity,
                condition_width=128,
                width=128,
                num_layers=3,
                num_heads=4,
                feed_forward_width=384,
                wavenet=dataclasses.replace(released.velocity.wavenet, width=128, num_layers=2),
            ),
        )

    @classmethod
    def tiny(cls) -> "S2MConfig":
        """Returns a size for tests."""
        return cls(
            latent_widths=(20, 8, 4, 16),
            length_regulator=LengthRegulatorConfig.tiny(),
            velocity=VelocityConfig.tiny(),
        )

    @classmethod
    def from_release(
        cls, block: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]
    ) -> "S2MConfig":
        """Reads the architecture off released files.

        Args:
          block: the `s2mel` block of `config.yaml`.
          shapes: name -> shape of the tensors of `s2mel.pth`, names as in `TORCH_RULES`.

        Raises:
          ValueError: the block asks for a variant that this file does not implement.
        """
        transformer, wavenet = block["DiT"], block["wavenet"]
        for section, option, wanted in (
            ("DiT", "is_causal", False),
            ("DiT", "time_as_token", False),
            ("DiT", "style_as_token", False),
            ("DiT", "style_condition", True),
            ("DiT", "long_skip_connection", True),
            ("DiT", "uvit_skip_connection", True),
            ("DiT", "final_layer_type", "wavenet"),
            ("length_regulator", "is_discrete", False),
            ("length_regulator", "f0_condition", False),
        ):
            if (got := block[section][option]) != wanted:
                raise ValueError(f"s2mel.{section}.{option} is {got!r}, only {wanted!r} works")
        ratios = block["length_regulator"].get("sampling_ratios", [1] * NUM_BLOCKS)
        if len(ratios) != NUM_BLOCKS:
            raise ValueError(
                f"s2mel.length_regulator.sampling_ratios has {len(ratios)} values, only "
                f"{NUM_BLOCKS} work"
            )

        first = "net/cfm/estimator.transformer.layers.0.feed_forward.w1.weight"
        weights = [shapes[f"net/gpt_layer/{i}.weight"] for i in range(3)]
        return cls(
            latent_widths=(weights[0][1], *(w[0] for w in weights)),
            length_regulator=LengthRegulatorConfig(
                in_width=shapes["net/length_regulator/content_in_proj.weight"][1],
                width=block["length_regulator"]["channels"],
            ),
            velocity=VelocityConfig(
                num_mels=transformer["in_channels"],
                condition_width=transformer["content_dim"],
                style_width=block["style_encoder"]["dim"],
                width=transformer["hidden_dim"],
                num_layers=transformer["depth"],
                num_heads=transformer["num_heads"],
                feed_forward_width=shapes[first][0],
                wavenet=WaveNetConfig(
                    width=wavenet["hidden_dim"],
                    num_layers=wavenet["num_layers"],
                    kernel_size=wavenet["kernel_size"],
                    dilation_rate=wavenet["dilation_rate"],
                    dropout=wavenet["p_dropout"],
                ),
            ),
        )


class LatentProjection(nnx.Module):
    """GPT latents -> semantic embeddings: affine maps through a bottleneck, no activation."""

    def __init__(self, widths: tuple[int, ...], *, rngs: nnx.Rngs):
        self.layers = nnx.List(
            [nnx.Linear(*pair, rngs=rngs) for pair in itertools.pairwise(widths)]
        )

    def __call__(self, latents: jax.Array) -> jax.Array:
        """Maps latents [B, T_code, G] to [B, T_code, C]."""
        x = latents.astype(self.layers[0].kernel.dtype)
        for layer in self.layers:
            x = layer(x)
        return x


class S2M(nnx.Module):
    """The networks of S2M, and what comes before flow matching; `flow_matching` makes the mel.

    Networks for GPT latents and word vectors are there if the configuration has widths for them.
    """

    def __init__(self, cfg: S2MConfig, *, rngs: nnx.Rngs):
        self.cfg = cfg
        if cfg.latent_widths:
            self.latent_projection = LatentProjection(cfg.latent_widths, rngs=rngs)
        self.length_regulator = LengthRegulator(cfg.length_regulator, rngs=rngs)
        if cfg.word_width:
            width = cfg.length_regulator.width
            self.text_features = TextFeatures(cfg.word_width, width, rngs=rngs)
        self.velocity = Velocity(cfg.velocity, rngs=rngs)

    def semantic(
        self,
        embedding: jax.Array,
        latents: jax.Array | None = None,
        use: jax.Array | None = None,
    ) -> jax.Array:
        """Adds what the model reads of GPT latents to the embeddings of codes.

        Args:
          embedding: [B, T_code, C] of the codes, by the semantic codec.
          latents: [B, T_code, G] GPT latents of the codes; None = the codes alone.
          use: [B, T_code] bool, the frames whose latents are added; None = all.

        Returns:
          [B, T_code, C] semantic frames.
        """
        if latents is None:
            return embedding
        added = self.latent_projection(latents)
        return embedding + (added if use is None else zero_padding(added, use))

    def regulate(
        self,
        semantic: jax.Array,
        code_lengths: jax.Array,
        frame_lengths: jax.Array,
        *,
        num_frames: int,
        word_vectors: jax.Array | None = None,
        word_frames: jax.Array | None = None,
        first_frames: jax.Array | None = None,
    ) -> jax.Array:
        """Stretches semantic frames to mel frames, and adds word vectors.

        Args:
          semantic: [B, T_code, C].
          code_lengths: [B] int32, valid frames of `semantic`, at least 1.
          frame_lengths: [B] int32, wanted mel frames, at least 1.
          num_frames: T_mel, the padded number of mel frames.
          word_vectors: [B, W, E]; None = no words.
          word_frames: [B, W] int32, mel frames of each word; padded words have none.
          first_frames: [B] int32, how many first frames get no word; None = 0.

        Returns:
          [B, T_mel, D] conditions.
        """
        mu = self.length_regulator(semantic, code_lengths, frame_lengths, num_frames)
        if word_vectors is None or word_frames is None:
            return mu
        added = self.text_features(word_vectors, word_frames, num_frames)
        if first_frames is not None:
            added = zero_padding(added, jnp.arange(num_frames) >= first_frames[:, None])
        return mu + added


# Names as in `s2mel.pth`, the levels of its dictionaries joined by slashes.
TORCH_RULES = (
    *linear("net/gpt_layer/{i}", "latent_projection.layers.{i}"),
    *prefixed(length_regulator.TORCH_RULES, "net/length_regulator/", "length_regulator."),
    *prefixed(dit.TORCH_RULES, "net/cfm/estimator.", "velocity."),
    # The release has none; the name is ours.
    *linear("net/text_features/projection", "text_features.projection", bias=False),
)


def torch_unused(cfg: S2MConfig) -> tuple[str, ...]:
    """Regexes of the names in `s2mel.pth` that have no effect; they depend on the depth."""
    return (
        *(f"net/length_regulator/{name}" for name in length_regulator.TORCH_UNUSED),
        *(rf"net/cfm/estimator\.{name}" for name in dit.torch_unused(cfg.velocity)),
    )


SHARDING_RULES = (
    *((rf"length_regulator\.{name}", spec) for name, spec in length_regulator.SHARDING_RULES),
    *((rf"velocity\.{name}", spec) for name, spec in dit.SHARDING_RULES),
    (r".*", P()),
)

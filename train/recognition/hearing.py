"""What the encoder and the codec learn: to hear words and pitch, also through the codes.

    fbank [B, T, 160] -> first layers -> x [B, T, D] -------------------> other layers -> heads
                                         x -> codec -> codes -> x_hat -> other layers -> heads

Losses of a row, each times its weight of `Method`:

    ctc             negative log-likelihood of the text, per label
    prosody         |log F0| where voiced, voicing (cross-entropy), |log energy|
    reconstruction  |x_hat - sg(x)|^2, and the losses of the codebook: see `quantization`

Dims: B rows, T frames, D width, Z codebook width, K units.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from indextts2_jax.nn.barrier import gradient_barrier
from indextts2_jax.nn.masking import length_mask, zero_padding
from indextts2_jax.prompt import semantic_codec, w2v_bert
from indextts2_jax.prompt.semantic_codec import SemanticCodec, SemanticCodecConfig
from indextts2_jax.prompt.w2v_bert import W2VBert, W2VBertConfig
from train.objectives import ctc, quantization
from train.recognition import recognizer
from train.recognition.recognizer import Heads, RecognizerConfig
from train.run.config import Config
from train.run.task import Batch, Module, Task

BANDS = 80  # of a filterbank frame; a token has two frames
LOG_F0, LOG_ENERGY = (5.0, 0.4), (-6.0, 3.0)  # about mean and spread, which targets are freed of


@dataclasses.dataclass(frozen=True)
class Method:
    """How a stage trains: weights of losses, and what SpecAugment masks.

    Attributes:
      quantize: whether the heads hear the features through the codec.
      ctc: weight.
      prosody: weight; 0 = the heads have none for it.
      reconstruction: weight.
      commitment: weight (release .15).
      codebook: weight (release 1).
      revival: weight; 0 = unused codes stay where they are.
      time_masks: of an utterance.
      time_width: longest, in tokens of 20 ms; no more than a fifth of the utterance.
      band_masks: of an utterance.
      band_width: longest, of 80 bands.
    """

    quantize: bool = False
    ctc: float = 1.0
    prosody: float = 0.0
    reconstruction: float = 1.0
    commitment: float = 0.15
    codebook: float = 1.0
    revival: float = 1.0
    time_masks: int = 2
    time_width: int = 25
    band_masks: int = 2
    band_width: int = 16

    @classmethod
    def of(cls, stage: Config) -> "Method":
        """Reads the keys of a stage."""
        return cls(**{field.name: stage[field.name] for field in dataclasses.fields(cls)})


class Heard(NamedTuple):
    """What the networks make of speech."""

    features: jax.Array  # [B, T, D] standardised, of the layer that feeds the codec
    logits: jax.Array  # [B, T, K]
    prosody: jax.Array | None  # [B, T, 3]
    quantized: "Quantized | None"


class Quantized(NamedTuple):
    """Features through the codec; T_code codes."""

    z: jax.Array  # [B, T_code, Z] what is quantised
    rows: jax.Array  # [B, T_code, Z] rows of the codebook
    codes: jax.Array  # [B, T_code] int32
    mask: jax.Array  # [B, T_code] bool
    features: jax.Array  # [B, T, D] standardised


def encode(
    encoder: W2VBert, x: jax.Array, mask: jax.Array, layers: slice, remat: bool
) -> jax.Array:
    """Runs some layers on hidden states [B, T, D]."""

    def run(layer: Any, x: jax.Array) -> jax.Array:
        return layer(gradient_barrier(x), mask)

    for layer in encoder.layers[layers]:
        x = (jax.checkpoint(run) if remat else run)(layer, x)
    return x


def quantize(codec: SemanticCodec, features: jax.Array, mask: jax.Array) -> Quantized:
    """Takes features [B, T, D] through the codec, with gradients as if codes were none."""
    z = codec.project(features, mask)
    codes = codec.quantizer.nearest(z)
    rows = codec.quantizer.codebook(codes)
    code_mask = mask[:, :: codec.downsample_scale]
    embedding = codec.quantizer.out_proj(quantization.straight_through(z, rows))
    decoded = codec.decode(embedding, code_mask)[:, : mask.shape[1]]
    return Quantized(z, rows, codes, code_mask, decoded)


@dataclasses.dataclass(frozen=True)
class Hearing:
    """The networks of a task, and how they are joined.

    Attributes:
      encoder: architecture of w2v-BERT, all layers that the heads hear.
      heads: settings of the heads.
      codec: architecture of the codec, or None.
      layer: whose output feeds the codec.
      mean: [D] of that output.
      variance: [D] of it.
    """

    encoder: W2VBertConfig
    heads: RecognizerConfig
    codec: SemanticCodecConfig | None
    layer: int
    mean: np.ndarray
    variance: np.ndarray

    def without_codec(self, wanted: bool = True) -> "Hearing":
        """Returns the same without its codec, if `wanted` says so."""
        return dataclasses.replace(self, codec=None) if wanted else self

    @property
    def num_codes(self) -> int:
        """Of the codebook; 0 without a codec."""
        return 0 if self.codec is None else self.codec.codebook_size

    @property
    def modules(self) -> dict[str, Module]:
        """By name."""
        out = {
            "w2v_bert": Module(
                lambda rngs: W2VBert(self.encoder, rngs=rngs), w2v_bert.SHARDING_RULES
            ),
            "recognizer": Module(
                lambda rngs: Heads(self.heads, rngs=rngs), recognizer.SHARDING_RULES
            ),
        }
        codec = self.codec
        if codec is not None:
            out["semantic_codec"] = Module(
                lambda rngs: SemanticCodec(codec, rngs=rngs), semantic_codec.SHARDING_RULES
            )
        return out

    def hear(
        self,
        modules: Mapping[str, Any],
        features: jax.Array,
        mask: jax.Array,
        *,
        through: bool,
        remat: bool = False,
    ) -> Heard:
        """Reads filterbank features.

        Args:
          modules: filled.
          features: [B, T, 160] float.
          mask: [B, T] bool.
          through: whether the heads hear the features through the codec.
          remat: compute layers again for the gradient.
        """
        encoder: W2VBert = modules["w2v_bert"]
        heads: Heads = modules["recognizer"]
        start = features.astype(encoder.feature_proj.kernel.dtype)
        start = zero_padding(encoder.feature_proj(encoder.feature_norm(start)), mask)
        hidden = encode(encoder, start, mask, slice(self.layer), remat)
        x = w2v_bert.normalize(hidden, self.mean, self.variance).astype(hidden.dtype)
        quantized = None
        if self.codec is not None:
            quantized = quantize(modules["semantic_codec"], x, mask)
        if through:
            assert quantized is not None
            hidden = self._hidden(quantized.features).astype(hidden.dtype)
        last = encode(encoder, hidden, mask, slice(self.layer, None), remat)
        prosody = None if heads.prosody is None else heads.prosody(last)
        return Heard(x, heads(last), prosody, quantized)

    def hear_codes(
        self, modules: Mapping[str, Any], codes: jax.Array, mask: jax.Array
    ) -> jax.Array:
        """Reads codes alone.

        Args:
          modules: filled.
          codes: [B, T_code] int32.
          mask: [B, T_code] bool.

        Returns:
          [B, T, K] logits of the units.
        """
        codec: SemanticCodec = modules["semantic_codec"]
        hidden = self._hidden(codec.decode(codec.embed(codes), mask))
        mask = jnp.repeat(mask, codec.downsample_scale, axis=1)
        last = encode(modules["w2v_bert"], hidden, mask, slice(self.layer, None), remat=False)
        return modules["recognizer"](last)

    def _hidden(self, features: jax.Array) -> jax.Array:
        """The output of the layer that feeds the codec, of standardised features."""
        return features * np.sqrt(self.variance) + self.mean

    def task(self, method: Method, *, remat: bool = False) -> Task:
        """Returns what a stage trains."""

        def draw(key: jax.Array, batch: Batch) -> dict[str, jax.Array]:
            return draw_masks(key, len(batch["features"]), method)

        def loss(
            modules: Any, batch: Batch, draws: Any, key: Any, progress: jax.Array
        ) -> tuple[jax.Array, dict[str, jax.Array]]:
            del progress
            features = batch["features"]
            mask = length_mask(batch["feature_lengths"], features.shape[1])
            if key is not None:  # validation hears all
                features = augment(features, batch["feature_lengths"], draws, method)
            heard = self.hear(modules, features, mask, through=method.quantize, remat=remat)
            # Heads that no loss is of are asked in validation alone: XLA leaves them out then.
            judged = key is None or bool(method.ctc or method.prosody)
            return self._losses(modules, heard, batch, mask, method, judged=judged)

        def tokens(batch: Batch) -> int:
            return batch["features"].shape[0] * batch["features"].shape[1]

        def flops(batch: Batch) -> float:
            return self.flops(tokens(batch), batch["features"].shape[1])

        return Task(self.modules, draw, loss, tokens, flops, heads=("recognizer.",))

    def _losses(
        self,
        modules: Any,
        heard: Heard,
        batch: Batch,
        mask: jax.Array,
        method: Method,
        *,
        judged: bool,
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        parts, metrics = {}, {}
        if judged:
            parts["ctc"] = ctc.loss(
                heard.logits, batch["feature_lengths"], batch["labels"], batch["label_lengths"]
            )
            # Rows whose text has more labels than frames, which teach nothing.
            metrics["too_short"] = (parts["ctc"] == 0).astype(jnp.float32)
        if judged and heard.prosody is not None:
            parts["prosody"] = prosody_loss(heard.prosody, batch["prosody"], mask)
        if (through := heard.quantized) is not None:
            error = through.features - jax.lax.stop_gradient(heard.features)
            commitment, codebook = quantization.distances(through.z, through.rows, through.mask)
            weights = modules["semantic_codec"].quantizer.codebook.embedding[...]
            counts = quantization.histogram(through.codes, through.mask, len(weights))
            rows = jnp.ones(len(mask))  # what is of the batch counts once: the shares add up to 1
            parts |= {
                "reconstruction": quantization.mean_square(error, mask),
                "commitment": commitment,
                "codebook": codebook,
                "revival": rows * quantization.revival(weights, through.z, through.mask, counts),
            }
            metrics["perplexity"] = rows * quantization.perplexity(counts)
            metrics["used"] = rows * jnp.mean(counts > 0)  # share of the codes, in this batch
        total = sum(getattr(method, name) * x for name, x in parts.items())
        return jnp.asarray(total), {f"{name}_loss": x for name, x in parts.items()} | metrics

    def flops(self, positions: int, num_frames: int) -> float:
        """Counts operations of a step: 6 per weight and position, and attention.

        Args:
          positions: frames of the batch, padding included.
          num_frames: those of a row.
        """
        D, cfg = self.encoder.width, self.encoder
        conformer = 2 * 2 * D * cfg.ffn_width + 4 * D * D + 3 * D * D
        weights = cfg.num_layers * conformer + cfg.feature_width * D + D * self.heads.num_units
        attention = 12 * cfg.num_layers * D * num_frames
        if (codec := self.codec) is not None:
            backbone = 2 * codec.num_blocks * codec.backbone_width * codec.ffn_width
            backbone += 8 * D * codec.backbone_width
            share = 2 * backbone + codec.codebook_size * codec.codebook_width
            weights += share // codec.downsample_scale
        return float(positions * (6 * weights + attention))


def draw_masks(key: jax.Array, rows: int, method: Method) -> dict[str, jax.Array]:
    """Draws places and widths, uniform in 0 .. 1, of SpecAugment's masks: [B, masks, 2] each."""
    time, band = jax.random.split(key)
    return {
        "time": jax.random.uniform(time, (rows, method.time_masks, 2)),
        "band": jax.random.uniform(band, (rows, method.band_masks, 2)),
    }


def augment(
    features: jax.Array, lengths: jax.Array, draws: Mapping[str, jax.Array], method: Method
) -> jax.Array:
    """Applies SpecAugment: pieces of time and of the bands become 0, the mean.

    Args:
      features: [B, T, 160] float, two frames of 80 bands a token.
      lengths: [B] int32.
      draws: from `draw_masks`.
      method: of the stage.
    """
    longest = jnp.minimum(method.time_width, 0.2 * lengths)
    time = _masked(features.shape[1], lengths, longest, draws["time"])
    bands = jnp.full(len(lengths), BANDS)
    band = _masked(BANDS, bands, jnp.full(len(lengths), float(method.band_width)), draws["band"])
    gone = time[:, :, None] | jnp.tile(band, (1, features.shape[2] // BANDS))[:, None]
    return jnp.where(gone, 0, features)


def _masked(size: int, lengths: jax.Array, longest: jax.Array, draws: jax.Array) -> jax.Array:
    """Tells which of `size` places [B, size] lie in one of the masks [B, masks, 2]."""
    width = jnp.floor(draws[..., 1] * (longest[:, None] + 1))
    start = jnp.floor(draws[..., 0] * (lengths[:, None] - width + 1))
    place = jnp.arange(size)
    inside = (place >= start[..., None]) & (place < (start + width)[..., None])
    return inside.any(axis=1)


def prosody_loss(predicted: jax.Array, target: jax.Array, mask: jax.Array) -> jax.Array:
    """Adds mean absolute errors of log F0 and log energy to the cross-entropy of voicing: [B].

    Args:
      predicted: [B, T, 3] float, of standardised targets; voicing as a logit.
      target: [B, T, 3] float, see `train.corpus.prosody`.
      mask: [B, T] bool.
    """
    predicted, target = predicted.astype(jnp.float32), target.astype(jnp.float32)
    log_f0, voiced, energy = jnp.moveaxis(target, -1, 0)
    voiced_frames = mask & (voiced > 0)
    errors = (
        (jnp.abs(predicted[..., 0] - (log_f0 - LOG_F0[0]) / LOG_F0[1]), voiced_frames),
        (optax.sigmoid_binary_cross_entropy(predicted[..., 1], voiced), mask),
        (jnp.abs(predicted[..., 2] - (energy - LOG_ENERGY[0]) / LOG_ENERGY[1]), mask),
    )
    means = [
        jnp.where(where, error, 0).sum(axis=1) / jnp.maximum(where.sum(axis=1), 1)
        for error, where in errors
    ]
    return jnp.asarray(sum(means))

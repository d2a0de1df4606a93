"""T2S: text and conditions -> semantic codes, and the latents that S2M reads.

Data flow:  [speaker latents + emotion | duration slots | text | codes] -> L x Block -> norms
            -> code logits [B, T, V], GPT latents [B, T, D]

Dims: B batch, T positions of a call, S cache positions, P prefix positions (conditions and text),
D width, N heads, H head dim, V codes, F feature width.

Source: paper section 3.1; sizes of the released IndexTTS-2. Where they differ, data decides: the
paper has one duration vector (`duration_slots=("pos(T)",)`), the release two slots.
"""

import dataclasses
import math
import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import PartitionSpec as P

from indextts2_jax import convert
from indextts2_jax.nn.barrier import gradient_barrier
from indextts2_jax.nn.linear import OutInLinear
from indextts2_jax.nn.masking import length_mask
from indextts2_jax.nn.norm import layer_norm
from indextts2_jax.t2s import conditioner
from indextts2_jax.t2s.conditioner import Conditioner, ConditionerConfig, sinusoid

# The conditioners' tables of positions in a release.
POSITIONS = {
    "speaker": "conditioning_encoder.embed.pos_enc.pe",
    "emotion": "emo_conditioning_encoder.embed.pos_enc.pe",
}


@dataclasses.dataclass(frozen=True)
class T2SConfig:
    """Architecture of the T2S stage."""

    width: int
    num_layers: int
    num_heads: int
    num_text_tokens: int  # rows of the text embedding
    num_codes: int  # rows of the code embedding, start and stop included
    start_code: int
    stop_code: int
    text_positions: int
    code_positions: int
    speaker: ConditionerConfig
    emotion: ConditionerConfig
    num_speed_embeddings: int = 2
    free_slots: tuple[str, ...] = ("speed1", "speed0")
    start_text: int = 0
    stop_text: int = 1
    dropout: float = 0.1

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.width // self.num_heads

    @property
    def num_conditions(self) -> int:
        """Positions in front of the text."""
        return self.speaker.num_latents + len(self.free_slots)

    @property
    def max_codes(self) -> int:
        """Most codes of a segment, stop included: the table has rows for them in either numbering.

        The released numbering gives the last code row `max_codes + 1`, which is the table's last.
        """
        return self.code_positions - 2

    @property
    def max_text_tokens(self) -> int:
        """Longest text, start and stop not counted."""
        return self.text_positions - 2

    @classmethod
    def indextts2(cls) -> "T2SConfig":
        """Returns the released IndexTTS-2 (865,980,639 parameters)."""
        return cls(
            width=1280,
            num_layers=24,
            num_heads=20,
            num_text_tokens=12001,
            num_codes=8194,
            start_code=8192,
            stop_code=8193,
            text_positions=602,
            code_positions=1818,
            speaker=ConditionerConfig(1024, 512, 2048, 8, 6, 32, 1280),
            emotion=ConditionerConfig(1024, 512, 1024, 4, 4, 1, 1024),
        )

    @classmethod
    def paper(cls) -> "T2SConfig":
        """Returns the paper's sequence: one duration slot, zero when the duration is free."""
        return dataclasses.replace(cls.indextts2(), num_speed_embeddings=0, free_slots=("zero",))

    @classmethod
    def small(cls) -> "T2SConfig":
        """Returns a size of a few million parameters, which trains on a laptop."""
        return dataclasses.replace(
            cls.paper(),
            width=192,
            num_layers=4,
            num_heads=4,
            speaker=ConditionerConfig(1024, 128, 256, 4, 2, 16, 192),
            emotion=ConditionerConfig(1024, 64, 128, 2, 1, 1, 128),
        )

    @classmethod
    def tiny(cls, num_text_tokens: int = 40) -> "T2SConfig":
        """Returns a size for tests."""
        return cls(
            width=32,
            num_layers=2,
            num_heads=2,
            num_text_tokens=num_text_tokens,
            num_codes=34,
            start_code=32,
            stop_code=33,
            text_positions=42,
            code_positions=53,
            speaker=ConditionerConfig(12, 16, 24, 2, 1, 4, 32),
            emotion=ConditionerConfig(12, 8, 12, 1, 1, 1, 20),
        )

    @classmethod
    def from_release(
        cls, block: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]
    ) -> "T2SConfig":
        """Reads the `gpt` block of a release's config.yaml; widths come from the weights.

        Args:
          block: the `gpt` mapping of config.yaml.
          shapes: torch name -> shape of the T2S weights.

        Raises:
          ValueError: for a kind of model that this code does not build.
        """
        if block.get("condition_type") != "conformer_perceiver":
            raise ValueError(f"gpt.condition_type is {block.get('condition_type')!r}")
        for module in ("condition_module", "emo_condition_module"):
            if block[module].get("input_layer") != "conv2d2":
                raise ValueError(f"gpt.{module}.input_layer is not conv2d2")
        width = shapes["mel_embedding.weight"][1]
        speaker = _conditioner_from_release(block["condition_module"], shapes, "")
        return cls(
            width=width,
            num_layers=block["layers"],
            num_heads=block["heads"],
            num_text_tokens=shapes["text_embedding.weight"][0],
            num_codes=shapes["mel_embedding.weight"][0],
            start_code=block["start_mel_token"],
            stop_code=block["stop_mel_token"],
            text_positions=shapes["text_pos_embedding.emb.weight"][0],
            code_positions=shapes["mel_pos_embedding.emb.weight"][0],
            speaker=speaker,
            emotion=_conditioner_from_release(block["emo_condition_module"], shapes, "emo_"),
            num_speed_embeddings=shapes["speed_emb.weight"][0],
            start_text=block.get("start_text_token", 0),
            stop_text=block.get("stop_text_token", 1),
        )


def _conditioner_from_release(
    block: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]], prefix: str
) -> ConditionerConfig:
    latents = shapes[f"{prefix}perceiver_encoder.latents"]
    out = shapes[f"{prefix}conditioning_encoder.embed.out.0.weight"]
    subsampled = out[1] // out[0]
    return ConditionerConfig(
        # (F - 1) // 2 bins are left; features have an even width.
        feature_dim=2 * subsampled + 2,
        width=block["output_size"],
        ffn_width=block["linear_units"],
        num_heads=block["attention_heads"],
        num_blocks=block["num_blocks"],
        num_latents=latents[0],
        latent_width=latents[1],
        perceiver_mult=block["perceiver_mult"],
    )


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class KVCache:
    """Keys and values of the positions seen so far, one pair per layer.

    In this layout XLA:CPU reads the cache as it lies; others it transposes at every step.
    """

    keys: tuple[jax.Array, ...]  # [B * N, H, S]
    values: tuple[jax.Array, ...]  # [B * N, S, H]

    @property
    def size(self) -> int:
        """The number of positions that there is room for, S."""
        return self.keys[0].shape[-1]

    @classmethod
    def empty(cls, cfg: T2SConfig, batch: int, size: int, dtype: Any) -> "KVCache":
        """Returns a cache with room for `size` positions."""
        rows, layers = batch * cfg.num_heads, range(cfg.num_layers)
        return cls(
            tuple(jnp.zeros((rows, cfg.head_dim, size), dtype) for _ in layers),
            tuple(jnp.zeros((rows, size, cfg.head_dim), dtype) for _ in layers),
        )

    def grow(self, size: int) -> "KVCache":
        """Returns the same cache with room for `size` positions."""
        none, more = (0, 0), (0, size - self.size)
        return KVCache(
            tuple(jnp.pad(x, (none, none, more)) for x in self.keys),
            tuple(jnp.pad(x, (none, more, none)) for x in self.values),
        )


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Prefix:
    """Conditions and text, embedded; right-aligned, so that all codes start at one place."""

    x: jax.Array  # [B, P, D]
    mask: jax.Array  # [B, P] bool; padding is on the left


class Block(nnx.Module):
    """Pre-norm GPT-2 block."""

    def __init__(self, cfg: T2SConfig, *, rngs: nnx.Rngs):
        D = cfg.width
        init = nnx.initializers.normal(0.02)
        out_init = nnx.initializers.normal(0.02 / math.sqrt(2 * cfg.num_layers))
        self.norm_attention = layer_norm(D, rngs=rngs)
        self.qkv = nnx.Linear(D, 3 * D, kernel_init=init, rngs=rngs)
        self.out = nnx.Linear(D, D, kernel_init=out_init, rngs=rngs)
        self.norm_ffn = layer_norm(D, rngs=rngs)
        self.ffn_up = nnx.Linear(D, 4 * D, kernel_init=init, rngs=rngs)
        self.ffn_down = nnx.Linear(4 * D, D, kernel_init=out_init, rngs=rngs)
        self.dropout = nnx.Dropout(cfg.dropout)
        self.num_heads = cfg.num_heads

    def __call__(
        self,
        x: jax.Array,
        mask: jax.Array,
        cache: tuple[jax.Array, jax.Array] | None = None,
        start: jax.Array | int = 0,
        *,
        key: jax.Array | None = None,
    ) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        """Runs the block.

        Args:
          x: [B, T, D].
          mask: [B, T, S] bool, which cache positions each query may read.
          cache: keys [B * N, H, S] and values [B * N, S, H]; the new ones are written at `start`.
            None when the call holds the whole sequence (S = T).
          start: first cache position of this call.
          key: dropout key; None turns dropout off.

        Returns:
          [B, T, D], and the keys and values that were attended to.
        """
        (B, T, _), N = x.shape, self.num_heads
        key_1, key_2, key_3 = (None,) * 3 if key is None else jax.random.split(key, 3)
        query, k, v = self.heads(x).reshape(3, B * N, -1, T)  # [B * N, H, T] each
        v = v.swapaxes(1, 2)  # [B * N, T, H]
        if cache is not None:
            k = jax.lax.dynamic_update_slice_in_dim(cache[0], k.astype(cache[0].dtype), start, 2)
            v = jax.lax.dynamic_update_slice_in_dim(cache[1], v.astype(cache[1].dtype), start, 1)
        score = jnp.einsum("nht,nhs->nts", query, k, preferred_element_type=jnp.float32)
        score = score.reshape(B, N, T, -1) / math.sqrt(query.shape[1])
        weight = jax.nn.softmax(jnp.where(mask[:, None], score, -1e30), axis=-1)
        weight = self._drop(weight, key_1).astype(v.dtype).reshape(B * N, T, -1)
        y = jnp.einsum("nts,nsh->nth", weight, v).reshape(B, N, T, -1)
        y = y.swapaxes(1, 2).reshape(B, T, -1)
        x = x + self._drop(self.out(y), key_2)
        y = self.ffn_down(jax.nn.gelu(self.ffn_up(self.norm_ffn(x)), approximate=True))
        return x + self._drop(y, key_3), (k, v)

    def heads(self, x: jax.Array) -> jax.Array:
        """Returns queries, keys and values [3, B, N, H, T] of x [B, T, D]."""
        B, T, _ = x.shape
        qkv = self.qkv(self.norm_attention(x)).reshape(B, T, 3, self.num_heads, -1)
        return qkv.transpose(2, 0, 3, 4, 1)

    def _drop(self, x: jax.Array, key: jax.Array | None) -> jax.Array:
        return self.dropout(x, deterministic=key is None, rngs=key)


class T2S(nnx.Module):
    """The text-to-semantic stage."""

    def __init__(self, cfg: T2SConfig, *, rngs: nnx.Rngs):
        D, init = cfg.width, nnx.initializers.normal(0.02)
        self.speaker_conditioner = Conditioner(cfg.speaker, rngs=rngs)
        self.emotion_conditioner = Conditioner(cfg.emotion, rngs=rngs)
        self.emotion_in = nnx.Linear(cfg.emotion.latent_width, D, rngs=rngs)
        self.emotion_out = nnx.Linear(D, D, rngs=rngs)
        self.text_embed = nnx.Embed(cfg.num_text_tokens, D, embedding_init=init, rngs=rngs)
        self.text_position = nnx.Embed(cfg.text_positions, D, embedding_init=init, rngs=rngs)
        self.code_embed = nnx.Embed(cfg.num_codes, D, embedding_init=init, rngs=rngs)
        self.code_position = nnx.Embed(cfg.code_positions, D, embedding_init=init, rngs=rngs)
        self.speed_embed = (
            nnx.Embed(cfg.num_speed_embeddings, D, embedding_init=nnx.initializers.zeros, rngs=rngs)
            if cfg.num_speed_embeddings
            else None
        )
        self.blocks = nnx.List([Block(cfg, rngs=rngs) for _ in range(cfg.num_layers)])
        self.norm_blocks = layer_norm(D, rngs=rngs)
        self.norm_final = layer_norm(D, rngs=rngs)
        self.text_head = nnx.Linear(D, cfg.num_text_tokens, kernel_init=init, rngs=rngs)
        self.code_head = nnx.Linear(D, cfg.num_codes, kernel_init=init, rngs=rngs)
        self.dropout = nnx.Dropout(cfg.dropout)
        self.cfg = cfg

    @property
    def dtype(self) -> Any:
        """The dtype that this module computes in."""
        return self.code_embed.embedding.dtype

    def speaker_latents(
        self, features: jax.Array, lengths: jax.Array, *, remat: bool = False
    ) -> jax.Array:
        """Maps a timbre prompt's features [B, T, F] to latents [B, 32, D].

        Args:
          features: padded on the right.
          lengths: [B] int32 valid frames.
          remat: trade time for memory in gradients.
        """
        mask = length_mask(lengths, features.shape[1])
        return self.speaker_conditioner(features, mask, remat=remat)

    def emotion_vector(
        self, features: jax.Array, lengths: jax.Array, *, remat: bool = False
    ) -> jax.Array:
        """Maps a style prompt's features [B, T, F] to one vector [B, D].

        Args:
          features: padded on the right.
          lengths: [B] int32 valid frames.
          remat: trade time for memory in gradients.
        """
        mask = length_mask(lengths, features.shape[1])
        latents = self.emotion_conditioner(features, mask, remat=remat)
        return self.emotion_out(self.emotion_in(latents[:, 0]))

    def duration_vectors(self, slots: tuple[str, ...], num_codes: jax.Array) -> jax.Array:
        """Computes the duration slots of the sequence (paper section 3.1.1).

        Args:
          slots: each `speed0`, `speed1`, `zero`, `pos(T)` or `pos(T//2)`.
          num_codes: [B] int32, the wanted number of codes T; unused by the first three.

        Returns:
          [B, len(slots), D].
        """
        table = self.code_position
        zero = jnp.zeros((num_codes.shape[0], self.cfg.width), self.dtype)
        vectors = []
        for slot in slots:
            if slot == "zero":
                vectors.append(zero)
            elif slot in ("speed0", "speed1") and self.speed_embed is not None:
                vectors.append(zero + self.speed_embed.embedding[int(slot[-1])])
            elif slot in ("pos(T)", "pos(T//2)"):
                vectors.append(_position(table, num_codes if slot == "pos(T)" else num_codes // 2))
            else:
                raise ValueError(f"unknown duration slot {slot!r}")
        return jnp.stack(vectors, axis=1)

    def prefix(
        self,
        speaker_latents: jax.Array,
        emotion: jax.Array,
        text: jax.Array,
        text_lengths: jax.Array,
        *,
        num_codes: jax.Array | None = None,
        slots: tuple[str, ...] = (),
        row_offset: int = 0,
    ) -> Prefix:
        """Embeds conditions and text.

        Args:
          speaker_latents: [B, 32, D].
          emotion: [B, D], added to every speaker latent.
          text: [B, L] int32 token ids without start and stop, padded on the right.
          text_lengths: [B] int32.
          num_codes: [B] int32 wanted number of codes; 0 leaves the duration to the model, None
            leaves all.
          slots: what the duration slots hold for a wanted number (as in `duration_vectors`).
          row_offset: of the position numbering: the last code sits on row `num_codes` + this.

        Returns:
          The prefix [B, 32 + slots + L + 2, D], padding moved to the left.
        """
        cfg, (B, L) = self.cfg, text.shape
        durations = self.duration_vectors(cfg.free_slots, jnp.zeros(B, jnp.int32))
        if num_codes is not None:
            wanted = self.duration_vectors(slots, num_codes + row_offset)
            durations = jnp.where((num_codes > 0)[:, None, None], wanted, durations)
        place = jnp.arange(L + 2)
        ids = jnp.pad(text, ((0, 0), (1, 1)))
        ids = jnp.where(place == 0, cfg.start_text, ids)
        ids = jnp.where(place == text_lengths[:, None] + 1, cfg.stop_text, ids)
        embedded = self.text_embed(ids) + _position(self.text_position, place)
        conditions = speaker_latents + emotion[:, None]
        x = jnp.concatenate([conditions, durations, embedded], axis=1).astype(self.dtype)
        source = jnp.arange(x.shape[1]) - (L - text_lengths)[:, None]  # shift each row right
        mask = source >= 0
        x = jnp.take_along_axis(x, jnp.maximum(source, 0)[..., None], axis=1)
        return Prefix(jnp.where(mask[..., None], x, 0), mask)

    def trunk(
        self, x: jax.Array, mask: jax.Array, cache: KVCache | None = None, start: Any = 0
    ) -> tuple[jax.Array, KVCache]:
        """Runs all blocks and both last norms: [B, T, D], the cache. Arguments as in `Block`."""
        kept = []
        for i, block in enumerate(self.blocks):
            layer = None if cache is None else (cache.keys[i], cache.values[i])
            x, layer = block(x, mask, layer, start)
            kept.append(layer)
        hidden = self.norm_final(self.norm_blocks(x))
        return hidden, KVCache(tuple(k for k, _ in kept), tuple(v for _, v in kept))

    def training_trunk(
        self, x: jax.Array, mask: jax.Array, *, key: jax.Array | None, remat: bool
    ) -> jax.Array:
        """Runs `trunk` without a cache, with dropout if there is a key.

        Args:
          x: [B, T, D].
          mask: [B, T, T] bool.
          key: dropout key, or None.
          remat: keep only the inputs of the blocks, and compute the rest again for gradients.
        """
        keys = [None] * (len(self.blocks) + 1)
        if key is not None:
            keys = list(jax.random.split(key, len(keys)))
        x = self.dropout(x, deterministic=key is None, rngs=keys[-1])

        def run(block: Block, x: jax.Array, key: jax.Array | None) -> jax.Array:
            return block(x, mask, key=key)[0]

        for block, block_key in zip(self.blocks, keys[:-1], strict=True):
            x = gradient_barrier(x)
            x = (jax.checkpoint(run) if remat else run)(block, x, block_key)
        return self.norm_final(self.norm_blocks(x))

    def embed_codes(self, codes: jax.Array, rows: jax.Array) -> jax.Array:
        """Embeds codes [B, T] with the position table's `rows` (broadcast to [B, T])."""
        x = self.code_embed(codes) + _position(self.code_position, rows)
        return x.astype(self.dtype)  # nnx.Embed keeps the dtype that it was built with

    def teacher_forced(
        self,
        prefix: Prefix,
        codes: jax.Array,
        *,
        key: jax.Array | None = None,
        remat: bool = False,
    ) -> jax.Array:
        """Makes one pass over known codes, position rows 0, 1, 2, ... as in training.

        Args:
          prefix: conditions and text, P positions.
          codes: [B, T] int32, padded on the right (causal: what comes before does not see it).
          key: dropout key; None turns dropout off.
          remat: trade time for memory in gradients.

        Returns:
          Hidden states [B, P + 1 + T, D] after the last norm: of the prefix, of the start code, and
          of every code. State P + i predicts code i; those of P .. P + T - 1 are the GPT latents of
          the T codes.
        """
        return self.training_trunk(*self.teacher_forced_inputs(prefix, codes), key=key, remat=remat)

    def teacher_forced_inputs(
        self, prefix: Prefix, codes: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Makes what `teacher_forced` reads: x [B, S, D], mask [B, S, S]; S = P + 1 + T."""
        B, T = codes.shape
        start = jnp.full((B, 1), self.cfg.start_code, codes.dtype)
        inputs = jnp.concatenate([start, codes], axis=1)
        x = jnp.concatenate([prefix.x, self.embed_codes(inputs, jnp.arange(T + 1))], axis=1)
        valid = jnp.pad(prefix.mask, ((0, 0), (0, T + 1)), constant_values=True)
        causal = jnp.tril(jnp.ones((x.shape[1],) * 2, bool))
        return x, causal & valid[:, None]

    def code_logits(self, hidden: jax.Array) -> jax.Array:
        """Maps [..., D] to float32 logits over the codes [..., V]."""
        return self.code_head(hidden).astype(jnp.float32)

    def text_logits(self, hidden: jax.Array) -> jax.Array:
        """Maps [..., D] to float32 logits over the text tokens."""
        return self.text_head(hidden).astype(jnp.float32)


def _position(table: nnx.Embed, rows: jax.Array) -> jax.Array:
    """Reads the rows of a position table; rows beyond it, which only padding has, are its last.

    `nnx.Embed` gives NaN for them, and NaN gets through a mask: attention multiplies it by 0.
    """
    return table(jnp.minimum(rows, table.num_embeddings - 1))


def for_decoding(model: T2S) -> T2S:
    """Lays the kernels that a step of decoding reads as this device reads them fastest.

    The results are the same but for rounding; returns `model`.
    """
    if jax.default_backend() == "cpu":
        names = ("qkv", "out", "ffn_up", "ffn_down")
        layers = [(block, name) for block in model.blocks for name in names]
        for parent, name in (*layers, (model, "code_head")):
            setattr(parent, name, OutInLinear(getattr(parent, name)))
    return model


def gpt_latents(model: T2S, prefix: Prefix, codes: jax.Array) -> jax.Array:
    """Returns the latents [B, T, D] of codes [B, T] that S2M adds to the code embeddings."""
    P = prefix.x.shape[1]
    return model.teacher_forced(prefix, codes)[:, P : P + codes.shape[1]]


# HF GPT-2's Conv1D is stored [in, out] already.
_GPT_BLOCK = convert.prefixed(
    (
        *convert.norm("ln_1", "norm_attention"),
        *convert.linear("attn.c_attn", "qkv", convert.SAME),
        *convert.linear("attn.c_proj", "out", convert.SAME),
        *convert.norm("ln_2", "norm_ffn"),
        *convert.linear("mlp.c_fc", "ffn_up", convert.SAME),
        *convert.linear("mlp.c_proj", "ffn_down", convert.SAME),
    ),
    "gpt.h.{i}.",
    "blocks.{i}.",
)
TORCH_RULES = (
    *convert.prefixed(conditioner.ENCODER_RULES, "conditioning_encoder.", "speaker_conditioner."),
    *convert.prefixed(conditioner.PERCEIVER_RULES, "perceiver_encoder.", "speaker_conditioner."),
    *convert.prefixed(
        conditioner.ENCODER_RULES, "emo_conditioning_encoder.", "emotion_conditioner."
    ),
    *convert.prefixed(
        conditioner.PERCEIVER_RULES, "emo_perceiver_encoder.", "emotion_conditioner."
    ),
    *convert.linear("emovec_layer", "emotion_in"),
    *convert.linear("emo_layer", "emotion_out"),
    convert.Rule("text_embedding.weight", "text_embed.embedding"),
    convert.Rule("text_pos_embedding.emb.weight", "text_position.embedding"),
    convert.Rule("mel_embedding.weight", "code_embed.embedding"),
    convert.Rule("mel_pos_embedding.emb.weight", "code_position.embedding"),
    convert.Rule("speed_emb.weight", "speed_embed.embedding"),
    *_GPT_BLOCK,
    *convert.norm("gpt.ln_f", "norm_blocks"),
    *convert.norm("final_norm", "norm_final"),
    *convert.linear("text_head", "text_head"),
    *convert.linear("mel_head", "code_head"),
)
# Aliases that a live upstream module lists beside the real names.
TORCH_UNUSED = (r"gpt\.wte\.weight", r"inference_model\..*")


def torch_unused(cfg: T2SConfig) -> tuple[str, ...]:
    """Regexes of the names in `gpt.pth` that are not read: aliases, and tables that we compute."""
    computed = [name for part, name in POSITIONS.items() if not getattr(cfg, part).num_positions]
    return (*map(re.escape, computed), *TORCH_UNUSED)


def keep_positions(cfg: T2SConfig, tensors: Mapping[str, np.ndarray]) -> T2SConfig:
    """Lets a T2S read its release's tables of positions where they are not those that we compute.

    Tables in half precision are not, for one, and PyTorch rounds those in float32 otherwise.

    Args:
      cfg: architecture of the release's T2S.
      tensors: torch name -> tensor of `gpt.pth`.
    """
    changes = {}
    for part, name in POSITIONS.items():
        conditioner_cfg, table = getattr(cfg, part), tensors.get(name)
        if table is None or table.ndim != 3:
            continue
        rows = table.shape[1]
        if not np.array_equal(table[0], sinusoid(rows, conditioner_cfg.width)):
            changes[part] = dataclasses.replace(conditioner_cfg, num_positions=rows)
    return dataclasses.replace(cfg, **changes)


# 8194 codes and 12001 text tokens do not divide by 4 or 8: the width is sharded instead.
SHARDING_RULES = (
    *conditioner.SHARDING_RULES,
    (r"blocks\.\d+\.(qkv|ffn_up)\.kernel", P("fsdp", "tensor")),
    (r"blocks\.\d+\.(out|ffn_down)\.kernel", P("tensor", "fsdp")),
    (r"(text|code)_embed\.embedding", P(None, "fsdp")),
    (r"(text|code)_head\.kernel", P("fsdp", None)),
    (r".*", P()),
)

"""Qwen3: the language model that writes a sentence's emotion scores, or classifies the sentence.

Data flow:   tokens [B, T] -> embed -> L x (attention, SwiGLU) -> norm -> logits [B, T, V]
                                                                  last -> label logits [B, E]

Prompts of different lengths share a batch by left padding: item b begins at slot `cache.first[b]`,
where its positions start from 0. Right padding needs no mask, because attention is causal.

Dims: B batch, T new slots, S cache slots, D width, N query heads, K key-value heads,
H head dim, L layers, V vocab, E labels.

Source: Qwen3 technical report (arXiv 2505.09388); names as in Hugging Face checkpoints.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import PartitionSpec as P

from indextts2_jax.convert import Rule, linear
from indextts2_jax.errors import InputError
from indextts2_jax.nn.barrier import gradient_barrier

CLASSIFIER = "Qwen3ForSequenceClassification"  # transformers' name


@dataclasses.dataclass(frozen=True)
class Qwen3Config:
    """Architecture: the release's emotion model is `qwen3_0_6b()`, the paper's `qwen3_1_7b()`.

    `labels` names the classes of a classification head, in its order; () = there is no such head.
    """

    num_layers: int
    width: int
    ffn_width: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    vocab_size: int
    tied_head: bool = True
    rope_base: float = 1_000_000.0
    norm_epsilon: float = 1e-6
    labels: tuple[str, ...] = ()

    @classmethod
    def qwen3_0_6b(cls) -> "Qwen3Config":
        """Returns the settings of Qwen3-0.6B."""
        return cls(28, 1024, 3072, num_heads=16, num_kv_heads=8, head_dim=128, vocab_size=151_936)

    @classmethod
    def qwen3_1_7b(cls) -> "Qwen3Config":
        """Returns the settings of Qwen3-1.7B."""
        return cls(28, 2048, 6144, num_heads=16, num_kv_heads=8, head_dim=128, vocab_size=151_936)

    @classmethod
    def tiny(cls) -> "Qwen3Config":
        """Returns a toy for tests; as in the 0.6B, N * H is not D."""
        return cls(2, 32, 48, num_heads=4, num_kv_heads=2, head_dim=16, vocab_size=61)

    @classmethod
    def from_release(cls, config: Mapping[str, Any]) -> "Qwen3Config":
        """Reads the contents of a Hugging Face `config.json`.

        Args:
          config: the parsed file, written by transformers 4 or 5.

        Returns:
          The same architecture.

        Raises:
          InputError: the file asks for something that this model does not compute.
        """
        # transformers 5 gathers rope_theta and rope_scaling in one entry.
        rope = {"rope_theta": config.get("rope_theta"), **(config.get("rope_parameters") or {})}
        expected = {
            "model_type": (config.get("model_type"), "qwen3"),
            "hidden_act": (config.get("hidden_act", "silu"), "silu"),
            "attention_bias": (config.get("attention_bias", False), False),
            "use_sliding_window": (config.get("use_sliding_window", False), False),
            "rope_scaling": (config.get("rope_scaling"), None),
            "rope_parameters: rope_type": (rope.get("rope_type", "default"), "default"),
        }
        for name, (got, want) in expected.items():
            if got != want:
                raise InputError(f"config.json: {name} is {got!r}; only {want!r} is supported")
        labels: tuple[str, ...] = ()
        if CLASSIFIER in (config.get("architectures") or ()):
            names = config["id2label"]
            labels = tuple(names[str(i)] for i in range(len(names)))
        return cls(
            config["num_hidden_layers"],
            config["hidden_size"],
            config["intermediate_size"],
            num_heads=config["num_attention_heads"],
            num_kv_heads=config["num_key_value_heads"],
            head_dim=config["head_dim"],
            vocab_size=config["vocab_size"],
            tied_head=config["tie_word_embeddings"] or bool(labels),  # no language head at all
            rope_base=float(rope["rope_theta"]),
            norm_epsilon=config["rms_norm_eps"],
            labels=labels,
        )


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class KVCache:
    """Keys and values of the slots seen so far; `first <= slot < length` are valid."""

    keys: tuple[jax.Array, ...]  # L x [B, S, K, H]
    values: tuple[jax.Array, ...]  # L x [B, S, K, H]
    length: jax.Array  # []
    first: jax.Array  # [B], the amount of left padding

    @classmethod
    def empty(
        cls, cfg: Qwen3Config, first: jax.Array, num_slots: int, dtype: Any = jnp.float32
    ) -> "KVCache":
        """Returns a cache of `num_slots` slots for items that begin at the slots `first` [B]."""
        shape = (first.shape[0], num_slots, cfg.num_kv_heads, cfg.head_dim)
        zeros = (jnp.zeros(shape, dtype),) * cfg.num_layers
        return cls(zeros, zeros, jnp.zeros((), jnp.int32), first)


def rotate(x: jax.Array, positions: jax.Array, base: float) -> jax.Array:
    """Applies rotary positions on halves: x [B, T, N, H], positions [B, T] -> [B, T, N, H]."""
    half = x.shape[-1] // 2
    frequencies = (base ** -(np.arange(half) / half)).astype(np.float32)
    angles = positions[..., None, None] * frequencies  # [B, T, 1, H/2]
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    a, b = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1).astype(x.dtype)


class Block(nnx.Module):
    """Pre-norm block: grouped-query attention with normed queries and keys, then SwiGLU."""

    def __init__(self, cfg: Qwen3Config, *, rngs: nnx.Rngs):
        dense = functools.partial(nnx.Linear, use_bias=False, rngs=rngs)
        norm = functools.partial(nnx.RMSNorm, epsilon=cfg.norm_epsilon, rngs=rngs)
        self.attention_norm = norm(cfg.width)
        self.query = dense(cfg.width, cfg.num_heads * cfg.head_dim)
        self.key = dense(cfg.width, cfg.num_kv_heads * cfg.head_dim)
        self.value = dense(cfg.width, cfg.num_kv_heads * cfg.head_dim)
        self.query_norm = norm(cfg.head_dim)
        self.key_norm = norm(cfg.head_dim)
        self.out = dense(cfg.num_heads * cfg.head_dim, cfg.width)
        self.ffn_norm = norm(cfg.width)
        self.gate = dense(cfg.width, cfg.ffn_width)
        self.up = dense(cfg.width, cfg.ffn_width)
        self.down = dense(cfg.ffn_width, cfg.width)
        self.head_dim, self.rope_base = cfg.head_dim, cfg.rope_base

    def __call__(self, x, positions, mask, k_cache, v_cache, start):
        """Returns the block output [B, T, D] and its updated caches [B, S, K, H]."""
        B, T, _ = x.shape
        y = self.attention_norm(x)
        q = self.query_norm(self.query(y).reshape(B, T, -1, self.head_dim))
        k = self.key_norm(self.key(y).reshape(B, T, -1, self.head_dim))
        v = self.value(y).reshape(B, T, -1, self.head_dim)
        q, k = (rotate(z, positions, self.rope_base) for z in (q, k))
        k = jax.lax.dynamic_update_slice_in_dim(k_cache, k, start, axis=1)
        v = jax.lax.dynamic_update_slice_in_dim(v_cache, v, start, axis=1)
        y = jax.nn.dot_product_attention(q, k, v, mask=mask[:, None])  # [B, T, N, H]
        x = x + self.out(y.reshape(B, T, -1))
        y = self.ffn_norm(x)
        return x + self.down(jax.nn.silu(self.gate(y)) * self.up(y)), k, v


class Qwen3(nnx.Module):
    """Causal language model."""

    def __init__(self, cfg: Qwen3Config, *, rngs: nnx.Rngs):
        self.embed = nnx.Embed(cfg.vocab_size, cfg.width, rngs=rngs)
        self.blocks = nnx.List([Block(cfg, rngs=rngs) for _ in range(cfg.num_layers)])
        self.norm = nnx.RMSNorm(cfg.width, epsilon=cfg.norm_epsilon, rngs=rngs)
        head = functools.partial(nnx.Linear, cfg.width, use_bias=False, rngs=rngs)
        self.head = None if cfg.tied_head else head(cfg.vocab_size)
        self.label_head = head(len(cfg.labels)) if cfg.labels else None
        self.cfg = cfg

    def __call__(
        self, tokens: jax.Array, cache: KVCache | None = None
    ) -> tuple[jax.Array, KVCache]:
        """Scores the next token after each of `tokens`; arguments as in `hidden`.

        Returns:
          Logits [B, T, V] float32 and the cache that now includes `tokens`.
        """
        x, cache = self.hidden(tokens, cache)
        return self.logits(x), cache

    def hidden(
        self, tokens: jax.Array, cache: KVCache | None = None, *, remat: bool = False
    ) -> tuple[jax.Array, KVCache]:
        """Computes the final hidden states.

        Args:
          tokens: [B, T] int32, appended after `cache.length` slots.
          cache: the slots before `tokens`; None means that there are none.
          remat: for gradients, keep only the inputs of the blocks and compute the rest again.

        Returns:
          Hidden states [B, T, D] after the last norm, and the cache that now includes `tokens`.
        """
        B, T = tokens.shape
        x = self.embed.embedding[...][tokens]  # [B, T, D]; `embed(tokens)` would undo a cast
        if cache is None:
            cache = KVCache.empty(self.cfg, jnp.zeros(B, jnp.int32), T, x.dtype)
        slots = cache.length + jnp.arange(T)
        positions = jnp.maximum(slots - cache.first[:, None], 0)  # [B, T]
        seen = jnp.arange(cache.keys[0].shape[1])
        mask = (seen <= slots[:, None]) & (seen >= cache.first[:, None, None])  # [B, T, S]
        keys, values = list(cache.keys), list(cache.values)
        run = jax.checkpoint(Block.__call__) if remat else Block.__call__
        for i, block in enumerate(self.blocks):
            x, keys[i], values[i] = run(
                block, gradient_barrier(x), positions, mask, keys[i], values[i], cache.length
            )
        return self.norm(x), KVCache(tuple(keys), tuple(values), cache.length + T, cache.first)

    def logits(self, hidden: jax.Array) -> jax.Array:
        """Maps hidden states [..., D] to float32 logits [..., V]."""
        if self.head is None:
            head = self.embed.embedding[...]  # [V, D]
            return jnp.einsum("...d,vd->...v", hidden, head, preferred_element_type=jnp.float32)
        return self.head(hidden).astype(jnp.float32)

    def label_logits(
        self, tokens: jax.Array, lengths: jax.Array, *, remat: bool = False
    ) -> jax.Array:
        """Scores the labels of whole prompts by the hidden state of their last token.

        Args:
          tokens: [B, T] int32, padded on the right with anything.
          lengths: [B] int32, tokens of each prompt, at least 1.
          remat: as in `hidden`.

        Returns:
          Logits [B, E] float32, in the order of `cfg.labels`.

        Raises:
          ValueError: the model has no labels.
        """
        if self.label_head is None:
            raise ValueError("this Qwen3 has no classification head")
        hidden, _ = self.hidden(tokens, remat=remat)
        last = hidden[jnp.arange(len(tokens)), lengths - 1]  # [B, D]
        head = self.label_head.kernel[...]  # [D, E]
        return jnp.matmul(last, head, preferred_element_type=jnp.float32)


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How to draw a token. `top_k` 0 keeps the whole vocabulary."""

    temperature: float = 1.0
    top_k: int = 50
    top_p: float = 1.0

    @classmethod
    def from_release(cls, config: Mapping[str, Any]) -> "Sampling | None":
        """Reads the contents of a `generation_config.json`; None = it asks for greedy decoding."""
        names = [f.name for f in dataclasses.fields(cls)]
        given = {name: config[name] for name in names if config.get(name) is not None}
        return cls(**given) if config.get("do_sample") else None

    def draw(self, key: jax.Array, logits: jax.Array) -> jax.Array:
        """Draws tokens [B] int32 from logits [B, V]."""
        count = min(self.top_k or logits.shape[-1], logits.shape[-1])
        best, tokens = jax.lax.top_k(logits / self.temperature, count)
        probabilities = jax.nn.softmax(best)
        mass_before = jnp.cumsum(probabilities, axis=-1) - probabilities
        choice = jax.random.categorical(key, jnp.where(mass_before < self.top_p, best, -jnp.inf))
        return jnp.take_along_axis(tokens, choice[:, None], axis=1)[:, 0]


def bucket(prompts: Sequence[Sequence[int]]) -> int:
    """Says how long prompts are padded: powers of two, so that few programs are compiled."""
    return max(32, 1 << (max(map(len, prompts)) - 1).bit_length())


def generate(
    model: Qwen3,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    eos_ids: Sequence[int],
    sampling: Sampling | None = None,
    key: jax.Array | None = None,
) -> list[np.ndarray]:
    """Continues each prompt until an end token.

    Args:
      model: the language model.
      prompts: B token lists, none empty, of any lengths.
      max_new_tokens: where to stop without an end token.
      eos_ids: the end tokens.
      sampling: how to draw tokens; without `sampling` or without `key` the likeliest is taken.
      key: random key of the draws.

    Returns:
      B arrays of new tokens, each up to and including its end token.
    """
    slots = bucket(prompts)
    first = np.array([slots - len(p) for p in prompts], np.int32)
    padded = np.zeros((len(prompts), slots), np.int32)
    for row, start, prompt in zip(padded, first, prompts, strict=True):
        row[start:] = prompt
    if sampling is None or key is None:
        sampling, key = None, jax.random.key(0)  # unused
    rows = _decode(
        model,
        padded,
        first,
        key,
        max_new_tokens=max_new_tokens,
        eos_ids=tuple(eos_ids),
        sampling=sampling,
    )
    ends = [np.flatnonzero(np.isin(row, eos_ids)) for row in rows]
    return [row[: end[0] + 1] if len(end) else row for row, end in zip(rows, ends, strict=True)]


@functools.partial(jax.jit, static_argnames=("max_new_tokens", "eos_ids", "sampling"))
def _decode(model, prompts, first, key, *, max_new_tokens, eos_ids, sampling):
    """Decodes left-padded prompts [B, T] to [B, max_new_tokens], arbitrary after the end."""
    B, T = prompts.shape
    num_slots = T + max_new_tokens
    cache = KVCache.empty(model.cfg, first, num_slots, model.embed.embedding.dtype)

    def next_token(hidden, step):  # [B, T, D] -> [B]
        logits = model.logits(hidden[:, -1])
        if sampling is None:
            return jnp.argmax(logits, axis=-1)
        return sampling.draw(jax.random.fold_in(key, step), logits)

    def is_end(token):
        return jnp.isin(token, jnp.array(eos_ids, jnp.int32))

    def unfinished(state):
        step, _, done, _ = state
        return (step < max_new_tokens) & ~done.all()

    def body(state):
        step, tokens, done, cache = state
        hidden, cache = model.hidden(tokens[:, step - 1, None], cache)
        token = next_token(hidden, step)
        return step + 1, tokens.at[:, step].set(token), done | is_end(token), cache

    hidden, cache = model.hidden(prompts, cache)
    token = next_token(hidden, 0)
    tokens = jnp.zeros((B, max_new_tokens), jnp.int32).at[:, 0].set(token)
    return jax.lax.while_loop(unfinished, body, (1, tokens, is_end(token), cache))[1]


TORCH_RULES = (
    Rule("model.embed_tokens.weight", "embed.embedding"),
    Rule("model.layers.{i}.input_layernorm.weight", "blocks.{i}.attention_norm.scale"),
    *linear("model.layers.{i}.self_attn.q_proj", "blocks.{i}.query", bias=False),
    *linear("model.layers.{i}.self_attn.k_proj", "blocks.{i}.key", bias=False),
    *linear("model.layers.{i}.self_attn.v_proj", "blocks.{i}.value", bias=False),
    *linear("model.layers.{i}.self_attn.o_proj", "blocks.{i}.out", bias=False),
    Rule("model.layers.{i}.self_attn.q_norm.weight", "blocks.{i}.query_norm.scale"),
    Rule("model.layers.{i}.self_attn.k_norm.weight", "blocks.{i}.key_norm.scale"),
    Rule("model.layers.{i}.post_attention_layernorm.weight", "blocks.{i}.ffn_norm.scale"),
    *linear("model.layers.{i}.mlp.gate_proj", "blocks.{i}.gate", bias=False),
    *linear("model.layers.{i}.mlp.up_proj", "blocks.{i}.up", bias=False),
    *linear("model.layers.{i}.mlp.down_proj", "blocks.{i}.down", bias=False),
    Rule("model.norm.weight", "norm.scale"),
    *linear("lm_head", "head", bias=False),
    *linear("score", "label_head", bias=False),
)


def torch_unused(cfg: Qwen3Config) -> tuple[str, ...]:
    """Lists torch names that are not read: merged checkpoints may repeat a tied head."""
    return (r"lm_head\.weight",) if cfg.tied_head else ()


SHARDING_RULES = (
    (r".*\.(query|key|value|gate|up)\.kernel", P("fsdp", "tensor")),
    (r".*\.(out|down)\.kernel", P("tensor", "fsdp")),
    (r"embed\.embedding", P("tensor", "fsdp")),
    (r"(label_)?head\.kernel", P("fsdp", "tensor")),
    (r".*", P()),
)

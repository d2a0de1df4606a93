"""Autoregressive decoding of semantic codes: prefill, then one jitted loop per cache size.

Data flow:  prefix -> prefill -> hidden state
            -> while not all stopped: logits -> processors -> code -> cache, hidden state

The key-value cache is static in size. Decoding starts in one for the prefix and few codes, and
moves to the next of `CODE_ROOMS` when it is full, so that short speech never pays for long
attention, and a process compiles few programs.

Dims: B batch, P prefix positions, S cache positions, V codes, M code capacity, D width.

Source: spec of the released decoding (processor order as in Hugging Face `generate`).
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from indextts2_jax.t2s.gpt import T2S, KVCache, Prefix

CODE_ROOMS = (256, 768, 1536)  # codes that a cache has room for; the last has it for all
SIZE_MULTIPLE = 128  # of which the sizes of caches are a multiple
TRACED_STEPS = 16  # steps whose logits a trace keeps
NUM_BEST = 128  # codes that are looked at for top-k before all are sorted


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Sampling:
    """How the next code is picked; every field is [B].

    The processors run in this order: repetition penalty, typical filter, temperature, top-k, top-p.
    """

    greedy: jax.Array  # bool: take the best code, only the penalty applies
    temperature: jax.Array  # float32, > 0
    top_k: jax.Array  # int32, 0 = off
    top_p: jax.Array  # float32, 1 = off
    repetition_penalty: jax.Array  # float32, 1 = off
    typical_mass: jax.Array  # float32, 1 = off

    @classmethod
    def make(
        cls,
        batch: int,
        *,
        greedy: bool = False,
        temperature: float = 0.8,
        top_k: int = 30,
        top_p: float = 0.8,
        repetition_penalty: float = 10.0,
        typical_mass: float = 1.0,
    ) -> "Sampling":
        """Returns the same settings for every item; defaults are those of the release."""
        return cls(
            jnp.full(batch, greedy),
            jnp.full(batch, temperature, jnp.float32),
            jnp.full(batch, top_k, jnp.int32),
            jnp.full(batch, top_p, jnp.float32),
            jnp.full(batch, repetition_penalty, jnp.float32),
            jnp.full(batch, typical_mass, jnp.float32),
        )

    @classmethod
    def stack(cls, items: Sequence["Sampling"]) -> "Sampling":
        """Returns one batch of the items' settings."""
        return jax.tree.map(lambda *fields: jnp.concatenate(fields), *items)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class CodeLimits:
    """How many codes an item may have; both fields are [B] int32."""

    most: jax.Array  # codes to write at most, the stop code counted
    exact: jax.Array  # codes before the stop, exactly; 0 = the model decides

    @classmethod
    def make(cls, batch: int, most: int) -> "CodeLimits":
        """Returns the same limit for every item, no exact number."""
        return cls(jnp.full(batch, most, jnp.int32), jnp.zeros(batch, jnp.int32))

    def enforce(self, scores: jax.Array, step: jax.Array, stop_code: int) -> jax.Array:
        """Forbids the stop code before `exact` codes and everything else after them.

        Args:
          scores: [B, V] of the code at `step`.
          step: [] int32, codes written so far.
          stop_code: its column.

        Returns:
          The scores with -inf for what must not come.
        """
        is_stop = jnp.arange(scores.shape[-1]) == stop_code
        exact = self.exact[:, None]
        forbidden = jnp.where(step < exact, is_stop, (step == exact) & ~is_stop)
        return jnp.where((exact > 0) & forbidden, -jnp.inf, scores)


@dataclasses.dataclass(frozen=True)
class DecodingRules:
    """How a checkpoint counts: facts of the weights, not choices of the user.

    Attributes:
      positions: rows of the position table for start, first code, second code, ...: "plain" 0, 1,
        2, ... as in training, or "released" 0, 2, 3, ... as the released pipeline decodes.
      penalized: codes that the repetition penalty hits from the start (upstream's stand-in ids of
        the prefix).
      forbidden: codes that are never picked, because nothing can be made of them (the start code).
    """

    positions: str = "plain"
    penalized: tuple[int, ...] = ()
    forbidden: tuple[int, ...] = ()

    @property
    def row_offset(self) -> int:
        """Row of the k-th generated code (k = 1, 2, ...) minus k."""
        return {"plain": 0, "released": 1}[self.positions]

    def forbid(self, scores: jax.Array) -> jax.Array:
        """Gives the forbidden codes of scores [..., V] the score -inf."""
        return scores.at[..., list(self.forbidden)].set(-jnp.inf) if self.forbidden else scores


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class DecodeState:
    """What the loop carries."""

    cache: KVCache
    hidden: jax.Array  # [B, D], predicts the next code
    codes: jax.Array  # [B, M] int32, stop after the end
    latents: jax.Array  # [B, M, D], what predicted each code
    step: jax.Array  # [] int32, codes written so far
    stopped: jax.Array  # [B] bool
    seen: jax.Array  # [B, V] bool, for the repetition penalty
    trace: "StepScores | None"  # None unless asked for

    def grow(self, size: int) -> "DecodeState":
        """Returns the same state with room for `size` positions."""
        return dataclasses.replace(self, cache=self.cache.grow(size))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class StepScores:
    """What the steps chose from; for parity tests."""

    logits: jax.Array  # [B, TRACED_STEPS, V], before any processor
    margins: jax.Array  # [B, M], best minus second best after the penalty

    @classmethod
    def empty(cls, batch: int, capacity: int, num_codes: int) -> "StepScores":
        """Returns the trace before the first step."""
        return cls(
            jnp.zeros((batch, TRACED_STEPS, num_codes), jnp.float32),
            jnp.zeros((batch, capacity), jnp.float32),
        )

    def add(self, step: jax.Array, logits: jax.Array, penalized: jax.Array) -> "StepScores":
        """Takes in the logits [B, V] of a step, and what the penalty made of them."""
        place = jnp.minimum(step, TRACED_STEPS - 1)
        logits = jnp.where(step < TRACED_STEPS, logits, self.logits[:, place])
        return StepScores(
            self.logits.at[:, place].set(logits),
            self.margins.at[:, step].set(margin(penalized)),
        )


@dataclasses.dataclass(frozen=True)
class Generated:
    """The result of `generate` and `beam_generate`; arrays on the device."""

    codes: jax.Array  # [B, M] int32; the stop code from `lengths` on
    lengths: jax.Array  # [B] int32, codes before the stop
    stopped: jax.Array  # [B] bool, False where the limit cut the item off
    latents: jax.Array | None  # [B, M, D], GPT latents of the codes; None where they are others
    # None unless asked for, and from beams: no one sequence of logits leads to the codes.
    trace: StepScores | None


def margin(scores: jax.Array) -> jax.Array:
    """Returns how much the best of scores [B, V] is better than the second, [B]."""
    others = jnp.arange(scores.shape[-1]) != jnp.argmax(scores, axis=-1, keepdims=True)
    # XLA:CPU makes a sort of a top-k of two.
    return jnp.max(scores, axis=-1) - jnp.max(scores, axis=-1, where=others, initial=-jnp.inf)


def penalize(logits: jax.Array, seen: jax.Array, penalty: jax.Array) -> jax.Array:
    """Divides (positive) or multiplies scores [B, V] of seen codes: the repetition penalty."""
    penalty = penalty[:, None]
    return jnp.where(seen, jnp.where(logits < 0, logits * penalty, logits / penalty), logits)


def keep_typical(logits: jax.Array, mass: jax.Array) -> jax.Array:
    """Removes the codes [B, V] whose surprise is farthest from the entropy; mass 1 keeps all."""
    log_p = jax.nn.log_softmax(logits)
    p = jnp.exp(log_p)
    entropy = -jnp.sum(jnp.where(p > 0, p * log_p, 0), axis=-1, keepdims=True)
    distance = jnp.abs(-log_p - entropy)
    order = jnp.argsort(distance, axis=-1)
    cumulative = jnp.cumsum(jnp.take_along_axis(p, order, -1), axis=-1)
    last = jnp.minimum(jnp.sum(cumulative < mass[:, None], -1), logits.shape[-1] - 1)
    limit = jnp.take_along_axis(jnp.take_along_axis(distance, order, -1), last[:, None], -1)
    return jnp.where((distance > limit) & (mass[:, None] < 1), -jnp.inf, logits)


def keep_top(logits: jax.Array, top_k: jax.Array, top_p: jax.Array, fewest: int = 1) -> jax.Array:
    """Keeps the `top_k` best codes [B, V], and of those the smallest set with mass `top_p`.

    At least the `fewest` best are kept.
    """
    V = logits.shape[-1]
    k = jnp.where(top_k > 0, jnp.clip(top_k, fewest, V), V)[:, None]

    def lowest(ranked: jax.Array) -> jax.Array:
        ranked = jnp.where(ranked < _kth(ranked, k), -jnp.inf, ranked)
        p = jax.nn.softmax(ranked, axis=-1)
        # At 1 the rounded sum may get there before the last code.
        kept = (jnp.cumsum(p, axis=-1) - p < top_p[:, None]) | (top_p[:, None] >= 1)
        kept &= ranked > -jnp.inf
        kept = kept.at[:, :fewest].set(True)
        return jnp.min(jnp.where(kept, ranked, jnp.inf), axis=-1, keepdims=True)

    # A CPU sorts for 50 times as long. The best codes are enough if the last of them is left out.
    # XLA:CPU would sort for the values of a top-k of which parts are taken.
    places = jax.lax.top_k(logits, min(NUM_BEST, V))[1]
    best = jnp.take_along_axis(logits, places, -1)
    last = best[:, -1:]
    enough = jnp.all((k < best.shape[-1]) & (last < _kth(best, k)) | (last == -jnp.inf))
    limit = jax.lax.cond(
        enough, lambda: lowest(best), lambda: lowest(jnp.sort(logits, axis=-1, descending=True))
    )
    return jnp.where(logits < limit, -jnp.inf, logits)


def _kth(ranked: jax.Array, k: jax.Array) -> jax.Array:
    return jnp.take_along_axis(ranked, jnp.minimum(k, ranked.shape[-1]) - 1, -1)


def warp(logits: jax.Array, sampling: Sampling, fewest: int = 1) -> jax.Array:
    """Turns penalised scores [B, V] into those to draw from; keeps the `fewest` best at least."""
    mass = sampling.typical_mass
    scores = jax.lax.cond(jnp.any(mass < 1), lambda: keep_typical(logits, mass), lambda: logits)
    return keep_top(scores / sampling.temperature[:, None], sampling.top_k, sampling.top_p, fewest)


def pick(logits: jax.Array, sampling: Sampling, keys: jax.Array) -> jax.Array:
    """Picks one code per row from penalised logits [B, V] with one key per row."""

    def sample(logits: jax.Array) -> jax.Array:
        return jax.vmap(jax.random.categorical)(keys, warp(logits, sampling))

    best = jnp.argmax(logits, axis=-1)
    drawn = jax.lax.cond(jnp.all(sampling.greedy), lambda _: best, sample, logits)
    return jnp.where(sampling.greedy, best, drawn).astype(jnp.int32)


@functools.partial(jax.jit, static_argnames=("rules", "cache_size", "capacity", "trace"))
def prefill(
    model: T2S,
    prefix: Prefix,
    *,
    rules: DecodingRules,
    cache_size: int,
    capacity: int,
    trace: bool = False,
) -> DecodeState:
    """Runs prefix and start code, and returns the state before the first code.

    Args:
      model: the T2S stage.
      prefix: B prefixes of P positions.
      rules: how the checkpoint counts.
      cache_size: S, more than P.
      capacity: M, codes that the state has room for.
      trace: keep what parity tests compare; it is computed at every step.

    Returns:
      The state that `decode` goes on from.
    """
    cfg, (B, P) = model.cfg, prefix.mask.shape
    start = jnp.full((B, 1), cfg.start_code, jnp.int32)
    x = jnp.concatenate([prefix.x, model.embed_codes(start, jnp.zeros((1,), jnp.int32))], axis=1)
    valid = jnp.pad(prefix.mask, ((0, 0), (0, cache_size - P)), constant_values=True)
    causal = jnp.arange(cache_size) <= jnp.arange(P + 1)[:, None]
    cache = KVCache.empty(cfg, B, cache_size, x.dtype)
    hidden, cache = model.trunk(x, causal & valid[:, None], cache)
    seen = jnp.zeros((B, cfg.num_codes), bool)
    if rules.penalized:
        seen = seen.at[:, jnp.asarray(rules.penalized)].set(True)
    return DecodeState(
        cache=cache,
        hidden=hidden[:, -1],
        codes=jnp.full((B, capacity), cfg.stop_code, jnp.int32),
        latents=jnp.zeros((B, capacity, cfg.width), hidden.dtype),
        step=jnp.zeros((), jnp.int32),
        stopped=jnp.zeros(B, bool),
        seen=seen,
        trace=StepScores.empty(B, capacity, cfg.num_codes) if trace else None,
    )


@functools.partial(jax.jit, static_argnames=("rules",), donate_argnames=("state",))
def decode(
    model: T2S,
    state: DecodeState,
    prefix_mask: jax.Array,
    sampling: Sampling,
    keys: jax.Array,
    *,
    limits: CodeLimits,
    rules: DecodingRules,
) -> DecodeState:
    """Decodes until every item has stopped or met its limit, or the cache is full.

    Args:
      model: the T2S stage.
      state: from `prefill` or an earlier call.
      prefix_mask: [B, P] bool.
      sampling: how to pick.
      keys: [B] typed PRNG keys; step i of item b draws from fold_in(keys[b], i).
      limits: how many codes each item may have.
      rules: how the checkpoint counts.

    Returns:
      The state; `stopped` marks the items that are done.
    """
    cfg, (B, P) = model.cfg, prefix_mask.shape
    size = state.cache.size
    valid = jnp.pad(prefix_mask, ((0, 0), (0, size - P)), constant_values=True)
    items = jnp.arange(B)

    def unfinished(s: DecodeState) -> jax.Array:
        return (P + 1 + s.step < size) & ~jnp.all(s.stopped)

    def body(s: DecodeState) -> DecodeState:
        logits = model.code_logits(s.hidden)
        penalized = penalize(logits, s.seen, sampling.repetition_penalty)
        scores = limits.enforce(rules.forbid(penalized), s.step, cfg.stop_code)
        code = pick(scores, sampling, jax.vmap(jax.random.fold_in, (0, None))(keys, s.step))
        code = jnp.where(s.stopped, cfg.stop_code, code)
        place = P + 1 + s.step
        x = model.embed_codes(code[:, None], (s.step + 1 + rules.row_offset)[None])
        mask = valid & (jnp.arange(size) <= place)
        hidden, cache = model.trunk(x, mask[:, None], s.cache, place)
        return DecodeState(
            cache=cache,
            hidden=hidden[:, 0],
            codes=s.codes.at[:, s.step].set(code),
            latents=s.latents.at[:, s.step].set(s.hidden),
            step=s.step + 1,
            stopped=s.stopped | (code == cfg.stop_code) | (s.step + 1 >= limits.most),
            seen=s.seen.at[items, code].set(True),
            trace=None if s.trace is None else s.trace.add(s.step, logits, penalized),
        )

    return jax.lax.while_loop(unfinished, body, state)


def generate(
    model: T2S,
    prefix: Prefix,
    sampling: Sampling,
    keys: jax.Array,
    limits: CodeLimits,
    *,
    rules: DecodingRules,
    trace: bool = False,
) -> Generated:
    """Generates semantic codes for a batch of prefixes.

    Args:
      model: the T2S stage.
      prefix: B prefixes of P positions.
      sampling: how to pick, per item.
      keys: [B] typed PRNG keys.
      limits: how many codes each item may have; at most `model.cfg.max_codes`.
      rules: how the checkpoint counts.
      trace: keep what parity tests compare; decoding takes longer then.

    Returns:
      Codes [B, capacity] with their lengths. Latents, too, if the rules number positions as
      `gpt_latents` does, so that a pass over the codes would give the same.

    Raises:
      ValueError: if a limit is not in the position table.
    """
    sizes = cache_sizes(model, prefix, limits)
    capacity = model.cfg.max_codes
    state = prefill(model, prefix, rules=rules, cache_size=sizes[0], capacity=capacity, trace=trace)
    state = decode_in_sizes(
        state,
        sizes,
        lambda s: decode(model, s, prefix.mask, sampling, keys, limits=limits, rules=rules),
    )
    lengths = jnp.sum(state.codes != model.cfg.stop_code, axis=1)
    latents = state.latents if rules.positions == "plain" else None
    return Generated(state.codes, lengths, lengths < limits.most, latents, state.trace)


def cache_sizes(
    model: T2S, prefix: Prefix, limits: CodeLimits, positions_per_code: int = 1
) -> list[int]:
    """Returns the sizes that a cache goes through: prefix, start code and ever more codes.

    Raises:
      ValueError: if a limit is not in the position table.
    """
    P, most, largest = prefix.mask.shape[1], int(jnp.max(limits.most)), model.cfg.max_codes
    if not 1 <= most <= largest:
        raise ValueError(f"max_codes is {most}; it must be in 1 .. {largest}")
    rooms = [*(room for room in CODE_ROOMS if room < largest), largest]
    sizes = [P + 1 + positions_per_code * room for room in rooms]
    return [-(-size // SIZE_MULTIPLE) * SIZE_MULTIPLE for size in sizes]


def decode_in_sizes(state: Any, sizes: Sequence[int], decode: Callable[[Any], Any]) -> Any:
    """Decodes to the end, and moves to a larger cache whenever one is full.

    Args:
      state: what the loop carries; has `stopped` and `grow`.
      sizes: of the caches, ascending; `state` has the first.
      decode: continues until all items are done or the cache is full.

    Returns:
      The last state.
    """
    for size in sizes:
        if size > sizes[0]:
            state = _grow(state, size)
        state = decode(state)
        if bool(jnp.all(state.stopped)):
            break
    return state


@functools.partial(jax.jit, static_argnames=("size",))
def _grow(state: Any, size: int) -> Any:
    return state.grow(size)

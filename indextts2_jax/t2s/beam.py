"""Beam search and beam sampling of semantic codes: one jitted loop per cache size.

Data flow, per step:  hidden -> log-probabilities -> processors -> + scores of the beams
                      -> 2K candidates -> hypotheses (those that stop), K beams -> cache

The beams of an item share one cache: the prefix once, then K positions a step, one of each beam. A
beam is a set of positions that it may read. So re-ordering beams moves no key and no value, and
nothing of the prefix is held or read twice.

Dims: B batch, K beams, C candidates, S cache positions, V codes, M code capacity, D width.

Source: spec of the released decoding (the rules of Hugging Face's `BeamSearchScorer`).
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp

from indextts2_jax.t2s import generate as gen
from indextts2_jax.t2s.gpt import T2S, KVCache, Prefix

FEWEST_KEPT = 2  # codes that the processors leave to a beam, so that it can go on where it may stop
NO_BEAM = -1e9  # score of the second and later beams before the first code: they equal the first


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Hypotheses:
    """The best sequences that have ended, best first."""

    codes: jax.Array  # [B, K, M] int32, the stop code after the end
    scores: jax.Array  # [B, K] float32, per length**penalty; -inf where there is none

    def add(self, codes: jax.Array, scores: jax.Array) -> "Hypotheses":
        """Takes in sequences [B, C, M] with scores [B, C]; at equal scores the older one stays."""
        codes = jnp.concatenate([self.codes, codes], axis=1)
        best, kept = jax.lax.top_k(
            jnp.concatenate([self.scores, scores], axis=1), self.scores.shape[1]
        )
        return Hypotheses(_take(codes, kept), best)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class BeamState:
    """What the loop carries."""

    cache: KVCache
    used: jax.Array  # [] int32, cache positions written so far
    readable: jax.Array  # [B, K, S] bool, the cache positions of a beam
    hidden: jax.Array  # [B, K, D], predicts the next code
    codes: jax.Array  # [B, K, M] int32
    seen: jax.Array  # [B, K, V] bool, for the repetition penalty
    scores: jax.Array  # [B, K] float32, sums of processed log-probabilities, best first
    step: jax.Array  # [] int32, codes written so far
    stopped: jax.Array  # [B] bool, items whose hypotheses are final
    hypotheses: Hypotheses

    @classmethod
    def make(cls, first: gen.DecodeState, prefix_mask: jax.Array, num_beams: int) -> "BeamState":
        """Returns the beams before the first code, given the state after `prefill`."""
        (B, P), S = prefix_mask.shape, first.cache.size
        start = jnp.ones((B, 1), bool)
        readable = jnp.concatenate([prefix_mask, start, jnp.zeros((B, S - P - 1), bool)], axis=1)
        none = jnp.full((B, num_beams), -jnp.inf, jnp.float32)

        def for_each_beam(x: jax.Array) -> jax.Array:
            return jnp.repeat(x[:, None], num_beams, axis=1)

        return cls(
            cache=first.cache,
            used=jnp.asarray(P + 1, jnp.int32),
            readable=for_each_beam(readable),
            hidden=for_each_beam(first.hidden),
            codes=for_each_beam(first.codes),
            seen=for_each_beam(first.seen),
            scores=jnp.full_like(none, NO_BEAM).at[:, 0].set(0),
            step=first.step,
            stopped=first.stopped,
            hypotheses=Hypotheses(for_each_beam(first.codes), none),
        )

    def grow(self, size: int) -> "BeamState":
        """Returns the same state with room for `size` positions."""
        room = ((0, 0), (0, 0), (0, size - self.readable.shape[-1]))
        readable = jnp.pad(self.readable, room)
        return dataclasses.replace(self, cache=self.cache.grow(size), readable=readable)


def rank_candidates(
    scores: jax.Array, greedy: jax.Array, keys: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Picks twice as many candidates as there are beams.

    Args:
      scores: [B, K, V] of every code after every beam.
      greedy: [B] bool: take the best; else draw without replacement from softmax(scores).
      keys: [B] typed PRNG keys.

    Returns:
      Scores, beams and codes of the candidates, each [B, 2K], best first.
    """
    B, K, V = scores.shape
    scores = scores.reshape(B, K * V)
    # The largest sums of log-probability and Gumbel noise are a draw without replacement.
    noise = jax.vmap(lambda key: jax.random.gumbel(key, (K * V,)))(keys)
    noisy = jnp.where(greedy[:, None], scores, scores + noise)
    drawn = jax.lax.top_k(noisy, 2 * K)[1]
    ranked, order = jax.lax.top_k(_take(scores, drawn), 2 * K)
    place = _take(drawn, order)
    return ranked, place // V, place % V


@functools.partial(jax.jit, static_argnames=("rules",), donate_argnames=("state",))
def decode_beams(
    model: T2S,
    state: BeamState,
    sampling: gen.Sampling,
    keys: jax.Array,
    limits: gen.CodeLimits,
    *,
    length_penalty: jax.Array,
    rules: gen.DecodingRules,
) -> BeamState:
    """Decodes until every item is done or has met its limit, or the cache is full.

    Args:
      model: the T2S stage.
      state: from `BeamState.make` or an earlier call.
      sampling: how to pick, per item.
      keys: [B] typed PRNG keys; step i of item b draws with fold_in(keys[b], i).
      limits: how many codes each item may have.
      length_penalty: [] float32.
      rules: how the checkpoint counts.

    Returns:
      The state; `stopped` marks the items that are done.
    """
    stop_code = model.cfg.stop_code
    (_, K, V), S = state.seen.shape, state.readable.shape[-1]
    all_greedy = jnp.all(sampling.greedy)
    of_beams = jax.tree.map(lambda x: jnp.repeat(x, K), sampling)  # [B * K] each

    def unfinished(s: BeamState) -> jax.Array:
        return (s.used + K <= S) & ~jnp.all(s.stopped)

    def body(s: BeamState) -> BeamState:
        def process(log_p: jax.Array, seen: jax.Array) -> jax.Array:  # one beam of every item
            scores = gen.penalize(log_p, seen, sampling.repetition_penalty)
            return limits.enforce(rules.forbid(scores), s.step, stop_code)

        def warp(scores: jax.Array) -> jax.Array:
            warped = gen.warp(scores.reshape(-1, V), of_beams, FEWEST_KEPT).reshape(scores.shape)
            return jnp.where(sampling.greedy[:, None, None], scores, warped)

        log_p = jax.nn.log_softmax(model.code_logits(s.hidden))
        scores = jax.vmap(process, in_axes=1, out_axes=1)(log_p, s.seen)
        processed = jax.lax.cond(all_greedy, lambda x: x, warp, scores)
        ranked, beam, code = rank_candidates(
            s.scores[..., None] + processed,
            sampling.greedy,
            jax.vmap(jax.random.fold_in, (0, None))(keys, s.step),
        )
        divisor = (s.step + 1).astype(jnp.float32) ** length_penalty
        is_stop = code == stop_code

        # A stop becomes a hypothesis if it is among the best K candidates, else it is dropped.
        ended = is_stop[:, :K] & ~s.stopped[:, None]
        hypotheses = s.hypotheses.add(
            _take(s.codes, beam[:, :K]), jnp.where(ended, ranked[:, :K] / divisor, -jnp.inf)
        )
        stopped = s.stopped | (hypotheses.scores[:, -1] >= ranked[:, 0] / divisor)

        # The best K of the others are the next beams. At the limit, they end too.
        others = jnp.argsort(is_stop, axis=1, stable=True)[:, :K]
        scores, beam, code = _take(ranked, others), _take(beam, others), _take(code, others)
        codes = _take(s.codes, beam).at[:, :, s.step].set(code)
        cut = ~stopped & (s.step + 1 >= limits.most)
        hypotheses = hypotheses.add(codes, jnp.where(cut[:, None], scores / divisor, -jnp.inf))

        own = jnp.arange(S) == s.used + jnp.arange(K)[:, None]
        readable = _take(s.readable, beam) | own
        x = model.embed_codes(code, (s.step + 1 + rules.row_offset)[None])
        hidden, cache = model.trunk(x, readable, s.cache, s.used)
        return BeamState(
            cache=cache,
            used=s.used + K,
            readable=readable,
            hidden=hidden,
            codes=codes,
            seen=_take(s.seen, beam) | (jnp.arange(V) == code[..., None]),
            scores=scores,
            step=s.step + 1,
            stopped=stopped | cut,
            hypotheses=hypotheses,
        )

    return jax.lax.while_loop(unfinished, body, state)


def beam_generate(
    model: T2S,
    prefix: Prefix,
    sampling: gen.Sampling,
    keys: jax.Array,
    limits: gen.CodeLimits,
    *,
    rules: gen.DecodingRules,
    num_beams: int,
    length_penalty: float = 0.0,
) -> gen.Generated:
    """Generates semantic codes for a batch of prefixes with beams.

    Unlike in `generate`, the processors work on log-probabilities, so that the repetition penalty
    always multiplies.

    Args:
      model: the T2S stage.
      prefix: B prefixes of P positions.
      sampling: per item; `greedy` is beam search, else candidates are drawn (beam sampling).
      keys: [B] typed PRNG keys.
      limits: how many codes each item may have; at most `model.cfg.max_codes`.
      rules: how the checkpoint counts.
      num_beams: K.
      length_penalty: hypotheses compare by score / length**length_penalty, the stop code counted.

    Returns:
      Codes [B, capacity] of the best hypothesis of each item, with their lengths; neither latents
      nor trace.

    Raises:
      ValueError: if a limit is not in the position table.
    """
    sizes = gen.cache_sizes(model, prefix, limits, positions_per_code=num_beams)
    capacity, stop_code = model.cfg.max_codes, model.cfg.stop_code
    first = gen.prefill(model, prefix, rules=rules, cache_size=sizes[0], capacity=capacity)
    penalty = jnp.asarray(length_penalty, jnp.float32)
    state = gen.decode_in_sizes(
        _make_beams(first, prefix.mask, num_beams),
        sizes,
        lambda s: decode_beams(
            model, s, sampling, keys, limits, length_penalty=penalty, rules=rules
        ),
    )
    codes = state.hypotheses.codes[:, 0]
    lengths = jnp.sum(codes != stop_code, axis=1)
    return gen.Generated(codes, lengths, lengths < limits.most, latents=None, trace=None)


_make_beams = jax.jit(BeamState.make, static_argnums=2)


def _take(x: jax.Array, index: jax.Array) -> jax.Array:
    """Picks entries `index` [B, C] of axis 1 of x [B, K, ...]."""
    return jax.vmap(lambda x, index: x[index])(x, index)

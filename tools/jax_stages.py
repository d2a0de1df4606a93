"""The stages that `benchmark.py` times: released or small networks with random weights, and inputs.

Each function returns what to run, and what a peer needs to do the same.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from indextts2_jax import convert, programs
from indextts2_jax.nn import pytree
from indextts2_jax.nn.conv import fold_weight_norm
from indextts2_jax.prompt import w2v_bert
from indextts2_jax.s2m import dit, flow_matching
from indextts2_jax.s2m.conditions import Conditions
from indextts2_jax.t2s import generate, gpt
from indextts2_jax.vocoder import bigvgan

TOKENS, STEPS = 64, 2
normal = functools.partial(np.random.default_rng(1).standard_normal, dtype=np.float32)


@dataclasses.dataclass(frozen=True)
class Stage:
    """A stage that is ready to run."""

    unit: str
    count: int  # units in one run
    peer: tuple[Any, ...]  # arguments of the function of this name in `torch_peers`
    run: Callable[[Any], Any]  # timed; of what `prepare` returns
    prepare: Callable[[], Any] = lambda: None  # not timed


def build(make: Callable[..., Any], cfg: Any, rules: tuple[convert.Rule, ...], dtype: str) -> Any:
    """A network with random weights, and these weights under their torch names."""
    arrays = pytree.random_arrays(lambda rngs: make(cfg, rngs=rngs), seed=0)
    model = pytree.abstract(lambda rngs: make(cfg, rngs=rngs))
    weights = pytree.params(model, nnx.Param)  # tables and statistics stay float32
    placed = {k: jnp.asarray(x, dtype if k in weights else None) for k, x in arrays.items()}
    return fold_weight_norm(pytree.fill(model, placed)), convert.to_torch(arrays, rules)


def t2s(small: bool, batch: int, dtype: str) -> Stage:
    """Decoding; the conditioners have no part in it and are left tiny."""
    cfg, tiny = gpt.T2SConfig.indextts2(), gpt.T2SConfig.tiny()
    cfg = dataclasses.replace(cfg, num_text_tokens=2, speaker=tiny.speaker, emotion=tiny.emotion)
    if small:
        cfg = dataclasses.replace(cfg, width=128, num_layers=2, num_heads=2)
    model, tensors = build(gpt.T2S, cfg, gpt.TORCH_RULES, dtype)
    model = gpt.for_decoding(model)
    x, mask = normal((batch, 100, cfg.width)), jnp.ones((batch, 100), bool)
    prefix, rules = gpt.Prefix(jnp.asarray(x, dtype), mask), generate.DecodingRules()
    sizes = {"cache_size": 512, "capacity": cfg.max_codes}
    prefill = functools.partial(generate.prefill, model, prefix, rules=rules, trace=True, **sizes)
    limits = generate.CodeLimits(*[jnp.full(batch, TOKENS)] * 2)  # no stop before the last code
    sampling = generate.Sampling.make(batch, greedy=True)
    keys = jax.random.split(jax.random.key(0), batch)

    def run(state: generate.DecodeState) -> jax.Array:
        state = generate.decode(model, state, mask, sampling, keys, limits=limits, rules=rules)
        assert state.trace is not None
        return state.trace.logits

    return Stage("token", TOKENS, (cfg, tensors, x, TOKENS), run, prefill)


def s2m(small: bool, batch: int, dtype: str) -> Stage:
    """Flow matching."""
    cfg = dit.VelocityConfig.tiny() if small else dit.VelocityConfig.indextts2()
    model, tensors = build(dit.Velocity, cfg, dit.TORCH_RULES, dtype)
    mu, style = normal((batch, 600, cfg.condition_width)), normal((batch, cfg.style_width))
    prompt, noise = normal((batch, 200, cfg.num_mels)), normal((batch, 600, cfg.num_mels))
    conditions = Conditions(
        *map(jnp.asarray, (mu, prompt, np.full(batch, 200), style, np.full(batch, 600)))
    )
    sample = functools.partial(
        flow_matching.sample, model, conditions, jnp.asarray(noise), steps=STEPS
    )
    peer = cfg, tensors, mu, prompt, style, noise, STEPS
    return Stage("Euler step", STEPS, peer, lambda _: sample()[0])


def vocoder(small: bool, batch: int, dtype: str) -> Stage:
    """The vocoder."""
    cfg = bigvgan.BigVGANConfig.tiny() if small else bigvgan.BigVGANConfig.indextts2()
    model, tensors = build(bigvgan.BigVGAN, cfg, bigvgan.TORCH_RULES, dtype)
    mel = normal((batch, 100, cfg.num_mels))
    peer, lengths = (cfg, tensors, mel), np.full(batch, 100)
    return Stage("100 frames", 1, peer, lambda _: programs.vocode(model, mel, lengths))


def w2v(small: bool, batch: int, dtype: str) -> Stage:
    """The encoder of prompts."""
    cfg = dataclasses.replace(w2v_bert.W2VBertConfig.indextts2(), num_layers=17)
    cfg = w2v_bert.W2VBertConfig.tiny() if small else cfg
    model, tensors = build(w2v_bert.W2VBert, cfg, w2v_bert.TORCH_RULES, dtype)
    x, mask = normal((batch, 750, cfg.feature_width)), np.ones((batch, 750), bool)
    encode = functools.partial(programs.hidden_states, model, x, mask, layers=(cfg.num_layers,))
    return Stage("750 tokens", 1, (cfg, tensors, x), lambda _: encode()[0])

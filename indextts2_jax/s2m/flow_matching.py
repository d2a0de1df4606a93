"""Conditional flow matching: from noise to mel along a velocity field, and its training loss.

Data flow:  noise [B, T, M] -> Euler steps along the velocity, with guidance -> mel [B, T, M]

In the frames of the prompt the velocity field sees the prompt's mel as a condition, while the state
of the flow stays zero.

Dims: B batch, T mel frames (prompt first), M mel bins.

Source: paper section 3.2.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from indextts2_jax.nn.masking import zero_padding
from indextts2_jax.s2m.conditions import Conditions
from indextts2_jax.s2m.dit import Velocity

SIGMA_MIN = 1e-6  # noise left at t = 1; of the release
GUIDANCE = 0.7  # of the release
OBJECTIVES = ("velocity", "mel")  # names of the training loss


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Trajectory:
    """What `sample` computes on its way; for comparisons and debugging."""

    states: jax.Array  # [steps, B, T, M] states before each step
    velocities: jax.Array  # [steps, 2 or 1, B, T, M] conditional (, unconditional)


def draw_noise(key: jax.Array, length: int, num_mels: int) -> jax.Array:
    """Draws standard normal noise [T, M] whose frames do not depend on how many there are.

    Args:
      key: one PRNG key; `jax.vmap` over keys makes a batch.
      length: T; a longer draw begins with the shorter one.
      num_mels: M.
    """
    keys = jax.vmap(functools.partial(jax.random.fold_in, key))(jnp.arange(length))
    return jax.vmap(lambda k: jax.random.normal(k, (num_mels,)))(keys)


def time_steps(steps: int) -> np.ndarray:
    """Returns `steps + 1` float32 times from 0 to 1, bit by bit those of torch's linspace."""
    index, step = np.arange(steps + 1), np.float64(np.float32(1) / np.float32(steps))
    times = np.where(index < (steps + 1) // 2, step * index, 1 - step * (steps - index))
    return times.astype(np.float32)


def sample(
    velocity: Velocity,
    conditions: Conditions,
    noise: jax.Array,
    *,
    steps: int = 25,
    guidance: float = GUIDANCE,
    record: bool = False,
) -> tuple[jax.Array, Trajectory | None]:
    """Generates mels by Euler steps with classifier-free guidance, in one compiled loop.

    Args:
      velocity: the velocity field.
      conditions: of the B items.
      noise: [B, T, M] float32, from `draw_noise`.
      steps: number of Euler steps (a new number compiles anew).
      guidance: w of v = (1 + w) v_conditional - w v_unconditional; at most 0 turns guidance off.
      record: keep every state and velocity on the way.

    Returns:
      [B, T, M] float32 log-mel, zero in the frames of the prompt and of padding; and what was
      recorded.
    """
    scale = guidance if guidance > 0 else None
    return _integrate(velocity, conditions, noise, time_steps(steps), scale, record=record)


@functools.partial(jax.jit, static_argnames="record")
def _integrate(
    velocity: Velocity,
    conditions: Conditions,
    noise: jax.Array,
    times: jax.Array,
    guidance: jax.Array | None,
    *,
    record: bool,
) -> tuple[jax.Array, Trajectory | None]:
    generated, lengths = conditions.is_target(), conditions.lengths
    condition = velocity.encode_condition(conditions)
    if guidance is not None:
        null = velocity.encode_condition(jax.tree.map(jnp.zeros_like, conditions))
        condition = jnp.concatenate([condition, null])
        lengths = jnp.tile(lengths, 2)

    def euler_step(x, interval):
        start, end = interval
        both = x if guidance is None else jnp.tile(x, (2, 1, 1))
        v = velocity.evaluate(both, jnp.full(len(both), start), condition, lengths)
        v = v.astype(jnp.float32).reshape(-1, *x.shape)  # [2 or 1, B, T, M]
        guided = v[0] if guidance is None else (1 + guidance) * v[0] - guidance * v[1]
        after = zero_padding(x + (end - start) * guided, generated)
        return after, Trajectory(x, v) if record else None

    start = zero_padding(noise.astype(jnp.float32), generated)
    return jax.lax.scan(euler_step, start, (times[:-1], times[1:]))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Draws:
    """The random numbers of one training step."""

    t: jax.Array  # [B] flow time in [0, 1]
    noise: jax.Array  # [B, T, M]
    drop_condition: jax.Array  # [B] bool, items that are trained without any condition


def draw_training(
    key: jax.Array, shape: tuple[int, int, int], *, condition_dropout: float = 0.1
) -> Draws:
    """Draws what `loss` needs.

    Args:
      key: PRNG key.
      shape: (B, T, M) of the mels.
      condition_dropout: probability to train an item without conditions. The release draws once
        for a whole batch; here each item is drawn for itself.
    """
    t, noise, drop = jax.random.split(key, 3)
    return Draws(
        jax.random.uniform(t, shape[:1]),
        jax.random.normal(noise, shape),
        jax.random.bernoulli(drop, condition_dropout, shape[:1]),
    )


def loss(
    velocity: Velocity,
    mel: jax.Array,
    conditions: Conditions,
    draws: Draws,
    *,
    objective: str = "velocity",
    key: jax.Array | None = None,
    remat: bool = False,
) -> tuple[jax.Array, jax.Array]:
    """Computes the L1 distance between what is predicted and what is true, item by item.

    The two objectives are one number: the one-step estimate of the mel is the predicted velocity
    plus what the true mel is more than the true velocity.

    Args:
      velocity: the velocity field.
      mel: [B, T, M] log-mels, the prompt first; its frames are not scored.
      conditions: of the B items.
      draws: from `draw_training`.
      objective: "velocity", as the release is trained, or "mel", equation 5 of the paper.
      key: dropout key; None turns dropout off.
      remat: trade time for memory in gradients.

    Returns:
      Losses [B], each the mean over the mel bins and scored frames of the item (0 if it has none);
      and the estimated mel [B, T, M].

    Raises:
      ValueError: for another objective.
    """
    if objective not in OBJECTIVES:
        raise ValueError(f"objective is {objective!r}; want one of {', '.join(OBJECTIVES)}")
    scored = conditions.is_target()
    t = draws.t[:, None, None]
    remaining = (1 - SIGMA_MIN) * draws.noise
    x = jnp.where(conditions.is_prompt()[..., None], 0, draws.noise - t * remaining + t * mel)
    v = velocity(
        x, draws.t, conditions, drop_condition=draws.drop_condition, key=key, remat=remat
    ).astype(jnp.float32)
    estimate = v + remaining
    got, want = (v, mel - remaining) if objective == "velocity" else (estimate, mel)
    error = jnp.abs(got - want)  # [B, T, M]
    count = jnp.maximum(jnp.sum(scored, 1), 1) * mel.shape[2]
    return jnp.sum(zero_padding(error, scored), (1, 2)) / count, estimate

"""Connectionist temporal classification: loss, greedy reading, forced alignment, error rates.

Unit 0 is the blank.

Dims: B rows, T frames, K units, L labels, S = 2 L + 1 states (blank, label, blank, ..., blank).
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax

BLANK = 0


def loss(
    logits: jax.Array, frame_lengths: jax.Array, labels: jax.Array, label_lengths: jax.Array
) -> jax.Array:
    """Computes the negative log-likelihood of the labels, per label.

    Args:
      logits: [B, T, K] float.
      frame_lengths: [B] int32.
      labels: [B, L] int32, none of them the blank where they count.
      label_lengths: [B] int32; more than L where labels were cut off.

    Returns:
      [B] float32; 0 for rows whose frames cannot hold the labels.
    """
    frames = jnp.arange(logits.shape[1]) >= frame_lengths[:, None]
    beyond = jnp.arange(labels.shape[1]) >= label_lengths[:, None]
    total = optax.ctc_loss(
        logits.astype(jnp.float32), frames.astype(jnp.float32), labels, beyond.astype(jnp.float32)
    )
    repeated = (labels[:, 1:] == labels[:, :-1]) & ~beyond[:, 1:]
    fits = (label_lengths + repeated.sum(axis=1) <= frame_lengths) & (
        label_lengths <= labels.shape[1]
    )
    return jnp.where(fits, total, 0) / jnp.maximum(label_lengths, 1)


def read(best: np.ndarray) -> list[int]:
    """Reads the labels that the best units [T] of every frame spell; repetitions and blanks go."""
    starts = np.flatnonzero(np.diff(best, prepend=BLANK) != 0)
    return [int(x) for x in best[starts] if x != BLANK]


def align(log_probabilities: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, float]:
    """Finds the most probable alignment (Viterbi).

    Args:
      log_probabilities: [T, K] float.
      labels: [L] int.

    Returns:
      [L, 2] int32 first frame and the frame behind the last of every label, and the log-probability
      of the path.

    Raises:
      ValueError: if the frames cannot hold the labels.
    """
    T, L = len(log_probabilities), len(labels)
    states = np.full(2 * L + 1, BLANK)
    states[1::2] = labels
    # From two states before: over a blank between different labels.
    skips = np.zeros(len(states), bool)
    skips[2:] = (states[2:] != BLANK) & (states[2:] != states[:-2])
    emitted = log_probabilities[:, states].astype(np.float64)  # [T, S]
    score = np.full(len(states), -np.inf)
    score[:2] = emitted[0, :2]
    back = np.zeros((T, len(states)), np.int8)  # steps back
    for t in range(1, T):
        by_one = np.concatenate([[-np.inf], score[:-1]])
        by_two = np.where(skips, np.concatenate([[-np.inf] * 2, score])[: len(states)], -np.inf)
        ways = np.stack([score, by_one, by_two])
        back[t] = ways.argmax(axis=0)
        score = ways.max(axis=0) + emitted[t]
    state = len(states) - 1
    if L and score[-2] > score[-1]:
        state -= 1
    total = float(score[state])
    if not np.isfinite(total):
        raise ValueError(f"{T} frames cannot hold {L} labels")
    path = np.empty(T, int)
    for t in range(T - 1, -1, -1):
        path[t] = state
        state -= back[t, state]
    label, frame = path // 2, np.arange(T)
    spans = [frame[(path % 2 == 1) & (label == i)] for i in range(L)]
    return np.array([(x[0], x[-1] + 1) for x in spans], np.int32).reshape(L, 2), total


def edit_distance(a: Sequence, b: Sequence) -> int:
    """Counts the fewest insertions, deletions and replacements that turn `a` into `b`."""
    numbers = {x: i for i, x in enumerate(dict.fromkeys([*a, *b]))}
    other = np.array([numbers[x] for x in b], int)
    place = np.arange(len(b) + 1)
    row = place
    for count, x in enumerate(a, start=1):
        best = np.minimum(row[1:] + 1, row[:-1] + (other != numbers[x]))
        # What is inserted before a place costs its distance: a running minimum.
        row = np.minimum.accumulate(np.concatenate([[count], best]) - place) + place
    return int(row[-1])

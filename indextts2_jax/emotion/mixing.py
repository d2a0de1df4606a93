"""Weights per emotion -> the emotion vector that the T2S adds to its speaker latents.

Data flow:   weights [E], style [192] -> one prototype of each emotion -> mix with a base [D]

The prototype is the one whose voice is nearest (released models), or the mean of all (the paper:
`EmotionPrototypes.averaged`).

Dims: E emotions, N prototypes, D width of the emotion vector.

Source: paper appendix A; the release's web page for the limit on the sum of weights.
"""

import dataclasses
import difflib
import re
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from indextts2_jax.emotion.text_to_emotion import EmotionSet
from indextts2_jax.errors import InputError


def parse_weights(spec: str, emotions: EmotionSet) -> np.ndarray:
    """Reads weights that a person typed.

    Args:
      spec: `happy=.5,sad=.2`, or one number per emotion, set apart by commas or spaces.
      emotions: the names and their order.

    Returns:
      Weights [E] float64.

    Raises:
      InputError: one line that says what is wrong.
    """
    names = emotions.names
    items = re.findall(r"[^\s,，=]+\s*=\s*[^\s,，]*|[^\s,，]+", spec)
    if "=" not in spec:
        if len(items) != len(names):
            raise InputError(
                f"got {len(items)} emotion weights, want name=weight or {len(names)} numbers in "
                f"the order {', '.join(names)}"
            )
        return np.array([_weight(*pair) for pair in zip(items, names, strict=True)])
    named: dict[str, float] = {}
    for item in items:
        label, _, number = item.partition("=")
        name = emotions.find(label)
        if name is None:
            raise InputError(_unknown(label.strip(), emotions))
        if name in named:
            raise InputError(f"emotion {name!r} is given twice")
        named[name] = _weight(number.strip(), name)
    return np.array([named.get(name, 0.0) for name in names])


def _weight(number: str, name: str) -> float:
    try:
        weight = float(number)
    except ValueError:
        raise InputError(f"weight of {name!r} is {number!r}, want a number") from None
    if not 0 <= weight <= 1:  # also NaN
        raise InputError(f"weight of {name!r} is {number}, want 0 to 1")
    return weight


def _unknown(label: str, emotions: EmotionSet) -> str:
    close = difflib.get_close_matches(label.lower(), emotions.names, n=1, cutoff=0.4)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return f"unknown emotion {label!r}{hint} (one of {', '.join(emotions.names)})"


def normalize_weights(weights: np.ndarray, limit: float = EmotionSet.max_sum) -> np.ndarray:
    """Clips weights [E] to [0, 1] and scales them down so that their sum is at most `limit`."""
    clipped = np.clip(weights, 0.0, 1.0)
    return clipped * (limit / max(clipped.sum(), limit))


def apply_alpha(weights: np.ndarray, alpha: float) -> np.ndarray:
    """Scales weights [E] by an intensity, clamped to [0, 1].

    As in the release an intensity other than 1 cuts the products after four decimals.
    """
    alpha = min(max(alpha, 0.0), 1.0)
    return np.asarray(weights) if alpha == 1 else np.trunc(weights * alpha * 10_000) / 10_000


@dataclasses.dataclass(frozen=True)
class EmotionPrototypes:
    """Recorded emotion vectors, grouped by emotion, and the voice of each.

    Attributes:
      styles: [N, 192] speaker embeddings (`feat1.pt` of the release).
      vectors: [N, D] emotion vectors (`feat2.pt`).
      group_sizes: prototypes of each emotion, in the order of the emotion set (`emo_num`).
    """

    styles: np.ndarray
    vectors: np.ndarray
    group_sizes: tuple[int, ...]

    def __post_init__(self):
        styles, vectors, grouped = len(self.styles), len(self.vectors), sum(self.group_sizes)
        if not styles == vectors == grouped:
            raise InputError(f"{styles} styles, {vectors} vectors and groups of {grouped} in all")

    @classmethod
    def build(
        cls,
        recordings: Mapping[str, Sequence[tuple[np.ndarray, np.ndarray]]],
        emotions: EmotionSet,
    ) -> "EmotionPrototypes":
        """Gathers prototypes from recordings; the paper takes five per emotion.

        Args:
          recordings: emotion (name or key) -> style [192] and emotion vector [D] of each recording.
          emotions: the set; every emotion needs a recording.

        Returns:
          The prototypes, groups in the order of the set, recordings in the given order.

        Raises:
          InputError: an emotion is unknown, named twice or has no recording.
        """
        groups: dict[str, Sequence[tuple[np.ndarray, np.ndarray]]] = {}
        for label, group in recordings.items():
            name = emotions.find(label)
            if name is None:
                raise InputError(_unknown(label, emotions))
            if name in groups:
                raise InputError(f"emotion {name!r} is given twice")
            groups[name] = group
        if empty := [name for name in emotions.names if not len(groups.get(name, ()))]:
            raise InputError(f"no recordings of {', '.join(empty)}")
        ordered = [groups[name] for name in emotions.names]
        styles, vectors = zip(*(pair for group in ordered for pair in group), strict=True)
        return cls(np.stack(styles), np.stack(vectors), tuple(map(len, ordered)))

    def rows(self, style: np.ndarray) -> np.ndarray:
        """Finds, per group, the prototype nearest to the voice `style` [192] by cosine: [E] int."""
        styles = np.asarray(self.styles, np.float32)
        cosines = styles @ np.asarray(style, np.float32) / np.linalg.norm(styles, axis=1)
        return np.array([np.argmax(group) for group in self._split(cosines)])

    def random_rows(self, key: jax.Array) -> np.ndarray:
        """Draws, per group, any prototype: livelier, less like the speaker. [E] int."""
        sizes = np.array(self.group_sizes)
        return np.asarray(jax.random.randint(key, sizes.shape, 0, sizes))

    def averaged(self) -> "EmotionPrototypes":
        """Makes one mean prototype per emotion, as in the paper."""
        styles, vectors = (
            np.stack([group.mean(0) for group in self._split(np.asarray(x))])
            for x in (self.styles, self.vectors)
        )
        return EmotionPrototypes(styles, vectors, (1,) * len(self.group_sizes))

    def _split(self, x: np.ndarray) -> list[np.ndarray]:
        return np.split(x, np.cumsum(self.group_sizes)[:-1])

    def pick(self, rows: np.ndarray) -> np.ndarray:
        """Returns the vectors [E, D] at `rows` [E] of their groups."""
        offsets = np.cumsum((0, *self.group_sizes[:-1]))
        return np.asarray(self.vectors)[offsets + rows]


def mix(
    weights: np.ndarray, prototypes: EmotionPrototypes, rows: np.ndarray, base_vector: jax.Array
) -> jax.Array:
    """Mixes prototypes with the emotion of a recording.

    Args:
      weights: [E]; a sum over 1 gives the base a negative weight, as in the release.
      prototypes: the vectors to mix.
      rows: [E] which prototype of each group.
      base_vector: [..., D] float32, emotion vector of the recording.

    Returns:
      sum_e weights[e] * prototype[e] + (1 - sum(weights)) * base_vector, [..., D] float32.
    """
    weights = np.asarray(weights, np.float32)
    return jnp.asarray(weights @ prototypes.pick(rows)) + (1 - weights.sum()) * base_vector


def merge(base: jax.Array, other: jax.Array, alpha: float) -> jax.Array:
    """Moves emotion vector `base` by the share `alpha` towards `other`."""
    return base + alpha * (other - base)

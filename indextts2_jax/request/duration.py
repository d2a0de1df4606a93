"""How long a speech shall be: a number of codes, seconds, or a speed, shared among its segments.

One code lasts `frames_per_code` mel frames (20 ms). The number of codes goes to T2S, which keeps to
it; the number of frames goes to the length regulator, so that seconds hold to one mel frame.

Source: paper section 3.1.1 (duration vector); the shares of segments are ours.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from indextts2_jax.errors import InputError
from indextts2_jax.request import fields
from indextts2_jax.request.fields import setting

SPEED_RANGE = (0.25, 4.0)
# What the duration slots of the T2S sequence hold when a number of codes T is wanted, by name. The
# paper has one slot; how the released weights, which have two, were trained is not published:
# their users report "first", "second" and "halves". `indextts2 check-duration` tries them.
SLOT_READINGS = {
    "paper": ("pos(T)",),
    "first": ("pos(T)", "speed0"),
    "second": ("speed0", "pos(T)"),
    "halves": ("pos(T//2)", "pos(T)"),
}


@fields.documented
@dataclasses.dataclass(frozen=True)
class Duration:
    """The length that a speech is asked to have; the default leaves it to the model."""

    tokens: int | None = setting(
        None, "exact number of codes, of all segments together", limits=(1, 1_000_000)
    )
    seconds: float | None = setting(
        None, "length of the speech, silences between segments included", limits=(1e-3, 86_400)
    )
    speed: float | None = setting(
        None, "1.25 = a quarter faster than by itself (greedily decoded)", limits=SPEED_RANGE
    )
    mode: str = setting(
        "exact",
        "exact: the stop code comes after the number of codes, and never before; natural: the "
        "model is told, and nothing forced",
        choices=("exact", "natural"),
        name="duration_mode",
    )
    by: str = setting(
        "tokens",
        "tokens: T2S controls the duration; stretch: what it says freely is stretched, for "
        "checkpoints without duration control",
        choices=("tokens", "stretch"),
        name="duration_by",
    )

    def __post_init__(self):
        fields.check(self)
        given = [n for n in ("tokens", "seconds", "speed") if getattr(self, n) is not None]
        if len(given) > 1:
            raise InputError(f"{' and '.join(given)} are given; want one of them")
        if self.tokens is not None and self.by == "stretch":
            raise InputError(
                "a number of tokens cannot be had by stretching; give seconds or speed"
            )

    @property
    def free(self) -> bool:
        """Nothing is wished."""
        return self.tokens is None and self.seconds is None and self.speed is None


@dataclasses.dataclass(frozen=True)
class Target:
    """What one segment shall have; None leaves it to the model."""

    codes: int | None = None
    frames: int | None = None


def natural_frames(num_codes: int, frames_per_code: float) -> int:
    """Counts mel frames of codes that nobody stretches; in float32, as torch multiplies."""
    return int(np.float32(num_codes) * np.float32(frames_per_code))


def shares(total: int, weights: Sequence[float]) -> list[int]:
    """Splits `total` in proportion to `weights`, each share at least 1 (largest remainders).

    Raises:
      InputError: if there is not 1 for each.
    """
    if total < len(weights):
        raise InputError(f"{total} is too little for {len(weights)} segments")
    spare = total - len(weights)
    exact = np.asarray(weights, np.float64) * spare / sum(weights)
    out = np.floor(exact).astype(int)
    out[np.argsort(out - exact, kind="stable")[: spare - out.sum()]] += 1
    return [int(n) + 1 for n in out]


def total_frames(seconds: float, silence: int, sample_rate: int, hop_length: int) -> int:
    """Counts mel frames that a speech of `seconds` has beside `silence` samples of pauses.

    Raises:
      InputError: if nothing is left.
    """
    frames = round((seconds * sample_rate - silence) / hop_length)
    if frames < 1:
        pauses = silence / sample_rate
        raise InputError(f"{seconds:g} s leave no time to speak beside {pauses:g} s of pauses")
    return frames


def token_targets(
    duration: Duration, natural: Sequence[int], frames: int | None, frames_per_code: float
) -> list[Target]:
    """Computes the targets of all segments when T2S controls the duration.

    Args:
      duration: tokens, seconds or speed.
      natural: predicted number of codes of each segment.
      frames: from `total_frames` if seconds are asked for.
      frames_per_code: of generated speech.

    Returns:
      One target per segment.

    Raises:
      InputError: if a segment would have no code.
    """
    if duration.tokens is not None:
        return [Target(codes=n) for n in shares(duration.tokens, natural)]
    if frames is not None:
        parts = shares(frames, natural)
        return [Target(max(1, round(f / frames_per_code)), f) for f in parts]
    assert duration.speed is not None
    return [Target(codes=max(1, round(n / duration.speed))) for n in natural]


def stretch_targets(
    duration: Duration, spoken: Sequence[int], frames: int | None, frames_per_code: float
) -> list[Target]:
    """Computes the targets of segments whose codes are `spoken` already; arguments as above."""
    if frames is not None:
        return [Target(frames=f) for f in shares(frames, spoken)]
    assert duration.speed is not None
    natural = (natural_frames(n, frames_per_code) for n in spoken)
    return [Target(frames=max(1, round(n / duration.speed))) for n in natural]

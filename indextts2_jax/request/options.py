"""What a user can ask for beside text and voice; checked where it is made."""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from indextts2_jax.errors import InputError
from indextts2_jax.request.duration import SLOT_READINGS, Duration
from indextts2_jax.request.speaker import Speaker
from indextts2_jax.request.words import Words
from indextts2_jax.t2s.generate import DecodingRules, Sampling


@dataclasses.dataclass(frozen=True)
class Emotion:
    """Where the emotion comes from; the default is the prompt itself.

    Attributes:
      features: [T, F] of another recording, from `IndexTTS2.emotion_features`.
      alpha: 0..1, how far to go from the prompt's own emotion towards the other one. With weights
        and no other recording it scales the weights.
      weights: one weight in [0, 1] per emotion of the checkpoint.
      raw: keep a sum of weights over 0.8 (otherwise they are scaled to 0.8).
      random: mix random prototypes in place of those whose voice is nearest to the prompt's.
    """

    features: np.ndarray | None = None
    alpha: float = 1.0
    weights: np.ndarray | None = None
    raw: bool = False
    random: bool = False

    def __post_init__(self):
        if not 0 <= self.alpha <= 1:
            raise InputError(f"emotion alpha is {self.alpha}; it must be in 0 .. 1")


class Silences(NamedTuple):
    """Samples of silence in a speech."""

    leading: int
    interval: int  # between two segments
    trailing: int

    def total(self, num_segments: int) -> int:
        """All silence of a speech of so many segments."""
        return self.leading + (num_segments - 1) * self.interval + self.trailing


@dataclasses.dataclass(frozen=True)
class Options:
    """How to speak. The defaults are those of the released pipeline.

    Attributes:
      greedy: take the best code at every step.
      temperature: of the sampling, > 0.
      top_k: sample among the k best codes; 0 = all.
      top_p: ... and among the smallest set with this probability mass.
      repetition_penalty: divides the score of codes that were used; 1 = off.
      typical_mass: locally typical sampling with this mass; 1 = off.
      num_beams: of beam search (greedy) or beam sampling; None = what the checkpoint was released
        with, and 1 if greedy.
      length_penalty: beams compare by score / length**penalty.
      max_codes: most codes of a segment (one is 20 ms).
      seed: of all randomness.
      positions: "plain" or "released"; None = what the checkpoint says.
      duration_slots: name of one of `duration.SLOT_READINGS`; None = what the checkpoint says.
      max_text_tokens: longest segment.
      interval_silence_ms: silence between segments.
      leading_silence_ms: silence added in front of the speech.
      trailing_silence_ms: ... and behind it.
      trim_silence: cut near-silence off both ends of the speech first.
      steps: Euler steps of flow matching.
      guidance: of flow matching; 0 = off; None = what the checkpoint says.
      latents: S2M reads the GPT latents beside the codes, if it has learned to; without them the
        voice is a little nearer and the words are less clear (paper, Table 4).
      normalized: take the text as it is.
      trim_tail: drop up to 200 ms of hiss or silence behind every segment whose duration is free.
      fade: raised-cosine fade at the end of every segment.
      loudness: of the speech in LUFS; less where a sample would get over -1 dBFS; None = as it
        comes.
      compat: reproduce the defects of the original (splitter, raw weights, hiss, abrupt end).
    """

    greedy: bool = False
    temperature: float = 0.8
    top_k: int = 30
    top_p: float = 0.8
    repetition_penalty: float = 10.0
    typical_mass: float = 1.0
    num_beams: int | None = None
    length_penalty: float = 0.0
    max_codes: int = 1500
    seed: int = 0
    positions: str | None = None
    duration_slots: str | None = None
    max_text_tokens: int = 120
    interval_silence_ms: float = 200.0
    leading_silence_ms: float = 0.0
    trailing_silence_ms: float = 0.0
    trim_silence: bool = False
    steps: int = 25
    guidance: float | None = None
    latents: bool = True
    normalized: bool = False
    trim_tail: bool = True
    fade: bool = True
    loudness: float | None = None
    compat: bool = False

    def __post_init__(self):
        limits: dict[str, tuple[float, float]] = {
            "temperature": (1e-3, 100),
            "top_k": (0, 1_000_000),
            "top_p": (1e-6, 1),
            "repetition_penalty": (1e-3, 1000),
            "typical_mass": (1e-6, 1),
            "num_beams": (1, 64),
            "length_penalty": (-100, 100),
            "max_codes": (1, 1_000_000),
            "seed": (0, 2**32 - 1),
            "max_text_tokens": (1, 1_000_000),
            "interval_silence_ms": (0, 60_000),
            "leading_silence_ms": (0, 60_000),
            "trailing_silence_ms": (0, 60_000),
            "loudness": (-60, 0),
            "steps": (1, 1000),
            "guidance": (0, 100),
        }
        for name, (low, high) in limits.items():
            value = getattr(self, name)
            if value is not None and not low <= value <= high:  # also NaN
                raise InputError(f"{name} is {value}; it must be in {low:g} .. {high:g}")
        if self.positions not in (None, "plain", "released"):
            raise InputError(f"positions is {self.positions!r}; want plain or released")

        if self.duration_slots not in (None, *SLOT_READINGS):
            raise InputError(
                f"duration_slots is {self.duration_slots!r}; want one of {', '.join(SLOT_READINGS)}"
            )

    @property
    def fades(self) -> bool:
        """Whether segments end with a fade."""
        return self.fade and not self.compat

    def silences(self, sample_rate: int) -> Silences:
        """The silences that belong to the speech, in samples."""
        ms = self.leading_silence_ms, self.interval_silence_ms, self.trailing_silence_ms
        return Silences(*(int(sample_rate * x / 1000) for x in ms))

    def rules(self, checkpoint: DecodingRules) -> DecodingRules:
        """The checkpoint's rules of decoding, with the user's say on positions."""
        if self.positions is None:
            return checkpoint
        return dataclasses.replace(checkpoint, positions=self.positions)

    def slots(self, checkpoint: tuple[str, ...]) -> tuple[str, ...]:
        """What the duration slots hold for a wanted number of codes, given the checkpoint's own.

        Raises:
          InputError: if the checkpoint has another number of slots.
        """
        if self.duration_slots is None:
            return checkpoint
        slots = SLOT_READINGS[self.duration_slots]
        if len(slots) != len(checkpoint):
            raise InputError(
                f"duration slots {self.duration_slots!r} are {len(slots)}, the checkpoint has "
                f"{len(checkpoint)}"
            )
        return slots

    def beams(self, checkpoint: int) -> int:
        """The number of beams, given the checkpoint's own."""
        if self.num_beams is not None:
            return self.num_beams
        return 1 if self.greedy else checkpoint

    def sampling(self) -> Sampling:
        """How one item of a batch picks its codes."""
        return Sampling.make(
            1,
            greedy=self.greedy,
            temperature=self.temperature,
            top_k=self.top_k,
            top_p=self.top_p,
            repetition_penalty=self.repetition_penalty,
            typical_mass=self.typical_mass,
        )

    def program_key(self) -> tuple[Any, ...]:
        """Requests whose keys are equal can go through the networks in one batch."""
        beams = (1 if self.greedy else 0) if self.num_beams is None else self.num_beams
        return (
            self.positions, self.duration_slots, self.steps, self.guidance, self.latents, beams,
            self.length_penalty,
        )  # fmt: skip


def check_together(options: Options, duration: Duration) -> None:
    """Refuses what cannot be had together.

    Raises:
      InputError: for exact seconds and trimmed silence.
    """
    if options.trim_silence and duration.seconds is not None:
        raise InputError("a speech of exact seconds cannot have its silence trimmed")


@dataclasses.dataclass(frozen=True, eq=False)
class Request:
    """One text to speak."""

    text: str
    speaker: Speaker
    emotion: Emotion = Emotion()
    options: Options = Options()
    duration: Duration = Duration()
    glossary: Mapping[str, Any] | None = None  # term -> what to say; None = the checkpoint's own
    words: Words | None = None  # vectors of its words, for a checkpoint that learned to read them

    def __post_init__(self):
        check_together(self.options, self.duration)

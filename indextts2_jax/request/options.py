"""What a user can ask for beside text and voice; checked where it is made."""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple, TypeVar

import numpy as np

from indextts2_jax.errors import InputError
from indextts2_jax.request import fields
from indextts2_jax.request.duration import SLOT_READINGS, Duration
from indextts2_jax.request.fields import setting
from indextts2_jax.request.speaker import Speaker
from indextts2_jax.request.words import Words

MANY = 1_000_000
LONGEST_SILENCE_MS = 60_000
SAMPLING = ("greedy", "temperature", "top_k", "top_p", "repetition_penalty", "typical_mass")
Rules = TypeVar("Rules")


@fields.documented
@dataclasses.dataclass(frozen=True)
class Emotion:
    """Where the emotion comes from; the default is the prompt itself.

    Attributes:
      features: [T, F] of another recording, from `IndexTTS2.emotion_features`.
      weights: one weight in [0, 1] per emotion of the checkpoint.
    """

    features: np.ndarray | None = None
    alpha: float = setting(
        1.0,
        "0..1: how much of the other recording's emotion, or of the weights if there is none",
        limits=(0, 1),
        name="emotion_alpha",
    )
    weights: np.ndarray | None = None
    raw: bool = setting(
        False,
        "keep a sum of weights over 0.8 as it is, in place of scaling it",
        name="raw_emotion_weights",
    )
    random: bool = setting(
        False,
        "weights mix random prototypes, in place of those whose voice is nearest",
        name="emotion_random",
    )

    def __post_init__(self):
        fields.check(self)
        for name in ("features", "weights"):
            values = getattr(self, name)
            if values is not None and not np.isfinite(values).all():
                raise InputError(f"emotion {name} hold NaN or infinite values")


class Silences(NamedTuple):
    """Samples of silence in a speech."""

    leading: int
    interval: int  # between two segments
    trailing: int

    def total(self, num_segments: int) -> int:
        """Returns all silence of a speech of so many segments."""
        return self.leading + (num_segments - 1) * self.interval + self.trailing


def _text(default: Any, help: str, **declared: Any) -> Any:
    return setting(default, help, group="text", **declared)


def _silence(default: float, help: str, flag: str) -> Any:
    limits = (0, LONGEST_SILENCE_MS)
    return setting(default, help, group="text", limits=limits, flag=flag, metavar="MS")


def _decoding(default: Any, help: str, **declared: Any) -> Any:
    return setting(default, help, group="decoding", **declared)


def _wave(default: Any, help: str, **declared: Any) -> Any:
    return setting(default, help, group="mel and wave", **declared)


@fields.documented
@dataclasses.dataclass(frozen=True)
class Options:
    """How to speak. The defaults are those of the released pipeline."""

    normalized: bool = _text(False, "take the text as it is")
    language: str = _text(
        "en", "of a text that does not tell its own: of numbers alone", choices=("en", "zh")
    )
    max_text_tokens: int = _text(120, "longest segment", limits=(1, MANY))
    interval_silence_ms: float = _silence(200.0, "silence between segments", "--interval-silence")
    leading_silence_ms: float = _silence(0.0, "... added before the speech", "--leading-silence")
    trailing_silence_ms: float = _silence(0.0, "... and behind it", "--trailing-silence")
    trim_silence: bool = _text(False, "first cut near-silence off both ends")

    greedy: bool = _decoding(False, "take the best code every time")
    temperature: float = _decoding(0.8, "of the sampling", limits=(1e-3, 100))
    top_k: int = _decoding(30, "sample among the k best codes; 0 = all", limits=(0, MANY))
    top_p: float = _decoding(
        0.8, "... and among the smallest set with this probability; 1 = all", limits=(1e-6, 1)
    )
    repetition_penalty: float = _decoding(
        10.0, "divides the score of codes that were used; 1 = off", limits=(1e-3, 1000)
    )
    typical_mass: float = _decoding(
        1.0, "locally typical sampling with this mass; 1 = off", limits=(1e-6, 1)
    )
    num_beams: int | None = _decoding(
        None,
        "of beam search (greedy) or beam sampling (default: the checkpoint's; 1 if greedy)",
        limits=(1, 64),
        flag="--beams",
    )
    length_penalty: float = _decoding(
        0.0, "beams compare by score / length**penalty", limits=(-100, 100)
    )
    max_codes: int = _decoding(1500, "of a segment; one is 20 ms", limits=(1, MANY))
    seed: int = _decoding(0, "of all randomness", limits=(0, 2**32 - 1))
    positions: str | None = _decoding(
        None,
        "rows of the position table (default: the checkpoint's)",
        choices=("plain", "released"),
    )
    duration_slots: str | None = _decoding(
        None,
        "how the model is told a number of codes (default: the checkpoint's)",
        choices=tuple(SLOT_READINGS),
    )

    steps: int = _wave(25, "Euler steps of flow matching", limits=(1, 1000))
    guidance: float | None = _wave(
        None, "of flow matching; 0 = off (default: the checkpoint's, 0.7)", limits=(0, 100)
    )
    latents: bool = _wave(
        True,
        "let S2M read the GPT latents, if it has learned to; without them the voice is a little "
        "nearer and the words are less clear (paper, Table 4)",
    )
    trim_tail: bool = _wave(
        True, "drop up to 200 ms of hiss or silence behind segments whose duration is free"
    )
    fade: bool = _wave(True, "fade out at the end of every segment")
    loudness: float | None = _wave(
        None, "e.g. -23; peaks stay under -1 dBFS", limits=(-60, 0), metavar="LUFS"
    )
    compat: bool = _wave(
        False,
        "reproduce the defects of the original (splitter, raw weights, hiss, abrupt end)",
    )

    def __post_init__(self):
        fields.check(self)

    @property
    def fades(self) -> bool:
        """Whether segments end with a fade."""
        return self.fade and not self.compat

    def silences(self, sample_rate: int) -> Silences:
        """Returns the silences that belong to the speech, in samples."""
        ms = self.leading_silence_ms, self.interval_silence_ms, self.trailing_silence_ms
        return Silences(*(int(sample_rate * x / 1000) for x in ms))

    def rules(self, checkpoint: Rules) -> Rules:
        """Returns the checkpoint's rules of decoding, with the user's say on positions."""
        if self.positions is None:
            return checkpoint
        positions = self.positions
        return dataclasses.replace(checkpoint, positions=positions)  # pyright: ignore

    def slots(self, checkpoint: tuple[str, ...]) -> tuple[str, ...]:
        """Returns what the duration slots hold for a number of codes, given the checkpoint's own.

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
        """Returns the number of beams, given the checkpoint's own."""
        if self.num_beams is not None:
            return self.num_beams
        return 1 if self.greedy else checkpoint

    def sampling(self) -> dict[str, Any]:
        """Returns how the next code is picked: the settings of `Sampling.make`."""
        return {name: getattr(self, name) for name in SAMPLING}

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

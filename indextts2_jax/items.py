"""What lies between a request and the networks: its segments, their lengths, and who goes together.

    request -> Items -> set_targets() -> groups() -> networks -> stretch() -> networks

Dims: T 50 Hz frames or codes, M mel frames, L text tokens, D width.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from indextts2_jax.checkpoint.parts import Settings
from indextts2_jax.errors import InputError
from indextts2_jax.programs import stacked
from indextts2_jax.request import duration
from indextts2_jax.request.duration import Duration, Target
from indextts2_jax.request.options import Request
from indextts2_jax.request.results import Segment
from indextts2_jax.request.words import Words
from indextts2_jax.t2s import generate


@dataclasses.dataclass
class Item:
    """One segment of a request on its way through the networks."""

    request: Request
    index: int
    text: str
    ids: np.ndarray  # [L] int32
    latents: jax.Array  # [32, D]
    emotion: jax.Array  # [D]
    target: Target = Target()
    codes: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0, np.int32))
    stopped: bool = False
    gpt_latents: np.ndarray | None = None  # [T, D] of the codes, if decoding gives them
    generated: generate.Generated | None = None
    segment: Segment = dataclasses.field(init=False)

    def key(self, use: int) -> jax.Array:
        """Returns the PRNG key of this segment: use 0 decoding, 1 noise."""
        return jax.random.fold_in(jax.random.key(self.request.options.seed), 2 * self.index + use)

    def exact_codes(self) -> int:
        """Returns the number of codes that decoding must give; 0 if the model decides."""
        return (self.target.codes or 0) if self.request.duration.mode == "exact" else 0

    def most_codes(self, limit: int) -> int:
        """Returns the number of codes that decoding may write, stop included."""
        exact = self.exact_codes()
        return exact + 1 if exact else min(self.request.options.max_codes, limit)

    def frames(self, frames_per_code: float) -> int:
        """Returns the number of mel frames of its codes."""
        return self.target.frames or duration.natural_frames(len(self.codes), frames_per_code)

    @property
    def trims_tail(self) -> bool:
        """Whether it loses what is behind its speech."""
        options, free = self.request.options, self.request.duration.free
        return options.trim_tail and free and self.target.frames is None and not options.compat

    def by_itself(self) -> "Item":
        """Returns the same segment when nobody says how long it shall be: greedy, free."""
        options = dataclasses.replace(self.request.options, greedy=True)
        request = dataclasses.replace(self.request, duration=Duration(), options=options)
        return dataclasses.replace(self, request=request)


def groups(items: Sequence[Item], size: int) -> Iterator[list[Item]]:
    """Groups of at most `size` items that can share programs."""
    by_options: dict[Any, list[Item]] = {}
    for item in items:
        by_options.setdefault(item.request.options.program_key(), []).append(item)
    for members in by_options.values():
        for start in range(0, len(members), size):
            yield members[start : start + size]


def set_targets(
    request: Request,
    items: Sequence[Item],
    settings: Settings,
    most: int,
    natural_lengths: Callable[[], Sequence[int]],
) -> None:
    """Sets the targets of a request whose duration T2S controls.

    Args:
      request: what is wished.
      items: its segments.
      settings: of the checkpoint.
      most: codes that the model can say in one segment.
      natural_lengths: tells how many codes the items have by themselves; called for a speed.

    Raises:
      InputError: if there is no time to speak, or a segment would be too long.
    """
    wish = request.duration
    if wish.free or wish.by == "stretch":
        return
    by_text = [max(1, len(item.ids)) for item in items]
    natural = by_text if wish.speed is None else natural_lengths()
    frames = _wanted_frames(request, len(items), settings)
    targets = duration.token_targets(wish, natural, frames, settings.frames_per_code)
    longest = max(t.codes or 0 for t in targets)
    if longest > most:
        raise InputError(f"a segment would have {longest} codes; the model has {most} at most")
    for item, target in zip(items, targets, strict=True):
        item.target = target


def stretch(request: Request, items: Sequence[Item], settings: Settings) -> None:
    """Sets the numbers of mel frames of a request that is spoken and shall be stretched."""
    wish = request.duration
    if wish.free or wish.by == "tokens":
        return
    frames = _wanted_frames(request, len(items), settings)
    spoken = [len(item.codes) for item in items]
    targets = duration.stretch_targets(wish, spoken, frames, settings.frames_per_code)
    for item, target in zip(items, targets, strict=True):
        item.target = target


def stacked_words(
    items: Sequence[Item], frames: np.ndarray, width: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the word vectors [B, W, E] of items and the mel frames [B, W] of each word.

    Args:
      items: some of them with words.
      frames: [B] mel frames of their speech.
      width: E.
    """
    none = Words(np.zeros((1, width), np.float16), np.zeros(1, np.int32))
    words = [
        item.request.words.fit(int(number)) if item.request.words else none
        for item, number in zip(items, frames, strict=True)
    ]
    return stacked([w.vectors for w in words])[0], stacked([w.frames for w in words])[0]


def _wanted_frames(request: Request, num_segments: int, settings: Settings) -> int | None:
    """Counts mel frames of all segments together if the request says seconds."""
    if request.duration.seconds is None:
        return None
    cfg = settings.mel
    silence = request.options.silences(cfg.sample_rate).total(num_segments)
    return duration.total_frames(request.duration.seconds, silence, cfg.sample_rate, cfg.hop_length)

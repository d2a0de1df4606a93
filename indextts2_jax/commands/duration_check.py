"""Measures whether a checkpoint keeps to a number of codes by itself (`check-duration`).

The measure is the paper's (Table 3): targets are multiples of the number of codes that the model
says freely; the duration vector alone tells it, no stop code is masked or forced; the token number
error rate is 100 * sum |codes - target| / sum target. Every reading of the duration slots that the
checkpoint has room for is tried.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from indextts2_jax.pipeline import IndexTTS2
from indextts2_jax.request.duration import SLOT_READINGS, Duration
from indextts2_jax.request.options import Options, Request
from indextts2_jax.request.speaker import Speaker

FACTORS = (0.75, 0.875, 1.0, 1.125, 1.25)
TEXTS = (
    "The train to the coast leaves at half past seven.",
    "I never thought that we would see the harbour again.",
    "Please put the books back on the shelf before you go.",
    "She laughed, closed the door, and walked into the rain.",
)


def check_duration(
    tts: IndexTTS2,
    speaker: Speaker,
    texts: Sequence[str] = TEXTS,
    *,
    options: Options = Options(),
    glossary: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Counts codes for wanted numbers of them, under every reading of the slots.

    Args:
      tts: the checkpoint.
      speaker: the voice.
      texts: what to say.
      options: decoding settings; `duration_slots` is tried in all ways.
      glossary: term -> what to say; None = the checkpoint's own.

    Returns:
      `free`: codes of each text by itself. `readings`: name -> factor -> `targets`, `codes` and
      `error`, the token number error rate in percent.
    """
    requests = [Request(text, speaker, options=options, glossary=glossary) for text in texts]
    free = tts.count_codes(requests)
    room = len(tts.settings.duration_slots)
    readings: dict[str, dict[str, Any]] = {}
    for name in (n for n, slots in SLOT_READINGS.items() if len(slots) == room):
        told = dataclasses.replace(options, duration_slots=name)
        readings[name] = {}
        for factor in FACTORS:
            targets = [max(1, round(n * factor)) for n in free]
            codes = tts.count_codes(
                [
                    dataclasses.replace(r, options=told, duration=Duration(n, mode="natural"))
                    for r, n in zip(requests, targets, strict=True)
                ]
            )
            off = sum(abs(n - want) for n, want in zip(codes, targets, strict=True))
            error = round(100 * off / sum(targets), 3)
            readings[name][str(factor)] = {"targets": targets, "codes": codes, "error": error}
    return {"free": free, "readings": readings}

"""Measures whether a checkpoint keeps to a number of codes by itself (`check-duration`).

The measure is the paper's (Table 3): targets are multiples of the number of codes that the model
says freely; the duration vector alone tells it, no stop code is masked or forced; the token number
error rate is 100 * sum |codes - target| / sum target. Every reading of the duration slots that the
checkpoint has room for is tried. What can be read off the weights alone is told first: the rows of
the speed table begin as zeros, and one that no sample of the training used is exactly zero still.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from indextts2_jax import outputs
from indextts2_jax.checkpoint import store
from indextts2_jax.checkpoint.parts import Settings
from indextts2_jax.errors import InputError
from indextts2_jax.pipeline import IndexTTS2
from indextts2_jax.request.duration import SLOT_READINGS, Duration
from indextts2_jax.request.options import Options, Request
from indextts2_jax.request.speaker import Speaker
from indextts2_jax.t2s.gpt import T2S

FACTORS = (0.75, 0.875, 1.0, 1.125, 1.25)
TEXTS = (
    "The train to the coast leaves at half past seven.",
    "I never thought that we would see the harbour again.",
    "Please put the books back on the shelf before you go.",
    "She laughed, closed the door, and walked into the rain.",
)

# Which rows of the speed table are not zero -> what that suggests. All readings leave the duration
# free by (speed1, speed0) in some order; "first" and "second" have speed0 in every other sample,
# too, where "halves" has no speed at all.
_SUGGESTIONS = {
    (True, True): (
        ("first", "second", "halves"),
        "both rows were trained, as under every reading; much more of speed0 than of speed1 would "
        "speak against halves",
    ),
    (True, False): (
        ("first", "second"),
        "speed0 was trained and speed1 was not: speed0 stood beside positions, as in first and "
        "second",
    ),
    (False, True): (
        ("halves",),
        "speed1 was trained and speed0 was not: positions stood without speed0, as in halves",
    ),
    (False, False): (
        ("halves",),
        "neither row was trained: positions stood without speed0, as in halves, or there was no "
        "control of the duration at all",
    ),
}


def speed_rows(model: T2S) -> dict[str, Any]:
    """Reads off the weights what the two rows of the speed table suggest.

    Args:
      model: the T2S.

    Returns:
      `norms` of the rows, `position_norm`, the mean norm of the rows of the position table,
      `suggests`, names of readings, and `says`, the same in words; empty if there are no two rows.
    """
    if model.speed_embed is None or model.speed_embed.embedding.shape[0] != 2:
        return {}
    speeds = np.linalg.norm(np.asarray(model.speed_embed.embedding, np.float32), axis=1)
    positions = np.linalg.norm(np.asarray(model.code_position.embedding, np.float32), axis=1)
    suggests, says = _SUGGESTIONS[bool(speeds[0]), bool(speeds[1])]
    return {
        "norms": speeds.tolist(),
        "position_norm": float(positions.mean()),
        "suggests": list(suggests),
        "says": says,
    }


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
      `error`, the token number error rate in percent. `errors`: name -> the rate of all factors
      together; `unheard`: that of a model which heeds no number; `best`: the reading with the
      lowest rate, None if that is not below `unheard`.
    """
    requests = [Request(text, speaker, options=options, glossary=glossary) for text in texts]
    free = tts.count_codes(requests)
    room = len(tts.settings.duration_slots)
    readings: dict[str, dict[str, Any]] = {}
    targets = {factor: [max(1, round(n * factor)) for n in free] for factor in FACTORS}
    wanted = [n for of_factor in targets.values() for n in of_factor]
    errors: dict[str, float] = {}
    for name in (n for n, slots in SLOT_READINGS.items() if len(slots) == room):
        told = dataclasses.replace(options, duration_slots=name)
        readings[name], spoken = {}, []
        for factor in FACTORS:
            codes = tts.count_codes(
                [
                    dataclasses.replace(r, options=told, duration=Duration(n, mode="natural"))
                    for r, n in zip(requests, targets[factor], strict=True)
                ]
            )
            error = _error_rate(codes, targets[factor])
            readings[name][str(factor)] = {
                "targets": targets[factor],
                "codes": codes,
                "error": error,
            }
            spoken += codes
        errors[name] = _error_rate(spoken, wanted)
    unheard = _error_rate(free * len(FACTORS), wanted)
    best = min(errors, key=errors.__getitem__)
    return {
        "free": free,
        "readings": readings,
        "errors": errors,
        "unheard": unheard,
        "best": best if errors[best] < unheard else None,
    }


def _error_rate(codes: Sequence[int], targets: Sequence[int]) -> float:
    off = sum(abs(n - want) for n, want in zip(codes, targets, strict=True))
    return round(100 * off / sum(targets), 3)


def write_reading(tts: IndexTTS2, best: str | None) -> None:
    """Makes a reading that of the checkpoint.

    Args:
      tts: the checkpoint.
      best: the reading, from `check_duration`.

    Raises:
      InputError: if there is no best one, or the checkpoint cannot be written.
    """
    if best is None:
        raise InputError("no reading is heeded, so that none is written")
    settings = dataclasses.replace(Settings.load(tts.path), duration_slots=SLOT_READINGS[best])
    # Replaced, not changed in place: the file may be a hard link to that of another checkpoint.
    with outputs.replacing(tts.path / store.SETTINGS_FILE) as temporary:
        settings.save(temporary.parent, temporary.name)

"""Settings of batches: what is loaded of an utterance, how much at once, and of which data.

`train.data.batch_plan` plans by them, `train.data.batches` loads by them.
"""

import dataclasses
import math
import re
import zlib
from typing import Any

from indextts2_jax.errors import InputError

# What can be loaded of the target -> the column of the table that bounds its length.
TARGET_FIELDS = {
    "text": "text",
    "codes": "codes",
    "features": "codes",
    "mel": "frames",
    "word_vectors": "words",
    "audio": "frames",
    "bank": "codes",
    "prosody": "codes",
}
FEATURE_FIELDS = ("features", "bank", "prosody", "prompt_features")  # a row for each 20 ms
PROMPT_FIELDS = ("prompt_codes", "prompt_features", "prompt_mel", "prompt_style")
FIELDS = (*TARGET_FIELDS, *PROMPT_FIELDS, "speaker")
RECORDED_SPEED_ONLY = ("mel", "prompt_mel", "word_vectors", "audio", "bank", "prosody")
# What is padded -> the array of its lengths.
LENGTHS = {
    "text": "text_lengths",
    "codes": "code_lengths",
    "features": "feature_lengths",
    "mel": "mel_lengths",
    "audio": "audio_lengths",
    "bank": "bank_lengths",
    "prompt_codes": "prompt_code_lengths",
    "prompt_features": "prompt_feature_lengths",
    "prompt_mel": "prompt_mel_lengths",
}


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Which batches are made of which data.

    Attributes:
      paths: data directories, see `train.prepare`.
      fields: what is loaded, of FIELDS.
      measure: "codes" or "frames": what lengths and the budget count.
      budget: padded codes or frames of a whole batch. A prompt's frames count where its mel is
        loaded, since S2M reads it in one sequence with the target.
      weights: shares of the data sets in what is drawn; 0 leaves one out. Empty = every utterance
        equally often.
      max_rows: of a batch.
      rows_multiple: the rows of a batch are a multiple of it (devices that split a batch, times
        accumulation); a batch has at least so many, even beyond the budget.
      prompt_codes: longest prompt; longer ones are cropped, at random.
      speed_probability: of another speed than the recorded one, for the target and, drawn on its
        own, for the prompt (paper section 3.1.1).
      max_codes: longer utterances, at any speed that is drawn, are left out. 0 = no limit.
      max_text: longest text in tokens, as above.
      validation: utterances of each data set that are kept from training.
      held_out: regexes of names of speakers of whom nothing is trained; validation utterances are
        then of these alone.
      held_out_share: of all speakers, held out as well; a digest of the name decides.
      seed: of all that is drawn, but for validation.
      round_size: utterances of a round; at most as many as there are.
      ladder_ratio: between the lengths of one bucket and the next.
      crop: of longer utterances a random piece of so many codes or frames (`measure`) is loaded,
        of all fields the same piece; 0 = the whole. Validation loads a fixed one.
    """

    paths: tuple[str, ...]
    fields: tuple[str, ...]
    measure: str
    budget: int
    weights: tuple[float, ...] = ()
    max_rows: int = 256
    rows_multiple: int = 1
    prompt_codes: int = 300
    speed_probability: float = 0.5
    max_codes: int = 0
    max_text: int = 0
    validation: int = 0
    held_out: tuple[str, ...] = ()
    held_out_share: float = 0.0
    seed: int = 0
    round_size: int = 1 << 16
    ladder_ratio: float = 1.25
    crop: int = 0

    def __post_init__(self) -> None:
        for name in ("budget", "max_rows", "rows_multiple", "prompt_codes", "round_size"):
            _demand(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        for name in ("max_codes", "max_text", "validation", "seed", "crop"):
            _demand(getattr(self, name) >= 0, name, getattr(self, name), "0 or more")
        distinct = 0 < len(self.paths) == len(set(self.paths))
        _demand(distinct, "paths", self.paths, "directories, each once")
        known = set(self.fields) <= set(FIELDS)
        _demand(known, "fields", self.fields, f"some of {', '.join(FIELDS)}")
        _demand(self.measure in ("codes", "frames"), "measure", self.measure, "codes or frames")
        shares = self.weights or (1.0,) * len(self.paths)
        sound = len(shares) == len(self.paths) and min(shares) >= 0 and 0 < sum(shares) < math.inf
        _demand(sound, "weights", self.weights, "one a path, none negative, not all 0")
        _demand(
            0 <= self.speed_probability <= 1, "speed_probability", self.speed_probability, "0-1"
        )
        _demand(0 <= self.held_out_share < 1, "held_out_share", self.held_out_share, "0 to 1")
        _demand(self.ladder_ratio > 1, "ladder_ratio", self.ladder_ratio, "more than 1")
        if self.speed_probability and (recorded := set(self.fields) & set(RECORDED_SPEED_ONLY)):
            only = f"0, since {', '.join(sorted(recorded))} is of the recorded speed"
            _demand(False, "speed_probability", self.speed_probability, only)

        if self.crop and (whole := set(self.columns) - {self.measure}):
            fields = [f for f in self.fields if TARGET_FIELDS.get(f) in whole]
            _demand(False, "crop", self.crop, f"0, since {', '.join(fields)} cannot be cropped")

    def holds_out(self, speaker: str) -> bool:
        """Tells whether nothing of a speaker is trained, in whatever data set."""
        if any(re.fullmatch(pattern, speaker) for pattern in self.held_out):
            return True
        return zlib.crc32(speaker.encode()) < self.held_out_share * 2**32

    @property
    def has_prompts(self) -> bool:
        """Whether something of another utterance of the speaker is loaded."""
        return not set(self.fields).isdisjoint(PROMPT_FIELDS)

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of the table that decide which bucket an utterance goes to."""
        return tuple(
            dict.fromkeys(
                (self.measure, *(c for f, c in TARGET_FIELDS.items() if f in self.fields))
            )
        )


def _demand(fulfilled: bool, name: str, got: Any, want: str) -> None:
    if not fulfilled:
        raise InputError(f"data.{name} is {got}; want {want}")

"""What hears words: the units of texts, the heads on the encoder, and where a checkpoint has them.

    hidden states of the last layer [B, T, D] -> Heads -> logits of units [B, T, K]
                                                       -> log F0, voicing, log energy [B, T, 3]

    CKPT/recognizer.json        settings
    CKPT/weights/recognizer     the heads

Dims: B rows, T frames, D width, K units, L labels, P pieces.
"""

import dataclasses
import json
import pathlib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.sharding import PartitionSpec as P

from indextts2_jax.checkpoint import store
from indextts2_jax.errors import InputError
from indextts2_jax.nn import pytree
from indextts2_jax.text.tokenize import Tokenizer

FILE, PART = "recognizer.json", "recognizer"
UNITS = ("characters", "pieces")
SHARDING_RULES = ((r".*", P()),)
_WORD = "\u2581"  # how SentencePiece begins a word
_NO_TEXT = re.compile(r"<.*>")  # bytes, and the frame of a text


@dataclasses.dataclass(frozen=True)
class RecognizerConfig:
    """Which units the heads tell apart.

    Attributes:
      units: one of UNITS.
      num_units: K, blank included.
      width: of the encoder.
      prosody: whether there is a head for pitch, voicing and energy.
    """

    units: str
    num_units: int
    width: int
    prosody: bool = False


class Heads(nnx.Module):
    """Linear read-outs of the encoder's last layer."""

    def __init__(self, cfg: RecognizerConfig, *, rngs: nnx.Rngs):
        self.units = nnx.Linear(cfg.width, cfg.num_units, rngs=rngs)
        self.prosody = nnx.Linear(cfg.width, 3, rngs=rngs) if cfg.prosody else None

    def __call__(self, hidden: jax.Array) -> jax.Array:
        """Maps [B, T, D] to logits [B, T, K]."""
        return self.units(hidden)


@dataclasses.dataclass(frozen=True)
class Units:
    """The labels of texts.

    Attributes:
      names: [K] of the units; the first is the blank.
      table: [P] the units of every piece of the tokenizer.
    """

    names: tuple[str, ...]
    table: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, tokenizer: pathlib.Path, kind: str) -> "Units":
        """Reads the units of a tokenizer's model file.

        Args:
          tokenizer: `bpe.model`.
          kind: "pieces", whose first, the beginning of a text, is the blank; or "characters": those
            that the pieces are made of.
        """
        names = Tokenizer(tokenizer).pieces
        if kind == "pieces":
            return cls(tuple(names), tuple((i,) for i in range(len(names))))
        if kind != "characters":
            raise InputError(f"units is {kind!r}; want one of {', '.join(UNITS)}")
        spelled = ["" if _NO_TEXT.fullmatch(name) else name for name in names]
        characters = sorted(set("".join(spelled)))
        number = {character: i for i, character in enumerate(characters, start=1)}
        table = tuple(tuple(number[x] for x in name) for name in spelled)
        return cls(("", *characters), table)

    def labels(self, pieces: Sequence[int]) -> list[int]:
        """Finds the labels of the pieces of a text, without the blank that a text begins with."""
        out = [unit for piece in pieces for unit in self.table[piece]]
        return out[1:] if out and self.names[out[0]] == _WORD else out

    def text(self, labels: Iterable[int]) -> str:
        """Joins labels to a text."""
        return "".join(self.names[i] for i in labels).replace(_WORD, " ").strip()

    def batch(self, batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Puts `labels` [B, T / 2] and `label_lengths` [B] in place of the text of a batch.

        A text of more labels than that keeps its length, by which the loss knows it.
        """
        out = {name: x for name, x in batch.items() if not name.startswith("text")}
        size = batch["features"].shape[1] // 2
        labels = np.zeros((len(batch["text"]), size), np.int32)
        lengths = np.zeros(len(labels), np.int32)
        for row, (pieces, count) in enumerate(
            zip(batch["text"], batch["text_lengths"], strict=True)
        ):
            own = self.labels(pieces[:count])
            lengths[row] = len(own)
            labels[row, : len(own)] = own[:size]
        return out | {"labels": labels, "label_lengths": lengths}


def abstract(cfg: RecognizerConfig) -> Any:
    """Returns the heads with shapes in place of arrays."""
    return pytree.abstract(lambda rngs: Heads(cfg, rngs=rngs))


def config_of(path: pathlib.Path) -> RecognizerConfig:
    """Reads the settings of a checkpoint's recognizer.

    Raises:
      InputError: if it has none.
    """
    if not (path / FILE).is_file():
        raise InputError(f"{path} holds no recognizer; train first: python -m train.encoder")
    return store.from_dict(RecognizerConfig, json.loads((path / FILE).read_text()))


def fits(path: pathlib.Path, cfg: RecognizerConfig) -> bool:
    """Tells whether a checkpoint has a recognizer of these settings."""
    return (path / FILE).is_file() and config_of(path) == cfg


def load(path: pathlib.Path) -> Heads:
    """Reads the heads of a checkpoint.

    Raises:
      InputError: if it has none, or they are damaged.
    """
    cfg = config_of(path)
    model = abstract(cfg)
    wanted = {n: jax.ShapeDtypeStruct(s, np.float32) for n, s in pytree.shapes(model).items()}
    return pytree.fill(model, store.load_arrays(path / "weights" / PART, wanted))

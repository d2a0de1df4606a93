"""Normalized text -> pieces -> ids, with the release's SentencePiece model.

Source: spec/frontend_emotion_pipeline.md, section B.2.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from indextts2_jax.errors import InputError
from indextts2_jax.text.language import CJK

_CJK_CHARACTER = re.compile(f"([{CJK}])")
_UNKNOWN_SURFACE = "\u2047"  # what SentencePiece decodes unknown pieces to
_BLANKS_NEAR_CJK = re.compile(
    rf"(?<=[{CJK}{_UNKNOWN_SURFACE}])\s+|\s+(?=[{CJK}{_UNKNOWN_SURFACE}])"
)


class Tokenizer:
    """A SentencePiece model whose every CJK character stands alone and that knows upper case only.

    Args:
        model_path: the release's `bpe.model`.
        compat: give a text of one character to the model as it is, as the original does; lower
            case letters are then unknown.

    Attributes:
        vocab_size: number of pieces.
    """

    def __init__(self, model_path: str | Path, compat: bool = False):
        import sentencepiece

        if not Path(model_path).is_file():
            raise InputError(f"no SentencePiece model at {model_path}")
        self._model = sentencepiece.SentencePieceProcessor(model_file=str(model_path))
        self._compat = compat
        self.vocab_size: int = self._model.vocab_size()

    @property
    def pieces(self) -> list[str]:
        """All pieces, by id."""
        return [self._model.id_to_piece(i) for i in range(self.vocab_size)]

    def encode(self, text: str) -> list[str]:
        """Returns the pieces of a normalized text; those that begin a word begin with U+2581."""
        if not self._compat or len(text.strip()) > 1:
            parts = (part.strip() for part in _CJK_CHARACTER.split(text))
            text = " ".join(part for part in parts if part).upper()
        return self._model.encode(text, out_type=str)

    def ids(self, pieces: Sequence[str]) -> list[int]:
        """Returns the ids of the pieces; those that the model lacks get its id of the unknown."""
        return self._model.piece_to_id(list(pieces))

    def unknown(self, pieces: Sequence[str]) -> list[str]:
        """Returns those of the pieces that the model lacks: they will not be spoken."""
        unk_id = self._model.unk_id()
        return [piece for piece, i in zip(pieces, self.ids(pieces), strict=True) if i == unk_id]

    def can_speak(self, pieces: Sequence[str]) -> bool:
        """Says whether a piece that the model knows has a letter or digit; single bytes have none.

        Of marks alone T2S would make up words.
        """
        return any(
            any(map(str.isalnum, piece))
            for piece, i in zip(pieces, self.ids(pieces), strict=True)
            if not (self._model.is_unknown(i) or self._model.is_byte(i))
        )

    def decode(self, ids: Sequence[int]) -> str:
        """Returns the text of ids: upper case, without the blanks around CJK characters."""
        return _BLANKS_NEAR_CJK.sub("", self._model.decode(list(ids))).strip()

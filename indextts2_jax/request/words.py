"""Vectors of the words of a text and how long each lasts: a condition of S2M (paper appendix B).

Dims: W words, E vector width.
"""

import dataclasses
import os
import zipfile

import numpy as np

from indextts2_jax.errors import InputError


@dataclasses.dataclass(frozen=True, eq=False)
class Words:
    """What explicit text features are made of.

    Attributes:
      vectors: [W, E] float16, one per word.
      frames: [W] int32, mel frames that each word covers; for speech that is not made yet, in any
        unit, such as those of another recording of the text.
    """

    vectors: np.ndarray
    frames: np.ndarray

    @classmethod
    def load(cls, path: str | os.PathLike) -> "Words":
        """Reads an npz file with `vectors` and `frames`.

        Raises:
          InputError: if it is no such file.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                vectors, frames = file["vectors"], file["frames"]
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise InputError(f"{path} is no file of word vectors: {error}") from None
        if vectors.ndim != 2 or frames.shape != vectors.shape[:1]:
            shapes = f"vectors {vectors.shape}, frames {frames.shape}"
            raise InputError(f"{path} has {shapes}, want [W, E] and [W]")
        if (frames < 0).any() or not frames.sum() > 0:
            raise InputError(f"{path}: frames are counts, and some are over 0")
        if not np.isfinite(vectors).all():
            raise InputError(f"{path}: vectors hold NaN or infinite values")
        return cls(vectors.astype(np.float16), frames.astype(np.int32))

    def fit(self, num_frames: int) -> "Words":
        """Returns the same words, stretched so that they cover `num_frames` frames."""
        ends = np.cumsum(self.frames, dtype=np.float64)
        ends = np.rint(ends * (num_frames / ends[-1])).astype(np.int32)
        return dataclasses.replace(self, frames=np.diff(ends, prepend=np.int32(0)))

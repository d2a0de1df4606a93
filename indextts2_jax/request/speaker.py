"""What is read off a prompt recording, as a reusable object and a file."""

import dataclasses
import os
import zipfile

import numpy as np

from indextts2_jax import outputs
from indextts2_jax.errors import InputError

FORMAT = 1


@dataclasses.dataclass(frozen=True)
class Speaker:
    """Everything that is read off a prompt recording; reusable, and saveable as an `npz`.

    Attributes:
      features: [T, F] normalised w2v-BERT features (22.05 kHz, then 16 kHz), for timbre.
      codes: [T] int32 semantic codes of the prompt.
      embedding: [T, C] their embedding.
      mel: [M, 80] log-mel.
      style: [192] CAMPPlus embedding.
      emotion_features: [T', F] features of the recording resampled to 16 kHz at once, for emotion.
      fingerprint: of the encoders that made it.
    """

    features: np.ndarray
    codes: np.ndarray
    embedding: np.ndarray
    mel: np.ndarray
    style: np.ndarray
    emotion_features: np.ndarray
    fingerprint: str

    def save(self, path: str | os.PathLike) -> None:
        """Writes the speaker as an `npz` file, whole or not at all; makes missing folders.

        Raises:
          InputError: if the system cannot write it.
        """
        with outputs.replacing(path) as temporary, open(temporary, "wb") as file:
            np.savez(file, format=np.int32(FORMAT), **dataclasses.asdict(self))

    @classmethod
    def load(cls, path: str | os.PathLike) -> "Speaker":
        """Reads a speaker file.

        Raises:
          InputError: if it is missing, broken, or of another format version.
        """
        names = {field.name for field in dataclasses.fields(cls)}
        try:
            with open(path, "rb") as file:
                arrays = dict(np.load(file, allow_pickle=False))
        except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise InputError(f"{path} is no speaker file: {error}") from None
        if arrays.keys() != names | {"format"} or arrays["format"] != FORMAT:
            raise InputError(f"{path} is no speaker file of format version {FORMAT}")
        del arrays["format"]
        if bad := [
            k for k, x in arrays.items() if x.dtype.kind == "f" and not np.isfinite(x).all()
        ]:
            raise InputError(f"{path}: {' and '.join(bad)} hold NaN or infinite values")
        return cls(**{**arrays, "fingerprint": str(arrays["fingerprint"])})  # pyright: ignore

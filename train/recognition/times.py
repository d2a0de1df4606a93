"""When words and pieces are said, from an alignment of their labels.

    logits of a recognizer -> Viterbi (`train.objectives.ctc`) -> frames of labels -> Times

Labels are heard as short peaks: a word begins well where it is said (to about two frames), and may
last longer than its last label. `word_frames` has the whole recording in words: silence is split in
the middle between two of them.

Dims: T frames of 20 ms, M mel frames, K units, P pieces, L labels, W words.
"""

import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np

from train.objectives import ctc
from train.recognition.recognizer import Units

FRAME_SECONDS = 0.02
_WORD = "\u2581"  # how SentencePiece begins a word


@dataclasses.dataclass(frozen=True)
class Timed:
    """A word or a piece, and the frames in which it is heard.

    Attributes:
      text: of it.
      first: frame.
      stop: the frame behind the last.
    """

    text: str
    first: int
    stop: int


@dataclasses.dataclass(frozen=True)
class Times:
    """An aligned utterance.

    Attributes:
      words: in order.
      pieces: those of the tokenizer that have a sound.
      score: log-probability of the path, per frame; the nearer to 0 the better it fits.
    """

    words: tuple[Timed, ...]
    pieces: tuple[Timed, ...]
    score: float

    def word_frames(self, num_tokens: int, num_frames: int) -> list[int]:
        """How many mel frames [W] each word covers, as the files of paper appendix B have it.

        Args:
          num_tokens: T of the utterance.
          num_frames: M; what the result adds up to.
        """
        middles = [(a.stop + b.first) / 2 for a, b in itertools.pairwise(self.words)]
        ends = np.rint(np.array([*middles, num_tokens]) * num_frames / num_tokens).astype(int)
        return np.diff(ends, prepend=0).tolist()


def times_of(log_probabilities: np.ndarray, pieces: Sequence[int], units: Units) -> Times:
    """Aligns the pieces of a text.

    Args:
      log_probabilities: [T, K] float of the units.
      pieces: [P] numbers of the pieces.
      units: the labels.

    Raises:
      ValueError: if the text has no labels, or the frames cannot hold them.
    """
    labels = units.labels(pieces)
    if not labels:
        raise ValueError("the text has no labels")
    spans, score = ctc.align(log_probabilities, np.array(labels))
    names = [units.names[label] for label in labels]
    # The mark in front of the first word is no label.
    owners = [number for number, piece in enumerate(pieces) for _ in units.table[piece]]
    owners = owners[len(owners) - len(labels) :]

    words, word = [], []
    for name, (first, stop) in zip(names, spans, strict=True):
        if name.startswith(_WORD) and word:
            words.append(_joined(word))
            word = []
        if sound := name.removeprefix(_WORD):
            word.append(Timed(sound, int(first), int(stop)))
    if word:
        words.append(_joined(word))

    found = []
    for _, group in itertools.groupby(range(len(labels)), key=lambda i: owners[i]):
        own = [Timed(names[i], int(spans[i][0]), int(spans[i][1])) for i in group]
        sounding = [part for part in own if part.text != _WORD]
        if sounding:
            text = "".join(part.text for part in own)
            found.append(Timed(text, sounding[0].first, sounding[-1].stop))
    return Times(tuple(words), tuple(found), score / len(log_probabilities))


def _joined(parts: Sequence[Timed]) -> Timed:
    return Timed("".join(part.text for part in parts), parts[0].first, parts[-1].stop)

"""Sentences of `train.emotion_data` as batches of tokens.

    distribution   chat prompt                            -> teacher [E]
    generative     chat prompt + answer with its end      -> targets [A], the tokens of the answer

Every batch has one shape, because the sentences are short. The rows of a step follow from the seed
and its number alone.

Dims: N sentences, B rows, T tokens, A tokens of an answer, E emotions.
"""

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from indextts2_jax.emotion.text_to_emotion import EmotionSet, chat_tokens
from train.emotion_data import Sentence

FORMS = ("distribution", "generative")
MULTIPLE = 8  # of which T and A are multiples


def targets(sentences: Sequence[Sentence], emotions: EmotionSet) -> np.ndarray:
    """Maps the teacher's seven probabilities to another set of emotions.

    Emotions that the sentences do not know have 0; what the set does not know counts as neutral.

    Args:
      sentences: N, with distributions of the seven.
      emotions: the set.

    Returns:
      [N, E] float32, each row sums to 1.
    """
    out = np.zeros((len(sentences), len(emotions.names)), np.float32)
    given = np.array([s.distribution for s in sentences]).reshape(len(sentences), -1)
    for column, name in enumerate(EmotionSet.paper().names):
        place = name if name in emotions.names else emotions.neutral
        out[:, emotions.names.index(place)] += given[:, column]
    return out


def answer(distribution: np.ndarray, emotions: EmotionSet) -> str:
    """Writes what a generative model has to answer: JSON of hundredths.

    Args:
      distribution: [E].
      emotions: the set, whose keys the answer has.
    """
    scores = (round(float(x), 2) for x in distribution)
    return json.dumps(dict(zip(emotions.keys, scores, strict=True)), ensure_ascii=False)


def encode(
    sentences: Sequence[Sentence], tokenizer: Any, emotions: EmotionSet, form: str
) -> list[dict[str, Any]]:
    """Encodes, sentence by sentence, what the model reads and has to say.

    Args:
      sentences: N.
      tokenizer: of transformers, with a chat template.
      emotions: that the model has to know.
      form: one of FORMS.

    Returns:
      N of {"tokens": list, "teacher": [E]}, and "targets": list in the generative form.
    """
    out = []
    for sentence, teacher in zip(sentences, targets(sentences, emotions), strict=True):
        row: dict[str, Any] = {
            "tokens": chat_tokens(tokenizer, emotions, sentence.text),
            "teacher": teacher,
        }
        if form == "generative":
            said = tokenizer(answer(teacher, emotions), add_special_tokens=False)["input_ids"]
            row["targets"] = [*said, tokenizer.eos_token_id]
            row["tokens"] = [*row["tokens"], *said]
        out.append(row)
    return out


@dataclasses.dataclass(frozen=True)
class Table:
    """Encoded sentences as arrays.

    Attributes:
      arrays: name -> [N, ...]. `tokens` [N, T] and `targets` [N, A] are padded on the right; that
        many are `lengths` and `target_lengths` [N]. The last token predicts the last target.
    """

    arrays: Mapping[str, np.ndarray]

    @classmethod
    def of(cls, rows: Sequence[Mapping[str, Any]], widths: Mapping[str, int]) -> "Table":
        """Pads what `encode` made.

        Args:
          rows: of one split.
          widths: "tokens" -> T and "targets" -> A, see `widths_of`.
        """
        teacher = np.array([row["teacher"] for row in rows], np.float32)
        arrays: dict[str, np.ndarray] = {"teacher": teacher}
        for name, lengths in (("tokens", "lengths"), ("targets", "target_lengths")):
            if name in widths:
                arrays[name] = np.zeros((len(rows), widths[name]), np.int32)
                arrays[lengths] = np.array([len(row[name]) for row in rows], np.int32)
                for padded, row in zip(arrays[name], rows, strict=True):
                    padded[: len(row[name])] = row[name]
        return cls(arrays)

    def __len__(self) -> int:
        return len(self.arrays["lengths"])

    def batch(self, indices: np.ndarray, rows: int) -> dict[str, np.ndarray]:
        """Returns this process's share of some sentences, repeated to `rows` with weight 0."""
        weight = np.zeros(rows, np.float32)
        weight[: len(indices)] = 1
        whole = {name: x[np.resize(indices, rows)] for name, x in self.arrays.items()}
        number = rows // jax.process_count()
        own = slice(jax.process_index() * number, (jax.process_index() + 1) * number)
        return {name: x[own] for name, x in {**whole, "weight": weight}.items()}

    def endless(self, rows: int, seed: Sequence[int], start: int) -> Iterator[dict[str, Any]]:
        """Yields batches in another order each time through.

        Args:
          rows: of all processes.
          seed: of the orders.
          start: first step.
        """
        epoch, order = -1, np.zeros(0, np.int64)
        step = start
        while True:
            indices = []
            for place in range(step * rows, (step + 1) * rows):
                if place // len(self) != epoch:
                    epoch = place // len(self)
                    order = np.random.default_rng([*seed, epoch]).permutation(len(self))
                indices.append(order[place % len(self)])
            yield self.batch(np.array(indices), rows)
            step += 1

    def once(self, rows: int) -> list[dict[str, np.ndarray]]:
        """Yields batches of all sentences in their order."""
        starts = range(0, len(self), rows)
        return [self.batch(np.arange(i, min(i + rows, len(self))), rows) for i in starts]


def widths_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Finds to what `Table` pads, so that the longest of all sentences fits."""
    names = [name for name in ("tokens", "targets") if name in rows[0]]
    return {name: -(-max(len(r[name]) for r in rows) // MULTIPLE) * MULTIPLE for name in names}

"""A sentence -> how much of each emotion it asks for.

A checkpoint's Qwen3 has one of two forms, which `emotion_reader` tells apart by its config:

    generative     text -> chat prompt -> Qwen3 -> JSON scores -> `parse_emotions` -> weights
    distribution   text -> chat prompt -> Qwen3 with a classification head -> softmax -> weights

The released model is generative. The paper's weights sum to 1 and mix mean prototypes
(`EmotionSet.max_sum`, `averaged`), so that nothing of the speaker's own manner is left.

Dims: B batch, T tokens, E emotions.

Source: paper appendix A (seven emotions); the released models (eight, scores under Chinese keys).
"""

import dataclasses
import json
import logging
import os
import pathlib
import re
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from indextts2_jax.emotion.qwen3 import Qwen3, Sampling, bucket, generate
from indextts2_jax.errors import InputError

MAX_NEW_TOKENS = 256  # an answer takes about 70
MAX_SCORE = 1.2  # the release lets the model exaggerate a little

_logger = logging.getLogger(__name__)


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


@dataclasses.dataclass(frozen=True)
class EmotionSet:
    """The emotions of a model, how its text model speaks of them, and how their weights are mixed.

    Attributes:
      names: in the order of the model's emotion weights.
      keys: the text model's key or label of each name.
      neutral: the name that takes weight 1 where an answer says nothing.
      averaged: weights mix the mean of an emotion's prototypes, not one of them.
      max_sum: weights whose sum is larger are scaled down to it, unless a person wants them raw.
      system: the text model's system message; None = none.
      user: its user message, with `{text}` in it.
      label_fields: keys under which an answer without scores may hold one emotion's key or name.
      melancholic: (sad, melancholic): names whose scores trade places, because the generator never
        says melancholic by itself, where the text has one of `melancholic_words`.
      melancholic_words: lower case.
    """

    names: tuple[str, ...]
    keys: tuple[str, ...]
    neutral: str
    averaged: bool = False
    max_sum: float = 0.8  # beyond it, too little is left of the speaker's own manner
    system: str | None = None
    user: str = "{text}"
    label_fields: tuple[str, ...] = ("emotion", "label")
    melancholic: tuple[str, str] | None = None
    melancholic_words: tuple[str, ...] = ()

    @classmethod
    def indextts2(cls) -> "EmotionSet":
        """Returns the released model's eight."""
        return cls(
            names=_words("happy angry sad afraid disgusted melancholic surprised calm"),
            keys=_words("高兴 愤怒 悲伤 恐惧 反感 低落 惊讶 自然"),
            neutral="calm",
            system="文本情感分类",  # "text emotion classification"
            label_fields=("emotion", "label", "情感", "情绪"),
            melancholic=("sad", "melancholic"),
            melancholic_words=_words("低落 melancholy melancholic depression depressed gloomy"),
        )

    @classmethod
    def paper(cls) -> "EmotionSet":
        """Returns the paper's seven, in its order, under the names that both sets share."""
        return cls(
            names=_words("angry happy afraid disgusted sad surprised calm"),
            keys=_words("Anger Happiness Fear Disgust Sadness Surprise Neutral"),
            neutral="calm",
            averaged=True,
            max_sum=1.0,
            user="<input>{text}</input>",
        )

    @classmethod
    def of_labels(cls, labels: Sequence[str]) -> "EmotionSet":
        """Returns the set that a classifier with these labels was trained on.

        Raises:
          InputError: none that is known.
        """
        for emotions in (cls.paper(), cls.indextts2()):
            if {*map(emotions.find, labels)} == {*emotions.names}:
                return emotions
        raise InputError(f"no known set of emotions has the labels {', '.join(labels)}")

    def find(self, label: str) -> str | None:
        """Returns the name that `label` (a name or key, in any case) stands for."""
        folded = label.strip().lower()
        for name, key in zip(self.names, self.keys, strict=True):
            if folded in (name, key.lower()):
                return name
        return None

    def columns(self, labels: Sequence[str]) -> list[int]:
        """Finds where each emotion [E] is among `labels` (names or keys, each emotion once).

        Raises:
          InputError: they are not these emotions.
        """
        found = [self.find(label) for label in labels]
        if len(found) != len(self.names) or {*found} != {*self.names}:
            got, want = ", ".join(labels), ", ".join(self.names)
            raise InputError(f"the labels of the text model are {got}; the emotions are {want}")
        return [found.index(name) for name in self.names]

    def messages(self, text: str) -> list[dict[str, str]]:
        """Returns the chat that asks the generator about `text`."""
        user = {"role": "user", "content": self.user.format(text=text)}
        return [user] if self.system is None else [{"role": "system", "content": self.system}, user]


@dataclasses.dataclass(frozen=True)
class ParsedEmotion:
    """Weight per name, in the order of the set.

    `fallback` says why the weights are merely neutral; None = they are what the model gave.
    """

    weights: dict[str, float]
    fallback: str | None = None


def parse_emotions(generated: str, source: str, emotions: EmotionSet) -> ParsedEmotion:
    """Reads the generator's answer about a sentence.

    Understood are a JSON object of scores (clamped to 0 .. 1.2), a JSON object or string that names
    one emotion, and `key: number` pairs in broken JSON. Any other answer, and one in which all
    scores are zero, means neutral.

    Args:
      generated: the answer.
      source: the sentence.
      emotions: what the generator was trained on.

    Returns:
      The weights, on the release's answers equal to those of the original; never raises.
    """
    try:
        scores = _scores(_answer(generated), source, emotions)
        if not any(scores.values()):
            raise ValueError("no emotion has a score")
    except ValueError as error:
        _logger.warning("text emotion is %s: %s in %r", emotions.neutral, error, generated[:200])
        neutral = {name: float(name == emotions.neutral) for name in emotions.names}
        return ParsedEmotion(neutral, fallback=str(error))
    return ParsedEmotion(scores)


def _answer(generated: str) -> Any:
    """Decodes JSON; from anything else gathers `key: number` pairs."""
    try:
        return json.loads(generated)
    except (json.JSONDecodeError, RecursionError):
        return dict(re.findall(r'([^\s",:]{1,20})"?\s*:\s*([\d.]+)', generated))


def _scores(answer: Any, source: str, emotions: EmotionSet) -> dict[str, float]:
    """Reads a weight per name; a ValueError says what cannot be read."""
    zeros = dict.fromkeys(emotions.names, 0.0)
    swap = any(word in source.lower() for word in emotions.melancholic_words)
    if not isinstance(answer, dict):
        if swap or (label := emotions.find(str(answer))) is None:
            raise ValueError("the answer is no object of scores")
        return zeros | {label: 1.0}
    names = dict(zip(emotions.keys, emotions.names, strict=True))
    given = {names[key]: value for key, value in answer.items() if key in names}
    if swap and emotions.melancholic:
        sad, melancholic = emotions.melancholic
        given |= {sad: given.get(melancholic, 0), melancholic: given.get(sad, 0)}
    labels = given.values() if given else map(answer.get, emotions.label_fields)
    for label in map(emotions.find, map(str, labels)):
        if label is not None:
            return zeros | {label: 1.0}
    return zeros | {name: _score(value) for name, value in given.items()}


def _score(value: Any) -> float:
    try:
        return max(0.0, min(MAX_SCORE, float(value)))  # in this order NaN becomes 1.2, as upstream
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{value!r} is no score") from None


class TextToEmotion:
    """Asks a generative Qwen3 which emotions a sentence calls for."""

    def __init__(self, model: Qwen3, tokenizer: Any, emotions: EmotionSet):
        """Keeps the parts.

        Args:
          model: fine-tuned to answer with scores.
          tokenizer: a checkpoint directory, whose `generation_config.json` then also gives the end
            tokens and the way to draw; or a transformers tokenizer with a chat template.
          emotions: what the model was trained on.

        Raises:
          InputError: there is no such directory.
        """
        settings: dict[str, Any] = {}
        if isinstance(tokenizer, str | os.PathLike):
            file = pathlib.Path(tokenizer) / "generation_config.json"
            if file.exists():
                settings = json.loads(file.read_text(encoding="utf-8"))
        self.model, self.tokenizer, self.emotions = model, load_tokenizer(tokenizer), emotions
        ends = settings.get("eos_token_id", self.tokenizer.eos_token_id)
        self.eos_ids = tuple(ends) if isinstance(ends, list) else (ends,)
        self.sampling = Sampling.from_release(settings)

    def __call__(self, text: str, *, key: jax.Array | None = None) -> ParsedEmotion:
        """Weighs the emotions of `text`.

        Args:
          text: the sentence, or a description of a mood.
          key: lets a model whose settings ask for it draw its answer; None takes the likeliest.

        Returns:
          Weight per emotion; neutral if the answer cannot be read.
        """
        [tokens] = generate(
            self.model,
            [chat_tokens(self.tokenizer, self.emotions, text)],
            max_new_tokens=MAX_NEW_TOKENS,
            eos_ids=self.eos_ids,
            sampling=self.sampling,
            key=key,
        )
        return parse_emotions(self.answer(tokens.tolist()), text, self.emotions)

    def answer(self, tokens: list[int]) -> str:
        """Returns the text of generated tokens, without thoughts."""
        end = self.tokenizer.convert_tokens_to_ids("</think>")
        while end in tokens:
            tokens = tokens[tokens.index(end) + 1 :]
        return self.tokenizer.decode(tokens, skip_special_tokens=True)


class TextToDistribution:
    """Reads a distribution over the emotions off a classifying Qwen3, as in the paper."""

    def __init__(self, model: Qwen3, tokenizer: Any, emotions: EmotionSet):
        """Keeps the parts.

        Args:
          model: with the emotions for labels, in any order.
          tokenizer: a checkpoint directory, or a transformers tokenizer with a chat template.
          emotions: what the model was trained on.

        Raises:
          InputError: there is no such directory, or the labels are not these emotions.
        """
        self._columns = emotions.columns(model.cfg.labels)
        self.model, self.tokenizer, self.emotions = model, load_tokenizer(tokenizer), emotions

    def __call__(self, text: str) -> ParsedEmotion:
        """Weighs the emotions of `text`; the weights sum to 1."""
        [row] = self.distribution([text])
        return ParsedEmotion(dict(zip(self.emotions.names, row.tolist(), strict=True)))

    def distribution(self, texts: Sequence[str]) -> np.ndarray:
        """Probabilities of the emotions.

        Args:
          texts: B sentences, at least one.

        Returns:
          [B, E] float32, each row sums to 1.
        """
        prompts = [chat_tokens(self.tokenizer, self.emotions, text) for text in texts]
        lengths = np.array([len(prompt) for prompt in prompts], np.int32)
        padded = np.zeros((len(prompts), bucket(prompts)), np.int32)
        for row, prompt in zip(padded, prompts, strict=True):
            row[: len(prompt)] = prompt
        return np.asarray(_probabilities(self.model, padded, lengths))[:, self._columns]


@jax.jit
def _probabilities(model: Qwen3, tokens: jax.Array, lengths: jax.Array) -> jax.Array:
    return jax.nn.softmax(model.label_logits(tokens, lengths))


def distribution_loss(logits: jax.Array, teacher: jax.Array) -> jax.Array:
    """Computes the cross-entropy of a student's distributions with its teacher's (appendix A).

    Args:
      logits: [B, E] of the student, from `Qwen3.label_logits`.
      teacher: [B, E] probabilities, in the order of the student's labels.

    Returns:
      mean_b - sum_e teacher[b, e] * log softmax(logits)[b, e], [] float32.
    """
    log_student = jax.nn.log_softmax(logits.astype(jnp.float32))
    return -jnp.mean(jnp.sum(teacher * log_student, axis=-1))


EmotionReader = TextToEmotion | TextToDistribution


def emotion_reader(model: Qwen3, tokenizer: Any, emotions: EmotionSet) -> EmotionReader:
    """Returns what reads the emotions of a text with `model`, by the form of its config.

    Args:
      model: with labels (distribution form) or without (generative form).
      tokenizer: a checkpoint directory, or a transformers tokenizer with a chat template.
      emotions: what the model was trained on.

    Raises:
      InputError: as the two classes.
    """
    return (TextToDistribution if model.cfg.labels else TextToEmotion)(model, tokenizer, emotions)


def chat_tokens(tokenizer: Any, emotions: EmotionSet, text: str) -> list[int]:
    """Returns the tokens of the chat that asks about `text`, up to the answer, without thinking."""
    chat = tokenizer.apply_chat_template(
        emotions.messages(text), tokenize=False, add_generation_prompt=True, enable_thinking=False
    )
    return tokenizer(chat)["input_ids"]


def load_tokenizer(tokenizer: Any) -> Any:
    """Returns the transformers tokenizer of a directory; a tokenizer is returned as it is.

    Raises:
      InputError: there is no such directory.
    """
    if not isinstance(tokenizer, str | os.PathLike):
        return tokenizer
    directory = pathlib.Path(tokenizer)
    if not directory.is_dir():
        raise InputError(f"no such tokenizer directory: {directory}")
    from transformers import AutoTokenizer  # here, because the import takes seconds

    return AutoTokenizer.from_pretrained(directory, local_files_only=True)

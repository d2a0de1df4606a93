"""Asks a language model behind an OpenAI-compatible endpoint for sentences and distributions.

    describe / utter   five sentences of an emotion, about a topic
    judge              a sentence -> probability of each emotion; the mean of several answers

Source: paper, appendix A (three prompts; these are in words of our own).
"""

import collections
import concurrent.futures
import contextlib
import dataclasses
import hashlib
import http.client
import json
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from indextts2_jax.emotion.text_to_emotion import EmotionSet
from indextts2_jax.errors import InputError
from train.corpus.emotion_sentences import KINDS, make_line
from train.emotion_data import MAX_CHARACTERS, SUM_TOLERANCE, Sentence, folded

KEYS = EmotionSet.paper().keys
AT_ONCE = 5  # sentences of an answer (paper)
FRUITLESS = 5  # answers without a new sentence, after which a cell is as full as it gets
TOPICS = (
    "family", "work", "school", "food", "travel", "weather", "money", "health", "friends",
    "a secret", "a journey at night", "a game", "music", "an animal", "the neighbours", "a letter",
    "an accident", "a holiday", "a promise", "the sea", "an old house", "a mistake", "a visitor",
    "the news", "a stranger", "a machine",
)  # fmt: skip
LANGUAGES = {"en": "English", "zh": "Chinese (simplified)"}

PROMPTS = {
    "descriptive": (
        "Write {count} different sentences in {language}. Each of them describes a state of mind "
        "or a situation from which a reader can tell that the person in it feels this emotion: "
        "{emotion}. Each has fewer than 50 characters. They are about: {topic}. Answer with JSON "
        'alone, in this form: {{"sentences": ["...", "..."]}}'
    ),
    "script": (
        "Write {count} different lines in {language} for an actor. Each is what somebody says "
        "aloud in the middle of this emotion: {emotion}. Each has fewer than 50 characters. They "
        'are about: {topic}. Answer with JSON alone, in this form: {{"sentences": ["..."]}}'
    ),
}
JUDGE = (
    "How likely is each of these emotions for the voice that fits the sentence below: {keys}? "
    "Answer with one JSON object alone: those seven names as keys, probabilities with two decimals "
    "as values, their sum 1.\n\nSentence: {text}"
)


class TeacherError(InputError):
    """The endpoint cannot be used; the message is one line without the key."""


class UnreadableError(TeacherError):
    """No answer is what was asked for; to another question it may be."""


@dataclasses.dataclass(frozen=True)
class Teacher:
    """An OpenAI-compatible chat endpoint.

    Attributes:
      url: base of it, such as https://example.org/v1; `/chat/completions` is added.
      model: its name there.
      key: sent as bearer token; "" sends none.
      tries: of one question, before it is given up.
      timeout_s: of one try.
      pause_s: before the second try; doubled before each further one.
    """

    url: str
    model: str
    key: str = dataclasses.field(default="", repr=False)
    tries: int = 6
    timeout_s: float = 300.0
    pause_s: float = 1.0

    def __post_init__(self):
        if not re.match(r"https?://\S+$", self.url):
            raise TeacherError(f"the teacher's URL is {self.url!r}; want http(s)://...")
        if not self.model:
            raise TeacherError("the teacher's model has no name")

    @classmethod
    def from_environment(cls, url: str | None, model: str | None) -> "Teacher":
        """Makes one of OPENAI_BASE_URL, OPENAI_MODEL and OPENAI_API_KEY, unless told otherwise.

        Raises:
          TeacherError: if there is no URL or model.
        """
        get = os.environ.get
        url, model = url or get("OPENAI_BASE_URL"), model or get("OPENAI_MODEL")
        if not url or not model:
            raise TeacherError(
                "no teacher: set OPENAI_BASE_URL and OPENAI_MODEL, or --url, --model"
            )
        return cls(url, model, get("OPENAI_API_KEY", ""))

    def sentences(self, kind: str, lang: str, emotion: str, topic: str) -> list[str]:
        """Asks for sentences; those that are too long are left out.

        Args:
          kind: "descriptive" or "script".
          lang: "en" or "zh".
          emotion: a key of the paper's set.
          topic: what they are about.

        Raises:
          TeacherError: if the endpoint refuses or is not there.
          UnreadableError: if it never answers as wanted.
        """
        prompt = PROMPTS[kind].format(
            count=AT_ONCE, language=LANGUAGES[lang], emotion=emotion, topic=topic
        )

        def read(answer: Any) -> list[str]:
            texts = answer.get("sentences") if isinstance(answer, dict) else answer
            if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
                raise UnreadableError("no list of sentences")
            texts = (" ".join(text.split()) for text in texts)
            return [text for text in texts if 0 < len(text) <= MAX_CHARACTERS]

        return self._ask(prompt, read)

    def distribution(self, text: str, answers: int) -> dict[str, float]:
        """Asks how likely each emotion is.

        Args:
          text: the sentence.
          answers: how many are averaged.

        Returns:
          Key -> probability, rounded to four decimals.

        Raises:
          TeacherError: as `sentences`.
          UnreadableError: likewise.
        """
        prompt = JUDGE.format(keys=", ".join(KEYS), text=text)
        rows = [self._ask(prompt, _distribution) for _ in range(answers)]
        mean = np.mean(rows, axis=0).round(4)
        return dict(zip(KEYS, mean.tolist(), strict=True))

    def _ask(self, prompt: str, read: Callable[[Any], Any]) -> Any:
        """Asks until `read` understands the JSON of the answer, and returns what it read."""
        reason = ""
        for number in range(self.tries):
            if number:
                time.sleep(self.pause_s * 2 ** (number - 1))
            try:
                return read(_json_in(self._post(prompt)))
            except urllib.error.HTTPError as error:
                reason = f"HTTP {error.code} {error.reason}"
                if error.code not in (408, 409, 425, 429) and error.code < 500:
                    break
            except (OSError, http.client.HTTPException) as error:  # URLError and timeouts, too
                reason = f"{getattr(error, 'reason', '') or error or type(error).__name__}"
            except UnreadableError as error:
                if number == self.tries - 1:
                    raise
                reason = str(error)
        raise TeacherError(f"{self.url}: {reason}")

    def _post(self, prompt: str) -> str:
        body = {"model": self.model, "messages": [{"role": "user", "content": prompt}]}
        headers = {"Content-Type": "application/json"}
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        request = urllib.request.Request(
            self.url.rstrip("/") + "/chat/completions", json.dumps(body).encode(), headers
        )
        with urllib.request.urlopen(request, timeout=self.timeout_s) as response:
            content = response.read()
        try:
            return str(json.loads(content)["choices"][0]["message"]["content"])
        except (ValueError, LookupError, TypeError):
            raise UnreadableError("no chat completion") from None


def _json_in(text: str) -> Any:
    """Finds the JSON of an answer that may have thoughts before it and a fence around it."""
    text = text.rpartition("</think>")[2]
    try:
        start = next(match.start() for match in re.finditer(r"[\[{]", text))
        return json.JSONDecoder().raw_decode(text, start)[0]
    except (StopIteration, ValueError, RecursionError):
        raise UnreadableError(f"no JSON in {text[:80]!r}") from None


def _distribution(answer: Any) -> list[float]:
    if not isinstance(answer, dict) or answer.keys() != {*KEYS}:
        raise UnreadableError("not the seven emotions")
    values = [answer[key] for key in KEYS]
    if any(isinstance(x, bool) or not isinstance(x, int | float) or not x >= 0 for x in values):
        raise UnreadableError("no probabilities")
    if abs(sum(values) - 1) > SUM_TOLERANCE:
        raise UnreadableError(f"probabilities whose sum is {sum(values):.3g}")
    return [x / sum(values) for x in values]


def ask(
    teacher: Teacher,
    have: Sequence[Sentence],
    count: int,
    langs: Sequence[str],
    *,
    answers: int = 1,
    workers: int = 4,
) -> Iterator[dict[str, Any]]:
    """Asks for what is missing, question beside question.

    Args:
      teacher: whom.
      have: sentences of earlier calls; they count, and do not come again.
      count: of all sentences, about: equally many of each emotion, type and language.
      langs: "en", "zh" or both.
      answers: distributions of a sentence that are averaged.
      workers: questions at a time.

    Yields:
      Lines for `train.emotion_data`, as they are done. Sentences whose distribution cannot be read
      are left out, and so is the rest of a cell of which nothing new comes any more.

    Raises:
      TeacherError: if the endpoint refuses or is not there.
    """
    cells = [(kind, lang, emotion) for kind in KINDS for lang in langs for emotion in KEYS]
    counts = collections.Counter((s.type, s.lang, s.emotion) for s in have)
    missing = {cell: -(-count // len(cells)) - counts[cell] for cell in cells}
    known = {folded(sentence.text) for sentence in have}
    rounds = counts.copy()  # other topics than those of the call before
    fruitless: collections.Counter[Any] = collections.Counter()

    def write(cell: tuple[str, str, str]) -> list[str]:
        with contextlib.suppress(UnreadableError):
            return teacher.sentences(*cell, TOPICS[rounds[cell] % len(TOPICS)])
        return []

    def judge(text: str) -> dict[str, float] | None:
        with contextlib.suppress(UnreadableError):
            return teacher.distribution(text, answers)
        return None

    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        while todo := [c for c in cells if missing[c] > 0 and fruitless[c] < FRUITLESS]:
            rounds.update(todo)
            new: list[tuple[tuple[str, str, str], str]] = []
            for cell, texts in zip(todo, pool.map(write, todo), strict=True):
                fresh = {folded(text): text for text in texts if folded(text) not in known}
                fruitless[cell] = 0 if fresh else fruitless[cell] + 1
                taken = list(fresh.items())[: missing[cell]]
                known.update(key for key, _ in taken)
                new += [(cell, text) for _, text in taken]
            judged = pool.map(judge, [text for _, text in new])
            for ((kind, lang, emotion), text), label in zip(new, judged, strict=True):
                if label is not None:
                    missing[kind, lang, emotion] -= 1
                    yield make_line(
                        kind,
                        lang,
                        text,
                        emotion,
                        distribution=label,
                        teacher=teacher.model,
                        split=split_of(text),
                    )


def split_of(text: str) -> str:
    """Decides by its text alone where a sentence belongs: 90, 5 and 5 %."""
    number = int(hashlib.sha256(folded(text).encode()).hexdigest()[:8], 16) % 100
    return "train" if number < 90 else "valid" if number < 95 else "test"

"""One row of a corpus -> all that can be known of it without a network, or why it is of no use.

    audio -> mono, `mel.sample_rate` -> mel
                                     -> speeds -> 16 kHz -> w2v-BERT input, filterbank
    text  -> normalised -> ids

The signals are made as those of a prompt are (`IndexTTS2.speaker`). Imports no JAX, so that the
worker processes start fast.

Dims: T 50 Hz tokens, B bank frames of 10 ms, M mel frames, H samples of a mel frame, L text
tokens, W words, E vector width.
"""

import collections
import concurrent.futures
import contextlib
import dataclasses
import functools
import hashlib
import multiprocessing
import os
import pathlib
import re
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np
import soundfile

from indextts2_jax.audio import fbank, mel, wav
from indextts2_jax.errors import InputError
from indextts2_jax.request.fields import is_unicode
from indextts2_jax.request.words import Words
from indextts2_jax.text.glossary import load_glossary
from indextts2_jax.text.language import CJK
from indextts2_jax.text.normalize import Normalizer
from indextts2_jax.text.tokenize import Tokenizer
from train.corpus.corpora import Row
from train.corpus.prosody import prosody
from train.corpus.speed import change_speed

SPEEDS = (0.75, 1.33)  # of the other takes; paper section 2.2 gives no range
CODE_SECONDS = 0.02
AHEAD = 4  # recordings of each worker that may wait
MAX_UNKNOWN = 0.1  # of the pieces of a text; more tells of another language than the tokenizer's
_CJK_LETTERS = 3  # Latin ones that take as long to say as an ideograph or a kana
_CJK_CHARACTER = re.compile(f"[{CJK}]")


@dataclasses.dataclass(frozen=True)
class Limits:
    """What a recording must keep to be of use.

    Attributes:
      min_seconds: shortest recording.
      max_seconds: longest recording.
      min_rate: fewest letters per second of speech; an ideograph counts as three.
      max_rate: most.
    """

    min_seconds: float = 0.3
    max_seconds: float = 30.0
    min_rate: float = 1.0
    max_rate: float = 40.0

    def __post_init__(self):
        if not 0.1 <= self.min_seconds <= self.max_seconds:
            raise InputError(f"{self.min_seconds} to {self.max_seconds} seconds: no such lengths")
        if not 0 <= self.min_rate <= self.max_rate:
            raise InputError(f"{self.min_rate} to {self.max_rate} letters a second: no such rates")


@dataclasses.dataclass(frozen=True)
class Rejection:
    """A row that is left out."""

    id: str
    audio: str
    reason: str  # one of few
    detail: str


class TakeInput(NamedTuple):
    """What w2v-BERT reads of a recording at one speed."""

    speed: float
    features: np.ndarray  # [T, 160] float32
    mask: np.ndarray  # [T] bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recording:
    """A usable row; attributes as those of `train.data.shards.Utterance`."""

    row: Row
    text: str
    text_ids: np.ndarray  # [L] int32
    seconds: float
    rate: float  # letters per second
    takes: tuple[TakeInput, ...]  # the recorded speed first
    bank: np.ndarray  # [B, 80] float32, free of its mean: what CAMPPlus reads
    mel: np.ndarray  # [M, 80] float16
    word_vectors: np.ndarray | None = None  # [W, E] float16
    word_frames: np.ndarray | None = None  # [W] int32
    audio: np.ndarray | None = None  # [M, H] int16
    prosody: np.ndarray | None = None  # [T, 3] float16


Read = Callable[[Iterable[Row | Rejection]], Iterator[Recording | Rejection]]


class _Useless(Exception):
    """Reason and detail of a rejection."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class RecordingReader:
    """Reads rows; can be sent to another process.

    Attributes:
      tokenizer: folder with the tokenizer (and the glossary) of a checkpoint.
      mel: the spectrogram.
      limits: what is rejected.
      max_text: most text tokens.
      max_tokens: most features of 20 ms; bounds how slow another take can be.
      speeds: takes at another speed, besides the recorded one.
      seed: of these speeds.
      keep_audio: keep the audio, and measure the prosody.
    """

    tokenizer: pathlib.Path
    mel: mel.MelConfig
    limits: Limits
    max_text: int
    max_tokens: int
    speeds: int
    seed: int
    keep_audio: bool = False

    def __call__(self, row: Row) -> Recording | Rejection:
        """Returns what was read, or why the row is of no use."""
        try:
            return self._read(row)
        except _Useless as useless:
            return Rejection(row.id, str(row.audio), *useless.args)

    def _read(self, row: Row) -> Recording:
        for name in ("id", "speaker", "text", "language", "emotion"):
            if not is_unicode(getattr(row, name)):
                raise _Useless("no UTF-8", name)
        if row.problem:
            raise _Useless("no transcript", row.problem)
        if not row.speaker:
            raise _Useless("no speaker", "")
        text, ids = self._text(row.text)
        audio = self._audio(row.audio)
        seconds = len(audio) / self.mel.sample_rate
        rate = num_letters(text) / seconds
        if not self.limits.min_rate <= rate <= self.limits.max_rate:
            raise _Useless("speaking rate", f"{rate:.1f} letters a second: {text[:80]}")
        log_mel = mel.log_mel(audio, self.mel)
        vectors, frames = (None, None) if row.words is None else _words(row.words, len(log_mel))
        audio_16k = self._to_16k(audio)
        bank = fbank.kaldi_fbank(audio_16k)
        takes = [TakeInput(1.0, *fbank.m4t_features(audio_16k))]
        for speed in draw_speeds(row.id, self.seed, self.speeds, seconds, self.max_tokens):
            varied = change_speed(audio, speed, self.mel.sample_rate)
            takes.append(TakeInput(speed, *fbank.m4t_features(self._to_16k(varied))))
        samples = measured = None
        if self.keep_audio:
            samples = _frames(audio, len(log_mel), self.mel.hop_length)
            measured = prosody(audio_16k, len(takes[0].features)).astype(np.float16)
        return Recording(
            row=row,
            text=text,
            text_ids=ids,
            seconds=seconds,
            rate=rate,
            takes=tuple(takes),
            bank=bank - bank.mean(axis=0),
            mel=log_mel.astype(np.float16),
            word_vectors=vectors,
            word_frames=frames,
            audio=samples,
            prosody=measured,
        )

    def _to_16k(self, audio: np.ndarray) -> np.ndarray:
        return wav.resample_sinc(audio, self.mel.sample_rate, fbank.SAMPLE_RATE)

    def _text(self, text: str) -> tuple[str, np.ndarray]:
        if "\ufffd" in text:
            raise _Useless("broken text", text[:80])
        normalize, tokenizer = _text_front_end(self.tokenizer)
        text = normalize(text)
        if not num_letters(text):
            raise _Useless("empty text", text[:80])
        pieces = tokenizer.encode(text)
        unknown = tokenizer.unknown(pieces)
        if len(unknown) > MAX_UNKNOWN * len(pieces):
            raise _Useless("unknown characters", " ".join(unknown)[:80])
        if len(pieces) > self.max_text:
            raise _Useless("long text", f"{len(pieces)} tokens, at most {self.max_text}")
        return text, np.array(tokenizer.ids(pieces), np.int32)

    def _audio(self, path: pathlib.Path) -> np.ndarray:
        """Reads mono samples [N] at the rate of the mel."""
        limits = self.limits
        try:
            with soundfile.SoundFile(path) as file:
                rate = file.samplerate
                samples = file.read(int((limits.max_seconds + 1) * rate), "float32", always_2d=True)
        except Exception as error:  # whatever a decoder makes of a broken file
            reason = getattr(error, "error_string", str(error))
            raise _Useless("unreadable audio", reason) from None
        seconds = len(samples) / rate
        if seconds < limits.min_seconds:
            raise _Useless("too short", f"{seconds:.2f} s, at least {limits.min_seconds} s")
        if seconds > limits.max_seconds:
            raise _Useless("too long", f"more than {limits.max_seconds} s")
        if bad := int((~np.isfinite(samples)).sum()):
            raise _Useless("not finite", f"{bad} samples are NaN or infinite")
        mono = samples.mean(axis=1) if samples.shape[1] > 1 else samples[:, 0]
        if (peak := float(np.abs(mono).max())) < wav.MIN_PEAK:
            raise _Useless("silent", f"peak {peak:.1e} of full scale")
        return wav.resample(mono, rate, self.mel.sample_rate)


@contextlib.contextmanager
def reading(reader: RecordingReader, workers: int) -> Iterator[Read]:
    """Yields a function that reads rows, in order; rejections among them pass through.

    Args:
      reader: of each row.
      workers: processes that do it; 0 = this one does.
    """
    if not workers:
        yield functools.partial(map, functools.partial(_read, reader))
        return
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(name, "1")  # of the workers, which are many: NumPy here has read it
    pool = concurrent.futures.ProcessPoolExecutor(
        workers, multiprocessing.get_context("spawn"), _start_worker
    )

    def read(rows: Iterable[Row | Rejection]) -> Iterator[Recording | Rejection]:
        waiting: collections.deque[concurrent.futures.Future] = collections.deque()
        for row in rows:
            waiting.append(pool.submit(_read, reader, row))
            if len(waiting) > AHEAD * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()

    try:
        yield read
    finally:
        pool.shutdown(cancel_futures=True)


def _read(reader: RecordingReader, row: Row | Rejection) -> Recording | Rejection:
    return reader(row) if isinstance(row, Row) else row


def _start_worker() -> None:
    """Leaves interrupts to the process that started this one, and ends with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _frames(audio: np.ndarray, num_frames: int, hop_length: int) -> np.ndarray:
    """Samples [N] in [-1, 1] as 16-bit ones, those of every mel frame in a row: [M, H]."""
    samples = np.clip(np.rint(audio[: num_frames * hop_length] * 32768), -32768, 32767)
    return samples.astype(np.int16).reshape(num_frames, hop_length)


def num_letters(text: str) -> int:
    """Counts how much there is to say: letters and digits, an ideograph for three."""
    return sum(_CJK_LETTERS if _CJK_CHARACTER.match(char) else 1 for char in text if char.isalnum())


def draw_speeds(
    name: str, seed: int, count: int, seconds: float, max_tokens: int
) -> tuple[float, ...]:
    """Draws speeds of an utterance from SPEEDS, where its features stay within `max_tokens`.

    Args:
      name: of the utterance; decides on the draw together with the seed.
      seed: of all.
      count: how many.
      seconds: length of the recording.
      max_tokens: most features.
    """
    digest = hashlib.sha256(f"{seed} {name}".encode()).digest()
    draws = np.random.default_rng(list(digest)).random(count)
    slowest, fastest = SPEEDS
    slowest = min(max(slowest, seconds / CODE_SECONDS / max_tokens), fastest)
    return tuple(round(float(slowest + draw * (fastest - slowest)), 4) for draw in draws)


def _words(path: pathlib.Path, num_frames: int) -> tuple[np.ndarray, np.ndarray]:
    try:
        words = Words.load(path)
    except InputError as error:
        raise _Useless("broken words", str(error)) from None
    if words.frames.sum() != num_frames:
        detail = f"frames add up to {words.frames.sum()}, want {num_frames}"
        raise _Useless("broken words", f"{path}: {detail}")
    return words.vectors, words.frames


@functools.lru_cache(maxsize=2)
def _text_front_end(folder: pathlib.Path) -> tuple[Normalizer, Tokenizer]:
    glossary = folder / "glossary.yaml"
    return (
        Normalizer(glossary=load_glossary(glossary) if glossary.is_file() else None),
        Tokenizer(folder / "bpe.model"),
    )

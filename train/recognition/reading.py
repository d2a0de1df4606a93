"""Lets a run of T2S be judged without a sound: does it read its texts, and is it understood?

    RUN/samples/STEP/attention.png       on the text, of the head that follows one text best
    RUN/samples/STEP/transcripts.jsonl   text, heard, heard_true, codes, stopped

In the metrics, over `readings` validation utterances (of the first batches if none is held out),
each with another utterance of its speaker as the prompt, and without a told duration:

    sample_monotonicity       of the head that follows the texts best, while T2S reads the true
                              codes: see `train.objectives.alignment`
    sample_cer, sample_wer    error rates of characters and words in what T2S speaks
    sample_cer_true, ..._wer_ the same in the true codes: the best that T2S can reach
    sample_stopped            share of what T2S speaks that came to an end by itself

Error rates are those of the recognizer that `train.encoder` leaves in a checkpoint, which hears the
codes through the codec; S2M and vocoder are not needed. T2S samples with the default temperature,
and without a penalty for repetitions, which speech has.

Dims: B rows, T codes, K layers, N heads.
"""

import dataclasses
import functools
import json
import pathlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from indextts2_jax import programs
from indextts2_jax.checkpoint.parts import PARTS, Settings, load_part, load_tables
from indextts2_jax.errors import InputError
from indextts2_jax.nn import pytree
from indextts2_jax.nn.masking import length_mask
from indextts2_jax.t2s.generate import CodeLimits, Sampling, generate
from indextts2_jax.t2s.gpt import T2S, Prefix
from indextts2_jax.text.tokenize import Tokenizer
from train.data.shards import Utterance
from train.objectives import alignment, ctc
from train.recognition import recognizer
from train.recognition.hearing import Hearing
from train.recognition.recognizer import Units
from train.recognition.transcripts import error_rate
from train.run.artifacts import Result
from train.run.config import Config
from train.run.feed import Feed
from train.run.samples import PROMPT_FEATURES
from train.run.task import Batch
from train.run.writer import MetricsWriter

ROWS = 8  # utterances that are read at once
TEXT_SIZE = 32  # padded length of a short text
METRICS = ("sample_cer", "sample_wer", "sample_cer_true", "sample_wer_true", "sample_stopped")

Pairs = Sequence[tuple[Utterance, Utterance]]  # an utterance, and another of its speaker


@dataclasses.dataclass(frozen=True)
class Listener:
    """Hears codes: the recognizer of a checkpoint.

    Attributes:
      hearing: the networks.
      modules: filled.
      units: of the labels.
    """

    hearing: Hearing
    modules: Mapping[str, Any]
    units: Units

    @classmethod
    def load(cls, path: pathlib.Path, settings: Settings) -> "Listener":
        """Reads that of a checkpoint.

        Raises:
          InputError: if it has none.
        """
        heads, tables = recognizer.config_of(path), load_tables(path)
        encoder, codec = (settings.configs[part] for part in ("w2v_bert", "semantic_codec"))
        mean, variance = tables["feature_mean"], tables["feature_variance"]
        hearing = Hearing(encoder, heads, codec, settings.feature_layer, mean, variance)
        parts = {name: load_part(path, settings, name) for name in ("w2v_bert", "semantic_codec")}
        units = Units.of(path / "tokenizer" / "bpe.model", heads.units)
        return cls(hearing, {**parts, "recognizer": recognizer.load(path)}, units)

    def __call__(self, codes: Sequence[np.ndarray]) -> list[str]:
        """Hears the texts of some sequences of codes [T]."""
        padded, lengths = programs.stacked(codes)
        best = np.asarray(self._best(self.modules, padded, lengths))
        scale = best.shape[1] // padded.shape[1]
        return [
            self.units.text(ctc.read(row[: scale * length]))
            for row, length in zip(best, lengths, strict=True)
        ]

    @functools.cached_property
    def _best(self) -> Callable[..., jax.Array]:
        def best(modules: Any, codes: jax.Array, lengths: jax.Array) -> jax.Array:
            mask = length_mask(lengths, codes.shape[1])
            return self.hearing.hear_codes(modules, codes, mask).argmax(axis=2)

        return jax.jit(best)


@dataclasses.dataclass
class Reading:
    """Reads when it is called.

    Attributes:
      result: what the run makes.
      pairs: utterances and their prompts, short ones first.
      prefix: (T2S, batch) -> what T2S is told of texts and prompts.
      out: directory of the run.
      tokens_per_step: positions that a step trains, about.
      alarm_after: tokens after which T2S has to read; 0 = never.
    """

    result: Result
    pairs: Pairs
    prefix: Callable[[T2S, Batch], Prefix]
    out: pathlib.Path
    tokens_per_step: float
    alarm_after: int

    def __post_init__(self) -> None:
        self._has_recognizer = (self.result.base.path / recognizer.FILE).is_file()
        self._heard_true: list[str] = []
        self._said = False

    @classmethod
    def of(
        cls,
        run: Config,
        result: Result,
        feed: Feed,
        prefix: Callable[[T2S, Batch], Prefix],
        tokens_per_step: float,
    ) -> "Reading | None":
        """Makes that of a run; None if it wants none.

        Raises:
          InputError: if `keep_best` is an error rate, and the checkpoint has no recognizer.
        """
        pairs = feed.samples(run.readings) if run.sample_every and run.readings else []
        pairs = sorted(pairs, key=lambda pair: len(pair[0].takes[0].codes))
        out = cls(result, pairs, prefix, pathlib.Path(run.out), tokens_per_step, run.alarm_after)
        missing = f"{result.base.path} has no recognizer (python -m train.encoder)"
        if run.keep_best in METRICS and not (pairs and out._has_recognizer):
            why = missing if pairs else "sample_every or readings is 0"
            raise InputError(f"keep_best is {run.keep_best}, which nobody measures: {why}")
        if pairs and not out._has_recognizer:
            print(f"note: no error rates, because {missing}", file=sys.stderr)
        return out if pairs else None

    def __call__(self, arrays: Mapping[str, jax.Array], writer: MetricsWriter, step: int) -> None:
        """Writes picture, transcripts and numbers; all processes of a run have to call it.

        Args:
          arrays: all of the run, by flat name.
          writer: of the run.
          step: number of steps that are done.
        """
        cfg = self.result.settings.configs["t2s"]
        # Every process does the same, as for samples.
        values = jax.device_put(self.result.gather(arrays))
        model = pytree.fill(PARTS["t2s"].abstract(cfg), values)
        numbers = {"sample_monotonicity": self._monotonicity(model)}
        if self._has_recognizer:
            numbers |= self._transcribe(model, step)
        writer.scalars(step, numbers)
        self._draw(model, writer, step)
        tokens = round(step * self.tokens_per_step)
        reads = numbers["sample_monotonicity"] > alignment.READS
        if 0 < self.alarm_after <= tokens and not reads and not self._said:
            self._said = True
            writer.note(
                f"alarm: after {tokens:,} tokens no head of T2S follows the text (monotonicity "
                f"{numbers['sample_monotonicity']:.2f}, want more than {alignment.READS}); see "
                f"{self.out / 'samples' / f'{step:08d}' / 'attention.png'}"
            )

    def _groups(self) -> Iterator[Pairs]:
        for start in range(0, len(self.pairs), ROWS):
            yield self.pairs[start : start + ROWS]

    def _monotonicity(self, model: T2S) -> float:
        """Of the best head, on all utterances."""
        heads = [
            np.asarray(_head_monotonicity(model, batch_of(pairs), self.prefix))[:, : len(pairs)]
            for pairs in self._groups()
        ]
        return float(np.concatenate(heads, axis=1).mean(axis=1).max())

    def _draw(self, model: T2S, writer: MetricsWriter, step: int) -> None:
        """Pictures the attention on a text of middle length."""
        pair = self.pairs[len(self.pairs) // 2]
        ids, take = pair[0].text_ids, pair[0].takes[0]
        maps = alignment.attention_maps(model, batch_of([pair], rows=1), self.prefix)
        own = np.asarray(maps[:, 0])[:, :, : len(take.codes), -len(ids) :]
        tokenizer = Tokenizer(self.result.base.path / "tokenizer" / "bpe.model")
        pieces = [tokenizer.decode([i]) for i in ids.tolist()]
        writer.figure(step, "attention", alignment.attention_figure(own, pieces))

    def _transcribe(self, model: T2S, step: int) -> dict[str, float]:
        """Speaks, hears and writes transcripts; returns the error rates."""
        base = self.result.base
        # Opened every time: it would stay in the memory that training needs.
        listener = Listener.load(base.path, base.settings)
        groups = list(self._groups())
        if not self._heard_true:
            true = [[target.takes[0].codes for target, _ in pairs] for pairs in groups]
            self._heard_true = [text for codes in true for text in listener(codes)]
        spoken: list[tuple[np.ndarray, bool]] = []
        heard: list[str] = []
        for number, pairs in enumerate(groups):
            said = self._speak(model, pairs, number)
            spoken += said
            heard += listener([codes for codes, _ in said])
        items = []
        for (target, _), true, said, (codes, stopped) in zip(
            self.pairs, self._heard_true, heard, spoken, strict=True
        ):
            text = listener.units.text(listener.units.labels(target.text_ids.tolist()))
            items.append(
                {"id": target.id, "text": text, "heard": said, "heard_true": true,
                 "codes": len(codes), "stopped": stopped}
            )  # fmt: skip
        if jax.process_index() == 0:
            folder = self.out / "samples" / f"{step:08d}"
            folder.mkdir(parents=True, exist_ok=True)
            lines = (json.dumps(item, ensure_ascii=False) + "\n" for item in items)
            (folder / "transcripts.jsonl").write_text("".join(lines), encoding="utf-8")
        numbers = {"sample_stopped": float(np.mean([item["stopped"] for item in items]))}
        for suffix in ("", "_true"):
            texts = [(item["text"], item[f"heard{suffix}"]) for item in items]
            words = [(said.split(), heard.split()) for said, heard in texts]
            numbers[f"sample_cer{suffix}"] = error_rate(texts)
            numbers[f"sample_wer{suffix}"] = error_rate(words)
        return numbers

    def _speak(self, model: T2S, pairs: Pairs, number: int) -> list[tuple[np.ndarray, bool]]:
        """Codes of some texts, and whether they came to an end."""
        batch = batch_of(pairs)
        prefix = _prefix(model, batch, self.prefix)
        most = jnp.minimum(2 * batch["code_lengths"] + 50, model.cfg.max_codes)
        limits = CodeLimits(most, jnp.zeros_like(most))
        keys = jax.random.split(jax.random.fold_in(jax.random.key(0), number), ROWS)
        out = generate(
            model,
            prefix,
            Sampling.make(ROWS, repetition_penalty=1.0),
            keys,
            limits,
            rules=self.result.settings.decoding,
        )
        codes, lengths, stopped = (np.asarray(x) for x in (out.codes, out.lengths, out.stopped))
        return [(codes[b, : lengths[b]], bool(stopped[b])) for b in range(len(pairs))]


def batch_of(pairs: Pairs, rows: int = ROWS) -> dict[str, jax.Array]:
    """Stacks the arrays of utterances and their prompts, padded; the first fills up the rows."""
    targets = [target for target, _ in pairs]
    texts = [target.text_ids for target in targets]
    size = programs.bucket(max(map(len, texts)), TEXT_SIZE)
    texts += texts[:1] * (rows - len(texts))
    out = {
        "text": np.stack([programs.pad(x, size) for x in texts]),
        "text_lengths": np.array([len(x) for x in texts], np.int32),
    }
    for name, items in (
        ("code", [x.takes[0].codes for x in targets]),
        ("feature", [x.takes[0].features for x in targets]),
        ("prompt_feature", [x.takes[0].features[:PROMPT_FEATURES] for _, x in pairs]),
    ):
        out[f"{name}s"], out[f"{name}_lengths"] = programs.stacked(items, rows)
    return {name: jnp.asarray(x) for name, x in out.items()}


@functools.partial(jax.jit, static_argnames="prefix")
def _prefix(model: T2S, batch: Batch, prefix: Callable[[T2S, Batch], Prefix]) -> Prefix:
    return prefix(model, batch)


@functools.partial(jax.jit, static_argnames="prefix")
def _head_monotonicity(
    model: T2S, batch: Batch, prefix: Callable[[T2S, Batch], Prefix]
) -> jax.Array:
    """Measures all heads, [K, B, N]."""
    layers = alignment.text_attention(
        model, prefix(model, batch), batch["codes"], batch["text"].shape[1]
    )
    lengths = batch["text_lengths"], batch["code_lengths"]
    return jnp.stack([alignment.monotonicity(x, *lengths) for x in layers])

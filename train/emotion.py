r"""Trains the text model that reads emotions off a sentence (`--emotion-text`): Qwen3.

    sentence -> chat prompt -> Qwen3 -> distribution over emotions   or   JSON of scores

    python -m train.emotion_build templates --out SENTENCES.jsonl
    python -m train.emotion --config configs/emotion_tiny.py checkpoint=CKPT \
        data.paths=SENTENCES.jsonl out=RUN

`form` is "distribution": a classification head, and soft cross-entropy with the teacher (the
paper), or "generative": next-token loss on an answer in JSON (the released model). `init` is
"scratch", "checkpoint" (the Qwen3 of CKPT), another checkpoint, or a directory of Hugging Face,
such as that of Qwen3-0.6B; with `lora.rank` adapters are trained on it and merged in the end. A
model from scratch gets a tokenizer of its own, made of the training sentences.

`emotions` "checkpoint" keeps those of CKPT, and its prototypes; "paper" changes to the paper's
seven, whose prototypes `train.prototypes` makes. Held-out sentences are read as `--emotion-text`
reads them: `RUN/samples/STEP/emotions.jsonl`, and `sample_accuracy_valid`, `sample_accuracy_test`
in the metrics.

Dims: B rows, T tokens, A tokens of an answer, E emotions, D width.
"""

import dataclasses
import functools
import json
import pathlib
import shutil
import sys
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from ml_collections import ConfigDict

from indextts2_jax import convert, sharding
from indextts2_jax.checkpoint import store
from indextts2_jax.checkpoint.parts import PARTS
from indextts2_jax.emotion import qwen3
from indextts2_jax.emotion.qwen3 import Qwen3, Qwen3Config
from indextts2_jax.emotion.text_to_emotion import (
    EmotionSet,
    TextToDistribution,
    distribution_loss,
    emotion_reader,
    load_tokenizer,
)
from indextts2_jax.errors import InputError
from indextts2_jax.nn import pytree
from indextts2_jax.release.files import read_weights, require_torch, to_numpy
from indextts2_jax.release.texts import qwen3_json
from train import emotion_data
from train.data import sentences as tables
from train.data.sentences import FORMS, Table
from train.emotion_data import Sentence
from train.run import artifacts, config, loop, lora
from train.run.config import Config
from train.run.start import Start
from train.run.task import Batch, Module, Task, TrainingError
from train.run.writer import MetricsWriter

HELD_OUT = ("valid", "test")
TOKENIZER_FILES = ("*.json", "*.jinja", "merges.txt")  # beside the weights of Hugging Face
TURN, END = "<|im_start|>", "<|im_end|>"
CHAT_TEMPLATE = (
    "{% for m in messages %}{{ '" + TURN + "' + m.role + '\n' + m.content + '" + END + "\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '" + TURN + "assistant\n' }}{% endif %}"
)


def default_config() -> Config:
    """Returns the paper's Qwen3-1.7B with adapters, on one file of sentences."""
    out = config.base_config()
    with out.unlocked():
        out.trainer = "emotion"
        out.model = config.preset(Qwen3Config.qwen3_1_7b())
        out.form = FORMS[0]
        out.emotions = "checkpoint"  # or "paper"
        out.data = ConfigDict(
            {
                "paths": ("",),  # files of train.emotion_build
                "rows": 64,  # sentences of a batch
            }
        ).lock()
        out.samples = 200  # sentences of `valid` and of `test` that are read; 0 = all
        out.stages = (config.base_stage(),)
    return out


def make_task(cfg: Qwen3Config, *, remat: bool = False) -> Task:
    """Returns what a stage trains.

    Args:
      cfg: architecture; with labels it has the distribution form.
      remat: trade time for memory.
    """
    modules = {"qwen3": Module(lambda rngs: Qwen3(cfg, rngs=rngs), qwen3.SHARDING_RULES)}
    losses = _distribution_losses if cfg.labels else _answer_losses

    def loss(
        modules: Any, batch: Batch, draws: Any, key: Any, progress: jax.Array
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        del draws, key, progress
        return losses(modules["qwen3"], batch, remat)

    return Task(
        modules,
        lambda key, batch: {},
        loss,
        lambda batch: batch["tokens"].size,
        lambda batch: flops(cfg, batch),
        heads=("qwen3.label_head.",),
        lora_targets=lora.QWEN3_TARGETS,
    )


def _distribution_losses(
    model: Qwen3, batch: Batch, remat: bool
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Computes the paper's loss, its part that can be learnt, and whether the best is right."""
    teacher = batch["teacher"]  # [B, E]
    logits = model.label_logits(batch["tokens"], batch["lengths"], remat=remat)
    losses = jax.vmap(distribution_loss)(logits[:, None], teacher[:, None])  # [B]
    entropy = -jnp.sum(jax.scipy.special.xlogy(teacher, teacher), axis=-1)
    right = logits.argmax(-1) == teacher.argmax(-1)
    return losses, {"divergence": losses - entropy, "accuracy": right.astype(jnp.float32)}


def _answer_losses(
    model: Qwen3, batch: Batch, remat: bool
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Computes the mean cross-entropy of each answer, and the share of its tokens that is right."""
    targets, lengths = batch["targets"], batch["target_lengths"]  # [B, A], [B]
    hidden, _ = model.hidden(batch["tokens"], remat=remat)  # [B, T, D]
    places = (batch["lengths"] - lengths)[:, None] + jnp.arange(targets.shape[1])
    # The head is applied where the answers are: the vocabulary is large.
    hidden = jnp.take_along_axis(hidden, places[..., None], axis=1, mode="clip")  # [B, A, D]
    logits = model.logits(hidden)  # [B, A, V]
    each = -jnp.take_along_axis(jax.nn.log_softmax(logits), targets[..., None], axis=-1)[..., 0]
    mask = jnp.arange(targets.shape[1]) < lengths[:, None]

    def mean(x: jax.Array) -> jax.Array:
        return jnp.sum(jnp.where(mask, x, 0), axis=-1) / lengths

    return mean(each), {"token_accuracy": mean(logits.argmax(-1) == targets)}


def flops(cfg: Qwen3Config, batch: Batch) -> float:
    """Counts floating point operations of a step: 6 per weight and position, and attention."""
    shapes = pytree.shapes(pytree.abstract(lambda rngs: Qwen3(cfg, rngs=rngs)))
    weights = sum(int(np.prod(s)) for n, s in shapes.items() if n.startswith("blocks."))
    positions, length = batch["tokens"].size, batch["tokens"].shape[1]
    attention = 12 * cfg.num_layers * cfg.num_heads * cfg.head_dim * length
    head = 6 * cfg.width * cfg.vocab_size * batch["targets"].size if "targets" in batch else 0
    return float(positions * (6 * weights + attention) + head)


@dataclasses.dataclass(frozen=True)
class Beginning:
    """The network that a run begins with.

    Attributes:
      cfg: architecture, without labels; its vocabulary may still be that of the run.
      arrays: shardings by name -> arrays of those names.
      tokenizer: directory of its tokenizer; None = one is to be made.
    """

    cfg: Qwen3Config
    arrays: Callable[[Mapping[str, Any]], dict[str, jax.Array]]
    tokenizer: pathlib.Path | None

    @classmethod
    def of(cls, run: Config, start: Start) -> "Beginning":
        """Finds the network that `init` names.

        Raises:
          InputError: if it has no Qwen3 that can be used.
        """
        if start.foreign is not None:
            return cls._of_hugging_face(start.foreign)
        arrays = functools.partial(start.arrays, "qwen3")
        if start.source is None:
            return cls(config.architecture(Qwen3Config, run.model), arrays, None)
        folder = start.source.path / "tokenizer" / "qwen3"
        return cls(start.source.config("qwen3"), arrays, folder)

    @classmethod
    def _of_hugging_face(cls, path: pathlib.Path) -> "Beginning":
        require_torch()
        try:
            cfg = Qwen3Config.from_release(json.loads((path / "config.json").read_text()))
        except (KeyError, ValueError, TypeError) as error:
            raise InputError(f"{path}/config.json is none of a Qwen3: {error!r}") from None
        names = ("model.safetensors", "model.safetensors.index.json")
        files = [path / name for name in names if (path / name).is_file()]
        if not files:
            raise InputError(f"{path} holds no {' or '.join(names)}")

        def arrays(places: Mapping[str, Any]) -> dict[str, jax.Array]:
            tensors = {n: to_numpy(x) for n, x in read_weights(files[0]).tensors.items()}
            shapes = pytree.shapes(PARTS["qwen3"].abstract(cfg))
            found = convert.to_jax(tensors, qwen3.TORCH_RULES, shapes, qwen3.torch_unused(cfg))
            wanted = {n: f"qwen3.{n}" for n in found if f"qwen3.{n}" in places}
            return {
                name: jax.device_put(np.asarray(found[n], np.float32), places[name])
                for n, name in wanted.items()
            }

        return cls(cfg, arrays, path)

    def fitted(self, emotions: EmotionSet, form: str) -> Qwen3Config:
        """Returns the architecture of the result.

        Args:
          emotions: that it has to know.
          form: one of FORMS.

        Raises:
          InputError: if it lacks what the form needs.
        """
        if form == "distribution":
            return dataclasses.replace(self.cfg, labels=emotions.keys, tied_head=True)
        if self.cfg.labels:
            raise InputError("init is a classifier, which cannot write; want form=distribution")
        return self.cfg


def make_tokenizer(texts: Iterable[str], size: int, path: pathlib.Path) -> None:
    """Trains a byte-level tokenizer with a chat template.

    Args:
      texts: of the training data.
      size: number of tokens at most.
      path: directory to write.

    Raises:
      InputError: if the bytes alone are more.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    specials = [TURN, END, "<think>", "</think>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    if size < (least := len(specials) + len(alphabet)):
        raise InputError(f"model.vocab_size is {size}; want {least} or more")
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=specials, initial_alphabet=alphabet, show_progress=False
    )
    raw.train_from_iterator(texts, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, eos_token=END, pad_token=END, chat_template=CHAT_TEMPLATE
    )
    tokenizer.save_pretrained(path)


def keep_tokenizer(
    path: pathlib.Path, first: Beginning, cfg: Qwen3Config, texts: Iterable[str]
) -> None:
    """Writes the tokenizer of a run, with the architecture beside it, if it is not there yet.

    Args:
      path: directory to write.
      first: the network that the run begins with.
      cfg: architecture of the result.
      texts: that a new tokenizer is made of.
    """
    if jax.process_index() == 0 and not path.exists():
        with store.writing(path) as directory:
            if first.tokenizer is None:
                make_tokenizer(texts, cfg.vocab_size, directory)
            elif not first.tokenizer.is_dir():
                raise InputError(f"no such tokenizer directory: {first.tokenizer}")
            else:
                for pattern in TOKENIZER_FILES:
                    for file in first.tokenizer.glob(pattern):
                        if not file.name.endswith(".index.json"):
                            shutil.copyfile(file, directory / file.name)
            if first.tokenizer is None or cfg != first.cfg:
                store.write_json(directory / "config.json", qwen3_json(cfg))
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices("tokenizer")


@dataclasses.dataclass(frozen=True)
class Readings:
    """Reads held-out sentences as `--emotion-text` does, and counts what is right.

    Attributes:
      result: what the run makes.
      out: directory of the run.
      sentences: of each held-out split.
    """

    result: artifacts.Result
    out: pathlib.Path
    sentences: Mapping[str, Sequence[Sentence]]

    def __call__(self, arrays: Mapping[str, jax.Array], writer: MetricsWriter, step: int) -> None:
        """Writes the readings of a step; all processes of a run have to call it."""
        values = self.result.gather(arrays)
        if jax.process_index() != 0:
            return
        settings = self.result.settings
        model = pytree.fill(PARTS["qwen3"].abstract(settings.configs["qwen3"]), values)
        assert self.result.tokenizer is not None
        read = emotion_reader(
            jax.device_put(model, jax.local_devices()[0]),
            load_tokenizer(self.result.tokenizer),
            settings.emotions,
        )
        lines, accuracy = [], {}
        for split, chosen in self.sentences.items():
            texts = [sentence.text for sentence in chosen]
            if isinstance(read, TextToDistribution):
                got = read.distribution(texts)
            else:
                got = np.array([list(read(text).weights.values()) for text in texts])
            want = tables.targets(chosen, settings.emotions)
            accuracy[f"sample_accuracy_{split}"] = np.mean(got.argmax(1) == want.argmax(1))
            for sentence, row in zip(chosen, got, strict=True):
                weights = zip(settings.emotions.names, row.round(3).tolist(), strict=True)
                line = {"text": sentence.text, "emotion": sentence.emotion, **dict(weights)}
                lines.append(json.dumps({"split": split, **line}, ensure_ascii=False) + "\n")
        writer.scalars(step, accuracy)
        folder = self.out / "samples" / f"{step:08d}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "emotions.jsonl").write_text("".join(lines), encoding="utf-8")


def load_sentences(paths: Iterable[str], emotions: EmotionSet) -> dict[str, list[Sentence]]:
    """Reads files of sentences, by split.

    Raises:
      InputError: if one has errors, or there is nothing to train on.
    """
    out: dict[str, list[Sentence]] = {split: [] for split in emotion_data.CHOICES["split"]}
    for path in paths:
        if not path:
            raise InputError("data.paths is not given; python -m train.emotion_build makes a file")
        for sentence in emotion_data.load(pathlib.Path(path), emotions):
            out[sentence.split].append(sentence)
    if not out["train"]:
        raise InputError(f"{', '.join(paths)}: no sentence is for training")
    return out


def _spread(sentences: Sequence[Sentence], count: int) -> list[Sentence]:
    """Chooses so many of all parts of the file; all for 0."""
    number = min(count or len(sentences), len(sentences))
    places = np.linspace(0, len(sentences) - 1, number).round().astype(int)
    return [sentences[i] for i in places]


def setup(run: Config) -> loop.Setup:
    """Prepares everything that a run needs, from its configuration.

    Raises:
      InputError: if checkpoint, sentences and configuration do not fit each other.
    """
    for key, choices in (("form", FORMS), ("emotions", ("checkpoint", "paper"))):
        if run[key] not in choices:
            raise TrainingError(f"{key} is {run[key]!r}; want one of {', '.join(choices)}")
    mesh = loop.make_mesh(run)
    rows, multiple = run.data.rows, sharding.batch_parts(mesh) * run.accumulation
    if rows < 1 or rows % multiple:
        raise TrainingError(f"data.rows is {rows}; want a multiple of {multiple}")
    start = Start.of(run, is_foreign=lambda path: (path / "config.json").is_file())
    base, first = start.base, Beginning.of(run, start)
    emotions = base.settings.emotions
    if run.emotions == "paper":
        emotions = EmotionSet.paper()
    cfg = first.fitted(emotions, run.form)
    found = load_sentences(run.data.paths, EmotionSet.paper())

    out = pathlib.Path(run.out)
    texts = [sentence.text for sentence in found["train"]]
    if run.form == "generative":
        distributions = tables.targets(found["train"], emotions)
        texts += [tables.answer(distribution, emotions) for distribution in distributions]
    keep_tokenizer(out / "tokenizer", first, cfg, texts)
    tokenizer = load_tokenizer(out / "tokenizer")
    encoded = {
        split: tables.encode(some, tokenizer, emotions, run.form) for split, some in found.items()
    }
    widths = tables.widths_of([row for rows_of in encoded.values() for row in rows_of])
    data = {split: Table.of(rows_of, widths) for split, rows_of in encoded.items() if rows_of}

    changes: dict[str, Any] = {"emotions": emotions}
    if emotions != base.settings.emotions and base.settings.emotion_groups:
        changes["emotion_groups"] = ()
        print("note: the prototypes go; python -m train.prototypes makes others", file=sys.stderr)
    result = artifacts.Result.of(
        base, "qwen3", {"qwen3": cfg}, tokenizer=out / "tokenizer", **changes
    )
    samples = None
    held_out = {s: _spread(found[s], run.samples) for s in HELD_OUT if found[s]}
    if run.sample_every and held_out:
        samples = Readings(result, out, held_out)

    def batches(stage: Config, step: int) -> Any:
        seed = run.seed, zlib.crc32(stage.name.encode())
        return data["train"].endless(rows, seed, step)

    return loop.Setup(
        run=run,
        mesh=mesh,
        task=lambda stage: make_task(cfg, remat=run.remat),
        initial=first.arrays,
        batches=batches,
        validation=lambda: data["valid"].once(rows) if "valid" in data else [],
        publish=functools.partial(result.publish, out / "checkpoint"),
        samples=samples,
    )


if __name__ == "__main__":
    sys.exit(loop.main(setup, __doc__))

"""The emotion model's trainer: against transformers, on any mesh, and from the command line."""

import collections
import csv
import dataclasses
import itertools
import json
import os
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from indextts2_jax import cli, sharding
from indextts2_jax.checkpoint.demo import random_checkpoint
from indextts2_jax.checkpoint.parts import Settings, load_part
from indextts2_jax.convert import to_torch
from indextts2_jax.emotion import qwen3
from indextts2_jax.emotion.qwen3 import Qwen3Config
from indextts2_jax.emotion.text_to_emotion import EmotionSet, chat_tokens, load_tokenizer
from indextts2_jax.errors import InputError
from indextts2_jax.nn import pytree
from indextts2_jax.pipeline import IndexTTS2
from indextts2_jax.release.texts import FILES
from tests import train_common
from tests.common import ROOT, relative_error
from tests.make_goldens.qwen3 import SIZES
from tests.train_common import run
from train import emotion, emotion_build
from train.data.sentences import Table, answer, encode, targets, widths_of
from train.emotion_data import load
from train.run import config, loop, lora
from train.run.step import to_devices

SEVEN, EIGHT = EmotionSet.paper(), EmotionSet.indextts2()
CFGS = {
    "distribution": dataclasses.replace(Qwen3Config.tiny(), labels=SEVEN.keys),
    "generative": Qwen3Config.tiny(),
}
FORMS = pytest.mark.parametrize("form", CFGS)
CONFIG = ROOT / "configs" / "emotion_tiny.py"
SMALL = (
    "model.num_layers=1", "model.width=32", "model.ffn_width=32", "model.num_heads=2",
    "model.num_kv_heads=1", "model.head_dim=16", "model.vocab_size=300", "data.rows=8",
    "samples=4", "log_every=1", "validate_every=3", "sample_every=6", "checkpoints.every=3",
    "stages.0.steps=6", "stages.0.warmup=1",
)  # fmt: skip


def make_batch(form, rows=8):
    rng = np.random.default_rng(0)
    out = []
    for _ in range(rows):
        row = {"tokens": rng.integers(61, size=rng.integers(9, 15)).tolist()}
        row["teacher"] = rng.dirichlet(np.ones(7)).astype(np.float32)
        if form == "generative":
            row["targets"] = [*row["tokens"][-rng.integers(3, 6) :], 1]
        out.append(row)
    return Table.of(out, widths_of(out)).batch(np.arange(rows), rows)


@pytest.mark.slow
@FORMS
def test_losses_and_gradients_are_those_of_transformers(form):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    classes = transformers.Qwen3ForSequenceClassification, transformers.Qwen3ForCausalLM
    torch.manual_seed(0)
    options = {"num_labels": 7} if form == "distribution" else {"tie_word_embeddings": True}
    peer = classes[form == "generative"](transformers.Qwen3Config(**SIZES, **options)).train()
    batch, losses = make_batch(form, rows=3), []
    for row in range(3):
        tokens = torch.tensor(batch["tokens"][row, : batch["lengths"][row]], dtype=torch.long)
        logits = peer(tokens[None]).logits[0]
        if form == "distribution":
            teacher = torch.tensor(batch["teacher"][row])
        else:
            A = batch["target_lengths"][row]
            teacher = torch.tensor(batch["targets"][row, :A], dtype=torch.long)
            logits = logits[-A:]
        losses.append(torch.nn.functional.cross_entropy(logits, teacher))
    torch.stack(losses).mean().backward()
    named = dict(peer.named_parameters())
    weights = {name: x.detach().numpy() for name, x in named.items() if name != "lm_head.weight"}

    task = emotion.make_task(CFGS[form])
    model = task.modules["qwen3"].abstract
    arrays = qwen3_arrays(weights, CFGS[form], model)

    def mean(arrays):
        losses, _ = task.loss(task.fill(arrays), batch, {}, None, jnp.float32(0))
        return losses.mean(), losses

    gradients, got = jax.jit(jax.grad(mean, has_aux=True))(arrays)
    assert relative_error(got, [float(x.detach()) for x in losses]) < 1e-5
    back = to_torch({n.removeprefix("qwen3."): x for n, x in gradients.items()}, qwen3.TORCH_RULES)
    assert back.keys() == weights.keys()
    for name, gradient in back.items():
        assert relative_error(gradient, named[name].grad) < 2e-5, name


def qwen3_arrays(weights, cfg, model):
    unused = qwen3.torch_unused(cfg)
    arrays = emotion.convert.to_jax(weights, qwen3.TORCH_RULES, pytree.shapes(model), unused)
    return {f"qwen3.{name}": jnp.asarray(x) for name, x in arrays.items()}


def make_step(form, mesh, *, adapters=None, remat=False, **options):
    task = emotion.make_task(CFGS[form], remat=remat)
    stage = config.base_stage()
    stage.update(steps=10, warmup=0, rate=1e-2)
    return train_common.make_step(task, stage, mesh, adapters=adapters, **options)


@pytest.fixture(scope="module", params=CFGS)
def single(request):
    step = make_step(request.param, sharding.make_mesh(devices=jax.devices()[:1]))
    return request.param, run(step, make_batch(request.param))


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [(2, 2, 2), (8, 1, 1), (1, 8, 1), (1, 1, 8)])
def test_sharded_equals_single(single, sizes):
    form, (losses, _, _, state) = single
    step = make_step(form, sharding.make_mesh(*sizes))
    got, _, _, sharded = run(step, make_batch(form))
    np.testing.assert_allclose(got, losses, rtol=1e-5)
    for name, x in state.params.items():
        # Adam divides by the size of a gradient: rounding of tiny ones is as large as the rate.
        np.testing.assert_allclose(sharded.params[name], x, atol=1e-3, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{"accumulation": 4}, {"remat": True}], ids=str)
def test_accumulation_and_remat_change_nothing(single, changes):
    form, (losses, *_) = single
    step = make_step(form, sharding.make_mesh(devices=jax.devices()[:1]), **changes)
    np.testing.assert_allclose(run(step, make_batch(form))[0], losses, rtol=1e-5)


@pytest.mark.slow
@FORMS
def test_merged_adapters_are_the_adapters_and_the_label_head_learns_whole(form):
    adapters = lora.LoraConfig(4, 8.0, lora.QWEN3_TARGETS)
    step = make_step(form, sharding.make_mesh(devices=jax.devices()[:1]), adapters=adapters)
    batch = make_batch(form)
    losses, first, frozen, state = run(step, batch, steps=3)
    assert losses[-1] < losses[0]
    whole = [name for name in state.params if not name.endswith((lora.A, lora.B))]
    assert whole == (["qwen3.label_head.kernel"] if form == "distribution" else [])
    learned = step.learned(state.params, frozen)
    assert len(learned) == 2 * 7 + len(whole)
    name = "qwen3.blocks.1.up.kernel"
    a, b = (np.asarray(state.params[name + end]) for end in (lora.A, lora.B))
    np.testing.assert_allclose(learned[name], first[name] + 2.0 * a @ b, atol=1e-6)
    modules = step.task.fill(step.merged(state.params, frozen))
    merged, _ = jax.jit(lambda m: step.task.loss(m, batch, {}, None, jnp.float32(0)))(modules)
    key = jax.random.key(0)
    want = step.validate(state.params, frozen, to_devices(batch, step.mesh), key)["loss"]
    np.testing.assert_allclose(merged.mean(), want, rtol=1e-5)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("sentences") / "sentences.jsonl"
    assert emotion_build.main(["templates", "--out", str(path), "--count", "400"]) == 0
    return path


def test_other_sets_of_emotions_get_the_same_probabilities(file):
    sentences = load(file, SEVEN)
    seven, eight = targets(sentences, SEVEN), targets(sentences, EIGHT)
    np.testing.assert_allclose(seven, [s.distribution for s in sentences], rtol=1e-6)
    for number, name in enumerate(EIGHT.names):
        want = 0 if name == "melancholic" else seven[:, SEVEN.names.index(name)]
        np.testing.assert_array_equal(eight[:, number], want)
    few = dataclasses.replace(SEVEN, names=("happy", "calm"), keys=("Happiness", "Neutral"))
    np.testing.assert_allclose(targets(sentences, few).sum(axis=1), 1, rtol=1e-6)
    np.testing.assert_array_equal(targets(sentences, few)[:, 0], seven[:, 1])


def test_answers_are_json_of_hundredths():
    got = answer(np.array([0.05, 0.02, 0.01, 0.85, 0.04, 0.02, 0.01], np.float32), SEVEN)
    assert got == (
        '{"Anger": 0.05, "Happiness": 0.02, "Fear": 0.01, "Disgust": 0.85, "Sadness": 0.04, '
        '"Surprise": 0.02, "Neutral": 0.01}'
    )


@pytest.fixture(scope="module")
def tokenizer(file, tmp_path_factory):
    path = tmp_path_factory.mktemp("tokenizer") / "made"
    emotion.make_tokenizer([s.text for s in load(file, SEVEN)], 600, path)
    return load_tokenizer(path)


def test_a_tokenizer_of_its_own_spells_everything(tokenizer):
    text = "Ééé 你好! \t{}"
    ids = chat_tokens(tokenizer, EIGHT, text)
    assert max(ids) < 600
    want = "<|im_start|>system\n文本情感分类<|im_end|>\n<|im_start|>user\n"
    assert tokenizer.decode(ids) == f"{want}{text}<|im_end|>\n<|im_start|>assistant\n"
    assert tokenizer.eos_token == "<|im_end|>"


def test_a_row_is_the_prompt_of_inference_and_its_answer(file, tokenizer):
    sentences = load(file, SEVEN)[:5]
    for row, sentence in zip(
        encode(sentences, tokenizer, EIGHT, "generative"), sentences, strict=True
    ):
        prompt = chat_tokens(tokenizer, EIGHT, sentence.text)
        assert row["tokens"][: len(prompt)] == prompt
        said = row["tokens"][len(prompt) :]
        assert row["targets"] == [*said, tokenizer.eos_token_id]
        assert json.loads(tokenizer.decode(said))["低落"] == 0
    for row, sentence in zip(
        encode(sentences, tokenizer, SEVEN, "distribution"), sentences, strict=True
    ):
        assert row["tokens"] == chat_tokens(tokenizer, SEVEN, sentence.text)
        assert "targets" not in row


def test_every_sentence_comes_once_each_time_through_and_steps_repeat():
    rows = [{"tokens": [i], "teacher": np.ones(7) / 7} for i in range(10)]
    table = Table.of(rows, widths_of(rows))
    first = [b["tokens"][:, 0] for b in itertools.islice(table.endless(4, (0, 1), 0), 15)]
    counts = collections.Counter(np.concatenate(first).tolist())
    assert counts == dict.fromkeys(range(10), 6)
    assert sorted(np.concatenate(first)[:10]) == [*range(10)]
    again = [b["tokens"][:, 0] for b in itertools.islice(table.endless(4, (0, 1), 7), 8)]
    np.testing.assert_array_equal(again, first[7:])
    other = next(table.endless(10, (0, 2), 0))["tokens"][:, 0]
    assert other.tolist() != np.concatenate(first)[:10].tolist()
    last = table.once(4)[-1]
    assert last["weight"].tolist() == [1, 1, 0, 0]
    assert last["tokens"][:2, 0].tolist() == [8, 9]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return random_checkpoint(tmp_path_factory.mktemp("base") / "checkpoint")


def make_run(base, file, out, *changes):
    files = f"checkpoint={base}", f"data.paths={file}", f"out={out}"
    return config.load(CONFIG, [*files, *SMALL, *changes])


@pytest.fixture(scope="module")
def whole(base, file, tmp_path_factory):
    """An uninterrupted run of each form."""
    out = tmp_path_factory.mktemp("whole")
    for form in CFGS:
        loop.run(emotion.setup(make_run(base, file, out / form, f"form={form}")))
    return out


def column(out, name):
    with open(out / "metrics.csv") as table:
        return [float(row[name]) for row in csv.DictReader(table) if row.get(name)]


@pytest.mark.slow
@FORMS
def test_a_run_leaves_a_reader_of_emotions(whole, base, form):
    out = whole / form
    tts = IndexTTS2(out / "checkpoint")
    assert tts.settings.emotions == EIGHT  # those of the base, whose prototypes stay
    assert tts.settings.emotion_groups == Settings.load(base).emotion_groups
    assert tts.settings.configs["qwen3"].labels == (EIGHT.keys if form == "distribution" else ())
    assert tts.emotion_weights("I am happy.").shape == (8,)
    lines = (out / "samples" / "00000006" / "emotions.jsonl").read_text().splitlines()
    assert len(lines) == 8  # four of each held-out split
    assert len({json.loads(line)["emotion"] for line in lines}) > 2  # of all parts of the file
    assert set(EIGHT.names) < json.loads(lines[0]).keys()
    assert len(column(out, "sample_accuracy_valid")) == 1
    assert len(column(out, "loss")) == 6 and len(column(out, "validation_loss")) == 2


class StopAt(loop.Stop):
    def __init__(self, step):
        super().__init__()
        self.step = step

    def agreed(self, step):
        return step == self.step


@pytest.mark.slow
@FORMS
def test_resumed_equals_uninterrupted(whole, base, file, tmp_path, form):
    run = make_run(base, file, tmp_path / "run", f"form={form}")
    loop.run(emotion.setup(run), StopAt(4))
    assert not (tmp_path / "run" / "checkpoint").exists()
    loop.run(emotion.setup(run))
    losses = column(tmp_path / "run", "loss")
    np.testing.assert_allclose(losses, column(whole / form, "loss"), rtol=1e-5)
    got, want = (arrays_of(path / "checkpoint") for path in (tmp_path / "run", whole / form))
    for name, x in want.items():
        np.testing.assert_allclose(got[name], x, atol=1e-5, err_msg=name)


def arrays_of(checkpoint):
    model = load_part(checkpoint, Settings.load(checkpoint), "qwen3")
    return {name: np.asarray(x) for name, x in pytree.params(model).items()}


@pytest.mark.slow
def test_adapters_go_on_from_a_checkpoint_or_a_directory_of_transformers(
    whole, base, file, tmp_path
):
    transformers = pytest.importorskip("transformers")
    generator = whole / "generative" / "checkpoint"
    release = tmp_path / "release"
    assert cli.main(["convert", "--reverse", str(generator), "--out", str(release)]) == 0
    directory = (release / FILES["qwen3"]).parent
    before = arrays_of(generator)
    changes = "lora.rank=4", "stages.0.steps=2", "sample_every=0"
    for name, init in {"checkpoint": generator, "transformers": directory}.items():
        out = tmp_path / name
        loop.run(emotion.setup(make_run(base, file, out, f"init={init}", *changes)))
        after = arrays_of(out / "checkpoint")
        for array, x in before.items():
            adapted = re.fullmatch(lora.QWEN3_TARGETS[0], array) is not None
            assert np.array_equal(after[array], x) != adapted, array
        assert after["label_head.kernel"].shape == (32, 8)
        exported = tmp_path / f"{name} exported"
        args = "convert", "--reverse", str(out / "checkpoint"), "--out", str(exported)
        assert cli.main(args) == 0
        peer = transformers.Qwen3ForSequenceClassification.from_pretrained(
            (exported / FILES["qwen3"]).parent
        )
        assert tuple(peer.config.id2label.values()) == EIGHT.keys
        tokenizer = load_tokenizer((exported / FILES["qwen3"]).parent)
        prompt = tokenizer("hello")["input_ids"]
        torch = pytest.importorskip("torch")
        with torch.no_grad():
            want = peer(torch.tensor([prompt])).logits.numpy()
        model = load_part(out / "checkpoint", Settings.load(out / "checkpoint"), "qwen3")
        got = model.label_logits(jnp.array([prompt]), jnp.array([len(prompt)]))
        assert relative_error(got, want) < 1e-5


@pytest.mark.slow
def test_a_converted_release_gets_another_reader_and_converts_back(
    converted, release, file, tmp_path
):
    """Neither its files of settings nor its tokenizer fit the new network."""
    transformers = pytest.importorskip("transformers")
    changes = "stages.0.steps=1", "sample_every=0", "emotions=paper"
    loop.run(emotion.setup(make_run(converted, file, tmp_path / "run", *changes)))
    checkpoint, exported = tmp_path / "run" / "checkpoint", tmp_path / "exported"
    assert Settings.load(checkpoint).emotions == SEVEN
    assert not Settings.load(checkpoint).emotion_groups  # other emotions, other prototypes
    assert cli.main(["convert", "--reverse", str(checkpoint), "--out", str(exported)]) == 0
    assert (exported / FILES["w2v_bert"]).read_bytes() == (
        (release / FILES["w2v_bert"]).read_bytes()
    )
    folder = (exported / FILES["qwen3"]).parent
    peer = transformers.Qwen3ForSequenceClassification.from_pretrained(folder)
    assert tuple(peer.config.id2label.values()) == SEVEN.keys
    assert chat_tokens(load_tokenizer(folder), SEVEN, "hello")
    again = tmp_path / "again"
    assert cli.main(["convert", "--src", str(exported), "--out", str(again)]) == 0
    assert Settings.load(again).configs["qwen3"] == Settings.load(checkpoint).configs["qwen3"]
    assert Settings.load(again).emotions == SEVEN


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("form=poem", "form is 'poem'; want one of distribution, generative"),
        ("emotions=all", "emotions is 'all'; want one of checkpoint, paper"),
        ("data.rows=7", "data.rows is 7; want a multiple of 8"),
        ("init=checkpoint", "holds no qwen3; train first: python -m train.emotion"),
        ("data.paths=", "data.paths is not given"),
        ("model.vocab_size=100", "model.vocab_size is 100; want 260 or more"),
    ],
)
def test_settings_that_cannot_be_used_are_one_line(base, file, tmp_path, change, message):
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        emotion.setup(make_run(base, file, tmp_path / "run", change))
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_a_classifier_does_not_become_a_generator(whole, base, file, tmp_path):
    init = f"init={whole / 'distribution' / 'checkpoint'}"
    with pytest.raises(InputError, match="init is a classifier, which cannot write"):
        emotion.setup(make_run(base, file, tmp_path / "run", init, "form=generative"))


@pytest.mark.slow
def test_a_small_model_reads_new_sentences_after_minutes_on_a_laptop(base, tmp_path):
    """Everything around the words is new, the words are not; chance is one in seven."""
    env = {**os.environ, "JAX_NUM_CPU_DEVICES": "1"}
    data, out = tmp_path / "sentences.jsonl", tmp_path / "run"

    def command(*args):
        subprocess.run([sys.executable, "-m", *args], cwd=ROOT, env=env, check=True)

    command("train.emotion_build", "templates", "--out", str(data))
    files = f"checkpoint={base}", f"data.paths={data}", f"out={out}"
    command("train.emotion", "--config", str(CONFIG), *files)
    assert column(out, "sample_accuracy_valid")[-1] > 0.5
    tts = IndexTTS2(out / "checkpoint")
    right = 0
    sentences = [s for s in load(data, SEVEN) if s.split == "train"][::200]
    for sentence in sentences:
        weights = tts.emotion_weights(sentence.text)
        right += tts.settings.emotions.names[weights.argmax()] == SEVEN.find(sentence.emotion)
    assert right > 0.9 * len(sentences)

"""Whole runs of a small T2S that is judged while it learns to read."""

import csv
import dataclasses
import json

import jax
import numpy as np
import pytest

from indextts2_jax import sharding
from indextts2_jax.checkpoint import store
from indextts2_jax.checkpoint.demo import random_checkpoint
from indextts2_jax.checkpoint.parts import Settings, save_part
from indextts2_jax.errors import InputError
from indextts2_jax.nn import pytree
from tests.common import ROOT
from tests.train_common import random_utterances, save
from train import t2s
from train.data.shards import Take
from train.recognition import reading, recognizer
from train.run import config, loop

EACH = 3  # codes of a text token
SMALL = (
    "model.width=96", "model.num_layers=2", "model.num_heads=3", "model.speaker.width=32",
    "model.speaker.ffn_width=64", "model.speaker.num_blocks=1", "model.emotion.width=16",
    "model.emotion.ffn_width=32", "data.budget=400", "data.max_rows=24", "data.prompt_codes=16",
    "data.validation=8", "readings=9", "samples=0", "stages.0.rate=3e-3",
    "model.speaker.perceiver_depth=1",
    "stages.0.schedule=constant", "validate_every=1000", "checkpoints.every=1000",
)  # fmt: skip


def spelled(count):
    """Utterances whose codes spell the text: every token is a code, said a few times."""
    rng = np.random.default_rng(0)
    for utterance in random_utterances(count):
        ids = rng.integers(200, 220, int(rng.integers(4, 8))).astype(np.int32)
        codes = np.repeat(ids, EACH)
        features = rng.standard_normal((len(codes), 32)).astype(np.float16)
        take = Take(1.0, codes, features)
        mel = np.zeros((2 * len(codes), 80), np.float16)
        yield dataclasses.replace(utterance, text_ids=ids, takes=(take,), mel=mel)


class Speller:
    """In the place of a recognizer: reads what `spelled` writes."""

    units = recognizer.Units(("", *map(chr, range(1, 600))), tuple((i,) for i in range(600)))

    def __call__(self, codes):
        return [self.units.text(x[1::EACH].tolist()) for x in codes]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return random_checkpoint(tmp_path_factory.mktemp("base") / "checkpoint")


@pytest.fixture(scope="module")
def data(tmp_path_factory, checkpoint):
    return save(tmp_path_factory.mktemp("data") / "data", checkpoint, spelled(300))


def run_of(checkpoint, data, out, *changes):
    values = f"checkpoint={checkpoint}", f"data.paths={data}", f"out={out}"
    return config.load(ROOT / "configs" / "t2s_tiny.py", [*values, *SMALL, *changes])


def setup_of(run):
    """On one device, which is faster."""
    with pytest.MonkeyPatch.context() as patch:
        mesh = sharding.make_mesh(1, 1, 1, devices=jax.devices()[:1])
        patch.setattr(loop, "make_mesh", lambda _: mesh)
        return t2s.setup(run)


def table(out):
    with open(out / "metrics.csv") as file:
        return [{k: float(x) for k, x in row.items() if x} for row in csv.DictReader(file)]


@pytest.mark.slow
def test_a_run_says_that_it_does_not_read_until_it_does(
    checkpoint, data, tmp_path, monkeypatch, capsys
):
    (checkpoint / recognizer.FILE).write_text("{}")
    monkeypatch.setattr(reading.Listener, "load", lambda *_: Speller())
    out, changes = tmp_path / "run", ("alarm_after=4000", "keep_best=sample_cer")
    begun = run_of(checkpoint, data, out, *changes, "stages.0.steps=6", "sample_every=3")
    loop.run(setup_of(begun))
    said = [x for x in capsys.readouterr().err.splitlines() if x.startswith("alarm: after ")]
    assert len(said) == 1 and "no head of T2S follows the text" in said[0]
    assert said[0].endswith(f"see {out / 'samples' / '00000006' / 'attention.png'}")
    assert (out / "samples" / "00000006" / "attention.png").is_file()

    longer = run_of(checkpoint, data, out, *changes, "stages.0.steps=200", "sample_every=100")
    loop.run(setup_of(longer))
    assert "alarm" not in capsys.readouterr().err
    first, *_, last = [row for row in table(out) if "sample_cer" in row]
    assert first["sample_monotonicity"] < 0.3 and first["sample_cer"] > 0.5
    assert last["sample_monotonicity"] > 0.6 and last["sample_cer"] < 0.1
    assert last["sample_cer_true"] == last["sample_wer_true"] == 0 < last["sample_stopped"]
    lines = (out / "samples" / "00000200" / "transcripts.jsonl").read_text().splitlines()
    items = [json.loads(line) for line in lines]
    assert all(item["heard_true"] == item["text"] for item in items) and len(items) == 8
    assert (out / "checkpoint-best" / "checkpoint.json").is_file()


@pytest.mark.slow
def test_the_recognizer_of_a_checkpoint_hears_codes(tmp_path):
    path = random_checkpoint(tmp_path / "checkpoint")
    settings = Settings.load(path)
    with pytest.raises(InputError, match="holds no recognizer"):
        reading.Listener.load(path, settings)
    units = recognizer.Units.of(path / "tokenizer" / "bpe.model", "characters")
    width = settings.configs["w2v_bert"].width
    cfg = recognizer.RecognizerConfig("characters", len(units.names), width)
    store.write_json(path / recognizer.FILE, store.to_dict(cfg))
    heads = pytree.random_arrays(lambda rngs: recognizer.Heads(cfg, rngs=rngs), 0)
    save_part(path, recognizer.PART, heads)
    listener = reading.Listener.load(path, settings)
    rng = np.random.default_rng(0)
    short, long = (rng.integers(0, 500, length).astype(np.int32) for length in (20, 60))
    texts = listener([short, long])
    assert listener([short]) == texts[:1] and len(texts[0]) < len(texts[1])


def test_without_a_recognizer_there_are_no_error_rates(checkpoint, data, tmp_path, capsys):
    (checkpoint / recognizer.FILE).unlink(missing_ok=True)
    missing = f"{checkpoint} has no recognizer (python -m train.encoder)"
    assert setup_of(run_of(checkpoint, data, tmp_path / "run")).samples is not None
    assert capsys.readouterr().err.count(f"note: no error rates, because {missing}") == 1
    best = "keep_best=sample_cer"
    with pytest.raises(InputError, match="keep_best is sample_cer, which nobody measures") as error:
        setup_of(run_of(checkpoint, data, tmp_path / "run", best))
    assert str(error.value).endswith(missing)
    with pytest.raises(InputError, match="sample_every or readings is 0"):
        setup_of(run_of(checkpoint, data, tmp_path / "run", best, "readings=0"))

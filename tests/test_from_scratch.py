"""Training without a release: the public auxiliary models and a tokenizer are enough."""

import dataclasses
import shutil

import numpy as np
import pytest

from indextts2_jax import cli
from indextts2_jax.checkpoint import store
from indextts2_jax.checkpoint.demo import train_tokenizer
from indextts2_jax.checkpoint.parts import PARTS, Settings, load_part, load_tables
from indextts2_jax.convert import ConversionError
from indextts2_jax.pipeline import IndexTTS2
from indextts2_jax.release.convert import convert_encoders
from tests.common import ROOT
from tests.test_prepare import vowel, write_corpus
from train import prepare, s2m, t2s
from train.corpus.recordings import Limits
from train.data import shards
from train.run import artifacts, config, loop
from train.run.start import Start

ENCODERS = {"w2v_bert", "semantic_codec", "campplus", "vocoder"}
CONFIGS = ROOT / "configs"
SMALL = {  # changes of the laptop's sizes
    "t2s": ("model.num_layers=1", "model.speaker.num_blocks=1", "model.emotion.num_blocks=1"),
    "s2m": ("model.velocity.wavenet.num_layers=1",),
}
LATENTS = "stages.0.latent_probability=0.5"


@pytest.fixture(scope="module")
def auxiliary(release, tmp_path_factory):
    """What anyone may download, and a tokenizer."""
    path = tmp_path_factory.mktemp("auxiliary") / "models"
    shutil.copytree(release / "hf_cache", path)
    shutil.copy(release / "wav2vec2bert_stats.pt", path)
    (path / "mine.model").write_bytes(train_tokenizer())
    return path


@pytest.fixture(scope="module")
def encoders(auxiliary, tmp_path_factory):
    """A checkpoint of them, made by the command."""
    path = tmp_path_factory.mktemp("encoders") / "checkpoint"
    arguments = ["--encoders", auxiliary, "--bpe", auxiliary / "mine.model", "--out", path]
    assert cli.main(["convert", *map(str, arguments)]) == 0
    return path


def test_encoders_are_those_of_a_whole_release(encoders, converted):
    own, whole = Settings.load(encoders), Settings.load(converted)
    assert own.configs == {name: whole.configs[name] for name in own.configs}
    assert own.configs.keys() == ENCODERS
    assert own.mel == whole.mel
    np.testing.assert_allclose(own.frames_per_code, whole.frames_per_code, rtol=2e-3)
    # So speaker files and prepared data serve both.
    assert own.front_end_fingerprint == whole.front_end_fingerprint
    assert shards.fingerprints(encoders, own) == shards.fingerprints(converted, whole)
    assert load_tables(encoders).keys() == {"feature_mean", "feature_variance"}
    assert not (encoders / "release" / "config.yaml").exists()


def test_missing_models_are_listed_together(auxiliary, tmp_path):
    models = shutil.copytree(auxiliary, tmp_path / "models")
    (models / "wav2vec2bert_stats.pt").unlink()
    (models / "campplus_cn_common.bin").unlink()
    message = r"(?s)none\.model \(tokenizer\).*\(campplus\).*stats\.pt \(feature_statistics\)"
    with pytest.raises(ConversionError, match=message):
        convert_encoders(models, tmp_path / "none.model", tmp_path / "out")
    assert list(tmp_path.iterdir()) == [models]


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--encoders", "models"], "--encoders needs --bpe"),
        (["--src", "release", "--bpe", "bpe.model"], "--encoders needs --bpe, and nothing else"),
        (["--encoders", "models", "--bpe", "b", "--aux", "a"], "go with --src alone"),
    ],
)
def test_flags_that_do_not_go_together_are_refused(tmp_path, capsys, arguments, message):
    assert cli.main(["convert", *arguments, "--out", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err


def speak(path, out, *arguments):
    options = ["--greedy", "--max-codes", "20", "--steps", "2", *arguments]
    command = ["synthesize", "--checkpoint", str(path), "--text", "Hello.", "--out", str(out)]
    return cli.main([*command, *options])


def test_encoders_alone_do_not_speak_and_say_what_is_missing(encoders, tmp_path, capsys):
    assert speak(encoders, tmp_path / "out.wav") == 2
    message = f"{encoders} holds no t2s, s2m; train first: python -m train.t2s, python -m train.s2m"
    assert capsys.readouterr().err.splitlines()[-1] == f"indextts2: error: {message}"
    with pytest.raises(store.CheckpointError, match="holds no t2s, s2m"):
        IndexTTS2.load(encoders)
    assert cli.main(["convert", "--reverse", str(encoders), "--out", str(tmp_path / "out")]) == 2
    assert "is no whole model: s2m, t2s missing" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_trainers_say_what_is_missing(encoders):
    checkpoint = f"checkpoint={encoders}"
    run = config.load(CONFIGS / "t2s_tiny.py", [checkpoint, "init=checkpoint"])
    with pytest.raises(store.CheckpointError, match="holds no t2s; train first"):
        t2s.t2s_config(run, Start.of(run))
    run = config.load(CONFIGS / "s2m_tiny.py", [checkpoint, LATENTS])
    with pytest.raises(store.CheckpointError, match="holds no t2s; train first"):
        s2m.s2m_config(run, Start.of(run))
    config.assign(run, "stages.0.latent_probability=0.0")
    assert s2m.s2m_config(run, Start.of(run)).latent_widths == ()


@pytest.mark.parametrize("init", ["scratch", "checkpoint", "another", "foreign"])
def test_where_a_run_starts_follows_from_init(encoders, converted, tmp_path, init):
    (tmp_path / "config.json").touch()
    place = {"another": converted, "foreign": tmp_path}.get(init, init)
    run = config.load(CONFIGS / "t2s_tiny.py", [f"checkpoint={encoders}", f"init={place}"])
    start = Start.of(run, is_foreign=lambda path: (path / "config.json").is_file())
    source = {"checkpoint": encoders, "another": converted}.get(init)
    assert start.base.path == encoders
    assert (start.source and start.source.path) == source
    assert start.foreign == (tmp_path if init == "foreign" else None)
    assert start.continues == (init == "checkpoint")
    assert (start.provenance("T2S", run) == start.base.settings.source) == start.continues


def test_a_new_t2s_leaves_the_prototypes_of_the_old_one_behind(converted, tmp_path, capsys):
    base, out = artifacts.Base.open(converted), tmp_path / "checkpoint"
    arrays = dict(
        store.read_arrays(converted / "weights" / "t2s", base.settings.fingerprints["t2s"])
    )
    result = artifacts.Result.of(base, "t2s", {}, emotion_groups=())
    result.publish(out, {f"t2s.{name}": x for name, x in arrays.items()})
    settings = Settings.load(out)
    assert "prototypes" not in settings.fingerprints
    assert not (out / "weights" / "prototypes").exists()
    assert settings.front_end_fingerprint == base.settings.front_end_fingerprint
    assert speak(out, tmp_path / "out.wav", "--emotion-weights", "happy=1") == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith(f"indextts2: error: {out} has no emotion prototypes: emotion weights")
    assert there_and_back(out, tmp_path) == settings


def test_prototypes_among_the_other_tables_are_found(converted, tmp_path):
    old = shutil.copytree(converted, tmp_path / "checkpoint")
    settings, tables = Settings.load(old), load_tables(old)
    for name in ("tables", "prototypes"):
        shutil.rmtree(old / "weights" / name)
    fingerprints = {n: x for n, x in settings.fingerprints.items() if n != "prototypes"}
    fingerprints["tables"] = store.save_arrays(old / "weights" / "tables", tables)
    dataclasses.replace(settings, fingerprints=fingerprints).save(old)
    for ours, theirs in zip(
        dataclasses.astuple(IndexTTS2(old).prototypes),
        dataclasses.astuple(IndexTTS2(converted).prototypes),
        strict=True,
    ):
        np.testing.assert_array_equal(ours, theirs)


def test_s2m_of_another_t2s_is_refused(converted, tmp_path):
    other = shutil.copytree(converted, tmp_path / "checkpoint")
    settings = Settings.load(other)
    wider = dataclasses.replace(settings.configs["t2s"], width=48)
    dataclasses.replace(settings, configs={**settings.configs, "t2s": wider}).save(other)
    with pytest.raises(store.CheckpointError, match="latents of width 32, its t2s gives 48"):
        IndexTTS2.load(other)


@pytest.fixture(scope="module")
def data(encoders, tmp_path_factory):
    """Six recordings of two voices, prepared with the encoders."""
    text = "Hello there, how are you?"
    items = {f"v{i % 2}/{i}": (vowel(1.2 + 0.1 * i, 110 + 20 * i), text) for i in range(6)}
    rows = write_corpus(tmp_path_factory.mktemp("corpus"), items)
    out = tmp_path_factory.mktemp("data") / "data"
    prepare.prepare(rows, encoders, out, prepare.Options(Limits(), speeds=0), batch_seconds=10)
    return out


def train(trainer, base, data, out, *changes):
    """The checkpoint of a short run."""
    name = trainer.__name__.split(".")[-1]
    paths = f"checkpoint={base}", f"data.paths={data}", f"out={out}"
    few = "data.validation=0", "data.ladder_ratio=8.0", "stages.0.steps=2", "sample_every=0"
    run = config.load(CONFIGS / f"{name}_tiny.py", (*paths, *few, *SMALL[name], *changes))
    loop.run(trainer.setup(run))
    return out / "checkpoint"


@pytest.mark.slow
def test_t2s_and_then_s2m_from_scratch_make_a_checkpoint_that_speaks(
    encoders, data, voice, tmp_path, capsys
):
    with_t2s = train(t2s, encoders, data, tmp_path / "t2s")
    settings = Settings.load(with_t2s)
    assert settings.configs.keys() == ENCODERS | {"t2s"}
    assert settings.decoding.forbidden == (settings.configs["t2s"].start_code,)
    assert speak(with_t2s, tmp_path / "out.wav") == 2
    assert "holds no s2m; train first: python -m train.s2m" in capsys.readouterr().err

    whole = train(s2m, with_t2s, data, tmp_path / "s2m", LATENTS)
    assert Settings.load(whole).configs.keys() == ENCODERS | {"t2s", "s2m"}
    assert Settings.load(whole).configs["s2m"].latent_widths[0] == 192
    for name in ENCODERS:
        load_part(whole, Settings.load(whole), name)
    assert PARTS.keys() - Settings.load(whole).configs.keys() == {"qwen3"}
    assert speak(whole, tmp_path / "out.wav", "--voice", str(voice)) == 0
    assert (tmp_path / "out.wav").is_file()
    assert speak(whole, tmp_path / "no.wav", "--emotion-weights", "happy=1") == 2
    assert "has no emotion prototypes" in capsys.readouterr().err
    assert there_and_back(whole, tmp_path) == Settings.load(whole)


def there_and_back(path, tmp_path):
    """Settings, with fingerprints, of a checkpoint that was a PyTorch release in between."""
    torch, again = tmp_path / "torch", tmp_path / "again"
    assert cli.main(["convert", "--reverse", str(path), "--out", str(torch)]) == 0
    assert cli.main(["convert", "--src", str(torch), "--out", str(again)]) == 0
    return Settings.load(again)


@pytest.mark.slow
def test_s2m_that_reads_no_latents_needs_no_t2s_and_fits_any(encoders, data, voice, tmp_path):
    with_s2m = train(s2m, encoders, data, tmp_path / "s2m")
    assert Settings.load(with_s2m).configs.keys() == ENCODERS | {"s2m"}
    again = f"checkpoint={with_s2m}", f"data.paths={data}", "init=checkpoint", LATENTS
    run = config.load(CONFIGS / "s2m_tiny.py", again)
    with pytest.raises(loop.TrainingError, match="init reads no latents"):
        s2m.setup(run)
    whole = train(t2s, with_s2m, data, tmp_path / "t2s")
    assert speak(whole, tmp_path / "out.wav", "--voice", str(voice)) == 0
    assert there_and_back(whole, tmp_path) == Settings.load(whole)


@pytest.mark.slow
def test_t2s_of_another_checkpoint_comes_with_its_rules(encoders, converted, data, tmp_path):
    changes = f"init={converted}", 'duration_slots=("pos(T)", "speed0")'
    out = train(t2s, encoders, data, tmp_path / "t2s", *changes)
    got, source = Settings.load(out), Settings.load(converted)
    assert got.configs["t2s"] == source.configs["t2s"]
    assert got.fingerprints["t2s"] != source.fingerprints["t2s"]
    assert (got.decoding, got.num_beams) == (source.decoding, source.num_beams)
    assert got.duration_slots == source.duration_slots
    assert got.emotion_groups == ()

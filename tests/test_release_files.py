"""Files of a release that are not what they should be, and unusual ones that are."""

import errno
import gzip
import io
import json
import pathlib
import shutil
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from indextts2_jax.checkpoint import store
from indextts2_jax.checkpoint.parts import Settings, load_part, load_tables
from indextts2_jax.cli import main
from indextts2_jax.convert import ConversionError
from indextts2_jax.prompt.w2v_bert import normalize
from indextts2_jax.release.convert import convert_encoders, convert_release
from indextts2_jax.release.export import export_release
from indextts2_jax.release.files import read_weights, write_weights
from indextts2_jax.release.texts import FILES
from indextts2_jax.t2s.conditioner import sinusoid

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3480000000\n"
PAGE = b"<!DOCTYPE html>\n<html><head><title>Sign in</title></head></html>"
POSITIONS = "conditioning_encoder.embed.pos_enc.pe"


@pytest.fixture
def broken(release, tmp_path):
    """A copy of the release that a test may break."""
    return shutil.copytree(release, tmp_path / "release")


def _zip(name):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(name, b"weights")
    return file.getvalue()


FOREIGN = {
    "empty": (b"", "is empty"),
    "pointer": (POINTER, "is a Git LFS pointer"),
    "page": (PAGE, "is a web page"),
    "text": (b"Entry not found", "is a text file that begins with 'Entry not found'"),
    "zip": (_zip("bpe.model"), "is a zip archive"),
    "gzip": (gzip.compress(b"weights"), "is a gzip archive"),
}


@pytest.mark.parametrize("name", ["t2s", "w2v_bert", "feature_statistics", "tokenizer"])
@pytest.mark.parametrize("kind", FOREIGN)
def test_foreign_files_are_named_in_one_line(broken, tmp_path, capsys, name, kind):
    content, message = FOREIGN[kind]
    (broken / FILES[name]).write_bytes(content)
    assert main(["convert", "--src", str(broken), "--out", str(tmp_path / "out")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert str(broken / FILES[name]) in line
    assert message in line
    assert list(tmp_path.iterdir()) == [broken]


@pytest.mark.parametrize("name", ["t2s", "campplus", "w2v_bert", "qwen3"])
def test_truncated_weights_are_called_so(release, tmp_path, name):
    content = (release / FILES[name]).read_bytes()
    path = tmp_path / pathlib.Path(FILES[name]).name
    for size in (len(content) // 2, len(content) - 100):
        path.write_bytes(content[:size])
        with pytest.raises(ConversionError, match=rf"{path}: is cut short.*\b{size:,} "):
            read_weights(path)


@pytest.mark.parametrize("size", [1, 5, 300])
def test_any_rest_of_a_file_is_one_line(release, tmp_path, size):
    for name in ("t2s", "w2v_bert"):
        path = tmp_path / pathlib.Path(FILES[name]).name
        path.write_bytes((release / FILES[name]).read_bytes()[:size])
        with pytest.raises(ConversionError, match=str(path)) as error:
            read_weights(path)
        assert "\n" not in str(error.value)


def test_settings_that_are_pointers_are_called_so(broken, tmp_path):
    for name in ("config.yaml", "hf_cache/bigvgan/config.json"):
        kept = (broken / name).read_bytes()
        (broken / name).write_bytes(POINTER)
        with pytest.raises(ConversionError, match=f"{name} is a Git LFS pointer"):
            convert_release(broken, tmp_path / "out")
        (broken / name).write_bytes(kept)


def test_a_damaged_tokenizer_is_refused(broken, tmp_path):
    bpe = broken / FILES["tokenizer"]
    content = bpe.read_bytes()
    bpe.write_bytes(content[:5000])
    with pytest.raises(ConversionError, match=r"bpe\.model.*(no SentencePiece model|pieces)"):
        convert_release(broken, tmp_path / "out")
    with pytest.raises(ConversionError, match=r"bpe\.model.*(no SentencePiece model|pieces)"):
        convert_encoders(broken, bpe, tmp_path / "out")
    assert list(tmp_path.iterdir()) == [broken]


def test_a_tokenizer_of_another_model_is_refused(broken, tmp_path):
    from sentencepiece import SentencePieceTrainer

    other = io.BytesIO()
    words = (f"{a}{b} {b}{a}" for a in "abcdefgh" for b in "ijklmnop")
    SentencePieceTrainer.train(
        sentence_iterator=words,
        model_writer=other,
        model_type="bpe",
        vocab_size=36,
        minloglevel=2,
    )
    (broken / FILES["tokenizer"]).write_bytes(other.getvalue())
    with pytest.raises(ConversionError, match=r"bpe\.model: has 36 pieces, but .*gpt\.pth.*\d+"):
        convert_release(broken, tmp_path / "out")


def test_numpy_numbers_in_a_pickle_are_read(tmp_path):
    numbers = {
        "loss": np.float64(0.5),
        "step": np.int64(3),
        "done": np.bool_(True),
        "lr": np.float32([0.1, 0.2]),
    }
    torch.save({"model": {"w": torch.arange(3.0)}, **numbers}, tmp_path / "gpt.pth")
    file = read_weights(tmp_path / "gpt.pth")
    assert list(file.tensors) == ["model/w"]
    assert set(file.others) == set(numbers)


def test_numpy_objects_stay_unread(tmp_path):
    class Attack:
        def __reduce__(self):
            return (open, (str(tmp_path / "attacked"), "w"))

    torch.save({"x": np.array([Attack()], dtype=object)}, tmp_path / "gpt.pth")
    with pytest.raises(ConversionError, match=r"gpt\.pth: not a plain weight file.*(open|Object)"):
        read_weights(tmp_path / "gpt.pth")
    assert not (tmp_path / "attacked").exists()


def _shard(path):
    """Splits a safetensors file as the hub does."""
    tensors = load_file(path)
    names = sorted(tensors)
    places = {name: f"model-0000{1 + (i % 2)}-of-00002.safetensors" for i, name in enumerate(names)}
    for shard in set(places.values()):
        part = {name: tensors[name] for name in names if places[name] == shard}
        save_file(part, path.with_name(shard), {"format": "pt"})
    index = {"metadata": {"total_size": 1}, "weight_map": places}
    path.with_name(f"{path.name}.index.json").write_text(json.dumps(index))
    path.unlink()


def test_weights_in_several_files_are_read_as_one(broken, converted, tmp_path):
    for name in ("w2v_bert", "qwen3"):
        _shard(broken / FILES[name])
    convert_release(broken, tmp_path / "out")
    got = Settings.load(tmp_path / "out").fingerprints
    assert got == Settings.load(converted).fingerprints
    export_release(tmp_path / "out", tmp_path / "back")
    assert not list((tmp_path / "back").rglob("*.index.json"))
    convert_release(tmp_path / "back", tmp_path / "again")
    assert Settings.load(tmp_path / "again").fingerprints == got


def test_an_index_must_fit_its_files(release, tmp_path):
    path = tmp_path / "model.safetensors"
    shutil.copyfile(release / FILES["w2v_bert"], path)
    _shard(path)
    index = tmp_path / "model.safetensors.index.json"
    places = json.loads(index.read_text())["weight_map"]
    one = "model-00001-of-00002.safetensors"
    index.write_text(json.dumps({"weight_map": {**places, "more": one}}))
    with pytest.raises(ConversionError, match=r"does not fit its files, e\.g\. in more"):
        read_weights(index)
    index.write_text(json.dumps({"weight_map": {**places, "more": "../secret.safetensors"}}))
    with pytest.raises(ConversionError, match="leads out of its directory"):
        read_weights(index)
    index.write_text(json.dumps({"weight_map": places}))
    (tmp_path / one).unlink()
    with pytest.raises(ConversionError, match=f"{one} is missing"):
        read_weights(index)


def _with_positions(path, table):
    tensors = torch.load(path / FILES["t2s"], weights_only=True)
    torch.save({**tensors, POSITIONS: table}, path / FILES["t2s"])


def test_stored_positions_are_used_as_stored(broken, converted, tmp_path):
    half = torch.from_numpy(sinusoid(400, 16)[None]).half()
    half[0, 1] = 0.25  # nobody would compute that
    _with_positions(broken, half)
    convert_release(broken, tmp_path / "out")
    settings = Settings.load(tmp_path / "out")
    assert settings.configs["t2s"].speaker.num_positions == 400
    assert settings.configs["t2s"].emotion.num_positions == 0
    model = load_part(tmp_path / "out", settings, "t2s")
    table = half[0].float().numpy()
    np.testing.assert_array_equal(model.speaker_conditioner.positions[...], table)

    features = np.random.default_rng(0).standard_normal((1, 9, 24)).astype(np.float32)
    got = np.asarray(model.speaker_latents(features, np.asarray([9])))
    plain = load_part(converted, Settings.load(converted), "t2s")
    assert np.abs(got - np.asarray(plain.speaker_latents(features, np.asarray([9])))).max() > 1e-4
    model.speaker_conditioner.positions[...] = sinusoid(400, 16)
    np.testing.assert_allclose(
        model.speaker_latents(features, np.asarray([9])),
        plain.speaker_latents(features, np.asarray([9])),
        atol=1e-5,
    )
    with pytest.raises(ValueError, match="404 frames, but 400 positions"):
        model.speaker_latents(np.zeros((1, 809, 24), np.float32), np.asarray([809]))


def test_stored_positions_come_back(broken, tmp_path, caplog):
    _with_positions(broken, torch.from_numpy(sinusoid(40, 16)).half().reshape(1, 40, 16))
    convert_release(broken, tmp_path / "out")
    export_release(tmp_path / "out", tmp_path / "back")
    got, want = ((path / FILES["t2s"]).read_bytes() for path in (tmp_path / "back", broken))
    assert got == want
    assert not (tmp_path / "back" / "indextts2_jax.json").exists()


def test_positions_that_we_compute_are_not_stored(broken, converted, tmp_path):
    _with_positions(broken, torch.from_numpy(sinusoid(5000, 16)[None]))
    convert_release(broken, tmp_path / "out")
    got, want = Settings.load(tmp_path / "out"), Settings.load(converted)
    assert (got.configs, got.fingerprints) == (want.configs, want.fingerprints)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_root_of_the_variance_is_taken_in_the_dtype_of_the_file(broken, tmp_path, dtype):
    path = broken / FILES["feature_statistics"]
    tables = {k: x.to(dtype) for k, x in torch.load(path, weights_only=True).items()}
    torch.save(tables, path)
    convert_release(broken, tmp_path / "out")
    read = load_tables(tmp_path / "out")
    deviation = tables["var"].sqrt()
    np.testing.assert_array_equal(np.sqrt(read["feature_variance"]), deviation.float().numpy())
    hidden = np.random.default_rng(0).standard_normal((1, 5, 24)).astype(np.float32)
    want = (torch.from_numpy(hidden) - tables["mean"]) / deviation
    got = normalize(hidden, read["feature_mean"], read["feature_variance"])
    np.testing.assert_allclose(got, want.numpy(), rtol=3e-7, atol=3e-7)
    export_release(tmp_path / "out", tmp_path / "back")
    back = torch.load(tmp_path / "back" / FILES["feature_statistics"], weights_only=True)
    assert all(torch.equal(back[k], x) and back[k].dtype == dtype for k, x in tables.items())


def test_another_depth_of_the_length_regulator_names_the_setting(broken, tmp_path):
    config = broken / "config.yaml"
    text = config.read_text()
    old = "sampling_ratios:\n    - 1\n    - 1\n    - 1\n    - 1\n"
    assert old in text
    config.write_text(text.replace(old, "sampling_ratios: [1, 1]\n"))
    with pytest.raises(ConversionError, match=r"s2mel\.length_regulator\.sampling_ratios has 2 "):
        convert_release(broken, tmp_path / "out")


class _Full:
    """Stands for a function that finds the disk full."""

    def __call__(self, *args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device", "somewhere")


@pytest.mark.parametrize("function", ["shutil.copyfile", "store.write_json", "store.save_arrays"])
def test_a_full_disk_is_one_line_and_nothing_stays(
    release, tmp_path, monkeypatch, capsys, function
):
    module, name = function.split(".")
    monkeypatch.setattr({"shutil": shutil, "store": store}[module], name, _Full())
    out = tmp_path / "new" / "checkpoint"
    assert main(["convert", "--src", str(release), "--out", str(out)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"cannot write {out}: No space left on device" in line
    assert list(tmp_path.iterdir()) == []


def test_what_tensorstore_says_of_a_full_disk_is_an_os_error(tmp_path, monkeypatch):
    def save(*_):
        raise ValueError("RESOURCE_EXHAUSTED: ... [os_error_code='28']")

    monkeypatch.setattr(store.ocp.Checkpointer, "save", save)
    with pytest.raises(OSError, match="No space left on device") as error:
        store.save_arrays(tmp_path / "a", {"w": np.zeros(3)})
    assert error.value.errno == errno.ENOSPC


def test_what_pytorch_says_of_a_full_disk_is_an_os_error(tmp_path, monkeypatch):
    def save(*_):
        raise RuntimeError("[enforce fail] . unexpected pos 576 vs 534")

    monkeypatch.setattr(torch, "save", save)
    with pytest.raises(OSError, match="is the disk full"):
        write_weights(tmp_path / "gpt.pth", {"w": np.zeros(3)}, None)


@pytest.mark.parametrize("name", ["x" * 300, "file/checkpoint"])
def test_places_that_cannot_be_are_one_line(release, tmp_path, capsys, name):
    (tmp_path / "file").write_bytes(b"")
    assert main(["convert", "--src", str(release), "--out", str(tmp_path / name)]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["file"]

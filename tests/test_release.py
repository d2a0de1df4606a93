"""Conversion of a release: complete, strict, reproducible, and all or nothing."""

import json
import pickle
import shutil

import ml_dtypes
import numpy as np
import pytest
import torch

from indextts2_jax import convert
from indextts2_jax.checkpoint import store
from indextts2_jax.checkpoint.parts import PARTS, Settings, load_part
from indextts2_jax.convert import ConversionError
from indextts2_jax.nn import pytree
from indextts2_jax.release import find
from indextts2_jax.release.convert import convert_release
from indextts2_jax.release.texts import FILES
from tests.release_factory import random_tensors, small_configs


@pytest.fixture
def broken(release, tmp_path):
    """A copy of the release that a test may break."""
    return shutil.copytree(release, tmp_path / "release")


def _edit(path, change):
    tensors = torch.load(path, weights_only=True)
    change(tensors)
    torch.save(tensors, path)


def test_architectures_are_read_off_the_release(converted):
    settings = Settings.load(converted)
    assert dict(settings.configs) == {**small_configs(), **settings.configs} | small_configs()
    assert settings.decoding.positions == "released"
    assert settings.decoding.penalized == (1, small_configs()["t2s"].start_code)


@pytest.mark.parametrize("name", PARTS)
def test_every_weight_arrives(converted, name):
    settings = Settings.load(converted)
    config = settings.configs[name]
    got = pytree.params(load_part(converted, settings, name))
    want = dict(random_tensors(name, config))
    back = convert.to_torch({k: np.asarray(v) for k, v in got.items()}, PARTS[name].rules)
    assert back.keys() == want.keys()
    for key in want:
        np.testing.assert_array_equal(back[key], want[key], err_msg=key)


def test_provenance_names_every_tensor_in_order(release, converted):
    provenance = json.loads((converted / "provenance.json").read_text())
    tensors = torch.load(release / "gpt.pth", weights_only=True)
    assert [t[0] for t in provenance["t2s"]["tensors"]] == list(tensors)
    assert provenance["vocoder"]["wrapper"] == "generator"
    assert provenance["s2m"]["tensors"][0][1] == "float32"


def test_conversion_is_reproducible(release, converted, tmp_path):
    convert_release(release, tmp_path / "again")
    first, again = Settings.load(converted), Settings.load(tmp_path / "again")
    assert first.fingerprints == again.fingerprints


def test_bfloat16_is_for_the_large_generators_alone(release, tmp_path):
    convert_release(release, tmp_path / "out", dtype="bfloat16")
    settings = Settings.load(tmp_path / "out")
    t2s = load_part(tmp_path / "out", settings, "t2s")
    kernel = np.asarray(t2s.blocks[0].qkv.kernel[...])
    np.testing.assert_array_equal(kernel, kernel.astype(ml_dtypes.bfloat16).astype(np.float32))
    codec = load_part(tmp_path / "out", settings, "semantic_codec")
    book = np.asarray(codec.quantizer.codebook.embedding[...])
    assert not np.array_equal(book, book.astype(ml_dtypes.bfloat16).astype(np.float32))


def test_half_precision_files_convert(broken, tmp_path):
    def halve(tensors):
        for key in tensors:
            tensors[key] = tensors[key].half()

    _edit(broken / "gpt.pth", halve)
    convert_release(broken, tmp_path / "out")
    provenance = json.loads((tmp_path / "out" / "provenance.json").read_text())
    assert {t[1] for t in provenance["t2s"]["tensors"]} == {"float16"}


def test_buffers_and_dead_parameters_are_kept_aside(broken, tmp_path):
    table = torch.arange(12.0).reshape(3, 4)
    _edit(broken / "gpt.pth", lambda t: t.update({"gpt.wte.weight": table}))
    convert_release(broken, tmp_path / "out")
    types = store.array_types(tmp_path / "out" / "unused" / "t2s")
    assert {name: x.shape for name, x in types.items()} == {"gpt.wte.weight": (3, 4)}


def test_wrappers_and_parallel_prefixes_are_removed(broken, tmp_path):
    tensors = torch.load(broken / "gpt.pth", weights_only=True)
    torch.save({"model": {f"module.{k}": v for k, v in tensors.items()}}, broken / "gpt.pth")
    convert_release(broken, tmp_path / "out")
    assert (tmp_path / "out" / "checkpoint.json").is_file()


def test_every_mismatch_is_listed_and_nothing_is_written(broken, tmp_path):
    def break_t2s(tensors):
        del tensors["mel_head.bias"]
        tensors["surprise"] = torch.zeros(3)
        tensors["final_norm.weight"] = torch.ones(7)
        tensors["text_head.weight"] = torch.ones(7)

    _edit(broken / "gpt.pth", break_t2s)
    _edit(broken / FILES["campplus"], lambda t: t.pop("head.conv1.weight"))
    with pytest.raises(ConversionError) as error:
        convert_release(broken, tmp_path / "out")
    message = str(error.value)
    assert "gpt.pth: 4 tensors do not match" in message
    assert "mel_head.bias: missing tensor" in message
    assert "surprise: unexpected tensor" in message
    assert "final_norm.weight: shape (7,) does not fit norm_final.scale (32,)" in message
    assert "text_head.weight: shape (7,)" in message
    assert "campplus_cn_common.bin" in message
    assert list(tmp_path.iterdir()) == [broken]


def test_missing_files_are_listed_together(broken, tmp_path):
    (broken / "gpt.pth").unlink()
    (broken / FILES["w2v_bert"]).unlink()
    with pytest.raises(ConversionError, match=r"(?s)gpt\.pth \(t2s\).*w2v-bert-2\.0.*\(w2v_bert\)"):
        convert_release(broken, tmp_path / "out")


def test_a_pickle_runs_no_code(broken, tmp_path):
    class Attack:
        def __reduce__(self):
            return (open, (str(tmp_path / "attacked"), "w"))

    (broken / "gpt.pth").write_bytes(pickle.dumps({"x": Attack()}))
    with pytest.raises(ConversionError, match=r"gpt\.pth"):
        convert_release(broken, tmp_path / "out")
    assert not (tmp_path / "attacked").exists()


def test_damaged_files_are_named(broken, tmp_path):
    (broken / "s2mel.pth").write_bytes(b"not a checkpoint")
    (broken / FILES["w2v_bert"]).write_bytes(b"\x05")
    with pytest.raises(
        ConversionError, match=r"(?s)model\.safetensors: is cut short.*s2mel\.pth: is a text file"
    ):
        convert_release(broken, tmp_path / "out")


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "is empty"),
        ("# nothing\n", "holds no settings"),
        ("gpt: {", "config.yaml"),
        ("gpt: 1", "'gpt_checkpoint' is missing"),
    ],
)
def test_a_broken_config_is_one_line(broken, tmp_path, text, message):
    (broken / "config.yaml").write_text(text)
    with pytest.raises(ConversionError, match=message) as error:
        convert_release(broken, tmp_path / "out")
    assert "\n" not in str(error.value)


def test_an_existing_checkpoint_is_not_overwritten(release, converted):
    before = (converted / "checkpoint.json").read_bytes()
    with pytest.raises(store.CheckpointError, match="exists already"):
        convert_release(release, converted)
    assert (converted / "checkpoint.json").read_bytes() == before


def test_the_hub_cache_layout_is_found(broken, tmp_path):
    cache = broken / "hf_cache"
    hub = {
        "w2v-bert-2.0": "models--facebook--w2v-bert-2.0/snapshots/abc",
        "bigvgan": "models--nvidia--bigvgan_v2_22khz_80band_256x/snapshots/abc",
    }
    aux = tmp_path / "hub"
    for old, new in hub.items():
        (aux / new).parent.mkdir(parents=True)
        (cache / old).rename(aux / new)
    codec = aux / "models--amphion--MaskGCT/snapshots/abc/semantic_codec/model.safetensors"
    codec.parent.mkdir(parents=True)
    (cache / "semantic_codec_model.safetensors").rename(codec)
    found = find.Release.find(broken, aux)
    assert found.files["semantic_codec"] == codec
    assert found.files["campplus"].parent == cache

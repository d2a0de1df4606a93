"""The way back: what comes out of a checkpoint is the release that went in, bit by bit."""

import dataclasses
import json
import shutil

import ml_dtypes
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from indextts2_jax import cli
from indextts2_jax.checkpoint import store
from indextts2_jax.checkpoint.parts import PARTS, Settings, save_part
from indextts2_jax.nn import pytree
from indextts2_jax.prompt.campplus import CAMPPlusConfig
from indextts2_jax.release.convert import convert_release
from indextts2_jax.release.export import export_release
from indextts2_jax.release.files import write_weights
from indextts2_jax.release.find import OWN_SETTINGS
from indextts2_jax.release.texts import FILES
from tests.common import SHARED, needs_shared

WEIGHTS = (".pth", ".pt", ".bin", ".safetensors")


def _files(folder):
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}


def _contents(path):
    """(key, dtype, shape, bytes) of every tensor of a weight file, in its order; and the rest."""
    if path.suffix == ".safetensors":
        content = path.read_bytes()
        size = int.from_bytes(content[:8], "little")
        header = json.loads(content[8 : 8 + size])
        metadata = header.pop("__metadata__", None)
        tensors = [
            (key, x["dtype"], x["shape"], content[8 + size :][slice(*x["data_offsets"])])
            for key, x in header.items()
        ]
        return tensors, metadata
    tensors, others = [], []

    def walk(key, value):
        if isinstance(value, torch.Tensor):
            content = value.contiguous().view(-1).view(torch.uint8).numpy().tobytes()
            tensors.append((key, value.dtype, value.shape, content))
        elif isinstance(value, dict):
            for name, inner in value.items():
                walk((*key, name), inner)
        else:
            others.append(key)

    walk((), torch.load(path, weights_only=True))
    return tensors, others


def _assert_same_release(got, want):
    assert _files(got) == _files(want)
    for name in _files(want):
        if name.endswith(WEIGHTS):
            assert _contents(got / name)[0] == _contents(want / name)[0], name
        else:
            assert (got / name).read_bytes() == (want / name).read_bytes(), name


def _halve(tensors, dtype):
    return {k: x.to(dtype) if x.is_floating_point() else x for k, x in tensors.items()}


@pytest.fixture(scope="module")
def odd_release(release, tmp_path_factory):
    """A release with everything that files in the wild have."""
    path = shutil.copytree(release, tmp_path_factory.mktemp("odd") / "release")
    gpt = _halve(torch.load(path / FILES["t2s"], weights_only=True), torch.bfloat16)
    gpt["conditioning_encoder.embed.pos_enc.pe"] = torch.rand(1, 3, 16)
    gpt["gpt.wte.weight"] = torch.rand(4, 3).T
    wrapped = {f"module.{key}": x for key, x in gpt.items()}
    torch.save({"epoch": 3, "model": wrapped, "optimizer": {"lr": [0.1]}}, path / FILES["t2s"])

    style = _halve(torch.load(path / FILES["campplus"], weights_only=True), torch.float16)
    style["head.bn1.num_batches_tracked"] = torch.tensor(2**40)
    torch.save(dict(sorted(style.items())), path / FILES["campplus"])

    tensors = load_file(path / FILES["w2v_bert"])
    arrays = {k: x.numpy().copy() for k, x in reversed(tensors.items())}  # an order of its own
    arrays["masked_spec_embed"] = np.ones(24, np.float16)
    write_weights(path / FILES["w2v_bert"], arrays, {"format": "pt", "origin": "é"})
    load_file(path / FILES["w2v_bert"])  # accepts it

    hub = path / "hf_cache/models--nvidia--bigvgan_v2_22khz_80band_256x/snapshots"
    hub.mkdir(parents=True)
    (path / "hf_cache/bigvgan").rename(hub / "abc")
    (path / "LICENSE.txt").write_text("mine")
    (path / "glossary.yaml").write_text("{}")
    (path / FILES["qwen3"]).with_name("tokenizer.json").write_text("{}")
    return path


@pytest.fixture(scope="module")
def odd_checkpoint(odd_release, tmp_path_factory):
    path = tmp_path_factory.mktemp("odd_checkpoint") / "checkpoint"
    convert_release(odd_release, path)
    return path


@pytest.fixture(scope="module")
def trained(converted, tmp_path_factory):
    """A checkpoint of ours without provenance; its CAMPPlus has the depth that speakerlab fixes."""
    path = tmp_path_factory.mktemp("trained") / "checkpoint"
    shutil.copytree(converted, path, ignore=shutil.ignore_patterns("provenance.json", "release"))
    config = CAMPPlusConfig(80, 192, 32, 16, 4, 2, (12, 24, 16), (1, 2, 2))
    _replace_part(path, "campplus", lambda _: _random_arrays("campplus", config), config)
    return path


@pytest.fixture(scope="module")
def exported(trained, tmp_path_factory):
    path = tmp_path_factory.mktemp("exported") / "release"
    export_release(trained, path)
    return path


def _random_arrays(name, config):
    return pytree.random_arrays(lambda rngs: PARTS[name].model(config, rngs=rngs), 0)


def _replace_part(path, name, change, config=None):
    """Changes the arrays of a part as a trainer would."""
    settings = Settings.load(path)
    arrays = dict(store.read_arrays(path / "weights" / name, settings.fingerprints[name]))
    shutil.rmtree(path / "weights" / name)
    fingerprints = {**settings.fingerprints, name: save_part(path, name, change(arrays))}
    configs = {**settings.configs, name: config} if config else settings.configs
    _save(settings, path, configs=configs, fingerprints=fingerprints)


def _save(settings, path, **changes):
    dataclasses.replace(settings, **changes).save(path)


def _only(source, path, name):
    """A copy of a checkpoint with one part, which is quick to export."""
    shutil.copytree(source, path)
    settings = Settings.load(path)
    _save(settings, path, configs={name: settings.configs[name]})
    return path


def test_a_release_survives_the_round_trip(release, converted, tmp_path, caplog):
    export_release(converted, tmp_path / "out")
    _assert_same_release(tmp_path / "out", release)
    (warning,) = caplog.messages
    assert warning == "s2mel.pth: entries that are no weights are left out: epoch"
    convert_release(tmp_path / "out", tmp_path / "again")
    again = Settings.load(tmp_path / "again")
    assert again.fingerprints == Settings.load(converted).fingerprints


def test_wrappers_prefixes_buffers_dtypes_and_orders_come_back(
    odd_release, odd_checkpoint, tmp_path, caplog
):
    export_release(odd_checkpoint, tmp_path / "out")
    _assert_same_release(tmp_path / "out", odd_release)
    assert "gpt.pth: entries that are no weights are left out: epoch, optimizer" in caplog.messages
    assert _contents(tmp_path / "out" / FILES["w2v_bert"])[1] == {"format": "pt", "origin": "é"}


@pytest.mark.slow
@needs_shared
def test_the_golden_release_survives_the_round_trip(tmp_path, caplog):
    release = SHARED / "golden" / "pipeline" / "release"
    convert_release(release, tmp_path / "checkpoint")
    export_release(tmp_path / "checkpoint", tmp_path / "out")
    _assert_same_release(tmp_path / "out", release)
    assert not caplog.messages


@pytest.mark.slow
def test_what_bfloat16_storage_has_rounded_is_said(odd_release, tmp_path, caplog):
    convert_release(odd_release, tmp_path / "checkpoint", dtype="bfloat16")
    export_release(tmp_path / "checkpoint", tmp_path / "out")
    message = "rounded, because the checkpoint stores them with fewer bits: s2m (bfloat16), qwen3"
    assert any(m.startswith(message) for m in caplog.messages)
    for name in ("t2s", "campplus"):  # half precision from the start
        assert (
            _contents(tmp_path / "out" / FILES[name])[0] == _contents(odd_release / FILES[name])[0]
        )
    got, want = (load_file(path / FILES["qwen3"]) for path in (tmp_path / "out", odd_release))
    for key, tensor in want.items():
        assert got[key].dtype == tensor.dtype
        assert torch.equal(got[key], tensor.bfloat16().float())


def test_weights_trained_after_their_conversion_are_not_rounded(odd_checkpoint, tmp_path, caplog):
    path = _only(odd_checkpoint, tmp_path / "checkpoint", "campplus")

    def train(arrays):
        return {**arrays, "style.kernel": arrays["style.kernel"] + np.float32(1e-6)}

    _replace_part(path, "campplus", train)
    export_release(path, tmp_path / "out")
    tensors = torch.load(tmp_path / "out" / FILES["campplus"], weights_only=True)
    dtypes = {key: x.dtype for key, x in tensors.items() if x.is_floating_point()}
    assert dtypes.pop("xvector.dense.linear.weight") == torch.float32
    assert set(dtypes.values()) == {torch.float16}
    assert any("trained after their conversion: campplus" in m for m in caplog.messages)


@pytest.mark.slow
def test_a_checkpoint_without_provenance_becomes_a_release_too(trained, exported, tmp_path):
    convert_release(exported, tmp_path / "again")
    again, settings = Settings.load(tmp_path / "again"), Settings.load(trained)
    assert again.fingerprints == settings.fingerprints
    assert again.configs == settings.configs
    gpt = torch.load(exported / "gpt.pth", weights_only=True)
    assert gpt["emo_conditioning_encoder.embed.pos_enc.pe"].shape == (1, 5000, 8)
    assert {x.dtype for x in gpt.values()} == {torch.float32}
    net = torch.load(exported / "s2mel.pth", weights_only=True)["net"]
    assert torch.equal(net["cfm"]["estimator.input_pos"], torch.arange(16384))
    assert (exported / "bpe.model").read_bytes() == (trained / "tokenizer/bpe.model").read_bytes()


def test_what_a_release_cannot_hold_is_said_and_kept_beside_it(trained, tmp_path, caplog):
    path = shutil.copytree(trained, tmp_path / "checkpoint")
    _save(Settings.load(path), path, feature_layer=3)
    export_release(path, tmp_path / "out")
    (warning,) = caplog.messages
    assert warning.endswith(
        "indextts2_jax.json beside it does, for `indextts2 convert`: feature_layer"
    )
    convert_release(tmp_path / "out", tmp_path / "again")
    assert Settings.load(tmp_path / "again") == Settings.load(path)


def test_a_release_without_qwen3_says_how_it_converts(trained, tmp_path, caplog):
    path = shutil.copytree(trained, tmp_path / "checkpoint")
    settings = Settings.load(path)
    _save(settings, path, configs={n: x for n, x in settings.configs.items() if n != "qwen3"})
    export_release(path, tmp_path / "out")
    assert caplog.messages == [
        "there is no qwen3: the release converts with --no-emotion-text alone"
    ]
    assert not (tmp_path / "out" / OWN_SETTINGS).exists()


def test_the_babbling_checkpoint_survives_the_round_trip(tmp_path, capsys):
    source = tmp_path / "checkpoint"
    for code in (0, 2):  # the second time it is there
        assert cli.main(["demo", "--out", str(source)]) == code
    assert "checkpoint exists already" in capsys.readouterr().err
    assert cli.main(["convert", "--reverse", str(source), "--out", str(tmp_path / "out")]) == 0
    (warning,) = [line for line in capsys.readouterr().err.splitlines() if "warning" in line]
    assert "gpt.pth: 'speed_emb.weight' is missing" in warning  # of the paper's T2S
    arguments = ["--src", str(tmp_path / "out"), "--out", str(tmp_path / "again")]
    assert cli.main(["convert", *arguments]) == 0
    assert Settings.load(tmp_path / "again") == Settings.load(source)  # fingerprints, too
    export_release(tmp_path / "again", tmp_path / "once more")
    _assert_same_release(tmp_path / "once more", tmp_path / "out")


def test_networks_of_other_forms_survive_the_round_trip(converted, tmp_path):
    """As after training in a converted release: the rest stays as it was there, bit by bit."""
    path = shutil.copytree(converted, tmp_path / "checkpoint")
    configs = Settings.load(path).configs
    changes = {
        "t2s": {"num_speed_embeddings": 0, "free_slots": ("zero",), "num_layers": 1},
        "s2m": {"latent_widths": (), "word_width": 5},
    }
    for name, values in changes.items():
        config = dataclasses.replace(configs[name], **values)
        _replace_part(path, name, lambda _, n=name, c=config: _random_arrays(n, c), config)
    settings = Settings.load(path)
    fingerprints = {k: v for k, v in settings.fingerprints.items() if k != "prototypes"}
    _save(settings, path, duration_slots=("pos(T)",), emotion_groups=(), fingerprints=fingerprints)
    export_release(path, tmp_path / "out")
    gpt = torch.load(tmp_path / "out" / "gpt.pth", weights_only=True)
    assert "speed_emb.weight" not in gpt and "gpt.h.1.ln_1.weight" not in gpt
    net = torch.load(tmp_path / "out" / "s2mel.pth", weights_only=True)["net"]
    assert net.keys() == {"cfm", "length_regulator", "text_features"}
    assert not (tmp_path / "out" / FILES["emotion_styles"]).exists()
    convert_release(tmp_path / "out", tmp_path / "again")
    assert Settings.load(tmp_path / "again") == Settings.load(path)
    codec = FILES["semantic_codec"]
    export_release(converted, tmp_path / "before")
    assert (tmp_path / "out" / codec).read_bytes() == (tmp_path / "before" / codec).read_bytes()


def test_other_prototypes_survive_the_round_trip(converted, tmp_path):
    path = shutil.copytree(converted, tmp_path / "checkpoint")
    groups = (2, *Settings.load(path).emotion_groups[1:])

    def one_more(arrays):
        return {name: np.concatenate([x[:1], x]) for name, x in arrays.items()}

    _replace_part(path, "prototypes", one_more)
    _save(Settings.load(path), path, emotion_groups=groups)
    export_release(path, tmp_path / "out")
    convert_release(tmp_path / "out", tmp_path / "again")
    assert Settings.load(tmp_path / "again") == Settings.load(path)
    assert not (tmp_path / "out" / OWN_SETTINGS).exists()  # config.yaml can say it


def test_a_broken_file_of_own_settings_is_one_line(release, tmp_path):
    path = shutil.copytree(release, tmp_path / "release")
    for text, message in (("{", "json is damaged"), ("[]", "no settings"), ("{}", "version None")):
        (path / OWN_SETTINGS).write_text(text)
        with pytest.raises(store.CheckpointError, match=message):
            convert_release(path, tmp_path / "out")


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
def test_the_vocoder_fits_nvidias(exported):
    bigvgan = pytest.importorskip("bigvgan.bigvgan")
    from bigvgan.env import AttrDict

    folder = exported / "hf_cache/bigvgan"
    model = bigvgan.BigVGAN(AttrDict(json.loads((folder / "config.json").read_text())))
    tensors = torch.load(folder / "bigvgan_generator.pt", weights_only=True)["generator"]
    model.load_state_dict(tensors, strict=True)


def test_the_style_encoder_fits_speakerlabs(exported):
    campplus = pytest.importorskip("speakerlab.models.campplus.DTDNN")
    model = campplus.CAMPPlus(80, 192, growth_rate=4, bn_size=2, init_channels=16)
    model.load_state_dict(torch.load(exported / FILES["campplus"], weights_only=True), strict=True)


@pytest.mark.parametrize(
    "name, model", [("w2v_bert", "Wav2Vec2BertModel"), ("qwen3", "Qwen3ForCausalLM")]
)
def test_transformers_load_their_folders(exported, name, model):
    transformers = pytest.importorskip("transformers")
    folder = (exported / FILES[name]).parent
    _, info = getattr(transformers, model).from_pretrained(folder, output_loading_info=True)
    assert not info["unexpected_keys"] and not info["mismatched_keys"]
    assert set(info["missing_keys"]) <= {"lm_head.weight"}  # tied


def _damage(path, kind):
    provenance = path / "provenance.json"
    data = max((path / "weights/campplus").rglob("d/*"), key=lambda p: p.stat().st_size)
    text = provenance.read_text()
    if kind == "flipped bit":
        content = bytearray(data.read_bytes())
        content[len(content) // 2] ^= 1
        data.write_bytes(content)
    elif kind == "cut file":
        data.write_bytes(data.read_bytes()[:100])
    elif kind == "missing metadata":
        (path / "weights/campplus/000/_METADATA").unlink()
    elif kind == "missing piece":
        shutil.rmtree(path / "weights/campplus/000")
    elif kind == "missing part":
        shutil.rmtree(path / "weights/campplus")
    elif kind == "missing table":
        shutil.rmtree(path / "weights/tables")
    elif kind == "missing buffers":
        shutil.rmtree(path / "unused/campplus")
    elif kind == "missing text":
        (path / "release/config.yaml").unlink()
    elif kind == "broken provenance":
        provenance.write_text(text[:-10])
    elif kind == "old provenance":
        provenance.write_text("{}")
    elif kind == "other tensors":
        provenance.write_text(text.replace("head.conv1.weight", "head.conv7.weight"))
    elif kind == "writes outside":
        provenance.write_text(text.replace('"bpe.model": ', '"../bpe.model": '))
    elif kind == "reads outside":
        provenance.write_text(text.replace("release/config.yaml", "/etc/hostname"))


@pytest.mark.parametrize(
    "kind, message",
    [
        ("flipped bit", "campplus.* damaged"),
        ("cut file", "campplus.* damaged"),
        ("missing metadata", "campplus.* damaged"),
        ("missing piece", "campplus is damaged"),
        ("missing part", "campplus is missing"),
        ("missing table", "tables is missing"),
        ("missing buffers", "unused/campplus is missing"),
        ("missing text", r"config\.yaml cannot be copied"),
        ("broken provenance", r"provenance\.json is damaged"),
        ("old provenance", r"provenance\.json is damaged or of an older version"),
        ("other tensors", r"campplus are not those of provenance\.json.*head\.conv1\.weight"),
        ("writes outside", r"leads out of its directory: \.\./bpe\.model"),
        ("reads outside", "leads out of its directory: /etc/hostname"),
    ],
)
def test_damage_is_one_line_and_nothing_is_written(odd_checkpoint, tmp_path, kind, message):
    path = _only(odd_checkpoint, tmp_path / "checkpoint", "campplus")
    _damage(path, kind)
    with pytest.raises(store.CheckpointError, match=message) as error:
        export_release(path, tmp_path / "out")
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == [path]


def test_a_part_of_a_model_alone_is_no_release(trained, tmp_path):
    path = _only(trained, tmp_path / "checkpoint", "campplus")
    with pytest.raises(store.CheckpointError, match="no whole model: s2m, semantic_codec, t2s"):
        export_release(path, tmp_path / "out")


def test_an_existing_release_is_not_overwritten(converted, tmp_path):
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(store.CheckpointError, match="exists already"):
        export_release(converted, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["mine"]


def test_exactly_one_direction_is_asked_for(tmp_path, capsys):
    out = ["--out", str(tmp_path / "out")]
    for arguments in ([], ["--src", "a", "--reverse", "b"]):
        assert cli.main(["convert", *arguments, *out]) == 2
    for arguments in (["--reverse", str(tmp_path / "none")], ["--reverse", "a", "--aux", "b"]):
        assert cli.main(["convert", *arguments, *out]) == 2
    assert "no checkpoint directory at" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_arrays_without_axes_and_of_every_dtype_are_stored(tmp_path):
    arrays = {
        "scalar": np.asarray(2**40),
        "brain": np.arange(3).astype(ml_dtypes.bfloat16),
        "half": np.ones((2, 1), np.float16),
        "turned": np.arange(6.0).reshape(2, 3).T,
    }
    fingerprint = store.save_arrays(tmp_path / "x", arrays)
    again = dict(store.read_arrays(tmp_path / "x", fingerprint))
    for name, x in arrays.items():
        assert again[name].dtype == x.dtype and again[name].shape == x.shape
        np.testing.assert_array_equal(again[name], x)

"""One checkpoint of ours -> a PyTorch release (`indextts2 convert --reverse`), the way back.

    converted checkpoint   every tensor of every file bit by bit as it was, by provenance.json;
                           settings and tokenizers word for word
    any other checkpoint   float32 files under the released names; settings written from ours

`indextts2 convert` reads the result again; what the form of a release cannot hold is warned of.
"""

import dataclasses
import json
import logging
import pathlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import ml_dtypes
import numpy as np
import yaml
from tqdm import tqdm

from indextts2_jax import checkpoint, convert
from indextts2_jax.audio.mel import MelConfig
from indextts2_jax.checkpoint import CheckpointError
from indextts2_jax.emotion.qwen3 import CLASSIFIER, Qwen3Config
from indextts2_jax.errors import InputError
from indextts2_jax.parts import PARTS, Settings
from indextts2_jax.prompt.semantic_codec import SemanticCodecConfig
from indextts2_jax.prompt.w2v_bert import W2VBertConfig
from indextts2_jax.release import TABLES, Release, require_torch, unwrap
from indextts2_jax.s2m.model import S2MConfig
from indextts2_jax.t2s.conditioner import ConditionerConfig, sinusoid
from indextts2_jax.t2s.gpt import T2SConfig
from indextts2_jax.vocoder.bigvgan import BigVGANConfig

# Where a release has its files; the auxiliary ones where the original finds them by itself.
FILES = {
    "t2s": "gpt.pth",
    "s2m": "s2mel.pth",
    "w2v_bert": "hf_cache/w2v-bert-2.0/model.safetensors",
    "semantic_codec": "hf_cache/semantic_codec_model.safetensors",
    "campplus": "hf_cache/campplus_cn_common.bin",
    "vocoder": "hf_cache/bigvgan/bigvgan_generator.pt",
    "qwen3": "qwen0.6bemo4-merge/model.safetensors",
    "feature_statistics": "wav2vec2bert_stats.pt",
    "emotion_styles": "feat1.pt",
    "emotion_vectors": "feat2.pt",
    "tokenizer": "bpe.model",
}
# Positions of two tables that PyTorch models keep as buffers.
CONDITIONER_POSITIONS = 5000
VELOCITY_POSITIONS = 16384
SAFETENSORS_DTYPES = {
    "bool": "BOOL",
    "uint8": "U8",
    "uint16": "U16",
    "uint32": "U32",
    "uint64": "U64",
    "int8": "I8",
    "int16": "I16",
    "int32": "I32",
    "int64": "I64",
    "float16": "F16",
    "bfloat16": "BF16",
    "float32": "F32",
    "float64": "F64",
}

_log = logging.getLogger(__name__)


def export_release(path: pathlib.Path, out: pathlib.Path) -> None:
    """Writes a checkpoint as a PyTorch release.

    Args:
      path: the checkpoint directory.
      out: must not exist; appears only when everything is written.

    Raises:
      CheckpointError: if the checkpoint is missing or damaged, or `out` exists.
      ConversionError: if PyTorch is missing.
    """
    require_torch()
    settings = Settings.load(path)
    with checkpoint.writing(out) as directory:
        exporter = _Exporter(path, directory, settings)
        with tqdm(settings.configs, unit="part", desc="export", disable=None) as bar:
            for name in bar:
                bar.set_postfix_str(name)
                exporter.part(name)
        exporter.tables()
        exporter.texts()
    exporter.warn_of_changes()
    exporter.warn_of_lost_settings(out)


@dataclasses.dataclass(frozen=True)
class _Origin:
    """The file that a part is written to.

    Attributes:
      file: path in the release.
      tensors: torch name -> (key in the file, dtype, shape), in the order of the file.
      metadata: of a safetensors file.
      left_out: entries of the original file that are no weights.
      unused: fingerprint of the tensors that no network reads; None if there are none.
    """

    file: str
    tensors: Mapping[str, tuple[str, np.dtype, tuple[int, ...]]]
    metadata: Mapping[str, str] | None
    left_out: Sequence[str] = ()
    unused: str | None = None

    @classmethod
    def read(cls, name: str, entry: Mapping[str, Any]) -> "_Origin":
        """Reads the entry of `provenance.json` about the part `name`."""
        tensors = {k: (k, np.dtype(dtype), tuple(shape)) for k, dtype, shape in entry["tensors"]}
        names = unwrap(name, tensors)[1]
        return cls(
            file=entry["file"],
            tensors={torch_name: tensors[key] for torch_name, key in names.items()},
            metadata=entry["metadata"],
            left_out=entry["left_out"],
            unused=entry.get("unused"),
        )

    @classmethod
    def standard(cls, name: str, tensors: Mapping[str, np.ndarray]) -> "_Origin":
        """The file of a part that was never in a release."""
        wrapper = "generator/" if name == "vocoder" else ""
        return cls(
            file=FILES[name],
            tensors={k: (wrapper + k, x.dtype, x.shape) for k, x in tensors.items()},
            metadata={"format": "pt"},
        )


class _Exporter:
    """Exports part after part, collecting what is to be said in the end."""

    def __init__(self, path: pathlib.Path, out: pathlib.Path, settings: Settings):
        self.path, self.out, self.settings = path, out, settings
        self.origins: dict[str, _Origin] = {}
        self.kept_texts: dict[str, str] | None = None
        self.shapes: dict[str, dict[str, tuple[int, ...]]] = {}
        self.rounded: dict[str, str] = {}  # part -> dtype
        self.changed: list[str] = []
        provenance = path / "provenance.json"
        if provenance.exists():
            try:
                entries = json.loads(provenance.read_text())
                self.kept_texts = dict(entries.pop("texts"))
                self.origins = {name: _Origin.read(name, x) for name, x in entries.items()}
            except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
                raise CheckpointError(
                    f"{provenance} is damaged or of an older version ({error!r}); convert again"
                ) from None
        if missing := PARTS.keys() - settings.configs.keys() - self.origins.keys() - {"qwen3"}:
            raise CheckpointError(f"{path} is no whole model: {', '.join(sorted(missing))} missing")
        if not settings.emotion_groups:
            raise CheckpointError(f"{path} has no emotion prototypes, and so makes no release")
        s2m = settings.configs.get("s2m")
        if s2m and (s2m.word_width or not s2m.latent_widths):
            what = "reads word vectors" if s2m.word_width else "reads no latents"
            raise CheckpointError(f"{path} makes no release: its s2m {what}")

    def part(self, name: str) -> None:
        """Exports one network."""
        rules, origin = PARTS[name].rules, self.origins.get(name)
        tensors: dict[str, np.ndarray] = {}
        for our_name, array in self._read("weights", name, self.settings.fingerprints.get(name)):
            [(torch_name, tensor)] = convert.to_torch({our_name: array}, rules).items()
            tensors[torch_name] = self._restore(name, torch_name, tensor)
            del array, tensor  # they would stay while the next one is read
        if origin is None:
            tensors |= _buffers(name, self.settings.configs[name], tensors)
        elif origin.unused is not None:
            tensors |= self._read("unused", name, origin.unused)
        self._write(name, tensors)

    def tables(self) -> None:
        """Exports the feature statistics and the emotion prototypes."""
        fingerprints = self.settings.fingerprints
        arrays = dict(self._read("weights", "tables", fingerprints.get("tables")))
        if "prototypes" in fingerprints:  # older checkpoints have them among the other tables
            arrays |= self._read("weights", "prototypes", fingerprints["prototypes"])
        for name, names in TABLES.items():
            tensors = {
                torch_name: self._restore(name, torch_name, arrays[our_name])
                for torch_name, our_name in names.items()
            }
            self._write(name, tensors)

    def texts(self) -> None:
        """Exports tokenizers and settings."""
        if self.kept_texts is None:
            texts = release_texts(
                self.settings.configs, self.settings.emotion_groups, self.settings.mel
            )
            for place, text in texts.items():
                self._place(place).write_text(text, encoding="utf-8")
            kept_texts = dict(_tokenizers(self.path))
        else:
            kept_texts = self.kept_texts
        for place, kept in kept_texts.items():
            source, target = _inside(self.path, kept), self._place(place)
            try:
                shutil.copyfile(source, target)
            except OSError as error:
                raise CheckpointError(f"{source} cannot be copied: {error}") from None

    def warn_of_changes(self) -> None:
        """Says which files are not what they were in the original release."""
        for origin in self.origins.values():
            if origin.left_out:
                entries = ", ".join(origin.left_out)
                _log.warning(
                    "%s: entries that are no weights are left out: %s", origin.file, entries
                )
        if self.rounded:
            parts = ", ".join(f"{name} ({dtype})" for name, dtype in self.rounded.items())
            _log.warning("rounded, because the checkpoint stores them with fewer bits: %s", parts)
        if self.changed:
            parts = ", ".join(self.changed)
            _log.warning("in float32, because they were trained after their conversion: %s", parts)

    def warn_of_lost_settings(self, out: pathlib.Path) -> None:
        """Says what `indextts2 convert` will not find in the release at `out`."""
        configs = self.settings.configs
        if "qwen3" not in configs:
            _log.warning("there is no qwen3: the release converts with --no-emotion-text alone")
        try:
            release = Release.find(out, None, emotion_text="qwen3" in configs)
            again = release.settings(
                {name: release.part_config(name, self.shapes[name]) for name in configs},
                self.settings.fingerprints,
            )
        except InputError as error:
            _log.warning("the release cannot be converted again: %s", " ".join(str(error).split()))
            return
        had, has = _facts(self.settings), _facts(again)
        lost = sorted(key for key in had.keys() | has.keys() if had.get(key) != has.get(key))
        if lost:
            _log.warning("settings that a release cannot hold are lost: %s", ", ".join(lost))

    def _read(
        self, kind: str, name: str, fingerprint: str | None
    ) -> Iterator[tuple[str, np.ndarray]]:
        return checkpoint.read_arrays(self.path / kind / name, fingerprint or "unknown")

    def _restore(self, name: str, torch_name: str, tensor: np.ndarray) -> np.ndarray:
        """The tensor contiguous and in its original dtype, as far as that can hold it."""
        origin = self.origins.get(name)
        if origin is None or torch_name not in origin.tensors:
            return tensor.astype(np.float32, order="C", copy=False)
        dtype = origin.tensors[torch_name][1]
        if not np.can_cast(dtype, tensor.dtype):
            self.rounded[name] = str(tensor.dtype)
        restored = tensor.astype(dtype, order="C", copy=False)
        if dtype != tensor.dtype and not np.array_equal(
            restored.astype(tensor.dtype), tensor, equal_nan=True
        ):
            if name not in self.changed:
                self.changed.append(name)
            return tensor.astype(np.float32, order="C", copy=False)
        return restored

    def _write(self, name: str, tensors: dict[str, np.ndarray]) -> None:
        """Writes the file of a part, which empties `tensors`."""
        origin = self.origins.get(name) or _Origin.standard(name, tensors)
        self.shapes[name] = {torch_name: x.shape for torch_name, x in tensors.items()}
        wanted = {torch_name: shape for torch_name, (_, _, shape) in origin.tensors.items()}
        if self.shapes[name] != wanted:
            got = self.shapes[name]
            odd = sorted(k for k in got.keys() | wanted.keys() if got.get(k) != wanted.get(k))
            raise CheckpointError(
                f"{self.path}: the tensors of {name} are not those of provenance.json: {odd[:5]}"
            )
        write_weights(
            self._place(origin.file),
            {key: tensors.pop(torch_name) for torch_name, (key, *_) in origin.tensors.items()},
            origin.metadata,
        )

    def _place(self, place: str) -> pathlib.Path:
        """The file at `place` in the release, its directory made."""
        path = _inside(self.out, place)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path


def _inside(folder: pathlib.Path, place: str) -> pathlib.Path:
    """The path `place` of provenance.json, which may come from anywhere, in `folder`."""
    path = pathlib.PurePosixPath(place)
    if path.is_absolute() or ".." in path.parts:
        raise CheckpointError(f"provenance.json leads out of its directory: {place}")
    return folder / path


def _tokenizers(path: pathlib.Path) -> Iterator[tuple[str, str]]:
    """Place in a release and in the checkpoint `path` of every tokenizer file."""
    folders = {"tokenizer": FILES["tokenizer"], "tokenizer/qwen3": FILES["qwen3"]}
    for folder, neighbour in folders.items():
        for file in sorted((path / folder).glob("*")):
            if file.is_file():
                place = pathlib.PurePosixPath(neighbour).with_name(file.name)
                yield str(place), f"{folder}/{file.name}"


def _facts(settings: Settings) -> dict[str, Any]:
    """All settings but names and fingerprints, under dotted names."""
    out: dict[str, Any] = {}

    def walk(prefix: str, value: Any) -> None:
        if isinstance(value, Mapping):
            for key, inner in value.items():
                walk(f"{prefix}.{key}" if prefix else key, inner)
        else:
            out[prefix] = value

    walk("", checkpoint.to_dict(dataclasses.replace(settings, fingerprints={})))
    del out["source"], out["trained"]
    return out


def _buffers(name: str, cfg: Any, tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What PyTorch models keep beside weights, for the part `name` with those `tensors`."""
    if name == "t2s":
        return {
            f"{prefix}conditioning_encoder.embed.pos_enc.pe": sinusoid(
                CONDITIONER_POSITIONS, conditioner.width
            )[None]
            for prefix, conditioner in (("", cfg.speaker), ("emo_", cfg.emotion))
        }
    if name == "s2m":
        return {"net/cfm/estimator.input_pos": np.arange(VELOCITY_POSITIONS, dtype=np.int64)}
    if name == "campplus":
        means = (key for key in tensors if key.endswith(".running_mean"))
        return {
            key.replace("running_mean", "num_batches_tracked"): np.zeros((), np.int64)
            for key in means
        }
    if name == "vocoder":
        fir = tensors["activation_post.upsample.filter"]
        return {
            key.replace("act.alpha", table): fir.copy()
            for key in tensors
            for table in ("upsample.filter", "downsample.lowpass.filter")
            if key.endswith(".act.alpha")
        }
    return {}


def write_weights(
    path: pathlib.Path, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None
) -> None:
    """Writes a weight file, a pickle of PyTorch or safetensors by its name.

    Args:
      path: of the file.
      tensors: key -> contiguous array, in the order of the file; "/" in a key nests dictionaries.
      metadata: of a safetensors file.
    """
    if path.suffix == ".safetensors":
        _write_safetensors(path, tensors, metadata)
        return
    import torch

    root: dict[str, Any] = {}
    for key, x in tensors.items():
        *levels, leaf = key.split("/")
        level = root
        for name in levels:
            level = level.setdefault(name, {})
        flat = x.reshape(-1)  # NumPy's strides of axes of length 1 are not PyTorch's
        if x.dtype == ml_dtypes.bfloat16:
            tensor = torch.from_numpy(flat.view(np.int16)).view(torch.bfloat16)
        else:
            tensor = torch.from_numpy(flat)
        level[leaf] = tensor.reshape(x.shape)
    torch.save(root[""] if root.keys() == {""} else root, path)


def _write_safetensors(
    path: pathlib.Path, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None
) -> None:
    """Unlike the library's writer, keeps the order of the tensors."""
    header: dict[str, Any] = {} if metadata is None else {"__metadata__": metadata}
    start = 0
    for key, x in tensors.items():
        header[key] = {
            "dtype": SAFETENSORS_DTYPES[str(x.dtype)],
            "shape": x.shape,
            "data_offsets": [start, start := start + x.nbytes],
        }
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for x in tensors.values():
            file.write(x.reshape(-1).view(np.uint8).data)


def release_texts(
    configs: Mapping[str, Any], emotion_groups: Sequence[int], mel: MelConfig
) -> dict[str, str]:
    """Writes architectures in the form of a release.

    Args:
      configs: part name -> its Config.
      emotion_groups: number of prototypes of each emotion.
      mel: the spectrogram.

    Returns:
      Path in a release -> text of config.yaml and of the auxiliary models' JSON files.
    """
    config = {
        "dataset": {"bpe_model": FILES["tokenizer"]},
        "gpt": _gpt_block(configs["t2s"]),
        "semantic_codec": _semantic_codec_block(configs["semantic_codec"]),
        "s2mel": {"preprocess_params": _mel_block(mel), **_s2mel_block(configs["s2m"])},
        "gpt_checkpoint": FILES["t2s"],
        "w2v_stat": FILES["feature_statistics"],
        "s2mel_checkpoint": FILES["s2m"],
        "emo_matrix": FILES["emotion_vectors"],
        "spk_matrix": FILES["emotion_styles"],
        "emo_num": list(emotion_groups),
        "qwen_emo_path": f"{pathlib.PurePosixPath(FILES['qwen3']).parent}/",
        "vocoder": {"type": "bigvgan", "name": "nvidia/bigvgan_v2_22khz_80band_256x"},
        "version": 2.0,
    }
    json_files = {
        ("w2v_bert", "config.json"): _w2v_bert_json(configs["w2v_bert"]),
        ("w2v_bert", "preprocessor_config.json"): _feature_extractor_json(configs["w2v_bert"]),
        ("vocoder", "config.json"): _bigvgan_json(configs["vocoder"], mel),
    }
    if "qwen3" in configs:
        json_files["qwen3", "config.json"] = _qwen3_json(configs["qwen3"])
    texts = {
        str(pathlib.PurePosixPath(FILES[name]).with_name(file)): json.dumps(value, indent=2) + "\n"
        for (name, file), value in json_files.items()
    }
    return {"config.yaml": yaml.safe_dump(config, sort_keys=False), **texts}


def _gpt_block(cfg: T2SConfig) -> dict[str, Any]:
    return {
        "model_dim": cfg.width,
        "max_mel_tokens": cfg.code_positions - 3,
        "max_text_tokens": cfg.text_positions - 2,
        "heads": cfg.num_heads,
        "use_mel_codes_as_input": True,
        "mel_length_compression": 1024,
        "layers": cfg.num_layers,
        "number_text_tokens": cfg.num_text_tokens - 1,
        "number_mel_codes": cfg.num_codes,
        "start_mel_token": cfg.start_code,
        "stop_mel_token": cfg.stop_code,
        "start_text_token": cfg.start_text,
        "stop_text_token": cfg.stop_text,
        "train_solo_embeddings": False,
        "condition_type": "conformer_perceiver",
        "condition_module": _conditioner_block(cfg.speaker),
        "emo_condition_module": _conditioner_block(cfg.emotion),
    }


def _conditioner_block(cfg: ConditionerConfig) -> dict[str, Any]:
    return {
        "output_size": cfg.width,
        "linear_units": cfg.ffn_width,
        "attention_heads": cfg.num_heads,
        "num_blocks": cfg.num_blocks,
        "input_layer": "conv2d2",
        "perceiver_mult": cfg.perceiver_mult,
    }


def _semantic_codec_block(cfg: SemanticCodecConfig) -> dict[str, Any]:
    return {
        "codebook_size": cfg.codebook_size,
        "hidden_size": cfg.feature_width,
        "codebook_dim": cfg.codebook_width,
        "vocos_dim": cfg.backbone_width,
        "vocos_intermediate_dim": cfg.ffn_width,
        "vocos_num_layers": cfg.num_blocks,
        "downsample_scale": cfg.downsample_scale,
    }


def _mel_block(cfg: MelConfig) -> dict[str, Any]:
    return {
        "sr": cfg.sample_rate,
        "spect_params": {
            "n_fft": cfg.n_fft,
            "win_length": cfg.n_fft,
            "hop_length": cfg.hop_length,
            "n_mels": cfg.num_mels,
            "fmin": cfg.fmin,
            "fmax": "None" if cfg.fmax is None else cfg.fmax,
        },
    }


def _s2mel_block(cfg: S2MConfig) -> dict[str, Any]:
    velocity, wavenet = cfg.velocity, cfg.velocity.wavenet
    return {
        "dit_type": "DiT",
        "reg_loss_type": "l1",
        "style_encoder": {"dim": velocity.style_width},
        "length_regulator": {
            "channels": cfg.length_regulator.width,
            "is_discrete": False,
            "in_channels": cfg.length_regulator.in_width,
            "content_codebook_size": 2048,
            "sampling_ratios": [1, 1, 1, 1],
            "vector_quantize": False,
            "n_codebooks": 1,
            "quantizer_dropout": 0.0,
            "f0_condition": False,
            "n_f0_bins": 512,
        },
        "DiT": {
            "hidden_dim": velocity.width,
            "num_heads": velocity.num_heads,
            "depth": velocity.num_layers,
            "class_dropout_prob": 0.1,
            "block_size": 8192,
            "in_channels": velocity.num_mels,
            "style_condition": True,
            "final_layer_type": "wavenet",
            "target": "mel",
            "content_dim": velocity.condition_width,
            "content_codebook_size": 1024,
            "content_type": "discrete",
            "f0_condition": False,
            "n_f0_bins": 512,
            "content_codebooks": 1,
            "is_causal": False,
            "long_skip_connection": True,
            "zero_prompt_speech_token": False,
            "time_as_token": False,
            "style_as_token": False,
            "uvit_skip_connection": True,
            "add_resblock_in_transformer": False,
        },
        "wavenet": {
            "hidden_dim": wavenet.width,
            "num_layers": wavenet.num_layers,
            "kernel_size": wavenet.kernel_size,
            "dilation_rate": wavenet.dilation_rate,
            "p_dropout": wavenet.dropout,
            "style_condition": True,
        },
    }


def _w2v_bert_json(cfg: W2VBertConfig) -> dict[str, Any]:
    return {
        "architectures": ["Wav2Vec2BertModel"],
        "model_type": "wav2vec2-bert",
        "hidden_size": cfg.width,
        "num_hidden_layers": cfg.num_layers,
        "num_attention_heads": cfg.num_heads,
        "intermediate_size": cfg.ffn_width,
        "feature_projection_input_dim": cfg.feature_width,
        "conv_depthwise_kernel_size": cfg.conv_kernel,
        "left_max_position_embeddings": cfg.max_left,
        "right_max_position_embeddings": cfg.max_right,
        "position_embeddings_type": "relative_key",
        "hidden_act": "swish",
        "layer_norm_eps": 1e-5,
        "add_adapter": False,
        # No masking of features, and so no weight for it.
        "apply_spec_augment": False,
        "mask_time_prob": 0.0,
        "mask_feature_prob": 0.0,
    }


def _feature_extractor_json(cfg: W2VBertConfig) -> dict[str, Any]:
    stride = 2
    return {
        "feature_extractor_type": "SeamlessM4TFeatureExtractor",
        "feature_size": cfg.feature_width // stride,
        "num_mel_bins": cfg.feature_width // stride,
        "padding_side": "right",
        "padding_value": 1,
        "return_attention_mask": True,
        "sampling_rate": 16000,
        "stride": stride,
    }


def _bigvgan_json(cfg: BigVGANConfig, mel: MelConfig) -> dict[str, Any]:
    return {
        "resblock": "1",
        "activation": "snakebeta",
        "snake_logscale": True,
        "upsample_rates": cfg.upsample_rates,
        "upsample_kernel_sizes": [2 * rate for rate in cfg.upsample_rates],
        "upsample_initial_channel": cfg.width,
        "resblock_kernel_sizes": cfg.block_kernels,
        "resblock_dilation_sizes": cfg.block_dilations,
        "use_tanh_at_final": cfg.final_tanh,
        "use_bias_at_final": cfg.final_bias,
        "num_mels": cfg.num_mels,
        "n_fft": mel.n_fft,
        "hop_size": cfg.hop_length,
        "win_size": mel.n_fft,
        "sampling_rate": mel.sample_rate,
        "fmin": mel.fmin,
        "fmax": mel.fmax,
    }


def _qwen3_json(cfg: Qwen3Config) -> dict[str, Any]:
    labels = {}
    if cfg.labels:
        labels["id2label"] = {str(i): label for i, label in enumerate(cfg.labels)}
        labels["label2id"] = {label: i for i, label in enumerate(cfg.labels)}
    return {
        "architectures": [CLASSIFIER if cfg.labels else "Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "hidden_size": cfg.width,
        "num_hidden_layers": cfg.num_layers,
        "num_attention_heads": cfg.num_heads,
        "num_key_value_heads": cfg.num_kv_heads,
        "head_dim": cfg.head_dim,
        "intermediate_size": cfg.ffn_width,
        "vocab_size": cfg.vocab_size,
        "rms_norm_eps": cfg.norm_epsilon,
        "rope_theta": cfg.rope_base,
        "tie_word_embeddings": cfg.tied_head,
        "attention_bias": False,
        "use_sliding_window": False,
        "rope_scaling": None,
        "hidden_act": "silu",
        **labels,
    }

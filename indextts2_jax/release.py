"""The PyTorch release on a user's disk -> one checkpoint of ours (`indextts2 convert`).

    RELEASE_DIR/                        AUX (RELEASE_DIR/hf_cache if not given)
      config.yaml bpe.model               w2v-bert-2.0/{config.json, model.safetensors}
      gpt.pth s2mel.pth                   semantic_codec_model.safetensors
      feat1.pt feat2.pt                   campplus_cn_common.bin
      wav2vec2bert_stats.pt               bigvgan/{config.json, bigvgan_generator.pt}
      qwen0.6bemo4-merge/

The Hugging Face hub's own cache layout is understood too. PyTorch is imported here alone.
"""

import contextlib
import dataclasses
import json
import pathlib
import pickle
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import ml_dtypes
import numpy as np
import yaml
from flax import nnx
from tqdm import tqdm

from indextts2_jax import checkpoint, convert
from indextts2_jax.audio.mel import MelConfig
from indextts2_jax.convert import ConversionError
from indextts2_jax.emotion.qwen3 import Qwen3Config
from indextts2_jax.emotion.text_to_emotion import EmotionSet
from indextts2_jax.parts import PARTS, Settings, save_part
from indextts2_jax.prompt.campplus import CAMPPlusConfig
from indextts2_jax.prompt.semantic_codec import SemanticCodecConfig
from indextts2_jax.prompt.w2v_bert import W2VBertConfig
from indextts2_jax.s2m.model import S2MConfig
from indextts2_jax.t2s.generate import DecodingRules
from indextts2_jax.t2s.gpt import T2SConfig
from indextts2_jax.vocoder.bigvgan import BigVGANConfig

FEATURE_LAYER = 17  # of w2v-BERT 2.0, in every release
FRAMES_PER_CODE = 1.72
LICENCE_NOTICE = (
    "The converted weights stay under the licence of the weights they were made from "
    "(for IndexTTS-2: bilibili's model licence). Do not pass them on without reading it."
)

# Where each auxiliary file may lie, below --aux, hf_cache or the release; first match wins.
_W2V_BERT = ("w2v-bert-2.0", "models--facebook--w2v-bert-2.0/snapshots/*")
_CODEC = ("semantic_codec", "models--amphion--MaskGCT/snapshots/*/semantic_codec")
_CAMPPLUS = (".", "campplus", "models--funasr--campplus/snapshots/*")
_BIGVGAN = (
    "bigvgan",
    "bigvgan_v2_22khz_80band_256x",
    "models--nvidia--bigvgan_v2_22khz_80band_256x/snapshots/*",
)
AUXILIARY = {
    "w2v_bert": [f"{folder}/model.safetensors" for folder in _W2V_BERT],
    "w2v_bert_config": [f"{folder}/config.json" for folder in _W2V_BERT],
    "semantic_codec": [
        "semantic_codec_model.safetensors",
        *(f"{folder}/model.safetensors" for folder in _CODEC),
    ],
    "campplus": [f"{folder}/campplus_cn_common.bin" for folder in _CAMPPLUS],
    "vocoder": [f"{folder}/bigvgan_generator.pt" for folder in _BIGVGAN],
    "vocoder_config": [f"{folder}/config.json" for folder in _BIGVGAN],
}
DTYPES = {"float32": np.float32, "bfloat16": ml_dtypes.bfloat16}
# What `--dtype bfloat16` stores in bfloat16: the large generators. Encoders, codec and vocoder keep
# float32: their codes and waves must not depend on it.
LOW_PRECISION_PARTS = ("t2s", "s2m", "qwen3")
TOKENIZER_FILES = ("*.json", "*.jinja", "merges.txt")
# The level of a file that holds the weights, per part; other entries are optimizers, epochs.
WRAPPERS = {"t2s": "model", "s2m": "net", "vocoder": "generator"}


@dataclasses.dataclass(frozen=True)
class Release:
    """The files of a release, found and named."""

    files: Mapping[str, pathlib.Path]
    config: Mapping[str, Any]  # config.yaml

    @classmethod
    def find(
        cls, src: pathlib.Path, aux: pathlib.Path | None, *, emotion_text: bool = True
    ) -> "Release":
        """Looks for every file.

        Args:
          src: RELEASE_DIR.
          aux: where the auxiliary models lie; None looks in `src`/hf_cache and `src`.
          emotion_text: also the Qwen3 emotion model.

        Raises:
          ConversionError: lists every missing file.
        """
        if not src.is_dir():
            raise ConversionError(f"no release directory at {src}")
        if aux is not None and not aux.is_dir():
            raise ConversionError(f"no directory of auxiliary models at {aux}")
        config_file = src / "config.yaml"
        if not config_file.is_file():
            raise ConversionError(f"{config_file} is missing: is this a release of IndexTTS-2?")
        with _reading(config_file):
            config = yaml.safe_load(config_file.read_text(encoding="utf-8"))
            if not isinstance(config, dict):
                raise ConversionError(f"{config_file} holds no settings")
        with _reading(config_file):
            own = {
                "t2s": config["gpt_checkpoint"],
                "s2m": config["s2mel_checkpoint"],
                "tokenizer": config["dataset"]["bpe_model"],
                "feature_statistics": config["w2v_stat"],
                "emotion_styles": config["spk_matrix"],
                "emotion_vectors": config["emo_matrix"],
            }
            if emotion_text:
                folder = pathlib.PurePath(config["qwen_emo_path"])
                own["qwen3"] = str(folder / "model.safetensors")
                own["qwen3_config"] = str(folder / "config.json")
        files = {name: src / path for name, path in own.items()}
        missing = [f"{path} ({name})" for name, path in files.items() if not path.is_file()]
        roots = [aux, src / "hf_cache", src] if aux is not None else [src / "hf_cache", src]
        for name, patterns in AUXILIARY.items():
            found = [
                p for root in roots for pattern in patterns for p in sorted(root.glob(pattern))
            ]
            if found:
                files[name] = found[0]
            else:
                missing.append(f"{patterns[0]} ({name}), below {' or '.join(map(str, roots))}")
        if missing:
            raise ConversionError("missing files:\n  " + "\n  ".join(missing))
        return cls(files, config)

    def part_config(self, name: str, shapes: Mapping[str, tuple[int, ...]]) -> Any:
        """Reads the architecture of a part from the release's settings and the weights' shapes."""
        make: dict[str, Callable[[], Any]] = {
            "w2v_bert": lambda: W2VBertConfig.from_release(_json(self.files["w2v_bert_config"])),
            "semantic_codec": lambda: SemanticCodecConfig.from_release(
                self.config["semantic_codec"]
            ),
            "campplus": lambda: CAMPPlusConfig.from_shapes(shapes),
            "t2s": lambda: T2SConfig.from_release(self.config["gpt"], shapes),
            "s2m": lambda: S2MConfig.from_release(self.config["s2mel"], shapes),
            "vocoder": lambda: BigVGANConfig.from_release(_json(self.files["vocoder_config"])),
            "qwen3": lambda: Qwen3Config.from_release(_json(self.files["qwen3_config"])),
        }
        return make[name]()


@contextlib.contextmanager
def _reading(path: pathlib.Path) -> Iterator[None]:
    """Turns what a broken file of settings or shapes raises into one line."""
    try:
        yield
    except ConversionError:
        raise
    except KeyError as error:
        raise ConversionError(f"{path}: {error} is missing") from error
    except (ValueError, TypeError, IndexError, yaml.YAMLError) as error:
        raise ConversionError(f"{path}: {' '.join(str(error).split())}") from error


def _json(path: pathlib.Path) -> Any:
    with _reading(path):
        return json.loads(path.read_text(encoding="utf-8"))


def read_tensors(path: pathlib.Path) -> dict[str, Any]:
    """Reads a weight file: torch name -> torch tensor, memory-mapped where the format allows.

    Nested dictionaries are joined by "/". A pickle never runs code (`weights_only`).

    Raises:
      ConversionError: if the file is no plain weight file.
    """
    import torch

    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        try:
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except RuntimeError:  # files of the old, unmappable format
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ConversionError(
            f"{path}: not a plain weight file (it holds objects that loading would have to run)"
        ) from error
    except Exception as error:
        raise ConversionError(f"{path}: cannot be read: {str(error).splitlines()[0]}") from error
    flat: dict[str, Any] = {}

    def walk(prefix: str, value: Any) -> None:
        if isinstance(value, torch.Tensor):
            flat[prefix] = value
        elif isinstance(value, Mapping):
            for key, inner in value.items():
                walk(f"{prefix}/{key}" if prefix else str(key), inner)

    walk("", content)
    return flat


def unwrap(name: str, tensors: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Removes the wrapper level and `module.` prefixes that trainers leave in a file.

    Args:
      name: of the part.
      tensors: from `read_tensors`.

    Returns:
      The wrapper ("" for none) and the tensors below it. S2M keeps its `net/<network>/` levels.
    """
    wrapper = WRAPPERS.get(name, "")
    inside = {k: v for k, v in tensors.items() if wrapper and k.startswith(f"{wrapper}/")}
    if not inside:
        return "", {re.sub(r"(^|/)module\.", r"\1", k): v for k, v in tensors.items()}
    if name != "s2m":
        inside = {k.removeprefix(f"{wrapper}/"): v for k, v in inside.items()}
    return wrapper, {re.sub(r"(^|/)module\.", r"\1", k): v for k, v in inside.items()}


def to_numpy(tensor: Any) -> np.ndarray:
    """A torch tensor as NumPy, without a copy, bfloat16 included."""
    import torch

    if tensor.dtype == torch.bfloat16:
        return tensor.contiguous().view(torch.uint16).numpy().view(ml_dtypes.bfloat16)
    return tensor.numpy()


@dataclasses.dataclass
class Writer:
    """Converts part after part into a checkpoint directory, collecting errors and provenance."""

    release: Release
    out: pathlib.Path
    dtype: Any
    configs: dict[str, Any] = dataclasses.field(default_factory=dict)
    fingerprints: dict[str, str] = dataclasses.field(default_factory=dict)
    provenance: dict[str, Any] = dataclasses.field(default_factory=dict)
    errors: list[str] = dataclasses.field(default_factory=list)

    def part(self, name: str) -> None:
        """Converts one network."""
        path, part = self.release.files[name], PARTS[name]
        try:
            wrapper, torch_tensors = unwrap(name, read_tensors(path))
            tensors = {k: to_numpy(v) for k, v in torch_tensors.items()}
            del torch_tensors
            with _reading(path):
                config = self.release.part_config(name, {k: v.shape for k, v in tensors.items()})
            model = part.abstract(config)
            unused = part.unused(config)
            arrays = convert.to_jax(tensors, part.rules, convert.shapes(model), unused)
        except ConversionError as error:
            self.errors.append(f"{path}: {error}" if str(path) not in str(error) else str(error))
            return
        keep = {k: v for k, v in tensors.items() if any(re.fullmatch(u, k) for u in unused)}
        self.provenance[name] = _origin(path, wrapper, tensors)
        del tensors
        if keep:
            checkpoint.save_arrays(self.out / "unused" / name, keep)
        self.configs[name] = config
        low = convert.params(model, nnx.Param) if name in LOW_PRECISION_PARTS else ()
        arrays = {  # views where nothing changes
            k: v.astype(self.dtype if k in low else np.float32, copy=False)
            for k, v in arrays.items()
        }
        self.fingerprints[name] = save_part(self.out, name, arrays)

    def tables(self) -> None:
        """Converts the small tables: feature statistics and emotion prototypes."""
        arrays: dict[str, np.ndarray] = {}
        files = {
            "feature_statistics": {"mean": "feature_mean", "var": "feature_variance"},
            "emotion_styles": {"": "emotion_styles"},
            "emotion_vectors": {"": "emotion_vectors"},
        }
        for source, names in files.items():
            path = self.release.files[source]
            try:
                tensors = {k: to_numpy(v) for k, v in read_tensors(path).items()}
            except ConversionError as error:
                self.errors.append(str(error))
                continue
            if tensors.keys() != names.keys():
                self.errors.append(f"{path}: holds {sorted(tensors)}, want {sorted(names)}")
                continue
            self.provenance[source] = _origin(path, "", tensors)
            arrays |= {names[k]: v.astype(np.float32) for k, v in tensors.items()}
        if not self.errors:
            self.errors += self._table_errors(arrays)
        if not self.errors:
            self.fingerprints["tables"] = save_part(self.out, "tables", arrays)

    def _table_errors(self, arrays: Mapping[str, np.ndarray]) -> Iterator[str]:
        width = self.configs["w2v_bert"].width
        rows = sum(self.release.config["emo_num"])
        wanted = {
            "feature_mean": (width,),
            "feature_variance": (width,),
            "emotion_styles": (rows, self.configs["s2m"].velocity.style_width),
            "emotion_vectors": (rows, self.configs["t2s"].width),
        }
        for name, shape in wanted.items():
            if arrays[name].shape != shape:
                yield f"{name}: shape {arrays[name].shape}, want {shape}"


def convert_release(
    src: pathlib.Path,
    out: pathlib.Path,
    *,
    aux: pathlib.Path | None = None,
    dtype: str = "float32",
    emotion_text: bool = True,
) -> None:
    """Converts a release into the new checkpoint directory `out`.

    Args:
      src: RELEASE_DIR.
      out: must not exist; appears only when everything is converted.
      aux: where the auxiliary models lie, see `Release.find`.
      dtype: float32 or bfloat16 storage of the large generators.
      emotion_text: also convert the Qwen3 emotion model.

    Raises:
      ConversionError: lists every file, name and shape that does not match.
      CheckpointError: if `out` exists.
    """
    try:
        import torch  # noqa: F401
    except ImportError:
        raise ConversionError(
            "converting needs PyTorch: pip install 'indextts2-jax[convert]'"
        ) from None
    release = Release.find(src, aux, emotion_text=emotion_text)
    names = [name for name in PARTS if name in release.files]
    with checkpoint.writing(out) as directory:
        writer = Writer(release, directory, DTYPES[dtype])
        with tqdm(names, unit="part", desc="convert", disable=None) as bar:
            for name in bar:
                bar.set_postfix_str(release.files[name].name)
                writer.part(name)
        if not writer.errors:
            writer.tables()
        if writer.errors:
            raise ConversionError("\n".join(writer.errors))
        _copy_tokenizers(release, directory)
        _settings(release, writer).save(directory)
        checkpoint.write_json(directory / "provenance.json", writer.provenance)


def _copy_tokenizers(release: Release, out: pathlib.Path) -> None:
    folder = out / "tokenizer"
    folder.mkdir()
    bpe = release.files["tokenizer"]
    shutil.copyfile(bpe, folder / "bpe.model")
    glossary = bpe.with_name("glossary.yaml")
    if glossary.is_file():
        shutil.copyfile(glossary, folder / "glossary.yaml")
    if "qwen3" in release.files:
        (folder / "qwen3").mkdir()
        for path in sorted(release.files["qwen3"].parent.iterdir()):
            if any(path.match(pattern) for pattern in TOKENIZER_FILES):
                shutil.copyfile(path, folder / "qwen3" / path.name)


def _settings(release: Release, writer: Writer) -> Settings:
    t2s = writer.configs["t2s"]
    preprocess = release.config["s2mel"]["preprocess_params"]
    with _reading(release.files["s2m"].with_name("config.yaml")):
        mel = MelConfig.from_release(preprocess["spect_params"], preprocess["sr"])
    return Settings(
        source=f"PyTorch release, version {release.config.get('version', 'unknown')}",
        trained=True,
        configs=writer.configs,
        mel=mel,
        feature_layer=FEATURE_LAYER,
        frames_per_code=FRAMES_PER_CODE,
        # The released pipeline decodes with rows 0, 2, 3, ..., and shows its processors ids of 1 in
        # place of the prefix.
        decoding=DecodingRules(positions="released", penalized=(1, t2s.start_code)),
        emotions=EmotionSet.indextts2(),
        emotion_groups=tuple(release.config["emo_num"]),
        fingerprints=writer.fingerprints,
    )


def _origin(path: pathlib.Path, wrapper: str, tensors: Mapping[str, np.ndarray]) -> Any:
    order = [[name, str(x.dtype), list(x.shape)] for name, x in tensors.items()]
    return {"file": path.name, "wrapper": wrapper, "tensors": order}

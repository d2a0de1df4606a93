"""PyTorch models on a user's disk -> one checkpoint of ours (`indextts2 convert`).

    RELEASE_DIR/                        AUX (RELEASE_DIR/hf_cache if not given)
      config.yaml bpe.model               w2v-bert-2.0/{config.json, model.safetensors}
      gpt.pth s2mel.pth                   semantic_codec_model.safetensors
      feat1.pt feat2.pt                   campplus_cn_common.bin
      wav2vec2bert_stats.pt               bigvgan/{config.json, bigvgan_generator.pt}
      qwen0.6bemo4-merge/
      indextts2_jax.json (of a model that was trained here)

Who trains from scratch needs no release: `convert_encoders` takes the files of AUX,
wav2vec2bert_stats.pt and a tokenizer alone.

The Hugging Face hub's own cache layout is understood too. `provenance.json` and the directory
`release/` of the checkpoint hold what `indextts2_jax.export` needs for the way back.
"""

import contextlib
import dataclasses
import json
import pathlib
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import ml_dtypes
import numpy as np
import yaml
from flax import nnx
from tqdm import tqdm

from indextts2_jax import convert
from indextts2_jax.audio.mel import MelConfig
from indextts2_jax.checkpoint import store
from indextts2_jax.checkpoint.parts import PARTS, Settings, save_part
from indextts2_jax.convert import ConversionError
from indextts2_jax.emotion.qwen3 import Qwen3Config
from indextts2_jax.emotion.text_to_emotion import EmotionSet
from indextts2_jax.prompt.campplus import CAMPPlusConfig
from indextts2_jax.prompt.semantic_codec import SemanticCodecConfig
from indextts2_jax.prompt.w2v_bert import W2VBertConfig
from indextts2_jax.release.files import WeightFile, read_weights, require_torch, to_numpy, unwrap
from indextts2_jax.s2m.model import S2MConfig
from indextts2_jax.t2s.generate import DecodingRules
from indextts2_jax.t2s.gpt import T2SConfig
from indextts2_jax.vocoder.bigvgan import BigVGANConfig

FEATURE_LAYER = 17  # of w2v-BERT 2.0, in every release
FRAMES_PER_CODE = 1.72  # that the release was trained with
CODES_PER_SECOND = 50  # of w2v-BERT 2.0, if the codec does not halve them
LICENCE_NOTICE = (
    "The converted weights stay under the licence of the weights they were made from "
    "(for IndexTTS-2: bilibili's model licence). Do not pass them on without reading it."
)
ENCODERS_NOTICE = (
    "The converted weights stay under the licences of the models they were made from. "
    "This checkpoint cannot speak yet: train.prepare, train.t2s and train.s2m start from it."
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
STATISTICS = [
    "wav2vec2bert_stats.pt",
    "models--amphion--MaskGCT/snapshots/*/wav2vec2bert_stats.pt",
    "models/tts/maskgct/ckpt/wav2vec2bert_stats.pt",  # in a checkout of Amphion
]
DTYPES = {"float32": np.float32, "bfloat16": ml_dtypes.bfloat16}
# What `--dtype bfloat16` stores in bfloat16: the large generators. Encoders, codec and vocoder keep
# float32: their codes and waves must not depend on it.
LOW_PRECISION_PARTS = ("t2s", "s2m", "qwen3")
TOKENIZER_FILES = ("*.json", "*.jinja", "merges.txt")
# In a release made of a checkpoint of ours: what config.yaml cannot say, see `Settings`.
OWN_SETTINGS = "indextts2_jax.json"
# The small tables: file -> its torch names -> our names; "" is a file that is one tensor.
TABLES = {
    "feature_statistics": {"mean": "feature_mean", "var": "feature_variance"},
    "emotion_styles": {"": "emotion_styles"},
    "emotion_vectors": {"": "emotion_vectors"},
}


@dataclasses.dataclass(frozen=True)
class Release:
    """The files of a release, found and named.

    Attributes:
      files: what it is (a part, a table, ...) -> file.
      places: what it is -> path in a release directory; auxiliary files of elsewhere get one below
        hf_cache.
      config: the contents of config.yaml; empty where there are the auxiliary models alone.
      own: the settings of a model that was trained here, which go before those of config.yaml.
    """

    files: Mapping[str, pathlib.Path]
    places: Mapping[str, str]
    config: Mapping[str, Any]
    own: Settings | None = None

    @classmethod
    def find(
        cls, src: pathlib.Path, aux: pathlib.Path | None, *, emotion_text: bool = True
    ) -> "Release":
        """Looks for every file.

        Args:
          src: RELEASE_DIR.
          aux: where the auxiliary models lie; None looks in `src`/hf_cache and `src`.
          emotion_text: also the Qwen3 emotion model, if there may be one.

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
        own = Settings.load(src, OWN_SETTINGS) if (src / OWN_SETTINGS).is_file() else None
        with _reading(config_file):
            places = {
                "config": config_file.name,
                "t2s": config["gpt_checkpoint"],
                "s2m": config["s2mel_checkpoint"],
                "tokenizer": config["dataset"]["bpe_model"],
                "feature_statistics": config["w2v_stat"],
            }
            if own is None or own.emotion_groups:
                places["emotion_styles"] = config["spk_matrix"]
                places["emotion_vectors"] = config["emo_matrix"]
            if emotion_text and (own is None or "qwen3" in own.configs):
                folder = pathlib.PurePath(config["qwen_emo_path"])
                places["qwen3"] = str(folder / "model.safetensors")
                places["qwen3_config"] = str(folder / "config.json")
        files = {name: src / place for name, place in places.items()}
        missing = [f"{path} ({name})" for name, path in files.items() if not path.is_file()]
        roots = [aux, src / "hf_cache", src] if aux is not None else [src / "hf_cache", src]
        for name, patterns in AUXILIARY.items():
            if found := _first(roots, patterns):
                root, files[name] = found
                place = files[name].relative_to(root)
                places[name] = (place if root == src else "hf_cache" / place).as_posix()
            else:
                missing.append(f"{patterns[0]} ({name}), below {' or '.join(map(str, roots))}")
        if missing:
            raise ConversionError("missing files:\n  " + "\n  ".join(missing))
        return cls(files, places, config, own)

    @classmethod
    def find_encoders(cls, src: pathlib.Path, bpe: pathlib.Path) -> "Release":
        """Looks for the auxiliary models, the feature statistics and the tokenizer alone.

        Args:
          src: where the auxiliary models lie; its folder hf_cache is looked through, too.
          bpe: the tokenizer's model file.

        Raises:
          ConversionError: lists every missing file.
        """
        if not src.is_dir():
            raise ConversionError(f"no directory of auxiliary models at {src}")
        files, places = {"tokenizer": bpe}, {"tokenizer": "bpe.model"}
        missing = [] if bpe.is_file() else [f"{bpe} (tokenizer)"]
        for name, patterns in {**AUXILIARY, "feature_statistics": STATISTICS}.items():
            if found := _first([src, src / "hf_cache"], patterns):
                root, files[name] = found
                places[name] = files[name].relative_to(root).as_posix()
            else:
                missing.append(f"{patterns[0]} ({name}), below {src}")
        if missing:
            raise ConversionError("missing files:\n  " + "\n  ".join(missing))
        return cls(files, places, {})

    def part_config(self, name: str, shapes: Mapping[str, tuple[int, ...]]) -> Any:
        """Reads the architecture of a part from the release's settings or the weights' shapes.

        Raises:
          ConversionError: if they lack something or ask for what we do not build.
        """
        if self.own is not None and name in self.own.configs:
            return self.own.configs[name]
        make: dict[str, Callable[[], Any]] = {
            "w2v_bert": lambda: W2VBertConfig.from_release(_json(self.files["w2v_bert_config"])),
            "semantic_codec": lambda: (
                SemanticCodecConfig.from_release(self.config["semantic_codec"])
                if self.config
                else SemanticCodecConfig.from_shapes(shapes)
            ),
            "campplus": lambda: CAMPPlusConfig.from_shapes(shapes),
            "t2s": lambda: T2SConfig.from_release(self.config["gpt"], shapes),
            "s2m": lambda: S2MConfig.from_release(self.config["s2mel"], shapes),
            "vocoder": lambda: BigVGANConfig.from_release(_json(self.files["vocoder_config"])),
            "qwen3": lambda: Qwen3Config.from_release(_json(self.files["qwen3_config"])),
        }
        with _reading(self.files[name]):
            return make[name]()

    @property
    def emotion_groups(self) -> tuple[int, ...]:
        """How many prototypes each emotion has.

        Raises:
          ConversionError: if config.yaml does not say.
        """
        if self.own is not None:
            return self.own.emotion_groups
        with _reading(self.files["config"]):
            return tuple(self.config["emo_num"])

    def settings(self, configs: Mapping[str, Any], fingerprints: Mapping[str, str]) -> Settings:
        """The settings of a checkpoint made from this release.

        Args:
          configs: part name -> its architecture.
          fingerprints: part name -> hash of its arrays.

        Raises:
          ConversionError: if config.yaml lacks something.
        """
        if self.own is not None:
            return dataclasses.replace(self.own, configs=configs, fingerprints=fingerprints)
        with _reading(self.files["config"]):
            preprocess = self.config["s2mel"]["preprocess_params"]
            mel = MelConfig.from_release(preprocess["spect_params"], preprocess["sr"])
        start_code = configs["t2s"].start_code
        labels = configs["qwen3"].labels if "qwen3" in configs else ()
        return Settings(
            source=f"PyTorch release, version {self.config.get('version', 'unknown')}",
            trained=True,
            configs=configs,
            mel=mel,
            feature_layer=FEATURE_LAYER,
            frames_per_code=FRAMES_PER_CODE,
            # The released pipeline decodes with rows 0, 2, 3, ..., and shows its processors ids of
            # 1 in place of the prefix.
            decoding=DecodingRules("released", (1, start_code), (start_code,)),
            num_beams=3,
            # The reading of the slots that most users of the released weights report; unverified.
            duration_slots=("pos(T)", "speed0"),
            emotions=EmotionSet.of_labels(labels) if labels else EmotionSet.indextts2(),
            emotion_groups=self.emotion_groups,
            fingerprints=fingerprints,
        )

    def encoder_settings(
        self, configs: Mapping[str, Any], fingerprints: Mapping[str, str]
    ) -> Settings:
        """As `settings`, of a checkpoint without T2S and S2M; training them completes it."""
        with _reading(self.files["vocoder_config"]):
            mel = MelConfig.from_vocoder(_json(self.files["vocoder_config"]))
        codes_per_second = CODES_PER_SECOND / configs["semantic_codec"].downsample_scale
        return Settings(
            source="auxiliary models",
            trained=True,
            configs=configs,
            mel=mel,
            feature_layer=FEATURE_LAYER,
            frames_per_code=mel.sample_rate / mel.hop_length / codes_per_second,
            decoding=DecodingRules(),
            num_beams=1,
            duration_slots=("pos(T)",),
            emotions=EmotionSet.paper(),
            emotion_groups=(),
            fingerprints=fingerprints,
        )

    def texts(self) -> Iterator[tuple[pathlib.Path, str, str]]:
        """The files that are no weights: tokenizers, settings, licences.

        Yields:
          The file, its path in a release directory, and its path in a checkpoint directory.
        """

        def beside(name: str, *patterns: str) -> Iterator[tuple[pathlib.Path, str]]:
            folder = pathlib.PurePosixPath(self.places[name]).parent
            for path in sorted(self.files[name].parent.iterdir()):
                if path.is_file() and any(path.match(pattern) for pattern in patterns):
                    yield path, str(folder / path.name)

        yield self.files["tokenizer"], self.places["tokenizer"], "tokenizer/bpe.model"
        for path, place in beside("tokenizer", "glossary.yaml"):
            yield path, place, f"tokenizer/{path.name}"
        if "qwen3" in self.files:
            for path, place in beside("qwen3", *TOKENIZER_FILES):
                yield path, place, f"tokenizer/qwen3/{path.name}"
        patterns = {"w2v_bert_config": "*.json", "vocoder_config": "*.json"}
        if "config" in self.files:
            yield self.files["config"], self.places["config"], "release/config.yaml"
            patterns = {"config": "*LICEN[CS]E*", **patterns}
        for name, pattern in patterns.items():
            for path, place in beside(name, pattern):
                yield path, place, f"release/{place}"


def _first(
    roots: Iterable[pathlib.Path], patterns: Iterable[str]
) -> tuple[pathlib.Path, pathlib.Path] | None:
    """The first root in which a file matches one of the patterns, and that file."""
    patterns = list(patterns)
    for root in roots:
        for pattern in patterns:
            if found := sorted(root.glob(pattern)):
                return root, found[0]
    return None


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
            file = read_weights(path)
            wrapper, keys = unwrap(name, file.tensors)
            tensors = {torch_name: to_numpy(file.tensors[key]) for torch_name, key in keys.items()}
            origin = self._origin(name, file, wrapper, keys)
            del file
            config = self.release.part_config(name, {k: v.shape for k, v in tensors.items()})
            model = part.abstract(config)
            unused = part.unused(config)
            arrays = convert.to_jax(tensors, part.rules, convert.shapes(model), unused)
        except ConversionError as error:
            self.errors.append(f"{path}: {error}" if str(path) not in str(error) else str(error))
            return
        keep = {k: v for k, v in tensors.items() if any(re.fullmatch(u, k) for u in unused)}
        del tensors
        if keep:
            origin["unused"] = store.save_arrays(self.out / "unused" / name, keep)
        self.provenance[name] = {**origin, "config": store.to_dict(config)}
        self.configs[name] = config
        low = convert.params(model, nnx.Param) if name in LOW_PRECISION_PARTS else ()
        arrays = {  # views where nothing changes
            k: v.astype(self.dtype if k in low else np.float32, copy=False)
            for k, v in arrays.items()
        }
        self.fingerprints[name] = save_part(self.out, name, arrays)

    def tables(self) -> None:
        """Converts the small tables: feature statistics, and emotion prototypes if there are."""
        arrays: dict[str, np.ndarray] = {}
        for source, names in TABLES.items():
            if source not in self.release.files:
                continue
            path = self.release.files[source]
            try:
                file = read_weights(path)
            except ConversionError as error:
                self.errors.append(str(error))
                continue
            if file.tensors.keys() != names.keys():
                self.errors.append(f"{path}: holds {sorted(file.tensors)}, want {sorted(names)}")
                continue
            self.provenance[source] = self._origin(source, file, "", {k: k for k in file.tensors})
            arrays |= {names[k]: to_numpy(v).astype(np.float32) for k, v in file.tensors.items()}
        if not self.errors:
            self.errors += self._table_errors(arrays)
        if not self.errors:
            statistics = TABLES["feature_statistics"].values()
            for part in ("tables", "prototypes"):
                own = {k: v for k, v in arrays.items() if (k in statistics) == (part == "tables")}
                if own:
                    self.fingerprints[part] = save_part(self.out, part, own)

    def _table_errors(self, arrays: Mapping[str, np.ndarray]) -> Iterator[str]:
        width = self.configs["w2v_bert"].width
        wanted = {"feature_mean": (width,), "feature_variance": (width,)}
        if "emotion_styles" in arrays:
            rows = sum(self.release.emotion_groups)
            wanted |= {
                "emotion_styles": (rows, self.configs["s2m"].velocity.style_width),
                "emotion_vectors": (rows, self.configs["t2s"].width),
            }
        for name, shape in wanted.items():
            if arrays[name].shape != shape:
                yield f"{name}: shape {arrays[name].shape}, want {shape}"

    def _origin(
        self, name: str, file: WeightFile, wrapper: str, keys: Mapping[str, str]
    ) -> dict[str, Any]:
        """What `provenance.json` says of a file and its converted tensors (name -> key)."""
        converted = set(keys.values())
        others = (*file.others, *(key for key in file.tensors if key not in converted))
        return {
            "file": self.release.places[name],
            "wrapper": wrapper,
            "metadata": file.metadata,
            # Below the wrapper in full; of the rest the top level says enough.
            "left_out": sorted(
                {k if k.split("/")[0] == wrapper else k.split("/")[0] for k in others}
            ),
            "tensors": [
                [key, str(file.tensors[key].dtype).removeprefix("torch."), file.tensors[key].shape]
                for key in keys.values()
            ],
        }


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
    require_torch()
    release = Release.find(src, aux, emotion_text=emotion_text)
    _convert(release, out, release.settings, DTYPES[dtype])


def convert_encoders(src: pathlib.Path, bpe: pathlib.Path, out: pathlib.Path) -> None:
    """Converts the public auxiliary models into a checkpoint to train T2S and S2M with.

    Args:
      src: where w2v-BERT 2.0, the semantic codec, CAMPPlus, BigVGAN and wav2vec2bert_stats.pt lie;
        see `AUXILIARY` and `STATISTICS`.
      bpe: the tokenizer's model file, e.g. from `train.tokenizer`.
      out: must not exist; appears only when everything is converted.

    Raises:
      ConversionError: lists every file, name and shape that does not match.
      CheckpointError: if `out` exists.
    """
    require_torch()
    release = Release.find_encoders(src, bpe)
    _convert(release, out, release.encoder_settings, np.float32)


def _convert(
    release: Release, out: pathlib.Path, settings: Callable[..., Settings], dtype: Any
) -> None:
    """Converts all that a release has; `settings` are made of configs and fingerprints."""
    names = [name for name in PARTS if name in release.files]
    with store.writing(out) as directory:
        writer = Writer(release, directory, dtype)
        with tqdm(names, unit="part", desc="convert", disable=None) as bar:
            for name in bar:
                bar.set_postfix_str(release.files[name].name)
                writer.part(name)
        if not writer.errors:
            writer.tables()
        if writer.errors:
            raise ConversionError("\n".join(writer.errors))
        settings(writer.configs, writer.fingerprints).save(directory)
        texts = {}
        for path, place, kept in release.texts():
            (directory / kept).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, directory / kept)
            texts[place] = kept
        store.write_json(directory / "provenance.json", {**writer.provenance, "texts": texts})

"""The files of a release on a user's disk, found and named."""

import contextlib
import dataclasses
import json
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import yaml

from indextts2_jax.audio.mel import MelConfig
from indextts2_jax.checkpoint.parts import Settings
from indextts2_jax.convert import ConversionError
from indextts2_jax.emotion.qwen3 import Qwen3Config
from indextts2_jax.emotion.text_to_emotion import EmotionSet
from indextts2_jax.prompt.campplus import CAMPPlusConfig
from indextts2_jax.prompt.semantic_codec import SemanticCodecConfig
from indextts2_jax.prompt.w2v_bert import W2VBertConfig
from indextts2_jax.release.files import SHARDS
from indextts2_jax.release.foreign import foreign, foreign_tokenizer
from indextts2_jax.s2m.model import S2MConfig
from indextts2_jax.t2s.generate import DecodingRules
from indextts2_jax.t2s.gpt import T2SConfig
from indextts2_jax.vocoder.bigvgan import BigVGANConfig

FEATURE_LAYER = 17  # of w2v-BERT 2.0, in every release


FRAMES_PER_CODE = 1.72  # that the release was trained with


CODES_PER_SECOND = 50  # of w2v-BERT 2.0, if the codec does not halve them


# Where each auxiliary file may lie, below --aux, hf_cache or the release; first match wins.
_W2V_BERT = ("w2v-bert-2.0", "models--facebook--w2v-bert-2.0/snapshots/*")


_CODEC = ("semantic_codec", "models--amphion--MaskGCT/snapshots/*/semantic_codec")


_CAMPPLUS = (".", "campplus", "models--funasr--campplus/snapshots/*")


_BIGVGAN = (
    "bigvgan",
    "bigvgan_v2_22khz_80band_256x",
    "models--nvidia--bigvgan_v2_22khz_80band_256x/snapshots/*",
)


_MODEL = ("model.safetensors", "model.safetensors.index.json")  # whole, or in several files


AUXILIARY = {
    "w2v_bert": [f"{folder}/{file}" for folder in _W2V_BERT for file in _MODEL],
    "w2v_bert_config": [f"{folder}/config.json" for folder in _W2V_BERT],
    "semantic_codec": [
        "semantic_codec_model.safetensors",
        *(f"{folder}/{file}" for folder in _CODEC for file in _MODEL),
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


TOKENIZER_FILES = ("*.json", "*.jinja", "merges.txt")


# In a release made of a checkpoint of ours: what config.yaml cannot say, see `Settings`.
OWN_SETTINGS = "indextts2_jax.json"


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
        config, own, places = read_config(src, emotion_text=emotion_text)
        files = {name: src / place for name, place in places.items()}
        if "qwen3" in files and not files["qwen3"].is_file():
            index = files["qwen3"].with_name(_MODEL[1])
            files["qwen3"] = index if index.is_file() else files["qwen3"]
        missing = [f"{path} ({name})" for name, path in files.items() if not path.is_file()]
        roots = [aux, src / "hf_cache", src] if aux is not None else [src / "hf_cache", src]
        for name, patterns in AUXILIARY.items():
            if found := _first(roots, patterns):
                root, files[name] = found
                place = _whole(files[name].relative_to(root))
                places[name] = (place if root == src else "hf_cache" / place).as_posix()
            else:
                missing.append(f"{patterns[0]} ({name}), below {' or '.join(map(str, roots))}")
        if missing:
            raise ConversionError("missing files:\n  " + "\n  ".join(missing))
        _require_no_foreign(files)
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
                places[name] = _whole(files[name].relative_to(root)).as_posix()
            else:
                missing.append(f"{patterns[0]} ({name}), below {src}")
        if missing:
            raise ConversionError("missing files:\n  " + "\n  ".join(missing))
        _require_no_foreign(files)
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
        """Returns the settings of a checkpoint made from this release.

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
        """Returns `settings` of a checkpoint without T2S and S2M; training them completes it."""
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
        """Returns the files that are no weights: tokenizers, settings, licences.

        Yields:
          The file, its path in a release directory, and its path in a checkpoint directory.
        """

        def beside(name: str, *patterns: str) -> Iterator[tuple[pathlib.Path, str]]:
            folder = pathlib.PurePosixPath(self.places[name]).parent
            for path in sorted(self.files[name].parent.iterdir()):
                if path.name.endswith(SHARDS):  # its weights go into one file
                    continue
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


def read_config(
    src: pathlib.Path, *, emotion_text: bool = True
) -> tuple[dict[str, Any], Settings | None, dict[str, str]]:
    """Reads what a release says of itself.

    Args:
      src: RELEASE_DIR; config.yaml and indextts2_jax.json are all that is read.
      emotion_text: also name the files of the Qwen3 emotion model, if there may be one.

    Returns:
      The contents of config.yaml, the settings of a model that was trained here, and what it is ->
      path of a file below `src`.

    Raises:
      ConversionError: if config.yaml is missing, or lacks something.
    """
    config_file = src / "config.yaml"
    if not config_file.is_file():
        raise ConversionError(f"{config_file} is missing: is this a release of IndexTTS-2?")
    _require_no_foreign({"config": config_file})
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
    return config, own, places


def _first(
    roots: Iterable[pathlib.Path], patterns: Iterable[str]
) -> tuple[pathlib.Path, pathlib.Path] | None:
    """Returns the first root in which a file matches one of the patterns, and that file."""
    patterns = list(patterns)
    for root in roots:
        for pattern in patterns:
            if found := sorted(root.glob(pattern)):
                return root, found[0]
    return None


def _whole(path: pathlib.Path) -> pathlib.Path:
    """Returns the file that holds all weights, of the index of several."""
    return path.with_name(path.name.removesuffix(".index.json"))


def _require_no_foreign(files: Mapping[str, pathlib.Path]) -> None:
    """Checks what each file is, as far as its first bytes tell.

    Raises:
      ConversionError: lists those that can be no files of a release.
    """
    wrong = []
    for name, path in files.items():
        try:
            what = (foreign_tokenizer if name == "tokenizer" else foreign)(path)
        except OSError as error:
            what = f"cannot be read: {error.strerror}"
        if what:
            wrong.append(f"{path} {what}")
    if wrong:
        raise ConversionError("\n".join(wrong))


@contextlib.contextmanager
def _reading(path: pathlib.Path) -> Iterator[None]:
    """Turns what a broken file of settings or shapes raises into one line."""
    try:
        yield
    except ConversionError:
        raise
    except OSError as error:
        raise ConversionError(f"{path}: cannot be read: {error.strerror}") from error
    except KeyError as error:
        raise ConversionError(f"{path}: {error} is missing") from error
    except (ValueError, TypeError, IndexError, yaml.YAMLError) as error:
        raise ConversionError(f"{path}: {' '.join(str(error).split())}") from error


def _json(path: pathlib.Path) -> Any:
    with _reading(path):
        return json.loads(path.read_text(encoding="utf-8"))

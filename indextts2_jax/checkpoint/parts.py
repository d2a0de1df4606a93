"""The networks of a checkpoint by name, and the settings that go with them."""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from flax import nnx

from indextts2_jax.audio.mel import MelConfig
from indextts2_jax.checkpoint import store
from indextts2_jax.convert import Rule
from indextts2_jax.emotion import qwen3
from indextts2_jax.emotion.text_to_emotion import EmotionSet
from indextts2_jax.nn import pytree
from indextts2_jax.prompt import campplus, semantic_codec, w2v_bert
from indextts2_jax.s2m import model as s2m
from indextts2_jax.s2m.flow_matching import GUIDANCE
from indextts2_jax.t2s import gpt
from indextts2_jax.t2s.generate import DecodingRules
from indextts2_jax.vocoder import bigvgan


@dataclasses.dataclass(frozen=True)
class Part:
    """One network: how to build it and how its torch names map to ours."""

    config: type
    model: Callable[..., Any]
    rules: tuple[Rule, ...]
    unused: Callable[[Any], tuple[str, ...]]  # of the config: regexes of torch names

    def abstract(self, config: Any) -> Any:
        """Returns the module with shapes in place of arrays."""
        return pytree.abstract(lambda rngs: self.model(config, rngs=rngs))


PARTS = {
    "w2v_bert": Part(
        w2v_bert.W2VBertConfig,
        w2v_bert.W2VBert,
        w2v_bert.TORCH_RULES,
        lambda _: w2v_bert.TORCH_UNUSED,
    ),
    "semantic_codec": Part(
        semantic_codec.SemanticCodecConfig,
        semantic_codec.SemanticCodec,
        semantic_codec.TORCH_RULES,
        lambda _: semantic_codec.TORCH_UNUSED,
    ),
    "campplus": Part(
        campplus.CAMPPlusConfig,
        campplus.CAMPPlus,
        campplus.TORCH_RULES,
        lambda _: campplus.TORCH_UNUSED,
    ),
    "t2s": Part(gpt.T2SConfig, gpt.T2S, gpt.TORCH_RULES, gpt.torch_unused),
    "s2m": Part(s2m.S2MConfig, s2m.S2M, s2m.TORCH_RULES, s2m.torch_unused),
    "vocoder": Part(
        bigvgan.BigVGANConfig,
        bigvgan.BigVGAN,
        bigvgan.TORCH_RULES,
        lambda _: bigvgan.TORCH_UNUSED,
    ),
    "qwen3": Part(qwen3.Qwen3Config, qwen3.Qwen3, qwen3.TORCH_RULES, qwen3.torch_unused),
}
FRONT_END = ("w2v_bert", "semantic_codec", "campplus", "tables")  # what a speaker object depends on
# Modules that make a part.
TRAINERS = {
    "w2v_bert": "train.encoder",
    "t2s": "train.t2s",
    "s2m": "train.s2m",
    "vocoder": "train.vocoder",
    "qwen3": "train.emotion",
}


@dataclasses.dataclass(frozen=True)
class Settings:
    """What `store.json` holds.

    Attributes:
      source: where the weights come from, in words.
      trained: False for random weights, which babble.
      configs: part name -> its Config.
      mel: the spectrogram of S2M and the vocoder.
      feature_layer: hidden state of w2v-BERT that is the semantic feature.
      frames_per_code: mel frames per semantic code of generated speech.
      decoding: how the T2S weights count positions.
      num_beams: that sampling uses if the user does not say.
      duration_slots: what fills the slots of the T2S sequence when a number of codes is wanted.
      emotions: the emotions that weights name, in order; how texts are read and weights mixed.
      emotion_groups: number of prototypes of each emotion; () = there are no prototypes.
      fingerprints: part name -> hash of its arrays.
      guidance: of S2M's flow, if the user does not say; 0 for one that always saw its conditions.
    """

    source: str
    trained: bool
    configs: Mapping[str, Any]
    mel: MelConfig
    feature_layer: int
    frames_per_code: float
    decoding: DecodingRules
    num_beams: int
    duration_slots: tuple[str, ...]
    emotions: EmotionSet
    emotion_groups: tuple[int, ...]
    fingerprints: Mapping[str, str]
    guidance: float = GUIDANCE

    def __post_init__(self):
        groups, emotions = len(self.emotion_groups), len(self.emotions.names)
        if groups not in (0, emotions):
            raise store.CheckpointError(
                f"the prototypes are of {groups} emotions, the weights of {emotions}"
            )

    @property
    def front_end_fingerprint(self) -> str:
        """Identifies the frozen encoders: equal for checkpoints that can share speaker objects."""
        return "-".join(self.fingerprints[name] for name in FRONT_END)

    def save(self, path: pathlib.Path, file: str = store.SETTINGS_FILE) -> None:
        """Writes a file of settings into the directory `path`."""
        values = {
            **store.to_dict(dataclasses.replace(self, configs={})),
            "configs": {name: store.to_dict(c) for name, c in self.configs.items()},
        }
        version = {"format_version": store.FORMAT_VERSION}
        store.write_json(path / file, {**version, **values})

    @classmethod
    def load(cls, path: pathlib.Path, file: str = store.SETTINGS_FILE) -> "Settings":
        """Reads a file of settings in the directory `path`.

        Raises:
          CheckpointError: if it is missing or does not fit this version of the code.
        """
        values = store.read_settings(path, file)
        del values["format_version"]
        settings = store.from_dict(cls, values)
        configs = {
            name: store.from_dict(PARTS[name].config, c) for name, c in settings.configs.items()
        }
        return dataclasses.replace(settings, configs=configs)


def save_part(path: pathlib.Path, name: str, arrays: Mapping[str, Any]) -> str:
    """Writes the arrays of a part into the checkpoint directory `path`; returns the fingerprint."""
    return store.save_arrays(path / "weights" / name, arrays)


def require(path: pathlib.Path, settings: Settings, *names: str) -> None:
    """Checks that a checkpoint holds these parts.

    Args:
      path: the checkpoint directory.
      settings: its settings.
      *names: of the parts.

    Raises:
      CheckpointError: says which are missing, and what makes them.
    """
    missing = [name for name in names if name not in settings.configs]
    if missing:
        trainers = [f"python -m {TRAINERS[name]}" for name in missing if name in TRAINERS]
        ways = f"; train first: {', '.join(trainers)}" if trainers else ""
        raise store.CheckpointError(f"{path} holds no {', '.join(missing)}{ways}")


def load_part(
    path: pathlib.Path,
    settings: Settings,
    name: str,
    *,
    dtype: Any = np.float32,
    sharding: jax.sharding.Sharding | None = None,
) -> Any:
    """Reads one network.

    Args:
      path: the checkpoint directory.
      settings: its settings; a config with fewer layers reads fewer.
      name: of the part.
      dtype: of the weights, and so of the computation.
      sharding: where to put the arrays; the default device if None.

    Returns:
      The module.

    Raises:
      CheckpointError: if the checkpoint lacks it or its arrays do not fit.
    """
    require(path, settings, name)
    model = PARTS[name].abstract(settings.configs[name])
    weights = pytree.params(model, nnx.Param)
    wanted = {
        # Tables and statistics keep float32: some of them must not be rounded.
        key: jax.ShapeDtypeStruct(x.shape, dtype if key in weights else np.float32)
        for key, x in pytree.params(model).items()
    }
    arrays = store.load_arrays(path / "weights" / name, wanted, sharding=sharding)
    return pytree.fill(model, arrays)


def load_tables(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Reads the small tables of a checkpoint: feature statistics, and prototypes if it has some.

    Raises:
      CheckpointError: if they are missing.
    """
    out: dict[str, np.ndarray] = {}
    prototypes = path / "weights" / "prototypes"
    for folder in (path / "weights" / "tables", *([prototypes] if prototypes.is_dir() else [])):
        arrays = store.load_arrays(folder, store.array_types(folder))
        out |= {name: np.asarray(x) for name, x in arrays.items()}
    variance = out["feature_variance"]
    if variance.dtype != np.float32:
        # The root in the file's own dtype, as the original takes it; its square is exact.
        out["feature_variance"] = np.sqrt(variance).astype(np.float32) ** 2
    return out

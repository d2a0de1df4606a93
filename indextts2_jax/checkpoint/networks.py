"""The networks and tables of a checkpoint, read when they are first needed."""

import dataclasses
import functools
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from indextts2_jax import programs
from indextts2_jax.checkpoint.parts import Settings, load_part, load_tables, require
from indextts2_jax.checkpoint.store import CheckpointError
from indextts2_jax.emotion import mixing
from indextts2_jax.emotion.text_to_emotion import EmotionReader, emotion_reader
from indextts2_jax.nn.conv import fold_weight_norm
from indextts2_jax.prompt.campplus import CAMPPlus
from indextts2_jax.prompt.semantic_codec import SemanticCodec
from indextts2_jax.prompt.w2v_bert import W2VBert
from indextts2_jax.s2m.model import S2M
from indextts2_jax.t2s import gpt
from indextts2_jax.text.tokenize import Tokenizer
from indextts2_jax.vocoder.bigvgan import BigVGAN


class Networks:
    """An opened checkpoint."""

    def __init__(self, path: str | os.PathLike, *, dtype: Any = np.float32):
        """Opens the checkpoint directory `path`; networks are read when they are first needed.

        Args:
          path: from `indextts2 convert` or from training.
          dtype: float32, or bfloat16 for T2S and S2M (fast on GPU and TPU, slow on CPU).

        Raises:
          CheckpointError: if the directory is no checkpoint.
        """
        self.path = pathlib.Path(path)
        self.settings = Settings.load(self.path)
        self.dtype = dtype
        programs.enable_compilation_cache()

    def require(self, *names: str) -> None:
        """Checks that the checkpoint holds these parts.

        Raises:
          CheckpointError: if it does not, or S2M was trained with another T2S.
        """
        require(self.path, self.settings, *names)
        if not {"t2s", "s2m"} <= set(names):
            return
        configs = self.settings.configs
        reads, gives = configs["s2m"].latent_widths[:1], configs["t2s"].width
        if reads not in ((), (gives,)):
            raise CheckpointError(
                f"the s2m of {self.path} reads latents of width {reads[0]}, its t2s gives {gives}; "
                "train s2m again: python -m train.s2m"
            )

    @functools.cached_property
    def w2v_bert(self) -> W2VBert:
        """The w2v-BERT encoder, as many layers of it as are used."""
        config = self.settings.configs["w2v_bert"]
        config = dataclasses.replace(config, num_layers=self.settings.feature_layer)
        configs = {**self.settings.configs, "w2v_bert": config}
        return load_part(self.path, dataclasses.replace(self.settings, configs=configs), "w2v_bert")

    @functools.cached_property
    def semantic_codec(self) -> SemanticCodec:
        """The semantic codec."""
        return load_part(self.path, self.settings, "semantic_codec")

    @functools.cached_property
    def campplus(self) -> CAMPPlus:
        """The speaker encoder."""
        return load_part(self.path, self.settings, "campplus")

    @functools.cached_property
    def t2s(self) -> gpt.T2S:
        """The text-to-semantic stage."""
        return gpt.for_decoding(load_part(self.path, self.settings, "t2s", dtype=self.dtype))

    @functools.cached_property
    def s2m(self) -> S2M:
        """The semantic-to-mel stage."""
        model = load_part(self.path, self.settings, "s2m", dtype=self.dtype)
        return fold_weight_norm(model)

    @functools.cached_property
    def vocoder(self) -> BigVGAN:
        """The vocoder."""
        return fold_weight_norm(load_part(self.path, self.settings, "vocoder"))

    @functools.cached_property
    def tables(self) -> Mapping[str, np.ndarray]:
        """Feature statistics, and emotion prototypes if there are some."""
        return load_tables(self.path)

    @functools.cached_property
    def prototypes(self) -> mixing.EmotionPrototypes:
        """The emotion prototypes that weights mix.

        Raises:
          CheckpointError: if the checkpoint has none.
        """
        if not self.settings.emotion_groups:
            raise CheckpointError(
                f"{self.path} has no emotion prototypes: emotion weights and sentences do not work "
                "with it (python -m train.prototypes makes some), an emotion voice does"
            )
        prototypes = mixing.EmotionPrototypes(
            self.tables["emotion_styles"],
            self.tables["emotion_vectors"],
            self.settings.emotion_groups,
        )
        return prototypes.averaged() if self.settings.emotions.averaged else prototypes

    @functools.cached_property
    def text_to_emotion(self) -> EmotionReader:
        """The Qwen3 model that reads an emotion off a sentence.

        Raises:
          CheckpointError: if the checkpoint has none.
        """
        model = load_part(self.path, self.settings, "qwen3", dtype=self.dtype)
        folder = self.path / "tokenizer" / "qwen3"
        return emotion_reader(model, folder, self.settings.emotions)

    def tokenizer(self, compat: bool = False) -> Tokenizer:
        """Returns the text tokenizer."""
        return _tokenizer(self.path / "tokenizer" / "bpe.model", compat)


@functools.lru_cache(maxsize=4)
def _tokenizer(path: pathlib.Path, compat: bool) -> Tokenizer:
    return Tokenizer(path, compat)

"""A small checkpoint with random weights: everything runs, nothing makes sense.

It lets a new user see the whole pipeline, and tests build on it, without any trained weights.
"""

import dataclasses
import functools
import io
import os
import pathlib
from collections.abc import Iterable
from typing import Any

import numpy as np

from indextts2_jax.audio.mel import MelConfig
from indextts2_jax.checkpoint import store
from indextts2_jax.checkpoint.parts import PARTS, Settings, save_part
from indextts2_jax.emotion.text_to_emotion import EmotionSet
from indextts2_jax.nn import pytree
from indextts2_jax.prompt.campplus import CAMPPlusConfig
from indextts2_jax.prompt.semantic_codec import SemanticCodecConfig
from indextts2_jax.prompt.w2v_bert import W2VBertConfig
from indextts2_jax.s2m.model import S2MConfig
from indextts2_jax.t2s.conditioner import ConditionerConfig
from indextts2_jax.t2s.generate import DecodingRules
from indextts2_jax.t2s.gpt import T2SConfig
from indextts2_jax.vocoder.bigvgan import BigVGANConfig

NAME = "babble-7"  # a new number when the recipe changes
NUM_PIECES = 330
SENTENCES = (
    "THE QUICK BROWN FOX JUMPS OVER THE LAZY DOG.",
    "HELLO THERE, HOW ARE YOU TODAY?",
    "IT IS A TRUTH UNIVERSALLY ACKNOWLEDGED THAT NOTHING OF THIS WILL BE UNDERSTOOD!",
    "WHAT DO YOU WANT TO SAY? THIS VOICE HAS NEVER HEARD A WORD.",
)


def configs(num_text_tokens: int) -> dict[str, Any]:
    """Returns small architectures that fit together."""
    features, width, codes = 32, 64, 512
    velocity = dataclasses.replace(
        S2MConfig.tiny().velocity, num_mels=80, style_width=192, condition_width=32
    )
    return {
        "w2v_bert": dataclasses.replace(W2VBertConfig.tiny(), width=features, num_heads=2),
        "semantic_codec": dataclasses.replace(
            SemanticCodecConfig.tiny(), feature_width=features, codebook_size=codes
        ),
        "campplus": dataclasses.replace(
            CAMPPlusConfig.indextts2(),
            growth=4,
            init_channels=16,
            bn_size=2,
            block_layers=(2, 2, 2),
        ),
        "t2s": T2SConfig(
            width=width,
            num_layers=2,
            num_heads=2,
            num_text_tokens=num_text_tokens,
            num_codes=codes + 2,
            start_code=codes,
            stop_code=codes + 1,
            text_positions=602,
            code_positions=1818,
            speaker=ConditionerConfig(features, 32, 64, 2, 1, 8, width),
            emotion=ConditionerConfig(features, 32, 64, 2, 1, 1, 32),
            num_speed_embeddings=0,
            free_slots=("zero",),
        ),
        "s2m": dataclasses.replace(
            S2MConfig.tiny(),
            latent_widths=(width, 16, features),
            length_regulator=dataclasses.replace(
                S2MConfig.tiny().length_regulator, in_width=features, width=32
            ),
            velocity=velocity,
        ),
        "vocoder": BigVGANConfig(num_mels=80, width=128, upsample_rates=(8, 8, 4)),
    }


def random_checkpoint(path: str | os.PathLike | None = None, *, seed: int = 0) -> pathlib.Path:
    """Builds the checkpoint, or finds it where an earlier call has built it.

    Args:
      path: directory; a place in the user's cache if None.
      seed: of the weights.

    Returns:
      The checkpoint directory.
    """
    if path is None:
        cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser()
        path = cache / "indextts2_jax" / NAME
    path = pathlib.Path(path)
    if path.is_dir():
        return path
    with store.writing(path) as directory:
        (directory / "tokenizer").mkdir()
        (directory / "tokenizer" / "bpe.model").write_bytes(train_tokenizer())
        parts, fingerprints = configs(NUM_PIECES), {}
        for index, (name, config) in enumerate(parts.items()):
            build = functools.partial(PARTS[name].model, config)
            arrays = pytree.random_arrays(lambda rngs, b=build: b(rngs=rngs), seed + index)
            if name == "t2s":  # say the stop code every few dozen codes
                arrays["code_head.bias"][config.stop_code] = 2.0
            if name == "vocoder":  # noise, but not at full scale
                arrays["conv_out.gain"] *= 0.02
            fingerprints[name] = save_part(directory, name, arrays)
        emotions = EmotionSet.indextts2()
        rng = np.random.default_rng(seed)
        features = parts["semantic_codec"].feature_width
        num_prototypes = 2 * len(emotions.names)
        tables = {
            "tables": {
                "feature_mean": np.zeros(features),
                "feature_variance": np.ones(features),
            },
            "prototypes": {
                "emotion_styles": rng.normal(size=(num_prototypes, 192)),
                "emotion_vectors": rng.normal(size=(num_prototypes, parts["t2s"].width)),
            },
        }
        for name, arrays in tables.items():
            arrays = {k: v.astype(np.float32) for k, v in arrays.items()}
            fingerprints[name] = save_part(directory, name, arrays)
        Settings(
            source="random weights",
            trained=False,
            configs=parts,
            mel=MelConfig(),
            feature_layer=2,
            frames_per_code=1.72,
            decoding=DecodingRules(forbidden=(parts["t2s"].start_code,)),
            num_beams=1,
            duration_slots=("pos(T)",),
            emotions=emotions,
            emotion_groups=(2,) * len(emotions.names),
            fingerprints=fingerprints,
        ).save(directory)
    return path


def train_tokenizer(
    sentences: Iterable[str] = SENTENCES, size: int = NUM_PIECES, **options: Any
) -> bytes:
    """Trains a SentencePiece model (BPE) with the ids of the release: 0 and 1 frame a text.

    Args:
      sentences: as the tokenizer gives them to the model: upper case, CJK characters apart.
      size: number of pieces.
      **options: others of SentencePiece's trainer.

    Returns:
      The model file.

    Raises:
      RuntimeError: if the sentences do not make so many pieces, or need more.
    """
    import sentencepiece

    file = io.BytesIO()
    defaults = {"model_type": "bpe", "byte_fallback": True, "minloglevel": 2}
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences),
        model_writer=file,
        vocab_size=size,
        bos_id=0,
        eos_id=1,
        unk_id=2,
        **{**defaults, **options},
    )
    return file.getvalue()

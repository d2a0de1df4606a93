"""An empty checkpoint: tokenizer and settings of the sound; trainers put the networks into it."""

import pathlib
import shutil

from indextts2_jax.audio.mel import MelConfig
from indextts2_jax.checkpoint import store
from indextts2_jax.checkpoint.parts import Settings
from indextts2_jax.emotion.text_to_emotion import EmotionSet
from indextts2_jax.errors import InputError
from indextts2_jax.t2s.generate import DecodingRules

CODES_PER_SECOND = 50.0  # until a codec of another rate is trained


def empty_checkpoint(bpe: pathlib.Path, out: pathlib.Path) -> None:
    """Makes a checkpoint without networks, unless there is one.

    Args:
      bpe: the tokenizer's model file; a `glossary.yaml` beside it is taken along.
      out: of the checkpoint.

    Raises:
      InputError: if there is no such file, or `out` has another tokenizer.
    """
    if not bpe.is_file():
        raise InputError(f"no SentencePiece model at {bpe}")
    if out.exists():
        own = out / "tokenizer" / "bpe.model"
        if not own.is_file() or own.read_bytes() != bpe.read_bytes():
            raise InputError(f"{out} is there, and has not the tokenizer {bpe}")
        return
    mel = MelConfig()
    with store.writing(out) as directory:
        folder = directory / "tokenizer"
        folder.mkdir()
        shutil.copyfile(bpe, folder / "bpe.model")
        if (glossary := bpe.with_name("glossary.yaml")).is_file():
            shutil.copyfile(glossary, folder / glossary.name)
        Settings(
            source="trained from scratch",
            trained=True,
            configs={},
            mel=mel,
            feature_layer=0,  # that of the encoder, once it is trained
            frames_per_code=mel.sample_rate / mel.hop_length / CODES_PER_SECOND,
            decoding=DecodingRules(),
            num_beams=1,
            duration_slots=("pos(T)",),
            emotions=EmotionSet.paper(),
            emotion_groups=(),
            fingerprints={},
        ).save(directory)

"""An empty checkpoint: tokenizer and settings of the sound; trainers put the networks into it.

    python -m train.tokenizer --src recordings --out bpe.model --size 1000
    python -m train.begin --bpe bpe.model --out CKPT
    python -m train.prepare --src recordings --checkpoint CKPT --out DATA --features fbank

Exit codes: 0 done, 2 input that cannot be used (one line says why).
"""

import argparse
import pathlib
import shutil
import sys
from collections.abc import Sequence

from indextts2_jax.audio.mel import MelConfig
from indextts2_jax.checkpoint import store
from indextts2_jax.checkpoint.parts import Settings
from indextts2_jax.emotion.text_to_emotion import EmotionSet
from indextts2_jax.errors import InputError
from indextts2_jax.t2s.generate import DecodingRules

CODES_PER_SECOND = 50.0  # until a codec of another rate is trained


def empty_checkpoint(bpe: pathlib.Path, out: pathlib.Path) -> None:
    """Makes a checkpoint without networks.

    Args:
      bpe: the tokenizer's model file; a `glossary.yaml` beside it is taken along.
      out: must not exist.

    Raises:
      InputError: if there is no such file, or `out` exists.
    """
    if not bpe.is_file():
        raise InputError(f"no SentencePiece model at {bpe}")
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


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m train.begin",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--bpe", type=pathlib.Path, required=True, help="from train.tokenizer")
    parser.add_argument("--out", type=pathlib.Path, required=True, help="directory to make")
    args = parser.parse_args(argv)
    try:
        empty_checkpoint(args.bpe, args.out)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

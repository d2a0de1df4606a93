r"""Trains the semantic codec (RepCodec) on the features of an encoder that stays as it is.

    python -m train.encoder --config configs/encoder_tiny.py checkpoint=CKPT data.paths=DATA out=EAR
    python -m train.codec --config configs/codec_tiny.py checkpoint=EAR/checkpoint \
        data.paths=DATA out=RUN

DATA is made by `train.prepare --features fbank`. RUN/checkpoint is EAR/checkpoint with the new
codec; whatever reads its codes (T2S, S2M) has to be trained on them. `codec.downsample_scale` is 1
for 50 codes a second, 2 for 25.

The codec learns by reconstruction, commitment and codebook, and codes that nothing is nearest to
are revived (`train.objectives.quantization`). It is judged by the recognizer of the checkpoint:
`sample_cer` is what that hears in the features, `sample_cer_codes` what it hears through the codes;
`sample_f0_codes` tells whether they carry the pitch, `perplexity` and `used` how many there are.
With stages.0.ctc=1 the codec learns from the recognizer as well.

See `train.recognition.hearing` for the losses, `train.recognition.transcripts` for error rates.
"""

import dataclasses
import pathlib
import sys
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from indextts2_jax.checkpoint.parts import load_tables
from indextts2_jax.prompt.semantic_codec import SemanticCodecConfig
from indextts2_jax.prompt.w2v_bert import W2VBertConfig
from train import encoder
from train.recognition import recognizer
from train.recognition.hearing import Hearing, Method
from train.recognition.recognizer import RecognizerConfig, Units
from train.recognition.transcripts import Transcripts, batches_of
from train.run import config, loop
from train.run.artifacts import Result
from train.run.config import Config
from train.run.feed import Feed, data_config
from train.run.start import Start

PART = "semantic_codec"


def default_config() -> Config:
    """Returns the released architecture, trained from scratch in one stage on one data set."""
    out = config.base_config()
    with out.unlocked():
        out.model = config.preset(SemanticCodecConfig.indextts2())
        out.trainer = "codec"
        # For plans without a checkpoint; training takes the encoder of the checkpoint.
        out.encoder = config.preset(W2VBertConfig.indextts2())
        out.layer = 17
        out.data = data_config(measure="codes", budget=16384, speed_probability=0.0)
        out.stages = (stage(),)
    return out


def stage(**changes: Any) -> Config:
    """Returns one stage; `changes` are of its keys.

    Nothing is masked, and the recognizer judges but teaches nothing.
    """
    alone = {"quantize": True, "ctc": 0.0, "time_masks": 0, "band_masks": 0}
    return encoder.stage(**{"train": (rf"{PART}\..*",), **alone, **changes})


def make_hearing(run: Config, start: Start | None, heads: RecognizerConfig) -> Hearing:
    """Returns the networks of a run, of which the codec learns.

    Args:
      run: the configuration.
      start: what it begins with; None if that is not known.
      heads: the recognizer.
    """
    if start is None:
        cfg, layer = config.architecture(W2VBertConfig, run.encoder), run.layer
        mean, variance = np.zeros(cfg.width, np.float32), np.ones(cfg.width, np.float32)
    else:
        base = start.base
        cfg, tables = base.config("w2v_bert"), load_tables(base.path)
        layer = base.settings.feature_layer
        mean, variance = tables["feature_mean"], tables["feature_variance"]
    codec = config.architecture(SemanticCodecConfig, run.model)
    if start is not None and start.source is not None:
        codec = start.source.config(PART)
    codec = dataclasses.replace(codec, feature_width=cfg.width)
    return Hearing(encoder=cfg, heads=heads, codec=codec, layer=layer, mean=mean, variance=variance)


def setup(run: Config) -> loop.Setup:
    """Prepares everything that a run of the codec needs, from its configuration.

    Raises:
      InputError: if checkpoint, data and configuration do not fit each other.
    """
    mesh = loop.make_mesh(run)
    start = Start.of(run)
    base = start.base
    heads = recognizer.config_of(base.path)
    units = Units.of(base.path / "tokenizer" / "bpe.model", heads.units)
    hearing = make_hearing(run, start, heads)
    feed = Feed.open(run, base, mesh, encoder.FIELDS, max_codes=0, max_text=0, encoded=False)

    def initial(places: Any) -> dict[str, jax.Array]:
        out = base.arrays("w2v_bert", places) | encoder.recognizer_of(base, places)
        return out | start.arrays(PART, places)

    samples, out = None, pathlib.Path(run.out)
    if run.sample_every:
        samples = Transcripts(hearing, units, batches_of(feed, units), mesh, out)

    def publish(arrays: Mapping[str, jax.Array], *, suffix: str = "") -> None:
        codec = hearing.codec
        assert codec is not None
        rate = encoder.frames_per_code(base, codec)
        made = Result.of(base, PART, {PART: codec}, frames_per_code=rate)
        made.publish(out / "checkpoint", arrays, suffix=suffix)

    return loop.Setup(
        run=run,
        mesh=mesh,
        task=lambda stage: hearing.task(Method.of(stage), remat=run.remat),
        initial=initial,
        batches=lambda stage, start: encoder.with_labels(feed.batches(stage, start), units),
        validation=lambda: [units.batch(batch) for batch in feed.validation()],
        publish=publish,
        samples=samples,
    )


if __name__ == "__main__":
    sys.exit(loop.main(setup, __doc__))

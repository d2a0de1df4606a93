r"""Trains the semantic encoder: w2v-BERT that hears words (CTC), so that its features carry words.

    python -m train.prepare --src recordings --checkpoint CKPT --out DATA --features fbank
    python -m train.encoder --config configs/encoder_tiny.py checkpoint=CKPT data.paths=DATA out=RUN

CKPT needs no more than a tokenizer (`train.prepare --bpe`). RUN/checkpoint is CKPT with the
encoder, the mean and variance of the features (output of layer `layer`), and the recognizer that
judges the codec and aligns words (`python -m train.align`).

A stage with `quantize=True` trains a codec along: the heads then hear the features through the
codes. Its features are standardised by the statistics of `init`, or not at all (mean 0 and variance
1 are written), and the codec is in the result, too.

See `train.recognition.hearing` for the losses, `train.recognition.transcripts` for error rates.

Dims: D width of the encoder.
"""

import contextlib
import dataclasses
import itertools
import pathlib
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from indextts2_jax.checkpoint import store
from indextts2_jax.checkpoint.parts import load_tables
from indextts2_jax.nn import pytree
from indextts2_jax.nn.masking import length_mask, zero_padding
from indextts2_jax.prompt.semantic_codec import SemanticCodecConfig
from indextts2_jax.prompt.w2v_bert import W2VBertConfig
from indextts2_jax.sharding import replicated
from train.recognition import recognizer
from train.recognition.hearing import Hearing, Method
from train.recognition.recognizer import RecognizerConfig, Units
from train.recognition.transcripts import Transcripts, batches_of
from train.run import config, loop
from train.run.artifacts import Base, Result
from train.run.config import Config
from train.run.feed import Feed, data_config
from train.run.start import Start
from train.run.step import to_devices
from train.run.task import Task, TrainingError

FIELDS = ("features", "text", "prosody")
FEATURES_PER_SECOND = 50


def default_config() -> Config:
    """Returns the released architecture, trained from scratch in one stage on one data set."""
    out = config.base_config()
    with out.unlocked():
        out.model = config.preset(W2VBertConfig.indextts2())
        out.trainer = "encoder"
        out.layer = 17  # whose output feeds the codec (release)
        out.units = "characters"  # or "pieces" of the tokenizer
        out.codec = config.preset(SemanticCodecConfig.indextts2())  # of stages that quantize
        out.statistics_batches = 100  # that mean and variance are measured on
        out.data = data_config(measure="codes", budget=16384, speed_probability=0.0)
        out.stages = (stage(),)
    return out


def stage(**changes: Any) -> Config:
    """Returns one stage; `changes` are of its keys, which include those of `Method`."""
    out = config.base_stage()
    with out.unlocked():
        out.mix = (1.0,)  # a weight for each of `data.paths`: shares of what is drawn
        for field in dataclasses.fields(Method):
            out[field.name] = field.default
    out.lock()
    out.update(changes)
    return out


def with_labels(
    batches: Iterable[Mapping[str, np.ndarray]], units: Units
) -> Iterator[dict[str, np.ndarray]]:
    """Puts labels in place of the texts of batches."""
    return map(units.batch, batches)


def encoder_config(run: Config, source: Base | None) -> W2VBertConfig:
    """Returns the architecture of a run's encoder.

    Args:
      run: the configuration.
      source: the checkpoint whose encoder learns further; None for a new one.

    Raises:
      InputError: if it has not the layer that feeds the codec.
    """
    if source is None:
        cfg = config.architecture(W2VBertConfig, run.model)
    else:
        cfg = source.config("w2v_bert")
    if not 0 < run.layer <= cfg.num_layers:
        raise TrainingError(f"layer is {run.layer}, the encoder has {cfg.num_layers} layers")
    return cfg


def make_hearing(
    run: Config, source: Base | None, encoder: W2VBertConfig, num_units: int
) -> Hearing:
    """Returns the networks of a run.

    Args:
      run: the configuration.
      source: as in `encoder_config`.
      encoder: architecture, see `encoder_config`.
      num_units: that the heads tell apart.
    """
    methods = [Method.of(stage) for stage in run.stages]
    prosody = any(method.prosody for method in methods)
    heads = RecognizerConfig(run.units, num_units, encoder.width, prosody)
    mean, variance = np.zeros(encoder.width, np.float32), np.ones(encoder.width, np.float32)
    codec = None
    if any(method.quantize for method in methods):
        codec = config.architecture(SemanticCodecConfig, run.codec)
        if source is not None:
            codec = source.settings.configs.get("semantic_codec", codec)
            tables = load_tables(source.path)
            mean, variance = tables["feature_mean"], tables["feature_variance"]
        codec = dataclasses.replace(codec, feature_width=encoder.width)
    return Hearing(
        encoder=encoder, heads=heads, codec=codec, layer=run.layer, mean=mean, variance=variance
    )


def setup(run: Config) -> loop.Setup:
    """Prepares everything that a run of the encoder needs, from its configuration.

    Raises:
      InputError: if checkpoint, data and configuration do not fit each other.
    """
    mesh = loop.make_mesh(run)
    start = Start.of(run)
    base, source = start.base, start.source
    units = Units.of(base.path / "tokenizer" / "bpe.model", run.units)
    hearing = make_hearing(run, source, encoder_config(run, source), len(units.names))
    feed = Feed.open(run, base, mesh, FIELDS, max_codes=0, max_text=0, encoded=False)

    def task(stage: Config) -> Task:
        method = Method.of(stage)
        return hearing.without_codec(not method.quantize).task(method, remat=run.remat)

    def initial(places: Any) -> dict[str, jax.Array]:
        if source is None:
            return {}
        out = source.arrays("w2v_bert", places)
        if "semantic_codec" in source.settings.configs:
            out |= source.arrays("semantic_codec", places)
        if recognizer.fits(source.path, hearing.heads):
            out |= recognizer_of(source, places)
        return out

    samples = None
    if run.sample_every:
        samples = Transcripts(hearing, units, batches_of(feed, units), mesh, pathlib.Path(run.out))
    return loop.Setup(
        run=run,
        mesh=mesh,
        task=task,
        initial=initial,
        batches=lambda stage, start: with_labels(feed.batches(stage, start), units),
        validation=lambda: [units.batch(batch) for batch in feed.validation()],
        publish=Publisher(run=run, base=base, hearing=hearing, feed=feed, units=units, mesh=mesh),
        samples=samples,
    )


def recognizer_of(base: Base, places: Mapping[str, Any]) -> dict[str, jax.Array]:
    """Reads the recognizer of a checkpoint, each array where it will lie."""
    prefix = f"{recognizer.PART}."
    own = {n.removeprefix(prefix): s for n, s in places.items() if n.startswith(prefix)}
    if not own:
        return {}
    shapes = pytree.shapes(recognizer.abstract(recognizer.config_of(base.path)))
    wanted = {n: jax.ShapeDtypeStruct(shapes[n], np.float32) for n in own}
    arrays = store.load_arrays(base.path / "weights" / recognizer.PART, wanted, sharding=own)
    return {prefix + name: x for name, x in arrays.items()}


@dataclasses.dataclass(kw_only=True)
class Publisher:
    """Writes the checkpoint of a run, with the statistics of its features."""

    run: Config
    base: Base
    hearing: Hearing
    feed: Feed
    units: Units
    mesh: Any

    def __call__(self, arrays: Mapping[str, jax.Array], *, suffix: str = "") -> None:
        """Writes it; all processes of a run have to call it.

        Args:
          arrays: all of the run, by flat name.
          suffix: of the directory's name.
        """
        configs: dict[str, Any] = {"w2v_bert": self.hearing.encoder}
        changes: dict[str, Any] = {}
        codec = self.hearing.codec
        if codec is not None:
            configs["semantic_codec"] = codec
            changes["frames_per_code"] = frames_per_code(self.base, codec)
            statistics = {
                "feature_mean": self.hearing.mean,
                "feature_variance": self.hearing.variance,
            }
        else:
            statistics = self._statistics(arrays)
        result = Result.of(
            self.base,
            "w2v_bert",
            configs,
            feature_layer=self.hearing.layer,
            emotion_groups=(),  # prototypes are vectors of features
            source=f"encoder of {self.run.out}",
            **changes,
        )
        parts = [name for name in configs if name != "w2v_bert"] + [recognizer.PART]
        beside = {part: result.gather(arrays, part) for part in parts} | {"tables": statistics}
        files = {recognizer.FILE: store.to_dict(self.hearing.heads)}
        out = pathlib.Path(self.run.out) / "checkpoint"
        result.publish(out, arrays, suffix=suffix, beside=beside, files=files)

    def _statistics(self, arrays: Mapping[str, jax.Array]) -> dict[str, np.ndarray]:
        """Measures mean and variance [D] of the features over some training batches."""
        hearing = self.hearing.without_codec()
        task = hearing.task(Method())

        def sums(arrays: Mapping[str, jax.Array], batch: Mapping[str, jax.Array]) -> jax.Array:
            features = batch["features"]
            mask = length_mask(batch["feature_lengths"], features.shape[1])
            mask &= batch["weight"][:, None] > 0
            x = hearing.hear(task.fill(arrays), features, mask, through=False).features
            x = zero_padding(x.astype(jnp.float32), mask)
            return jnp.stack([x.sum((0, 1)), (x**2).sum((0, 1)), jnp.full(x.shape[2], mask.sum())])

        measure = jax.jit(sums, out_shardings=replicated(self.mesh))
        own = {name: arrays[name] for name in task.shapes}
        total = np.zeros((3, self.hearing.encoder.width))
        with contextlib.closing(self.feed.batches(self.run.stages[-1], 0)) as batches:
            for batch in itertools.islice(batches, self.run.statistics_batches):
                x = {name: batch[name] for name in ("features", "feature_lengths", "weight")}
                total += np.asarray(measure(own, to_devices(x, self.mesh)), np.float64)
        mean = total[0] / total[2]
        variance = np.maximum(total[1] / total[2] - mean**2, 1e-6)
        values = {"feature_mean": mean, "feature_variance": variance}
        return {name: x.astype(np.float32) for name, x in values.items()}


def frames_per_code(base: Base, codec: SemanticCodecConfig) -> float:
    """Computes mel frames of a code, by the sound of a checkpoint and a codec."""
    mel = base.settings.mel
    return mel.sample_rate / mel.hop_length * codec.downsample_scale / FEATURES_PER_SECOND


if __name__ == "__main__":
    sys.exit(loop.main(setup, __doc__))

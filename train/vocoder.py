r"""Trains the vocoder, BigVGAN-v2: mel -> wave.

    python -m train.prepare --src recordings --checkpoint CKPT --out DATA --features fbank
    python -m train.vocoder --config configs/vocoder_tiny.py checkpoint=CKPT data.paths=DATA out=RUN

A row is a random piece of a recording, y with its mel, and x = G(mel):

    reconstruction    L = w_mel sum_s |log mel_s(x) - log mel_s(y)|       s: windows of 32 .. 2048
    adversarial       ... + sum_d (1 - D_d(x))^2                          to be taken for recorded
                          + w_features sum |F_d(x) - F_d(y)|              feature maps
                          + sum_d [(1 - D_d(y))^2 + D_d(x)^2]             the discriminators'

Both networks learn in one step from one loss: the first three terms see discriminators whose
weights are constants, the last one a wave that is. So the gradient of each network is its own, and
both are taken at the same weights, where NVIDIA's takes turns.

Stages: a generator that starts from nothing learns faster from the mel loss alone, and a step costs
less (`adversarial=False`); then come the discriminators.

Dims: B rows, F mel frames, H samples of a frame, T = F H samples, M mel bins.
"""

import dataclasses
import functools
import math
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from indextts2_jax.audio.mel import MelConfig
from indextts2_jax.audio.mel import log_mel as log_mel_of
from indextts2_jax.nn import pytree
from indextts2_jax.nn.conv import fold_weight_norm
from indextts2_jax.nn.masking import length_mask
from indextts2_jax.vocoder import bigvgan
from indextts2_jax.vocoder.bigvgan import BigVGAN, BigVGANConfig
from train.data.shards import Utterance
from train.objectives import discriminators
from train.objectives.discriminators import (
    DiscriminatorConfig,
    Discriminators,
    discriminator_loss,
    feature_loss,
    generator_loss,
)
from train.objectives.spectra import log_mel, multi_scale_mel_loss
from train.run import artifacts, config, loop
from train.run.config import Config
from train.run.feed import Feed, data_config
from train.run.start import Start
from train.run.task import Batch, Module, Task, TrainingError
from train.run.writer import MetricsWriter, mel_figure

FIELDS = ("mel", "audio")
SILENCE = math.log(1e-5)  # of a mel
SAMPLE_SECONDS = 5.0
_QUIET = 0.1  # gain of the last convolution at first: noise as loud as speech learns slower


def default_config() -> Config:
    """Returns the released architecture, trained from scratch as NVIDIA's was, in one stage."""
    out = config.base_config()
    with out.unlocked():
        out.model = config.preset(BigVGANConfig.indextts2())
        out.discriminators = config.preset(DiscriminatorConfig.bigvgan())
        out.trainer = "vocoder"
        out.compute_dtype = "float32"  # as the generator computes at inference
        out.data = data_config(
            measure="frames", budget=8192, max_rows=32, crop=256, speed_probability=0.0
        )
        out.stages = (stage(),)
    optimizer: Config = out.optimizer
    optimizer.update(b1=0.8, b2=0.99, clip=500.0)  # NVIDIA's
    return out


def stage(**changes: Any) -> Config:
    """Returns one stage; `changes` are of its keys."""
    out = config.base_stage()
    with out.unlocked():
        out.mix = (1.0,)  # a weight for each of `data.paths`: shares of what is drawn
        out.adversarial = True  # with discriminators
        out.mel_weight = 15.0  # NVIDIA's, as the next
        out.feature_weight = 2.0
        out.rate = 1e-4
    out.lock()
    out.update(changes)
    return out


@dataclasses.dataclass(frozen=True)
class Losses:
    """What a stage minimises; attributes as the keys of `stage`."""

    adversarial: bool = True
    mel_weight: float = 15.0
    feature_weight: float = 2.0

    @classmethod
    def of(cls, stage: Config) -> "Losses":
        """Reads the keys of a stage."""
        return cls(**{field.name: stage[field.name] for field in dataclasses.fields(cls)})


def _constant(model: Any) -> Any:
    return jax.tree.map(jax.lax.stop_gradient, model)


def adversarial_losses(
    discriminator: Discriminators, recorded: jax.Array, generated: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Computes losses of which each teaches one network alone.

    Args:
      discriminator: all of them.
      recorded: [B, T] samples.
      generated: [B, T].

    Returns:
      [B] losses of the discriminators; of the generator; of its feature maps.
    """
    true, false = discriminator(recorded), discriminator(jax.lax.stop_gradient(generated))
    # XLA finds that this is the same computation as above, and does it once.
    seen = _constant(discriminator)(generated)
    return (
        discriminator_loss(true, false),
        generator_loss(seen),
        feature_loss(_constant(true), seen),
    )


def generator(cfg: BigVGANConfig, rngs: Any) -> BigVGAN:
    """Makes the network with weights to begin with."""
    model = BigVGAN(cfg, rngs=rngs)
    gain = model.conv_out.gain
    assert gain is not None
    gain[...] = _QUIET * gain[...]
    return model


def make_task(
    cfg: BigVGANConfig, discriminator: DiscriminatorConfig, mel: MelConfig, losses: Losses
) -> Task:
    """Returns what a stage trains.

    Args:
      cfg: architecture of the generator.
      discriminator: that of the discriminators.
      mel: the spectrogram.
      losses: of the stage.
    """
    modules = {
        "vocoder": Module(functools.partial(generator, cfg), bigvgan.SHARDING_RULES),
    }
    if losses.adversarial:
        modules["discriminators"] = Module(
            lambda rngs: Discriminators(discriminator, rngs=rngs), discriminators.SHARDING_RULES
        )

    def loss(
        modules: Any, batch: Batch, draws: Any, key: Any, progress: jax.Array
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        del draws, key, progress
        recorded = batch["audio"].reshape(len(batch["audio"]), -1)  # [B, T]
        valid = length_mask(batch["mel_lengths"], batch["mel"].shape[1])[..., None]
        generated = modules["vocoder"](jnp.where(valid, batch["mel"], SILENCE))
        distance = multi_scale_mel_loss(generated, recorded, mel.sample_rate)
        total = losses.mel_weight * distance
        apart = jnp.abs(log_mel(generated, mel) - log_mel(recorded, mel))
        metrics = {"mel_distance": distance, "mel_l1": apart.mean(axis=(1, 2))}
        if losses.adversarial:
            of_discriminators, adversarial, features = adversarial_losses(
                modules["discriminators"], recorded, generated
            )
            total += of_discriminators + adversarial + losses.feature_weight * features
            metrics |= {
                "discriminator_loss": of_discriminators,
                "adversarial_loss": adversarial,
                "feature_loss": features,
            }
        return total, jax.lax.stop_gradient(metrics)

    def tokens(batch: Batch) -> int:
        return batch["mel"].shape[0] * batch["mel"].shape[1]

    def operations(batch: Batch) -> float:
        return 6 * tokens(batch) * frame_weights(cfg)

    return Task(modules, lambda key, batch: {}, loss, tokens, operations)


@functools.cache
def frame_weights(cfg: BigVGANConfig) -> float:
    """Counts products of the generator per mel frame, without its discriminators and FIRs."""
    shapes = pytree.shapes(pytree.abstract(lambda rngs: BigVGAN(cfg, rngs=rngs)))
    rates = np.cumprod([1, *cfg.upsample_rates])
    total = 0.0
    for name, shape in shapes.items():
        if name.endswith(".kernel"):
            kind, number, *_ = name.split(".")
            if kind == "upsamples":  # all of its kernel meets every frame that it reads
                rate = rates[int(number)]
            elif kind == "blocks":
                rate = rates[int(number) // len(cfg.block_kernels) + 1]
            else:
                rate = rates[0] if kind == "conv_in" else rates[-1]
            total += float(rate) * math.prod(shape)
    return total


@dataclasses.dataclass
class Samples:
    """Sends validation recordings through the vocoder.

    Attributes:
      result: what the run makes.
      utterances: whose mels it reads.
    """

    result: artifacts.Result
    utterances: Sequence[Utterance]

    def __call__(self, arrays: Mapping[str, jax.Array], writer: MetricsWriter, step: int) -> None:
        """Writes the samples of a step: wave and mels, and the recordings beside them."""
        settings = self.result.settings
        cfg = settings.configs["vocoder"]
        model = pytree.abstract(lambda rngs: BigVGAN(cfg, rngs=rngs))
        model = fold_weight_norm(pytree.fill(model, jax.device_put(self.result.gather(arrays))))
        rate, hop = settings.mel.sample_rate, settings.mel.hop_length
        most = round(SAMPLE_SECONDS * rate / hop)
        for number, utterance in enumerate(self.utterances):
            mel = utterance.mel[:most].astype(np.float32)
            # One shape for all, so that one program is compiled.
            padded = np.full((1, most, mel.shape[1]), SILENCE, np.float32)
            padded[0, : len(mel)] = mel
            wave = np.asarray(_vocode(model, padded))[0, : len(mel) * hop]
            writer.audio(step, f"{number}/speech", wave, rate)
            if utterance.audio is not None:
                recorded = utterance.audio[:most].reshape(-1).astype(np.float32) / 32768
                writer.audio(step, f"{number}/recorded", recorded, rate)
            figure = mel_figure(mel, log_mel_of(wave, settings.mel))
            writer.figure(step, f"{number}/mel", figure)


@jax.jit
def _vocode(model: BigVGAN, mel: jax.Array) -> jax.Array:
    return model(mel)


def vocoder_config(run: Config, start: Start) -> BigVGANConfig:
    """Returns the architecture of a run's generator: of a new one `model`, with the mel's bins.

    Raises:
      TrainingError: if it makes another number of samples of a frame than the mel has.
    """
    mel = start.base.settings.mel
    if start.source is not None:
        cfg = start.source.config("vocoder")
    else:
        cfg = config.architecture(BigVGANConfig, run.model)
        cfg = dataclasses.replace(cfg, num_mels=mel.num_mels)
    if cfg.hop_length != mel.hop_length or cfg.num_mels != mel.num_mels:
        raise TrainingError(
            f"the vocoder makes {cfg.hop_length} samples of {cfg.num_mels} bins; the mel of "
            f"{start.base.path} has {mel.num_mels} bins every {mel.hop_length} samples"
        )
    return cfg


def setup(run: Config) -> loop.Setup:
    """Prepares everything that a run of the vocoder needs, from its configuration.

    Raises:
      InputError: if checkpoint, data and configuration do not fit each other.
    """
    if run.remat:
        raise TrainingError("remat is not there for the vocoder; take a smaller data.budget")
    mesh = loop.make_mesh(run)
    start = Start.of(run)
    base, cfg = start.base, vocoder_config(run, start)
    mel = base.settings.mel
    shortest = max(1024, mel.n_fft) // mel.hop_length + 1  # of what the losses reflect
    if run.data.crop and run.data.crop < shortest:
        raise TrainingError(f"data.crop is {run.data.crop}; want {shortest} frames or more")
    discriminator = dataclasses.replace(
        config.architecture(DiscriminatorConfig, run.discriminators),
        sample_rate=mel.sample_rate,
    )
    feed = Feed.open(run, base, mesh, FIELDS, max_codes=0, max_text=0, encoded=False)

    def task(stage: Config) -> Task:
        return make_task(cfg, discriminator, mel, Losses.of(stage))

    result = artifacts.Result.of(base, "vocoder", {"vocoder": cfg})
    samples = None
    if run.sample_every:
        samples = Samples(result, [target for target, _ in feed.samples(run.samples)])
    return loop.Setup(
        run=run,
        mesh=mesh,
        task=task,
        initial=functools.partial(start.arrays, "vocoder"),
        batches=feed.batches,
        validation=feed.validation,
        publish=functools.partial(result.publish, pathlib.Path(run.out) / "checkpoint"),
        samples=samples,
    )


if __name__ == "__main__":
    sys.exit(loop.main(setup, __doc__))

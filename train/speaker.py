r"""Trains the speaker encoder, CAM++: filterbank -> style, by telling speakers apart.

    python -m train.prepare --src recordings --checkpoint CKPT --out DATA --features fbank
    python -m train.speaker --config configs/speaker_tiny.py checkpoint=CKPT data.paths=DATA out=RUN

A row is a random piece of a recording, as long as a draw says; y who speaks, of K classes:

    L = -log softmax(s cos_1, ..., s cos(angle_y + m), ..., s cos_K)_y

With several `speeds` each speaker has a class for each (see `train.objectives.perturbation`).

Speakers who are held out (`data.held_out`, `data.held_out_share`) are what it is judged by: every
`sample_every` steps all pairs of their `data.validation` recordings are scored, as inference would;
`validation_eer` is the equal error rate, `validation_min_dcf` the detection cost, and
`RUN/samples/STEP/pairs.png` shows the scores. Where nobody is held out, `training_eer` is of
recordings that are trained.

Batch norms measure each batch and publish the moving averages; a stage with
`batch_statistics=False` keeps those that it began with. Everything that reads styles (S2M,
prototypes) has to be trained after the encoder.

Dims: B rows, T pairs of frames (20 ms), F frames, M bands, N recordings, K classes.
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

from indextts2_jax import programs
from indextts2_jax.audio import fbank
from indextts2_jax.nn import pytree
from indextts2_jax.nn.masking import length_mask, zero_padding
from indextts2_jax.prompt import campplus
from indextts2_jax.prompt.campplus import CAMPPlus, CAMPPlusConfig
from train.data.batch_plan import BatchPlan
from train.data.records import Records
from train.objectives import aam
from train.objectives.aam import Prototypes, margin_at, margin_losses
from train.objectives.perturbation import change_speed
from train.objectives.verification import Errors, pair_scores, scores_figure
from train.run import artifacts, config, loop
from train.run.config import Config
from train.run.feed import Feed, data_config
from train.run.start import Start
from train.run.task import Batch, Module, Task, TrainingError
from train.run.writer import VALIDATION, MetricsWriter

FIELDS = ("bank", "speaker")
PAIR = 2  # frames of a stored row
TRIAL_FRAMES = 500  # of a recording that is scored, at most
TRIAL_ROWS = 16  # that are read at once
FEWEST_FRAMES = 10  # of a piece


def default_config() -> Config:
    """Returns the released architecture, trained from scratch on pieces of 2 to 3 s."""
    out = config.base_config()
    with out.unlocked():
        out.model = config.preset(CAMPPlusConfig.indextts2())
        out.trainer = "speaker"
        out.speeds = (1.0,)  # of training; each makes other speakers of the same recordings
        out.shortest = 2 / 3  # of a piece, as a share of `data.crop`
        out.samples = 64  # recordings that are scored where nobody is held out
        out.data = data_config(
            measure="codes",
            budget=256 * 152,
            crop=152,  # 3 s; a row of two frames stands for a code
            validation=500,
            held_out_share=0.05,
            speed_probability=0.0,
            ladder_ratio=32.0,  # all of one shape
        )
        out.stages = (stage(),)
    return out


def stage(**changes: Any) -> Config:
    """Returns one stage; `changes` are of its keys."""
    out = config.base_stage()
    with out.unlocked():
        out.mix = (1.0,)  # weights of `data.paths`
        out.batch_statistics = True  # of the batch; False: those that are stored, which stay
        out.scale = 32.0  # 3D-Speaker's, as the margin
        out.margin = 0.2  # radians
        out.margin_begin = 0.1  # share of the stage: from here the margin grows
        out.margin_end = 0.4  # ... until here
        out.rate = 1e-3
    out.lock()
    out.update(changes)
    return out


@dataclasses.dataclass(frozen=True)
class Method:
    """How a stage trains; attributes as the keys of `stage`."""

    batch_statistics: bool = True
    scale: float = 32.0
    margin: float = 0.2
    margin_begin: float = 0.1
    margin_end: float = 0.4

    @classmethod
    def of(cls, stage: Config) -> "Method":
        """Reads the keys of a stage.

        Raises:
          TrainingError: for a margin that is none.
        """
        if not 0 <= stage.margin < math.pi / 2:
            raise TrainingError(f"stage {stage.name}: margin is {stage.margin}; want 0 to 1.57")
        return cls(**{field.name: stage[field.name] for field in dataclasses.fields(cls)})


@dataclasses.dataclass(frozen=True)
class Pieces:
    """What is made of the rows of a batch.

    Attributes:
      classes: number of each speaker of the data among those who are trained, -1 for others.
      speeds: that speech is changed to.
      shortest: share of a row that is read at least.
    """

    classes: tuple[int, ...]
    speeds: tuple[float, ...] = (1.0,)
    shortest: float = 1.0

    def __post_init__(self) -> None:
        if not self.speeds or not all(0.5 <= s <= 2 for s in self.speeds):
            raise TrainingError(f"speeds is {self.speeds}; want some of 0.5 to 2")
        if not 0 < self.shortest <= 1:
            raise TrainingError(f"shortest is {self.shortest}; want more than 0, up to 1")

    @property
    def num_classes(self) -> int:
        """Counts the classes K: speakers times speeds."""
        return (max(self.classes) + 1) * len(self.speeds)

    def draw(self, key: jax.Array, batch: Batch) -> dict[str, jax.Array]:
        """Draws the speed [B] of each row, as a number, and the share [B] of it that is read."""
        speed_key, length_key = jax.random.split(key)
        shape = (len(batch["bank"]),)
        return {
            "speed": jax.random.randint(speed_key, shape, 0, len(self.speeds)),
            "share": jax.random.uniform(length_key, shape, minval=self.shortest),
        }

    def read(self, batch: Batch, draws: Mapping[str, jax.Array]) -> tuple[jax.Array, ...]:
        """Takes pieces of the rows.

        Args:
          batch: `bank` [B, T, 2 M], `bank_lengths` [B], `speaker` [B].
          draws: of `draw`.

        Returns:
          [B, F, M] filterbanks free of their mean; [B] lengths; [B] classes.
        """
        bank = batch["bank"].astype(jnp.float32)
        bank = bank.reshape(len(bank), -1, bank.shape[2] // PAIR)  # [B, F, M]
        lengths = PAIR * batch["bank_lengths"]
        if self.speeds != (1.0,):
            speeds = jnp.asarray(self.speeds)[draws["speed"]]
            bank, lengths = change_speed(bank, lengths, speeds)
        fewest = jnp.minimum(lengths, FEWEST_FRAMES)
        lengths = jnp.maximum((draws["share"] * lengths).astype(jnp.int32), fewest)
        bank = centered(bank, lengths)
        speakers = jnp.asarray(self.classes)[batch["speaker"]]
        return bank, lengths, speakers * len(self.speeds) + draws["speed"]


def centered(bank: jax.Array, lengths: jax.Array) -> jax.Array:
    """Frees a filterbank [B, F, M] of its mean over the valid frames; zero behind them."""
    mask = length_mask(lengths, bank.shape[1])
    bank = zero_padding(bank, mask)
    return zero_padding(bank - bank.sum(axis=1, keepdims=True) / lengths[:, None, None], mask)


def make_task(cfg: CAMPPlusConfig, pieces: Pieces, method: Method) -> Task:
    """Makes what a stage trains.

    Args:
      cfg: architecture.
      pieces: of the rows of a batch.
      method: of the stage.
    """
    modules = {
        "campplus": Module(lambda rngs: CAMPPlus(cfg, rngs=rngs), campplus.SHARDING_RULES),
        "prototypes": Module(
            lambda rngs: Prototypes(pieces.num_classes, cfg.embedding, rngs=rngs),
            aam.SHARDING_RULES,
        ),
    }

    def loss(
        modules: Any, batch: Batch, draws: Any, key: Any, progress: jax.Array
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        del key
        bank, lengths, labels = pieces.read(batch, draws)
        if method.batch_statistics:
            modules["campplus"].train()
        cosines = modules["prototypes"](modules["campplus"](bank, lengths))  # [B, K]
        margin = margin_at(progress, method.margin, method.margin_begin, method.margin_end)
        own = jnp.take_along_axis(cosines, labels[:, None], axis=1)[:, 0]
        metrics = {
            "accuracy": (cosines.argmax(axis=1) == labels).astype(jnp.float32),
            "own_cosine": own,
            "margin": jnp.broadcast_to(margin, own.shape),
        }
        losses = margin_losses(cosines, labels, margin, method.scale)
        return losses, jax.lax.stop_gradient(metrics)

    def tokens(batch: Batch) -> int:
        return batch["bank"].shape[0] * batch["bank"].shape[1]

    def operations(batch: Batch) -> float:
        return 6 * PAIR * tokens(batch) * frame_products(cfg)

    return Task(modules, pieces.draw, loss, tokens, operations)


@functools.cache
def frame_products(cfg: CAMPPlusConfig) -> float:
    """Counts the products of the encoder per filterbank frame, without the gates of segments."""
    shapes = pytree.shapes(pytree.abstract(lambda rngs: CAMPPlus(cfg, rngs=rngs)))
    total = 0.0
    for name, shape in shapes.items():
        if not name.endswith(".kernel") or name.startswith("style") or ".gate_" in name:
            continue
        times = 0.5  # behind the tdnn, which takes every second frame
        if name.startswith("head."):
            kind, *place = name.split(".")[1:]
            halvings = {"conv_1": 0, "conv_2": 3}.get(kind)
            times = cfg.feat_dim / 2 ** (int(place[0]) + 1 if halvings is None else halvings)
        total += times * math.prod(shape)
    return total


@dataclasses.dataclass
class Trials:
    """Scores pairs of recordings with the encoder as it is.

    Attributes:
      result: what the run makes.
      banks: [N, F, M] filterbanks free of their mean, padded.
      lengths: [N] int32 frames of each.
      speakers: [N] who speaks.
      prefix: of the names of the metrics.
    """

    result: artifacts.Result
    banks: np.ndarray
    lengths: np.ndarray
    speakers: np.ndarray
    prefix: str

    @classmethod
    def of(cls, result: artifacts.Result, plan: BatchPlan, count: int) -> "Trials":
        """Takes recordings that are held out; if none are, the first that are trained.

        Args:
          result: what the run makes.
          plan: of the data.
          count: of recordings, if none are held out.

        Raises:
          TrainingError: if there are no two recordings of one speaker, or of two speakers.
        """
        batches = plan.validation or [plan[number] for number in range(count)]
        found = {
            int(row): int(speaker)
            for batch in batches
            for row, speaker in zip(batch.rows, batch.speakers, strict=True)
        }
        if not plan.validation:
            found = dict(list(found.items())[:count])
        speakers = np.array(list(found.values()))
        if not 1 < len(np.unique(speakers)) < len(speakers):
            what = "data.held_out, held_out_share and validation" if plan.validation else "the data"
            raise TrainingError(f"{what} leave no pairs of one speaker and of two to be scored")
        records = Records(plan.shards)
        banks = np.zeros((len(found), TRIAL_FRAMES, fbank.NUM_BANDS), np.float32)
        lengths = np.zeros(len(found), np.int32)
        for n, row in enumerate(found):
            with records.naming(row):
                bank = records[row].bank
                if bank is None:
                    raise ValueError("it has no bank")
                bank = bank.reshape(-1, fbank.NUM_BANDS)[:TRIAL_FRAMES].astype(np.float32)
                banks[n, : len(bank)], lengths[n] = bank - bank.mean(axis=0), len(bank)
        prefix = VALIDATION if plan.validation else "training_"
        return cls(result, banks, lengths, speakers, prefix)

    def __call__(self, arrays: Mapping[str, jax.Array], writer: MetricsWriter, step: int) -> None:
        """Writes the error rates of a step; all processes of a run have to call it."""
        values = self.result.gather(arrays)
        cfg = self.result.settings.configs["campplus"]
        model = pytree.abstract(lambda rngs: CAMPPlus(cfg, rngs=rngs))
        styles = self._styles(pytree.fill(model, jax.device_put(values)))
        scores, same = pair_scores(styles, self.speakers)
        errors = Errors.of(scores, same)
        rates = {"eer": errors.equal_rate, "min_dcf": errors.least_cost()}
        writer.scalars(step, {f"{self.prefix}{name}": x for name, x in rates.items()})
        title = f"step {step}: equal error rate {errors.equal_rate:.1%}"
        writer.figure(step, "pairs", scores_figure(scores, same, title))

    def _styles(self, model: CAMPPlus) -> np.ndarray:
        """Reads embeddings [N, E]; the last batch is filled up, so that one program is compiled."""
        N = len(self.banks)
        rows = np.arange(-(-N // TRIAL_ROWS) * TRIAL_ROWS).reshape(-1, TRIAL_ROWS) % N
        styles = [
            np.asarray(programs.speaker_style(model, self.banks[some], self.lengths[some]))
            for some in rows
        ]
        return np.concatenate(styles)[:N]


def speaker_config(run: Config, start: Start) -> CAMPPlusConfig:
    """Returns the architecture of a run's encoder: of a new one `model`.

    Raises:
      TrainingError: if its filterbank or its style is not that of the checkpoint.
    """
    if start.source is not None:
        cfg = start.source.config("campplus")
    else:
        cfg = config.architecture(CAMPPlusConfig, run.model)
    if cfg.feat_dim != fbank.NUM_BANDS:
        raise TrainingError(
            f"model.feat_dim is {cfg.feat_dim}; the filterbank has {fbank.NUM_BANDS} bands"
        )
    s2m = start.base.settings.configs.get("s2m")
    if s2m is not None and s2m.velocity.style_width != cfg.embedding:
        raise TrainingError(
            f"the style would be {cfg.embedding} wide; S2M of {start.base.path} reads one of "
            f"{s2m.velocity.style_width}"
        )
    return cfg


def classes_of(trained: Sequence[bool]) -> tuple[int, ...]:
    """Numbers the speakers who are trained; -1 for the others."""
    numbers = np.cumsum(trained) - 1
    return tuple(np.where(trained, numbers, -1).tolist())


def setup(run: Config) -> loop.Setup:
    """Prepares everything that a run of the speaker encoder needs, from its configuration.

    Raises:
      InputError: if checkpoint, data and configuration do not fit each other.
    """
    if run.remat:
        raise TrainingError("remat is not there for the speaker encoder; take a smaller budget")
    mesh = loop.make_mesh(run)
    start = Start.of(run)
    base, cfg = start.base, speaker_config(run, start)
    feed = Feed.open(run, base, mesh, FIELDS, max_codes=0, max_text=0, encoded=False)
    pieces = Pieces(classes_of(feed.plan.trained.tolist()), tuple(run.speeds), run.shortest)

    def task(stage: Config) -> Task:
        return make_task(cfg, pieces, Method.of(stage))

    # The prototypes of emotions are chosen by styles, which become others.
    if base.settings.emotion_groups:
        print("note: the prototypes go; python -m train.prototypes makes others", file=sys.stderr)
    result = artifacts.Result.of(base, "campplus", {"campplus": cfg}, emotion_groups=())
    samples = None
    if run.sample_every:
        samples = Trials.of(result, feed.plan, run.samples)
    return loop.Setup(
        run=run,
        mesh=mesh,
        task=task,
        initial=functools.partial(start.arrays, "campplus"),
        batches=feed.batches,
        validation=lambda: (),  # held-out speakers have no class, so no loss
        publish=functools.partial(result.publish, pathlib.Path(run.out) / "checkpoint"),
        samples=samples,
    )


if __name__ == "__main__":
    sys.exit(loop.main(setup, __doc__))

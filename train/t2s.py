r"""Trains T2S: text, prompt and duration -> semantic codes (paper sections 2 and 3.1).

    python -m train.t2s --config configs/t2s_tiny.py checkpoint=CKPT data.paths=DATA out=RUN

A run is a list of stages. Each says which data, which parameters, which losses:

    paper_two_stage()   1 emotional data, everything learns, the speaker is reversed out of the
                          emotion vector;  2 all data, the emotion branch frozen
    three_stage()       1 all data;  2 emotional data with the reversal;  3 all data, both
                          conditioners frozen

Per utterance (a row): the timbre prompt is another utterance of the same speaker, the style prompt
is the utterance itself, and the duration vector is that of its number of codes, left out (zero)
with probability 0.3.

Dims: B rows, L text tokens, T codes, P prefix positions, D width, V codes of the vocabulary.
"""

import dataclasses
import functools
import pathlib
import sys
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from indextts2_jax.pipeline import IndexTTS2
from indextts2_jax.request.options import Request
from indextts2_jax.request.results import Speech
from indextts2_jax.t2s import gpt
from indextts2_jax.t2s.conditioner import ConditionerConfig
from indextts2_jax.t2s.generate import DecodingRules
from indextts2_jax.t2s.gpt import T2S, Prefix, T2SConfig
from indextts2_jax.text.tokenize import Tokenizer
from train.data.batch_plan import BatchPlan
from train.data.shards import Utterance
from train.objectives import adversary, alignment
from train.recognition.reading import Reading
from train.run import config, loop, lora
from train.run.artifacts import Result
from train.run.config import Config
from train.run.feed import Feed, data_config
from train.run.samples import Samples, looks
from train.run.start import Start
from train.run.task import Batch, Module, Task, TrainingError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FIELDS = ("text", "codes", "features", "prompt_features", "speaker")  # of the data
EMOTION_BRANCH = r"t2s\.emotion_(conditioner|in|out)\..*"
SPEAKER_BRANCH = r"t2s\.speaker_conditioner\..*"


def default_config() -> Config:
    """Returns the released architecture, trained from scratch in one stage on one data set."""
    out = config.base_config()
    with out.unlocked():
        out.model = config.preset(T2SConfig.paper())
        out.trainer = "t2s"
        out.duration_slots = ("pos(T)",)  # what says the number of codes, as many as `free_slots`
        out.speaker_classifier_width = 256
        out.readings = 32  # validation utterances whose attention and error rates are measured
        out.alarm_after = 500_000_000  # tokens after which no head follows the text; 0 = no alarm
        out.data = data_config(measure="codes", budget=16384)
        out.stages = (stage(),)
    return out


def stage(**changes: Any) -> Config:
    """Returns one stage; `changes` are of its keys."""
    out = config.base_stage()
    with out.unlocked():
        out.mix = (1.0,)  # a weight for each of `data.paths`: shares of what is drawn
        out.zero_duration = 0.3  # probability to leave the duration out (paper section 3.1.1)
        out.text_loss = 0.0  # weight of predicting the text, too (0 in the paper)
        out.speaker_loss = 0.0  # alpha of equation 4; 0 = no classifier
        out.reversal = 1.0  # highest factor of the reversed gradient
    out.lock()
    out.update(changes)
    return out


def paper_two_stage(emotional_steps: int, steps: int) -> tuple[Config, ...]:
    """Returns the paper's stages; `data.paths` are (emotional, all)."""
    return (
        stage(name="emotional", steps=emotional_steps, mix=(1.0, 0.0), speaker_loss=0.3),
        stage(name="all", steps=steps, mix=(0.0, 1.0), freeze=(EMOTION_BRANCH,)),
    )


def three_stage(steps: int, emotional_steps: int, last_steps: int) -> tuple[Config, ...]:
    """Returns the paper's later abstract, as we read it; `data.paths` are (emotional, all)."""
    return (
        stage(name="base", steps=steps, mix=(0.0, 1.0)),
        stage(name="emotional", steps=emotional_steps, mix=(1.0, 0.0), speaker_loss=0.3),
        stage(
            name="last",
            steps=last_steps,
            mix=(0.0, 1.0),
            freeze=(EMOTION_BRANCH, SPEAKER_BRANCH),
        ),
    )


@dataclasses.dataclass(frozen=True)
class Losses:
    """What `rows` weighs, from a stage."""

    zero_duration: float
    text: float
    speaker: float
    reversal: float


def prefix_of(
    model: T2S,
    batch: Batch,
    emotion: jax.Array,
    slots: tuple[str, ...],
    free: jax.Array,
    *,
    remat: bool = False,
) -> Prefix:
    """Embeds conditions and text of a batch.

    Args:
      model: T2S.
      batch: text and prompt features.
      emotion: [B, D].
      slots: duration slots of a known number of codes.
      free: [B] bool, rows whose duration is left to the model.
      remat: trade time for memory.
    """
    latents = model.speaker_latents(
        batch["prompt_features"], batch["prompt_feature_lengths"], remat=remat
    )
    num_codes = jnp.where(free, 0, batch["code_lengths"])
    text = batch["text"], batch["text_lengths"]
    return model.prefix(latents, emotion, *text, num_codes=num_codes, slots=slots)


def emotion_of(model: T2S, batch: Batch, *, remat: bool = False) -> jax.Array:
    """Computes emotion vectors [B, D] of the utterances themselves; `remat` saves memory."""
    return model.emotion_vector(batch["features"], batch["feature_lengths"], remat=remat)


def code_loss(
    model: T2S, hidden: jax.Array, codes: jax.Array, lengths: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Computes the cross-entropy of the codes and the stop code after them (equation 3).

    Args:
      model: T2S.
      hidden: [B, T + 1, D], states of the start code and of every code.
      codes: [B, T] int32, padded.
      lengths: [B] int32.

    Returns:
      Per row the mean over its lengths + 1 targets, and the share of them that are predicted.
    """
    place = jnp.arange(hidden.shape[1])
    targets = jnp.pad(codes, ((0, 0), (0, 1)))
    targets = jnp.where(place == lengths[:, None], model.cfg.stop_code, targets)
    logits = model.code_logits(hidden)
    return _row_means(logits, targets, place <= lengths[:, None])


def text_loss(
    model: T2S, hidden: jax.Array, text: jax.Array, lengths: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Computes the cross-entropy of the text tokens and the stop token after them.

    Args:
      model: T2S.
      hidden: [B, P, D], states of the prefix, which ends in the row's text.
      text: [B, L] int32, padded.
      lengths: [B] int32.

    Returns:
      As `code_loss`.
    """
    P, place = hidden.shape[1], jnp.arange(text.shape[1] + 1)
    source = P - (lengths[:, None] + 2) + place  # the start token, then every token
    states = jnp.take_along_axis(hidden, jnp.minimum(source, P - 1)[..., None], axis=1)
    targets = jnp.pad(text, ((0, 0), (0, 1)))
    targets = jnp.where(place == lengths[:, None], model.cfg.stop_text, targets)
    return _row_means(model.text_logits(states), targets, place <= lengths[:, None])


def _row_means(
    logits: jax.Array, targets: jax.Array, valid: jax.Array
) -> tuple[jax.Array, jax.Array]:
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, targets)
    right = jnp.argmax(logits, axis=-1) == targets
    count = jnp.maximum(valid.sum(axis=1), 1)
    return (loss * valid).sum(axis=1) / count, (right * valid).sum(axis=1) / count


def free_prefix(model: T2S, batch: Batch) -> Prefix:
    """Embeds conditions and text of a batch without a told duration."""
    free = jnp.ones(batch["code_lengths"].shape, bool)
    return prefix_of(model, batch, emotion_of(model, batch), model.cfg.free_slots, free)


def make_task(
    cfg: T2SConfig,
    slots: tuple[str, ...],
    losses: Losses,
    *,
    classifier: adversary.SpeakerClassifierConfig | None = None,
    remat: bool = False,
) -> Task:
    """Returns what a stage trains.

    Args:
      cfg: architecture of T2S.
      slots: duration slots of a known number of codes.
      losses: their weights.
      classifier: of speakers, from emotion vectors; needed where `losses.speaker` is not 0.
      remat: trade time for memory.
    """
    if len(slots) != len(cfg.free_slots):
        raise TrainingError(
            f"duration_slots has {len(slots)} slots, the model has {len(cfg.free_slots)}"
        )
    modules = {"t2s": Module(lambda rngs: T2S(cfg, rngs=rngs), gpt.SHARDING_RULES)}
    if losses.speaker:
        assert classifier is not None
        modules["speaker_classifier"] = Module(
            lambda rngs: adversary.SpeakerClassifier(classifier, rngs=rngs),
            adversary.SHARDING_RULES,
        )

    def draw(key: jax.Array, batch: Batch) -> jax.Array:
        return jax.random.bernoulli(key, losses.zero_duration, batch["code_lengths"].shape)

    def loss(
        modules: Any, batch: Batch, free: jax.Array, key: Any, progress: jax.Array
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        model: T2S = modules["t2s"]
        emotion = emotion_of(model, batch, remat=remat)
        prefix = prefix_of(model, batch, emotion, slots, free, remat=remat)
        hidden = model.teacher_forced(prefix, batch["codes"], key=key, remat=remat)
        P = prefix.x.shape[1]
        total, accuracy = code_loss(model, hidden[:, P:], batch["codes"], batch["code_lengths"])
        metrics = {"code_loss": total, "code_accuracy": accuracy}
        if losses.text:
            text, _ = text_loss(model, hidden[:, :P], batch["text"], batch["text_lengths"])
            total += losses.text * text
            metrics["text_loss"] = text
        if losses.speaker:
            factor = adversary.reversal_schedule(progress, losses.reversal)
            logits = modules["speaker_classifier"](adversary.reverse_gradient(emotion, factor))
            speaker, right = adversary.speaker_loss(logits, batch["speaker"])
            total += losses.speaker * speaker
            metrics |= {"speaker_loss": speaker, "speaker_accuracy": right}
        return total, metrics

    def tokens(batch: Batch) -> int:
        (B, L), T = batch["text"].shape, batch["codes"].shape[1]
        return B * (cfg.num_conditions + L + 2 + 1 + T)

    return Task(
        modules,
        draw,
        loss,
        tokens,
        lambda batch: flops(cfg, batch),
        heads=("speaker_classifier.",),
        lora_targets=lora.T2S_TARGETS,
    )


def flops(cfg: T2SConfig, batch: Batch) -> float:
    """Counts floating point operations of a step: 6 per weight and position, and attention.

    Counted as is usual for MFU: causal attention in full, frozen weights as if they learned,
    nothing for what `remat` computes again. Not counted: the text head, the speaker classifier.
    """
    B, T = batch["codes"].shape
    head = 6 * cfg.width * cfg.num_codes * B * (T + 1)
    return 3 * latent_flops(cfg, batch) + head


def latent_flops(cfg: T2SConfig, batch: Batch) -> float:
    """Counts operations of one forward pass up to the GPT latents, conditioners included.

    Args:
      cfg: architecture of T2S.
      batch: text, codes and features.
    """
    (B, L), T = batch["text"].shape, batch["codes"].shape[1]
    S, D = cfg.num_conditions + L + 2 + 1 + T, cfg.width
    trunk = B * S * cfg.num_layers * (2 * 12 * D * D + 4 * D * S)
    emotion = 2 * B * (cfg.emotion.latent_width * D + D * D)
    prompt, own = (batch[name].shape[1] for name in ("prompt_features", "features"))
    conditioners = conditioner_flops(cfg.speaker, prompt) + conditioner_flops(cfg.emotion, own)
    return float(trunk + emotion + B * conditioners)


def conditioner_flops(cfg: ConditionerConfig, num_frames: int) -> int:
    """Counts operations of one forward pass of a conditioner over the features of a row."""
    S, bins, N = (num_frames - 1) // 2, cfg.subsampled_features, cfg.num_latents
    D, W, inner = cfg.width, cfg.latent_width, cfg.num_heads * cfg.perceiver_head_dim
    hidden = int(W * cfg.perceiver_mult * 2 / 3)
    subsampling = 9 * bins * D + D * bins * D  # weights, times the positions that they act on
    block = 8 * D * D + cfg.conv_kernel * D + 2 * D * cfg.ffn_width + 2 * D * S
    context = D * W if D != W else 0
    layer = N * (2 * W * inner + 3 * W * hidden) + (N + S) * (2 * W * inner + 2 * N * inner)
    weights = S * (subsampling + cfg.num_blocks * block + context) + cfg.perceiver_depth * layer
    return 2 * weights


def speak(
    tts: IndexTTS2, request: Request, target: Utterance
) -> tuple[Speech, dict[str, "Figure"]]:
    """Speaks what `train.run.samples` shows of T2S, with the attention over the true codes."""
    ids, take, prompt = target.text_ids, target.takes[0], request.speaker.features
    batch = {
        "text": ids, "codes": take.codes, "features": take.features, "prompt_features": prompt,
        "text_lengths": len(ids), "code_lengths": len(take.codes),
        "feature_lengths": len(take.features), "prompt_feature_lengths": len(prompt),
    }  # fmt: skip
    arrays = {name: jnp.asarray(x)[None] for name, x in batch.items()}
    maps = alignment.attention_maps(tts.t2s, arrays, free_prefix)
    pieces = [tts.tokenizer().decode([i]) for i in ids.tolist()]
    figure = alignment.attention_figure(np.asarray(maps[:, 0]), pieces)
    return tts.synthesize_batch([request])[0], {"attention": figure}


def t2s_config(run: Config, start: Start) -> T2SConfig:
    """Returns the architecture of a run's T2S: of a new one `model`, fitted to the encoders.

    Args:
      run: the configuration.
      start: of the run, whose codec and tokenizer decide on codes, features and text tokens.
    """
    if start.source is not None:
        return start.source.config("t2s")
    cfg, base = config.architecture(T2SConfig, run.model), start.base
    codec, features = base.config("semantic_codec"), base.config("w2v_bert").width
    pieces = Tokenizer(base.path / "tokenizer" / "bpe.model").vocab_size
    return dataclasses.replace(
        cfg,
        num_text_tokens=pieces,
        num_codes=codec.codebook_size + 2,
        start_code=codec.codebook_size,
        stop_code=codec.codebook_size + 1,
        speaker=dataclasses.replace(cfg.speaker, feature_dim=features, latent_width=cfg.width),
        emotion=dataclasses.replace(cfg.emotion, feature_dim=features),
    )


def result_of(run: Config, start: Start, cfg: T2SConfig) -> Result:
    """Returns what the run makes: T2S comes with the rules by which it speaks.

    Args:
      run: the configuration.
      start: of the run.
      cfg: architecture of T2S.
    """
    configs: dict[str, Any] = {"t2s": cfg}
    changes: dict[str, Any] = {"source": start.provenance("T2S", run)}
    if start.source is None:
        changes |= {
            "decoding": DecodingRules(forbidden=(cfg.start_code,)),
            "num_beams": 1,
            "duration_slots": tuple(run.duration_slots),
        }
    else:
        rules = start.source.settings
        names = ("decoding", "num_beams", "duration_slots")
        changes |= {name: getattr(rules, name) for name in names}
    if not start.continues:
        # Of another T2S are the emotion vectors of the prototypes, and the latents that S2M reads.
        changes["emotion_groups"] = ()
        if s2m := start.base.settings.configs.get("s2m"):
            configs["s2m"] = dataclasses.replace(s2m, latent_widths=())
    return Result.of(start.base, "t2s", configs, **changes)


def setup(run: Config) -> loop.Setup:
    """Prepares everything that a run of T2S needs, from its configuration.

    Raises:
      InputError: if checkpoint, data and configuration do not fit each other.
    """
    mesh = loop.make_mesh(run)
    start = Start.of(run)
    base, cfg = start.base, t2s_config(run, start)
    feed = Feed.open(run, base, mesh, FIELDS, max_codes=cfg.max_codes, max_text=cfg.max_text_tokens)
    classifier = adversary.SpeakerClassifierConfig(
        cfg.width, run.speaker_classifier_width, len(feed.plan.speakers)
    )

    def task(stage: Config) -> Task:
        losses = Losses(stage.zero_duration, stage.text_loss, stage.speaker_loss, stage.reversal)
        slots = tuple(run.duration_slots)
        return make_task(cfg, slots, losses, classifier=classifier, remat=run.remat)

    result = result_of(run, start, cfg)
    return loop.Setup(
        run=run,
        mesh=mesh,
        task=task,
        initial=functools.partial(start.arrays, "t2s"),
        batches=feed.batches,
        validation=feed.validation,
        publish=functools.partial(result.publish, pathlib.Path(run.out) / "checkpoint"),
        samples=looks(
            Reading.of(run, result, feed, free_prefix, tokens_per_step(feed.plan, cfg)),
            Samples.of(run, result, feed, speak),
        ),
    )


def tokens_per_step(plan: BatchPlan, cfg: T2SConfig) -> float:
    """Counts the positions of a step, padding included; the mean of a round of the data."""
    buckets = plan.summary()["buckets"]
    sizes = [x["rows"] * (cfg.num_conditions + x["text"] + 3 + x["codes"]) for x in buckets]
    return float(np.average(sizes, weights=[x["batches"] for x in buckets]))


if __name__ == "__main__":
    sys.exit(loop.main(setup, __doc__))

"""What a plan counts: what a stage trains, and the shapes of its batches.

    run -> find_stage -> make_inputs (task, shapes of batches)

No weight is made and no data is read; see `train.plan`.

Dims: F width of the features.
"""

import dataclasses
import math
from collections.abc import Callable, Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from indextts2_jax import sharding
from indextts2_jax.audio.mel import MelConfig
from indextts2_jax.emotion.qwen3 import Qwen3Config
from indextts2_jax.emotion.text_to_emotion import EmotionSet
from indextts2_jax.errors import InputError
from indextts2_jax.prompt.campplus import CAMPPlusConfig
from indextts2_jax.prompt.semantic_codec import SemanticCodecConfig
from indextts2_jax.s2m.model import S2MConfig
from indextts2_jax.t2s.gpt import T2SConfig
from indextts2_jax.vocoder.bigvgan import BigVGANConfig
from train import codec, emotion, encoder, s2m, speaker, t2s, vocoder
from train.data.batch_plan import round_up, rows_within
from train.data.config import LENGTHS
from train.objectives.adversary import SpeakerClassifierConfig
from train.objectives.discriminators import DiscriminatorConfig
from train.recognition import recognizer
from train.recognition.hearing import Hearing, Method
from train.recognition.recognizer import RecognizerConfig, Units
from train.run import config
from train.run.config import Config
from train.run.start import Start
from train.run.task import Batch, Task

CODES_PER_S = 50
TYPICAL_S = 6.0  # length of an utterance
LONGEST_S = 30.0  # that `train.prepare` takes
CHARACTERS = 60  # of an alphabet
TEXT_PER_S = 5.0  # text tokens of a second of speech
WORDS_PER_S = 3.0
PROMPT_TOKENS = 64  # of a sentence in its chat, for the emotion model
ANSWER_TOKENS = 96  # of its answer
NUM_SPEAKERS = 10_000  # of a corpus; decides the size of speaker classifiers alone

# Of the fields that are no integers.
_DTYPES = {
    **dict.fromkeys(("features", "prompt_features", "word_vectors"), jnp.float16),
    **dict.fromkeys(("mel", "prompt_mel", "prompt_style"), jnp.float32),
}


def find_stage(run: Config, name: str) -> Config:
    """Finds the stage of that name, the first for "".

    Raises:
      InputError: if there is none.
    """
    stages = {stage.name: stage for stage in run.stages}
    if name and name not in stages:
        raise InputError(f"there is no stage {name!r}; there are {', '.join(stages)}")
    return stages[name] if name else run.stages[0]


@dataclasses.dataclass(frozen=True)
class Inputs:
    """What a plan has to know of a trainer.

    Attributes:
      task: remat -> what the stage trains.
      largest: shapes of the batch of the longest utterances.
      typical: shapes of the batch of utterances of TYPICAL_S seconds.
    """

    task: Callable[[bool], Task]
    largest: Batch
    typical: Batch


def t2s_inputs(run: Config, stage: Config, rows_multiple: int) -> Inputs:
    """Finds what `train.t2s` trains in a stage, and on which shapes.

    Args:
      run: the configuration.
      stage: one of its stages.
      rows_multiple: of which the rows of a batch are a multiple.
    """
    start, cfg = _start(run), config.architecture(T2SConfig, run.model)
    if start is not None:
        cfg = t2s.t2s_config(run, start)
    losses = t2s.Losses(stage.zero_duration, stage.text_loss, stage.speaker_loss, stage.reversal)
    classifier = SpeakerClassifierConfig(cfg.width, run.speaker_classifier_width, NUM_SPEAKERS)

    def task(remat: bool) -> Task:
        slots = tuple(run.duration_slots)
        return t2s.make_task(cfg, slots, losses, classifier=classifier, remat=remat)

    F = cfg.speaker.feature_dim
    widths = {"features": F, "prompt_features": F}
    batches = _batches(
        run.data, t2s.FIELDS, widths, cfg=cfg, mel=MelConfig(), multiple=rows_multiple
    )
    return Inputs(task, *batches)


def s2m_inputs(run: Config, stage: Config, rows_multiple: int) -> Inputs:
    """Does the same for `train.s2m`; without a checkpoint its T2S and codec are the released."""
    start = _start(run)
    if start is None:
        cfg = config.architecture(S2MConfig, run.model)
        cfg = dataclasses.replace(cfg, word_width=run.word_width)
        codec, decoder, mel = SemanticCodecConfig.indextts2(), T2SConfig.indextts2(), MelConfig()
    else:
        cfg, base = s2m.s2m_config(run, start), start.base
        codec, mel = base.config("semantic_codec"), base.settings.mel
        decoder = base.settings.configs.get("t2s", T2SConfig.paper())

    def task(remat: bool) -> Task:
        return s2m.make_task(cfg, codec, s2m.Method.of(stage), t2s_cfg=decoder, remat=remat)

    # As in training, a batch has the fields of all stages.
    fields = {name for x in run.stages for name in s2m.Method.of(x).fields}
    if cfg.word_width:
        fields.add("word_vectors")
    widths = {
        "features": decoder.speaker.feature_dim,
        "prompt_features": decoder.speaker.feature_dim,
        "mel": mel.num_mels,
        "prompt_mel": mel.num_mels,
        "prompt_style": cfg.velocity.style_width,
        "word_vectors": cfg.word_width,
    }
    batches = _batches(run.data, fields, widths, cfg=decoder, mel=mel, multiple=rows_multiple)
    return Inputs(task, *batches)


def emotion_inputs(run: Config, stage: Config, rows_multiple: int) -> Inputs:
    """Does the same for `train.emotion`; the architecture is that of the run.

    Raises:
      InputError: if the rows of a batch are no such multiple.
    """
    del stage
    emotions, rows = EmotionSet.paper(), run.data.rows
    cfg = config.architecture(Qwen3Config, run.model)
    if run.form == "distribution":
        cfg = dataclasses.replace(cfg, labels=emotions.keys)
    if rows % rows_multiple:
        raise InputError(f"data.rows is {rows}; want a multiple of {rows_multiple}")

    def array(*shape: int, dtype: Any = jnp.int32) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((rows, *shape), dtype)

    batch = {
        "tokens": array(PROMPT_TOKENS),
        "lengths": array(),
        "teacher": array(len(emotions.names), dtype=jnp.float32),
        "weight": array(dtype=jnp.float32),
    }
    if run.form == "generative":
        answer = {"targets": array(ANSWER_TOKENS), "target_lengths": array()}
        batch |= {"tokens": array(PROMPT_TOKENS + ANSWER_TOKENS), **answer}
    return Inputs(lambda remat: emotion.make_task(cfg, remat=remat), batch, batch)


def vocoder_inputs(run: Config, stage: Config, rows_multiple: int) -> Inputs:
    """Does the same for `train.vocoder`; every batch is of pieces of `data.crop` frames.

    Raises:
      InputError: if no length of the pieces is given.
    """
    start, data = _start(run), run.data
    if start is None:
        cfg, mel = config.architecture(BigVGANConfig, run.model), MelConfig()
    else:
        cfg, mel = vocoder.vocoder_config(run, start), start.base.settings.mel
    if not data.crop or not data.budget:
        raise InputError("data.crop and data.budget are not given; they decide a batch")
    discriminator = config.architecture(DiscriminatorConfig, run.discriminators)
    discriminator = dataclasses.replace(discriminator, sample_rate=mel.sample_rate)
    rows = rows_within(data.budget, data.crop, data.max_rows, rows_multiple)
    batch = {
        "mel": jax.ShapeDtypeStruct((rows, data.crop, mel.num_mels), jnp.float32),
        "mel_lengths": jax.ShapeDtypeStruct((rows,), jnp.int32),
        "audio": jax.ShapeDtypeStruct((rows, data.crop, mel.hop_length), jnp.float32),
        "weight": jax.ShapeDtypeStruct((rows,), jnp.float32),
    }

    def task(remat: bool) -> Task:
        return vocoder.make_task(cfg, discriminator, mel, vocoder.Losses.of(stage))

    return Inputs(task, batch, batch)


def encoder_inputs(run: Config, stage: Config, rows_multiple: int) -> Inputs:
    """Does the same for `train.encoder`; without a checkpoint it tells CHARACTERS apart.

    Raises:
      InputError: if no size of the batches is given.
    """
    start, source, num_units = _start(run), None, CHARACTERS
    if start is not None:
        source = start.source
        num_units = len(Units.of(start.base.path / "tokenizer" / "bpe.model", run.units).names)
    cfg = encoder.encoder_config(run, source)
    hearing = encoder.make_hearing(run, source, cfg, num_units)
    return _hearing_inputs(run, stage, rows_multiple, hearing)


def codec_inputs(run: Config, stage: Config, rows_multiple: int) -> Inputs:
    """Does the same for `train.codec`; without a checkpoint the encoder is that of the run.

    Raises:
      InputError: if no size of the batches is given.
    """
    start = _start(run)
    if start is None:
        heads = RecognizerConfig("characters", CHARACTERS, run.encoder.width)
    else:
        heads = recognizer.config_of(start.base.path)
    hearing = codec.make_hearing(run, start, heads)
    return _hearing_inputs(run, stage, rows_multiple, hearing)


def _hearing_inputs(run: Config, stage: Config, rows_multiple: int, hearing: Hearing) -> Inputs:
    data, width = run.data, hearing.encoder.feature_width
    if not data.budget:
        raise InputError("data.budget is not given; it decides how large a batch is")

    def batch(seconds: float) -> Batch:
        length = round_up(math.ceil(CODES_PER_S * seconds))
        rows = rows_within(data.budget, length, data.max_rows, rows_multiple)

        def array(*shape: int, dtype: Any = jnp.int32) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct((rows, *shape), dtype)

        return {
            "features": array(length, width, dtype=jnp.float16),
            "feature_lengths": array(),
            "labels": array(length // 2),
            "label_lengths": array(),
            "prosody": array(length, 3, dtype=jnp.float32),
            "weight": array(dtype=jnp.float32),
        }

    def task(remat: bool) -> Task:
        method = Method.of(stage)
        return hearing.without_codec(not method.quantize).task(method, remat=remat)

    longest = data.max_codes / CODES_PER_S if data.max_codes else LONGEST_S
    return Inputs(task, batch(longest), batch(min(longest, TYPICAL_S)))


def speaker_inputs(run: Config, stage: Config, rows_multiple: int) -> Inputs:
    """Does the same for `train.speaker`; every batch is of pieces of `data.crop` rows.

    Raises:
      InputError: if no length of the pieces is given.
    """
    start, data = _start(run), run.data
    if start is None:
        cfg = config.architecture(CAMPPlusConfig, run.model)
    else:
        cfg = speaker.speaker_config(run, start)
    if not data.crop or not data.budget:
        raise InputError("data.crop and data.budget are not given; they decide a batch")
    classes = speaker.classes_of([True] * NUM_SPEAKERS)
    pieces = speaker.Pieces(classes, tuple(run.speeds), run.shortest)
    length = round_up(data.crop)
    rows = rows_within(data.budget, length, data.max_rows, rows_multiple)
    batch = {
        "bank": jax.ShapeDtypeStruct((rows, length, speaker.PAIR * cfg.feat_dim), jnp.float16),
        "bank_lengths": jax.ShapeDtypeStruct((rows,), jnp.int32),
        "speaker": jax.ShapeDtypeStruct((rows,), jnp.int32),
        "weight": jax.ShapeDtypeStruct((rows,), jnp.float32),
    }

    def task(remat: bool) -> Task:
        return speaker.make_task(cfg, pieces, speaker.Method.of(stage))

    return Inputs(task, batch, batch)


INPUTS = {
    "encoder": encoder_inputs,
    "speaker": speaker_inputs,
    "codec": codec_inputs,
    "t2s": t2s_inputs,
    "s2m": s2m_inputs,
    "vocoder": vocoder_inputs,
    "emotion": emotion_inputs,
}


def make_inputs(run: Config, stage: Config, mesh: sharding.AnyMesh) -> Inputs:
    """Finds what the run's trainer trains in a stage, on the devices of a mesh.

    Raises:
      InputError: if there is no such trainer, or its configuration cannot be used.
    """
    if run.trainer not in INPUTS:
        raise InputError(f"trainer is {run.trainer!r}, want one of {', '.join(INPUTS)}")
    multiple = sharding.batch_parts(mesh) * run.accumulation
    return INPUTS[run.trainer](run, stage, multiple)


def _start(run: Config) -> Start | None:
    return Start.of(run) if run.checkpoint else None


def _batches(
    data: Config,
    fields: Collection[str],
    widths: Mapping[str, int],
    *,
    cfg: T2SConfig,
    mel: MelConfig,
    multiple: int,
) -> tuple[Batch, Batch]:
    """Returns shapes of the largest and of a typical batch, as `train.data` makes them.

    Args:
      data: what the run says of the data.
      fields: that are loaded.
      widths: last axis of the fields that have more than one.
      cfg: of T2S, which has a longest text and most codes.
      mel: how many frames a second has.
      multiple: of the rows.
    """
    if not data.budget:
        raise InputError("data.budget is not given; it decides how large a batch is")

    def frames(codes: int) -> int:
        return math.ceil(codes / CODES_PER_S * mel.sample_rate / mel.hop_length)

    def batch(codes: int) -> Batch:
        prompt, seconds = data.prompt_codes, codes / CODES_PER_S
        lengths = {
            "text": round_up(min(math.ceil(seconds * TEXT_PER_S), cfg.max_text_tokens)),
            **dict.fromkeys(("codes", "features"), round_up(codes)),
            "mel": round_up(frames(codes)),
            "word_vectors": round_up(math.ceil(seconds * WORDS_PER_S)),
            **dict.fromkeys(("prompt_codes", "prompt_features"), prompt),
            "prompt_mel": round_up(frames(prompt) + 1),
        }
        measured = lengths["codes"]
        if data.measure == "frames":
            measured = lengths["mel"] + lengths["prompt_mel"] * ("prompt_mel" in fields)
        rows = rows_within(data.budget, measured, data.max_rows, multiple)

        def shape(name: str) -> tuple[int, ...]:
            own = [x[name] for x in (lengths, widths) if name in x]
            return rows, *own

        out = {n: jax.ShapeDtypeStruct(shape(n), _DTYPES.get(n, jnp.int32)) for n in fields}
        if "word_vectors" in fields:
            out["word_frames"] = jax.ShapeDtypeStruct((rows, lengths["word_vectors"]), jnp.int32)
        for name in LENGTHS.keys() & fields:
            out[LENGTHS[name]] = jax.ShapeDtypeStruct((rows,), jnp.int32)
        return out | {"weight": jax.ShapeDtypeStruct((rows,), jnp.float32)}

    longest = min(data.max_codes or cfg.max_codes, cfg.max_codes)
    return batch(longest), batch(min(longest, round(CODES_PER_S * TYPICAL_S)))

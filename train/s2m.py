r"""Trains S2M: semantic codes and GPT latents -> mel (paper section 3.2).

    python -m train.s2m --config configs/s2m_tiny.py checkpoint=CKPT data.paths=DATA out=RUN

Per utterance (a row), with t ~ U(0, 1), z ~ N(0, I) and s = 1e-6:

    Q_fin = Q_sem                           with probability 0.5
    Q_fin = Q_sem + MLP(H_GPT)              with probability 0.5
    x_t   = (1 - (1 - s) t) z + t y_tar     and the velocity to learn is u = y_tar - (1 - s) z
    L     = mean |f(x_t) - u|               = mean |y_hat - y_tar|, y_hat = f(x_t) + (1 - s) z  (5)

over the frames behind the prompt. Q_sem are the embeddings of the codes by the frozen codec, H_GPT
the latents of the frozen T2S over true text and codes, conditioned as at inference: timbre prompt,
emotion of the utterance, free duration. With probability 0.1 all conditions are taken away, for
classifier-free guidance.

The paper's prompt is another utterance of the same speaker, in front of the target. With
`prompt="prefix"` it is a first part of the utterance itself. Either way the codes of the prompt
come without latents, as at inference.

Table 4 of the paper leaves the latents out of the finished model (`indextts2 synthesize
--no-latents`); `latent_probability=0.0` in all stages trains a model that never reads them, and
needs no T2S. Appendix B adds vectors of words: `word_width` is their width.

Dims: B rows, T codes, F mel frames (prompt first), M mel bins, C semantic width, D condition width.
"""

import dataclasses
import functools
import math
import pathlib
import re
import sys
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from indextts2_jax.nn import pytree
from indextts2_jax.pipeline import IndexTTS2
from indextts2_jax.prompt import semantic_codec
from indextts2_jax.prompt.semantic_codec import SemanticCodecConfig
from indextts2_jax.request.options import Request
from indextts2_jax.request.results import Speech
from indextts2_jax.s2m import flow_matching
from indextts2_jax.s2m import model as s2m_model
from indextts2_jax.s2m.conditions import Conditions, append_frames
from indextts2_jax.s2m.model import S2M, S2MConfig
from indextts2_jax.t2s import gpt
from indextts2_jax.t2s.gpt import T2S, T2SConfig
from train import t2s
from train.data.shards import Utterance
from train.run import artifacts, config, loop, lora
from train.run.config import Config
from train.run.feed import Feed, data_config
from train.run.samples import Samples
from train.run.start import Start
from train.run.task import Batch, Module, Task, TrainingError

PROMPTS = ("other", "prefix")
# Weights that act once per row, on the time embedding; all others of the velocity act per frame.
_PER_ROW = re.compile(r".*(time_embedding|modulation|wavenet\.time)\..*")


def default_config() -> Config:
    """Returns the released architecture, trained from scratch in one stage on one data set."""
    out = config.base_config()
    with out.unlocked():
        out.model = config.preset(S2MConfig.indextts2())
        out.trainer = "s2m"
        out.word_width = 0  # of the word vectors of appendix B that it learns to read
        out.data = data_config(measure="frames", budget=32768, speed_probability=0.0)
        out.stages = (stage(),)
    return out


def stage(**changes: Any) -> Config:
    """Returns one stage; `changes` are of its keys."""
    out = config.base_stage()
    with out.unlocked():
        out.mix = (1.0,)  # a weight for each of `data.paths`: shares of what is drawn
        out.train = (r"s2m\..*",)
        out.objective = "velocity"  # or "mel": the same number by another name
        out.latent_probability = 0.5  # to add GPT latents (paper section 3.2); 0 = T2S not needed
        out.condition_dropout = 0.1  # probability to train a row without conditions (release)
        out.dropout = 0.2  # in the WaveNet (release)
        out.prompt = "other"  # utterance of the speaker (paper), or "prefix" of the target
        out.longest_prefix = 0.3  # part of an utterance that may be its prompt (as CosyVoice)
    out.lock()
    out.update(changes)
    return out


@dataclasses.dataclass(frozen=True)
class Method:
    """How a stage trains; attributes as the keys of `stage`."""

    objective: str = "velocity"
    latent_probability: float = 0.5
    condition_dropout: float = 0.1
    dropout: float = 0.2
    prompt: str = "other"
    longest_prefix: float = 0.3

    def __post_init__(self) -> None:
        for name, names in (("objective", flow_matching.OBJECTIVES), ("prompt", PROMPTS)):
            if (got := getattr(self, name)) not in names:
                raise TrainingError(f"{name} is {got!r}; want one of {', '.join(names)}")
        if not 0 <= self.longest_prefix < 1:
            raise TrainingError(f"longest_prefix is {self.longest_prefix}; want 0 up to 1")

    @classmethod
    def of(cls, stage: Config) -> "Method":
        """Reads the keys of a stage."""
        return cls(**{field.name: stage[field.name] for field in dataclasses.fields(cls)})

    @property
    def fields(self) -> set[str]:
        """What it reads of the data, word vectors apart."""
        out = {"codes", "mel", "prompt_style"}
        if self.prompt == "other":
            out |= {"prompt_codes", "prompt_mel"}
        if self.latent_probability:
            out |= {"text", "features", "prompt_features"}
        return out

    def num_frames(self, batch: Batch) -> int:
        """Counts F, the padded mel frames of a row, prompt included."""
        prompt = batch["prompt_mel"].shape[1] if self.prompt == "other" else 0
        return batch["mel"].shape[1] + prompt


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Draws:
    """The random choices of a step."""

    flow: flow_matching.Draws
    use_latents: jax.Array  # [B] bool
    prefix: jax.Array  # [B] share of the utterance that is its own prompt


class CodeEmbedding(nnx.Module):
    """What S2M reads of the semantic codec, under the names that it has there."""

    def __init__(self, cfg: SemanticCodecConfig, *, rngs: nnx.Rngs):
        self.quantizer = semantic_codec.Quantizer(cfg, rngs=rngs)

    def embed(self, codes: jax.Array) -> jax.Array:
        """Embeddings [B, T, C] of codes [B, T]."""
        return self.quantizer(codes)


def latents_of(model: T2S, batch: Batch) -> jax.Array:
    """Computes GPT latents [B, T, G] of the true text and codes; constant for the gradient."""
    free = jnp.ones(batch["code_lengths"].shape, bool)
    prefix = t2s.prefix_of(model, batch, t2s.emotion_of(model, batch), model.cfg.free_slots, free)
    return jax.lax.stop_gradient(gpt.gpt_latents(model, prefix, batch["codes"]))


def example_of(
    modules: Any, batch: Batch, draws: Draws, method: Method
) -> tuple[jax.Array, Conditions]:
    """Computes what flow matching is trained on: prompts, and targets behind them.

    Args:
      modules: `s2m` and `semantic_codec`; `t2s` if the method has latents.
      batch: the fields of `method`.
      draws: of the step.
      method: of the stage.

    Returns:
      Log-mels [B, F, M] and their conditions.
    """
    s2m: S2M = modules["s2m"]
    codec: CodeEmbedding = modules["semantic_codec"]
    mel, lengths, style = batch["mel"], batch["mel_lengths"], batch["prompt_style"]
    # A prompt has neither latents nor text, so a prefix gets none of its own.
    prefix_frames = _share(draws.prefix, lengths, method)
    latents = use = None
    if method.latent_probability:
        prefix_codes = _share(draws.prefix, batch["code_lengths"], method)
        spoken = jnp.arange(batch["codes"].shape[1]) >= prefix_codes[:, None]
        use = spoken & draws.use_latents[:, None]
        latents = latents_of(modules["t2s"], batch)
    mu = s2m.regulate(
        s2m.semantic(codec.embed(batch["codes"]), latents, use),
        batch["code_lengths"],
        lengths,
        num_frames=mel.shape[1],
        **_words(s2m.cfg, batch),
        first_frames=prefix_frames,
    )
    if method.prompt == "prefix":
        return mel, Conditions(mu, mel, prefix_frames, style, lengths)

    prompt_mel, prompt_lengths = batch["prompt_mel"], batch["prompt_mel_lengths"]
    before = s2m.regulate(
        s2m.semantic(codec.embed(batch["prompt_codes"])),
        batch["prompt_code_lengths"],
        prompt_lengths,
        num_frames=prompt_mel.shape[1],
    )
    num_frames = method.num_frames(batch)
    conditions = Conditions.behind_prompt(
        before,
        mu,
        prompt_mel=prompt_mel,
        prompt_lengths=prompt_lengths,
        style=style,
        frame_lengths=lengths,
        num_frames=num_frames,
    )
    return append_frames(prompt_mel, mel, prompt_lengths, num_frames), conditions


def _words(cfg: S2MConfig, batch: Batch) -> dict[str, jax.Array]:
    """Returns the word vectors that a model reads, as arguments of `S2M.regulate`."""
    if not cfg.word_width:
        return {}
    if (width := batch["word_vectors"].shape[-1]) != cfg.word_width:
        raise TrainingError(
            f"word_width is {cfg.word_width}, the word vectors of the data have {width}"
        )
    return {name: batch[name] for name in ("word_vectors", "word_frames")}


def _share(share: jax.Array, lengths: jax.Array, method: Method) -> jax.Array:
    """Draws how many first frames [B] are the prompt, where it is a part of the utterance."""
    if method.prompt == "other":
        return jnp.zeros_like(lengths)
    return jnp.floor(share * lengths).astype(lengths.dtype)


def make_task(
    cfg: S2MConfig,
    codec: SemanticCodecConfig,
    method: Method,
    *,
    t2s_cfg: T2SConfig | None = None,
    remat: bool = False,
) -> Task:
    """Returns what a stage trains.

    Args:
      cfg: architecture of S2M.
      codec: that of the semantic codec.
      method: of the stage.
      t2s_cfg: that of T2S; needed where `method.latent_probability` is not 0.
      remat: trade time for memory.
    """
    wavenet = dataclasses.replace(cfg.velocity.wavenet, dropout=method.dropout)
    cfg = dataclasses.replace(cfg, velocity=dataclasses.replace(cfg.velocity, wavenet=wavenet))
    modules = {
        "s2m": Module(lambda rngs: S2M(cfg, rngs=rngs), s2m_model.SHARDING_RULES),
        "semantic_codec": Module(
            lambda rngs: CodeEmbedding(codec, rngs=rngs), semantic_codec.SHARDING_RULES
        ),
    }
    if method.latent_probability:
        assert t2s_cfg is not None
        modules["t2s"] = Module(lambda rngs: T2S(t2s_cfg, rngs=rngs), gpt.SHARDING_RULES)

    def draw(key: jax.Array, batch: Batch) -> Draws:
        flow, latents, prefix = jax.random.split(key, 3)
        B, _, M = batch["mel"].shape
        shape = (B, method.num_frames(batch), M)
        return Draws(
            flow_matching.draw_training(flow, shape, condition_dropout=method.condition_dropout),
            jax.random.bernoulli(latents, method.latent_probability, (B,)),
            jax.random.uniform(prefix, (B,), maxval=method.longest_prefix),
        )

    def loss(
        modules: Any, batch: Batch, draws: Draws, key: Any, progress: jax.Array
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        del progress
        mel, conditions = example_of(modules, batch, draws, method)
        losses, _ = flow_matching.loss(
            modules["s2m"].velocity,
            mel,
            conditions,
            draws.flow,
            objective=method.objective,
            key=key,
            remat=remat,
        )
        return losses, {}

    def tokens(batch: Batch) -> int:
        return len(batch["mel"]) * method.num_frames(batch)

    def operations(batch: Batch) -> float:
        total = flops(cfg, tokens(batch), method.num_frames(batch))
        if method.latent_probability:
            assert t2s_cfg is not None
            total += t2s.latent_flops(t2s_cfg, batch)
        return total

    return Task(
        modules,
        draw,
        loss,
        tokens,
        operations,
        heads=("s2m.text_features.",),
        lora_targets=lora.S2M_TARGETS,
    )


def flops(cfg: S2MConfig, positions: int, num_frames: int) -> float:
    """Counts operations of S2M in a step: 6 per weight and position, and attention.

    Counted: regulator and velocity, but not its weights that act once per row. Not counted, for
    being less than 1 %: the projections of latents and word vectors, the embedding of codes.

    Args:
      cfg: architecture of S2M.
      positions: mel frames of the batch, padding and prompts included.
      num_frames: those of a row.
    """
    velocity = cfg.velocity
    attention = 12 * velocity.num_layers * velocity.width * num_frames
    return float(positions * (6 * _frame_weights(cfg) + attention))


@functools.cache
def _frame_weights(cfg: S2MConfig) -> int:
    """Counts the weights that act on every mel frame."""
    shapes = pytree.shapes(pytree.abstract(lambda rngs: S2M(cfg, rngs=rngs)))
    return sum(
        math.prod(shape)
        for name, shape in shapes.items()
        if name.endswith(".kernel")
        and not name.startswith(("latent_projection.", "text_features."))
        and not _PER_ROW.fullmatch(name)
    )


def s2m_config(run: Config, start: Start) -> S2MConfig:
    """Returns the architecture of a run's S2M: of a new one `model`, fitted to the other networks.

    Args:
      run: the configuration.
      start: of the run, whose T2S, codec, CAMPPlus and mel decide on the widths at the borders.
    """
    if start.source is not None:
        cfg = start.source.config("s2m")
        return dataclasses.replace(cfg, word_width=run.word_width or cfg.word_width)
    cfg, base = config.architecture(S2MConfig, run.model), start.base
    semantic = base.config("semantic_codec").feature_width
    latent_widths = ()
    if any(stage.latent_probability for stage in run.stages):
        latent_widths = (base.config("t2s").width, *cfg.latent_widths[1:-1], semantic)
    return dataclasses.replace(
        cfg,
        latent_widths=latent_widths,
        word_width=run.word_width,
        length_regulator=dataclasses.replace(cfg.length_regulator, in_width=semantic),
        velocity=dataclasses.replace(
            cfg.velocity,
            num_mels=base.settings.mel.num_mels,
            condition_width=cfg.length_regulator.width,
            style_width=base.config("campplus").embedding,
        ),
    )


def setup(run: Config) -> loop.Setup:
    """Prepares everything that a run of S2M needs, from its configuration.

    Raises:
      InputError: if checkpoint, data and configuration do not fit each other.
    """
    mesh = loop.make_mesh(run)
    start = Start.of(run)
    base, cfg = start.base, s2m_config(run, start)
    codec, t2s_cfg = base.config("semantic_codec"), base.settings.configs.get("t2s")
    methods = [Method.of(stage) for stage in run.stages]
    if any(method.latent_probability for method in methods):
        if not cfg.latent_widths:
            raise TrainingError("init reads no latents; set latent_probability=0.0")
        if (reads := cfg.latent_widths[0]) != (gives := base.config("t2s").width):
            raise TrainingError(f"init reads latents of width {reads}, T2S gives {gives}")
    fields = set().union(*(method.fields for method in methods))
    if cfg.word_width:
        fields.add("word_vectors")
    longest = t2s_cfg or T2SConfig.paper()  # S2M has no limits; more is never said
    feed = Feed.open(
        run,
        base,
        mesh,
        sorted(fields),
        max_codes=longest.max_codes,
        max_text=longest.max_text_tokens,
    )

    def task(stage: Config) -> Task:
        method = Method.of(stage)
        return make_task(cfg, codec, method, t2s_cfg=t2s_cfg, remat=run.remat)

    def initial(places: Any) -> dict[str, jax.Array]:
        out = start.arrays("s2m", places)
        for part in ("semantic_codec", "t2s"):
            out |= base.arrays(part, places)
        return out

    if start.source is None:
        can_guide = any(method.condition_dropout for method in methods)
        guidance = flow_matching.GUIDANCE if can_guide else 0.0
    else:
        guidance = start.source.settings.guidance
    source = start.provenance("S2M", run)
    result = artifacts.Result.of(base, "s2m", {"s2m": cfg}, guidance=guidance, source=source)

    def speak(tts: IndexTTS2, request: Request, target: Utterance) -> tuple[Speech, dict[str, Any]]:
        if not cfg.latent_widths:
            request = dataclasses.replace(request, text="")
        codes = target.takes[0].codes
        return tts.speak_codes(request, codes, num_frames=len(target.mel)), {}

    return loop.Setup(
        run=run,
        mesh=mesh,
        task=task,
        initial=initial,
        batches=feed.batches,
        validation=feed.validation,
        publish=functools.partial(result.publish, pathlib.Path(run.out) / "checkpoint"),
        samples=Samples.of(run, result, feed, speak),
    )


if __name__ == "__main__":
    sys.exit(loop.main(setup, __doc__))

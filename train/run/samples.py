"""Speaks validation utterances with the weights as they are.

    RUN/samples/STEP/0/speech.wav      in the voice of another utterance of the speaker
                     0/mel.png         beside the recording
                     0/attention.png   of T2S, on the text
    RUN/samples/STEP/0/target.wav      the recording through the vocoder, the first time

S2M, which speaks the codes of the recording, should come near its mel: `sample_correlation` in the
metrics is the mean correlation of the two.

The networks that are not trained come from the checkpoint that the run began with.
"""

import dataclasses
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

from indextts2_jax import programs
from indextts2_jax.checkpoint.parts import PARTS
from indextts2_jax.errors import InputError
from indextts2_jax.nn import pytree
from indextts2_jax.nn.conv import fold_weight_norm
from indextts2_jax.pipeline import IndexTTS2
from indextts2_jax.request.options import Emotion, Options, Request
from indextts2_jax.request.results import Speech
from indextts2_jax.request.speaker import Speaker
from indextts2_jax.request.words import Words
from train.data.shards import Utterance
from train.run.artifacts import Result
from train.run.config import Config
from train.run.feed import Feed
from train.run.writer import MetricsWriter, mel_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PROMPT_FEATURES = 750  # 15 s, as much as inference reads of a prompt

# What the trained part makes of a request (text of the utterance, voice of the prompt, emotion of
# the utterance), and pictures beside the mel, by name.
Speak = Callable[[IndexTTS2, Request, Utterance], tuple[Speech, Mapping[str, "Figure"]]]

# (all arrays of a run, its writer, steps that are done) -> pictures, sounds, numbers.
Look = Callable[[Mapping[str, jax.Array], MetricsWriter, int], None]


@dataclasses.dataclass
class Samples:
    """Speaks when it is called.

    Attributes:
      result: what the run makes.
      utterances: pairs of an utterance and another one of its speaker, the prompt.
      speak: how the trained part shows what it can do.
    """

    result: Result
    utterances: Sequence[tuple[Utterance, Utterance]]
    speak: Speak

    def __post_init__(self) -> None:
        self._has_targets = False

    @classmethod
    def of(cls, run: Config, result: Result, feed: Feed, speak: Speak) -> "Samples | None":
        """Makes those of a run; None if it has none, or there is nothing to speak, or no way to."""
        if not run.sample_every:
            return None
        if "s2m" not in result.settings.configs:
            print(f"note: no samples, because {result.base.path} has no s2m", file=sys.stderr)
            return None
        utterances = feed.samples(run.samples)
        return cls(result, utterances, speak) if utterances else None

    def __call__(self, arrays: Mapping[str, jax.Array], writer: MetricsWriter, step: int) -> None:
        """Writes the samples of a step; all processes of a run have to call it.

        Args:
          arrays: all of the run, by flat name.
          writer: of the run.
          step: number of steps that are done.
        """
        values = self.result.gather(arrays)
        # Opened every time: the networks would stay in the memory that training needs. By every
        # process, because Orbax reads with all of them; one writes.
        tts = IndexTTS2(self.result.base.path)
        tts.settings = self.result.settings
        part = self.result.part
        model = PARTS[part].abstract(self.result.settings.configs[part])
        setattr(tts, part, fold_weight_norm(pytree.fill(model, jax.device_put(values))))
        correlations = []
        for number, (target, prompt) in enumerate(self.utterances):
            try:
                spoken = self._sample(
                    tts, target, prompt, writer=writer, step=step, name=f"{number}"
                )
            except InputError as error:
                writer.note(f"sample {number} of step {step}: {error}")
                continue
            if part == "s2m":  # as many frames as the recording
                recorded = target.mel.astype(np.float32)
                correlations.append(np.corrcoef(spoken.ravel(), recorded.ravel())[0, 1])
        self._has_targets = True
        if correlations:
            writer.scalars(step, {"sample_correlation": np.mean(correlations)})

    def _sample(
        self,
        tts: IndexTTS2,
        target: Utterance,
        prompt: Utterance,
        *,
        writer: MetricsWriter,
        step: int,
        name: str,
    ) -> np.ndarray:
        """Writes one sample; returns its mel [T, M]."""
        rate, hop = tts.settings.mel.sample_rate, tts.settings.mel.hop_length
        mel = target.mel.astype(np.float32)
        if not self._has_targets:
            wave = np.asarray(programs.vocode(tts.vocoder, *programs.stacked([mel])))
            writer.audio(step, f"{name}/target", wave[0, : len(mel) * hop], rate)
        # The text is stored as it was normalised; a seed of its own keeps samples comparable.
        options = Options(
            normalized=True,
            num_beams=1,
            max_codes=2 * len(target.takes[0].codes) + 50,
            max_text_tokens=1_000_000,  # as many as T2S has positions for
        )
        emotion = Emotion(features=target.takes[0].features.astype(np.float32))
        words, vectors, frames = None, target.word_vectors, target.word_frames
        if tts.s2m.cfg.word_width and vectors is not None and frames is not None:
            words = Words(vectors, frames)
        voice = speaker_of(tts, prompt)
        request = Request(target.text, voice, emotion, options, words=words)
        speech, figures = self.speak(tts, request, target)
        writer.audio(step, f"{name}/speech", speech.samples, rate)
        spoken = np.concatenate([segment.mel for segment in speech.segments])
        figures = {"mel": mel_figure(mel, spoken), **figures}
        for what, figure in figures.items():
            writer.figure(step, f"{name}/{what}", figure)
        return spoken


def looks(*of: Look | None) -> Look | None:
    """Makes one look at the weights of several, in order; None if there is none."""
    chosen = [look for look in of if look is not None]

    def look(arrays: Mapping[str, jax.Array], writer: MetricsWriter, step: int) -> None:
        for each in chosen:
            each(arrays, writer, step)

    return look if chosen else None


def speaker_of(tts: IndexTTS2, utterance: Utterance) -> Speaker:
    """Makes the speaker of an utterance, of no more than inference reads of a prompt."""
    take = utterance.takes[0]
    T, M = len(take.codes), len(utterance.mel)
    features = take.features[:PROMPT_FEATURES].astype(np.float32)
    codes = take.codes[: -(-len(features) // tts.semantic_codec.downsample_scale)]
    return Speaker(
        features=features,
        codes=codes,
        embedding=np.asarray(tts.semantic_codec.embed(jnp.asarray(codes)[None]))[0],
        mel=utterance.mel[: M * len(codes) // T].astype(np.float32),
        style=utterance.style,
        emotion_features=features,
        fingerprint=tts.settings.front_end_fingerprint,
    )

"""START HERE: text and a voice in, speech out.

    prompt wav -> speaker()  features, codes, style, mel of the prompt        (a reusable `Speaker`)
    text       -> segments() normalised, tokenised, split
    segment    -> codes()    T2S: conditions + text -> semantic codes
               -> latents()  T2S again, over its own codes
               -> mel()      S2M: codes + latents -> mel, in the prompt's voice
               -> wave()     BigVGAN
    waves      -> speech     faded, joined by silence

Every network sees padded buckets of few sizes, so that a process compiles few programs; padding
changes nothing (each network masks it). All randomness comes from one seed: segment i decodes with
fold_in(key, 2 i) and draws its flow-matching noise with fold_in(key, 2 i + 1).

Dims: B batch (1 here), T 50 Hz frames or codes, M mel frames, F feature width, L text tokens.
"""

import contextlib
import dataclasses
import functools
import logging
import os
import pathlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from indextts2_jax import programs
from indextts2_jax.audio import fbank, mel, wav
from indextts2_jax.emotion import mixing
from indextts2_jax.errors import InputError
from indextts2_jax.nn.conv import fold_weight_norm
from indextts2_jax.options import Emotion, Options
from indextts2_jax.parts import Settings, load_part, load_tables
from indextts2_jax.programs import bucket, pad, padded
from indextts2_jax.prompt.w2v_bert import normalize
from indextts2_jax.s2m import flow_matching
from indextts2_jax.speaker import Speaker
from indextts2_jax.t2s import generate, gpt
from indextts2_jax.text.glossary import load_glossary
from indextts2_jax.text.normalize import Normalizer
from indextts2_jax.text.split import split_segments
from indextts2_jax.text.tokenize import Tokenizer

_log = logging.getLogger(__name__)

PROMPT_SECONDS = 15.0  # of a prompt are used, as in the release
FEATURE_RATE = 16000  # Hz of w2v-BERT and CAMPPlus
FADE_SECONDS = 0.02
NOISE_STRIDE = 97  # columns of a noise bank between two segments


@dataclasses.dataclass(frozen=True)
class Segment:
    """One segment of a speech and how it was made."""

    text: str
    codes: np.ndarray  # [T] int32
    stopped: bool  # False: cut off at `max_codes`
    mel: np.ndarray  # [M, 80]
    samples: np.ndarray  # [M * hop] float32


@dataclasses.dataclass(frozen=True)
class Speech:
    """The result: `samples` [N] float32 in [-1, 1] at `sample_rate` Hz."""

    samples: np.ndarray
    sample_rate: int
    segments: tuple[Segment, ...]
    seconds_by_stage: Mapping[str, float]

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return len(self.samples) / self.sample_rate

    def save(self, path: str | os.PathLike) -> None:
        """Writes a 16-bit wav, whole or not at all."""
        wav.save_pcm16(path, self.samples, self.sample_rate)


Trace = Callable[..., None]  # trace(stage, name=array, ...): sees every intermediate array


class IndexTTS2:
    """A loaded checkpoint. Thread-safe: holds no state of a request."""

    def __init__(self, path: str | os.PathLike, *, dtype: Any = np.float32):
        """Opens the checkpoint directory `path`; networks are read when they are first needed.

        Args:
          path: from `indextts2 convert` or from training.
          dtype: float32, or bfloat16 for T2S and S2M (fast on GPU and TPU, slow on CPU).

        Raises:
          CheckpointError: if the directory is no checkpoint.
        """
        self.path = pathlib.Path(path)
        self.settings = Settings.load(self.path)
        self.dtype = dtype
        programs.enable_compilation_cache()

    @classmethod
    def load(cls, path: str | os.PathLike, *, dtype: Any = np.float32) -> "IndexTTS2":
        """Opens a checkpoint and reads all its networks at once."""
        tts = cls(path, dtype=dtype)
        for name in ("w2v_bert", "semantic_codec", "campplus", "t2s", "s2m", "vocoder"):
            getattr(tts, name)
        return tts

    # The networks.

    @functools.cached_property
    def w2v_bert(self) -> Any:
        """The w2v-BERT encoder, as many layers of it as are used."""
        config = self.settings.configs["w2v_bert"]
        config = dataclasses.replace(config, num_layers=self.settings.feature_layer)
        configs = {**self.settings.configs, "w2v_bert": config}
        return load_part(self.path, dataclasses.replace(self.settings, configs=configs), "w2v_bert")

    @functools.cached_property
    def semantic_codec(self) -> Any:
        """The semantic codec."""
        return load_part(self.path, self.settings, "semantic_codec")

    @functools.cached_property
    def campplus(self) -> Any:
        """The speaker encoder."""
        return load_part(self.path, self.settings, "campplus")

    @functools.cached_property
    def t2s(self) -> gpt.T2S:
        """The text-to-semantic stage."""
        return load_part(self.path, self.settings, "t2s", dtype=self.dtype)

    @functools.cached_property
    def s2m(self) -> Any:
        """The semantic-to-mel stage."""
        model = load_part(self.path, self.settings, "s2m", dtype=self.dtype)
        return fold_weight_norm(model)

    @functools.cached_property
    def vocoder(self) -> Any:
        """The vocoder."""
        return fold_weight_norm(load_part(self.path, self.settings, "vocoder"))

    @functools.cached_property
    def tables(self) -> Mapping[str, np.ndarray]:
        """Feature statistics and emotion prototypes."""
        return load_tables(self.path)

    @functools.cached_property
    def prototypes(self) -> mixing.EmotionPrototypes:
        """The emotion prototypes that weights mix."""
        return mixing.EmotionPrototypes(
            self.tables["emotion_styles"],
            self.tables["emotion_vectors"],
            self.settings.emotion_groups,
        )

    def tokenizer(self, compat: bool = False) -> Tokenizer:
        """The text tokenizer."""
        return _tokenizer(self.path / "tokenizer" / "bpe.model", compat)

    # The prompt.

    def speaker(self, voice: Any, *, trace: Trace | None = None) -> Speaker:
        """Reads a prompt.

        Args:
          voice: path of a recording, or (samples, sample rate). Its first 15 s are used.
          trace: sees the intermediate arrays.

        Returns:
          The speaker.

        Raises:
          AudioError: if the recording cannot be used.
        """
        cfg = self.settings.mel
        audio = _recording(voice, cfg.sample_rate)
        audio_16k = wav.resample_sinc(audio, cfg.sample_rate, FEATURE_RATE)
        features = self._features(audio_16k, "spk", trace)
        T = len(features)
        codes, embedding = programs.quantize(self.semantic_codec, *padded(features))
        bank = fbank.kaldi_fbank(audio_16k)
        centered = bank - bank.mean(axis=0)
        style = programs.speaker_style(self.campplus, *padded(centered))
        speaker = Speaker(
            features=features,
            codes=np.asarray(codes[0, :T]),
            embedding=np.asarray(embedding[0, :T]),
            mel=mel.log_mel(audio, cfg),
            style=np.asarray(style[0]),
            emotion_features=self.emotion_features(voice, trace=trace),
            fingerprint=self.settings.front_end_fingerprint,
        )
        if trace:
            trace(
                "speaker", audio=audio, audio_16k=audio_16k, fbank=bank, centered=centered,
                speaker=speaker,
            )  # fmt: skip
        return speaker

    def load_speaker(self, path: str | os.PathLike) -> Speaker:
        """Reads a speaker file.

        Raises:
          InputError: if it is broken or was made by other encoders than this checkpoint's.
        """
        speaker = Speaker.load(path)
        if speaker.fingerprint != self.settings.front_end_fingerprint:
            raise InputError(
                f"{path} was made by other encoders (fingerprint {speaker.fingerprint}, this "
                f"checkpoint has {self.settings.front_end_fingerprint}); make it again from the wav"
            )
        return speaker

    def emotion_features(self, voice: Any, *, trace: Trace | None = None) -> np.ndarray:
        """Reads the features [T, F] of a recording whose emotion is to be used.

        Raises:
          AudioError: if the recording cannot be used.
        """
        return self._features(_recording(voice, FEATURE_RATE), "emo", trace)

    def _features(self, audio_16k: np.ndarray, name: str, trace: Trace | None) -> np.ndarray:
        features, mask = fbank.m4t_features(audio_16k)
        T, layer = len(features), self.settings.feature_layer
        hidden = programs.hidden_states(
            self.w2v_bert,
            padded(features)[0],
            padded(mask)[0],
            layers=(0, 1, layer) if trace else (layer,),
        )
        hidden = [np.asarray(h[0, :T]) for h in hidden]
        normal = normalize(hidden[-1], self.tables["feature_mean"], self.tables["feature_variance"])
        if trace:
            trace(
                "features", prefix=name, audio_16k=audio_16k, features=features, mask=mask,
                hidden=hidden, normalized=normal,
            )  # fmt: skip
        return np.asarray(normal)

    # The text.

    def segments(
        self, text: str, options: Options, glossary: Mapping | None = None
    ) -> list[list[str]]:
        """Normalises, tokenises and splits a text.

        Args:
          text: as a person writes it.
          options: `normalized`, `max_text_tokens` and `compat` matter here.
          glossary: term -> what to say; None = the checkpoint's own, if it has one.

        Returns:
          Per segment its pieces.

        Raises:
          InputError: if there is nothing to say.
        """
        if not text.strip():
            raise InputError("the text is empty")
        limit = min(options.max_text_tokens, self.t2s.cfg.max_text_tokens)
        one_character = options.compat and len(text.strip()) == 1
        if not (options.normalized or one_character):
            own = self.path / "tokenizer" / "glossary.yaml"
            if glossary is None and own.is_file():
                glossary = load_glossary(own)
            text = Normalizer(glossary=glossary, compat=options.compat)(text)
        tokenizer = self.tokenizer(options.compat)
        pieces = tokenizer.encode(text)
        if unknown := tokenizer.unknown(pieces):
            _log.warning("not in the vocabulary: %s", " ".join(unknown))
        segments = split_segments(pieces, limit, compat=options.compat)
        if not segments:
            raise InputError("nothing of the text is left to say")
        return segments

    # Conditions of T2S.

    def conditions(
        self,
        speaker: Speaker,
        emotion: Emotion = Emotion(),
        *,
        compat: bool = False,
        trace: Trace | None = None,
    ) -> tuple[jax.Array, jax.Array]:
        """Computes what T2S is told about the voice.

        Args:
          speaker: the timbre, and the emotion where nothing else says it.
          emotion: where the emotion comes from.
          compat: as the original: weights replace a second recording and are never scaled down.
          trace: sees the intermediate arrays.

        Returns:
          Speaker latents [1, 32, D] and the emotion vector [1, D].

        Raises:
          InputError: if the weights do not fit the checkpoint's emotions.
        """
        other, alpha, weights = emotion.features, emotion.alpha, emotion.weights
        if compat and weights is not None:
            other = None
        latents = self._latents(speaker)
        if other is None:
            merged = self._emotion_vector(speaker.emotion_features)
        else:
            base = self._emotion_vector(speaker.features)
            merged = mixing.merge(base, self._emotion_vector(other), alpha)
        final = merged
        if weights is not None:
            weights = np.asarray(weights, np.float64)
            if weights.shape != (len(self.settings.emotions.names),):
                raise InputError(
                    f"{weights.size} emotion weights, want {len(self.settings.emotions.names)}"
                )
            if not (emotion.raw or compat):
                weights = mixing.normalize_weights(weights)
            if other is None:
                weights = mixing.apply_alpha(weights, alpha)
            rows = self.prototypes.rows(speaker.style)
            final = mixing.mix(weights, self.prototypes, rows, merged)
        if trace:
            emotion_from = speaker.emotion_features if other is None else other
            trace(
                "conditions", latents=latents, merged=merged, final=final,
                base=self._emotion_vector(speaker.features),
                other=self._emotion_vector(emotion_from),
            )  # fmt: skip
        return latents, final

    def _latents(self, speaker: Speaker) -> jax.Array:
        return programs.speaker_latents(self.t2s, *padded(speaker.features))

    def _emotion_vector(self, features: np.ndarray) -> jax.Array:
        return programs.emotion_vector(self.t2s, *padded(features)).astype(jnp.float32)

    # Speech.

    def synthesize(
        self,
        text: str,
        speaker: Speaker,
        *,
        emotion: Emotion = Emotion(),
        options: Options = Options(),
        glossary: Mapping | None = None,
        noise: np.ndarray | None = None,
        progress: Callable[[str, int, int], None] | None = None,
        trace: Trace | None = None,
    ) -> Speech:
        """Speaks a text.

        Args:
          text: as a person writes it.
          speaker: from `speaker` or `load_speaker`.
          emotion: where the emotion comes from; the prompt itself by default.
          options: how to speak.
          glossary: term -> what to say.
          noise: [1, 80, N] flow-matching noise to use in place of the seed's; segment i takes the
            columns from 97 i on.
          progress: called as progress(stage, segment, number of segments) when a stage begins.
          trace: sees the intermediate arrays (and makes the run slower).

        Returns:
          The speech.

        Raises:
          InputError: if the text or a setting cannot be used.
        """
        segments, clock = [], Clock()
        if noise is not None and noise.shape[1] != self.settings.mel.num_mels:
            raise InputError(
                f"the noise bank has {noise.shape[1]}, want {self.settings.mel.num_mels} mel bins"
            )
        parts = self.segments(text, options, glossary)
        with clock("conditions"):
            conditions = self.conditions(speaker, emotion, compat=options.compat, trace=trace)
            jax.block_until_ready(conditions)
        for index, pieces in enumerate(parts):
            note = (lambda stage, i=index: progress(stage, i, len(parts))) if progress else None
            segments.append(
                self._segment(
                    index, pieces, speaker, conditions, options, noise, clock, note, trace
                )
            )
        rate = self.settings.mel.sample_rate
        silence = np.zeros(round(rate * options.interval_silence_ms / 1000), np.float32)
        pieces = [x for s in segments for x in (silence, s.samples)][1:]
        speech = Speech(np.concatenate(pieces), rate, tuple(segments), clock.seconds)
        if trace:
            trace("speech", speech=speech)
        return speech

    def _segment(
        self,
        index: int,
        pieces: Sequence[str],
        speaker: Speaker,
        conditions: tuple[jax.Array, jax.Array],
        options: Options,
        noise: np.ndarray | None,
        clock: "Clock",
        note: Callable[[str], None] | None,
        trace: Trace | None,
    ) -> Segment:
        key = jax.random.key(options.seed)
        decoding_key, noise_key = (jax.random.fold_in(key, 2 * index + i) for i in range(2))
        tokenizer = self.tokenizer(options.compat)

        def stage(name: str) -> Any:
            if note:
                note(name)
            return clock(name)

        with stage("codes"):
            ids = np.asarray(tokenizer.ids(pieces), np.int32)
            prefix = self.prefix(*conditions, ids)
            generated = self.codes(prefix, options, decoding_key)
            T = int(generated.lengths[0])
        if T == 0:
            raise InputError(
                f"the model had nothing to say to {tokenizer.decode(ids.tolist())!r}; "
                "try another seed, or sampling settings closer to the defaults"
            )
        stopped = bool(generated.stopped[0])
        if not stopped:
            _log.warning("segment %d was cut off after %d codes (max_codes)", index + 1, T)
        with stage("latents"):
            codes = np.asarray(generated.codes[0, :T])
            semantic, latents = programs.semantic(
                self.t2s, self.semantic_codec, self.s2m, prefix, padded(codes)[0]
            )
            jax.block_until_ready(semantic)
        with stage("mel"):
            if noise is not None:
                noise = noise[0, :, NOISE_STRIDE * index :].T
            log_mel = self.mel(semantic, T, speaker, options, noise_key, noise, trace)
        with stage("wave"):
            samples = self.wave(log_mel)
        if trace:
            trace(
                "segment", index=index, ids=ids, prefix=prefix, generated=generated,
                latents=latents[0, :T], semantic=semantic[0, :T], mel=log_mel, samples=samples,
                projected=self.s2m.latent_projection(latents)[0, :T],
                embedded=self.semantic_codec.embed(jnp.asarray(codes)),
            )  # fmt: skip
        if options.fade and not options.compat:
            samples = fade_out(samples, round(FADE_SECONDS * self.settings.mel.sample_rate))
        return Segment(tokenizer.decode(ids.tolist()), codes, stopped, log_mel, samples)

    def prefix(self, latents: jax.Array, emotion: jax.Array, ids: np.ndarray) -> gpt.Prefix:
        """Embeds conditions and the token ids [L] of one segment."""
        cfg = self.t2s.cfg
        ids = ids[(ids != cfg.start_text) & (ids != cfg.stop_text)]
        L = min(bucket(len(ids), 32), cfg.max_text_tokens)
        lengths = np.array([len(ids)], np.int32)
        return programs.embed_prefix(self.t2s, latents, emotion, pad(ids, L)[None], lengths)

    def codes(self, prefix: gpt.Prefix, options: Options, key: jax.Array) -> generate.Generated:
        """Decodes the semantic codes of one segment."""
        rules = self.settings.decoding
        if options.positions:
            rules = dataclasses.replace(rules, positions=options.positions)
        sampling = generate.Sampling.make(
            1,
            greedy=options.greedy,
            temperature=options.temperature,
            top_k=options.top_k,
            top_p=options.top_p,
            repetition_penalty=options.repetition_penalty,
            typical_mass=options.typical_mass,
        )
        limit = min(options.max_codes, self.t2s.cfg.max_codes)
        limits = generate.Limits.make(1, limit)
        return generate.generate(self.t2s, prefix, sampling, key[None], limits, rules=rules)

    def mel(
        self,
        semantic: jax.Array,
        num_codes: int,
        speaker: Speaker,
        options: Options,
        key: jax.Array,
        noise: np.ndarray | None = None,
        trace: Trace | None = None,
    ) -> np.ndarray:
        """Turns semantic frames into the mel of one segment.

        Args:
          semantic: [1, T, C] embeddings of codes and latents, padded.
          num_codes: how many of them count.
          speaker: gives the prompt's mel, its semantic frames and style.
          options: steps and guidance.
          key: of the noise.
          noise: [N, 80] to use instead, prompt frames first.
          trace: sees the intermediate arrays.

        Returns:
          Log-mel [M, 80].

        Raises:
          InputError: if `noise` is too short.
        """
        # In float32, as torch multiplies; the product decides how long the speech is.
        M = int(np.float32(num_codes) * np.float32(self.settings.frames_per_code))
        P = len(speaker.mel)
        total = P + M
        prompt_mel, prompt_length = padded(speaker.mel)
        regulate = functools.partial(programs.regulate, self.s2m.length_regulator)
        prompt = regulate(*padded(speaker.embedding), prompt_length, prompt_mel.shape[1])
        lengths = np.array([[num_codes], [M]], np.int32)
        generated = regulate(semantic, *lengths, bucket(M))
        mu = programs.join(prompt, generated, np.int32(P), bucket(total))
        if noise is None:
            drawn = programs.draw_noise(key, bucket(total), self.settings.mel.num_mels)
        elif len(noise) < total:
            raise InputError(f"the noise bank has {len(noise)} columns left, want {total}")
        else:
            drawn = padded(noise[:total])[0]
        inputs = map(
            jnp.asarray, (mu, prompt_mel, prompt_length, speaker.style[None], [total], drawn)
        )
        flow = functools.partial(
            flow_matching.trajectory if trace else flow_matching.sample,
            self.s2m.velocity,
            *inputs,
            steps=options.steps,
            guidance=options.guidance,
        )
        if trace:
            mel_out, path = flow()
            trace(
                "flow", prompt=prompt[0, :P], generated=generated[0, :M], mu=mu[0, :total],
                noise=drawn[0, :total], path=path, mel=mel_out[0, :total],
            )  # fmt: skip
        else:
            mel_out = flow()
        return np.asarray(mel_out)[0, P:total]

    def wave(self, log_mel: np.ndarray) -> np.ndarray:
        """Turns a log-mel [M, 80] into samples [M * hop] float32."""
        samples = programs.vocode(self.vocoder, *padded(log_mel))
        return np.asarray(samples)[0, : len(log_mel) * self.settings.mel.hop_length]


class Clock:
    """Adds up wall seconds by stage."""

    def __init__(self):
        self.seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Times a block."""
        start = time.perf_counter()
        yield
        self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - start


def fade_out(samples: np.ndarray, length: int) -> np.ndarray:
    """Lets the last `length` samples fall to zero along half a cosine, against clicks."""
    length = min(length, len(samples))
    curve = 0.5 + 0.5 * np.cos(np.pi * (np.arange(length) + 1) / length)
    return np.concatenate([samples[:-length], samples[-length:] * curve.astype(np.float32)])


def _recording(voice: Any, sample_rate: int) -> np.ndarray:
    if isinstance(voice, tuple):
        samples, rate = voice
        return wav.prepare(samples, rate, sample_rate, max_seconds=PROMPT_SECONDS)
    return wav.load(voice, sample_rate, max_seconds=PROMPT_SECONDS)


@functools.lru_cache(maxsize=4)
def _tokenizer(path: pathlib.Path, compat: bool) -> Tokenizer:
    return Tokenizer(path, compat)

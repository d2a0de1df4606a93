"""START HERE: text and a voice in, speech out.

    prompt wav -> speaker()  features, codes, style, mel of the prompt        (a reusable `Speaker`)
    text       -> segments() normalised, tokenised, split
    segments   -> _decode()  T2S: conditions + text -> semantic codes
               -> _voice()   T2S again, over its own codes -> latents (if decoding gave none)
                   _mels()   S2M: codes + latents -> mel, in the prompt's voice
                             BigVGAN: mel without its tail of hiss -> wave, faded
    waves      -> join()     with silence between them -> speech

`networks` has the checkpoint's networks, `programs` their compiled forms, `items` what lies
between a request and them, `request.results` what comes out.

Every network sees padded buckets of few sizes, so that a process compiles few programs; padding
changes nothing (each network masks it). All randomness comes from one seed: segment i decodes with
fold_in(key, 2 i) and draws its flow-matching noise with fold_in(key, 2 i + 1).

Dims: B batch, T 50 Hz frames or codes, M mel frames, F feature width, L text tokens.
"""

import dataclasses
import functools
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from indextts2_jax import programs
from indextts2_jax.audio import fbank, finish, mel, wav
from indextts2_jax.checkpoint.networks import Networks
from indextts2_jax.emotion import mixing
from indextts2_jax.errors import InputError
from indextts2_jax.items import Item, groups, set_targets, stacked_words, stretch
from indextts2_jax.programs import bucket, pad, padded, stacked
from indextts2_jax.prompt.w2v_bert import normalize
from indextts2_jax.request.duration import Duration, Target
from indextts2_jax.request.options import Emotion, Options, Request
from indextts2_jax.request.results import Clock, Progress, Segment, Speech, Trace, join
from indextts2_jax.request.speaker import Speaker
from indextts2_jax.request.words import Words
from indextts2_jax.s2m import flow_matching
from indextts2_jax.t2s import generate, gpt
from indextts2_jax.t2s.beam import beam_generate
from indextts2_jax.text.glossary import load_glossary
from indextts2_jax.text.normalize import Normalizer
from indextts2_jax.text.split import split_segments

_log = logging.getLogger(__name__)

PROMPT_SECONDS = 15.0  # of a prompt are used, as in the release
FEATURE_RATE = 16000  # Hz of w2v-BERT and CAMPPlus
NOISE_STRIDE = 97  # columns of a noise bank between two segments
RANDOM_EMOTION = 2**31  # what the key of random emotion prototypes is folded with
MAX_FRAMES = 2**14  # of prompt and segment, far over what the codes allow


class IndexTTS2(Networks):
    """A loaded checkpoint. Thread-safe: holds no state of a request."""

    @classmethod
    def load(cls, path: str | os.PathLike, *, dtype: Any = np.float32) -> "IndexTTS2":
        """Opens a checkpoint and reads all its networks at once."""
        tts = cls(path, dtype=dtype)
        tts.require("t2s", "s2m")
        for name in ("w2v_bert", "semantic_codec", "campplus", "t2s", "s2m", "vocoder"):
            getattr(tts, name)
        return tts

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
        num_codes = -(-T // self.semantic_codec.downsample_scale)
        bank = fbank.kaldi_fbank(audio_16k)
        centered = bank - bank.mean(axis=0)
        style = programs.speaker_style(self.campplus, *padded(centered))
        speaker = Speaker(
            features=features,
            codes=np.asarray(codes[0, :num_codes]),
            embedding=np.asarray(embedding[0, :num_codes]),
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

    def emotion_weights(self, text: str) -> np.ndarray:
        """Reads the weight of each emotion [E] off a sentence, or a description of a mood."""
        weights = self.text_to_emotion(text).weights
        return np.array([weights[name] for name in self.settings.emotions.names])

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
            language = "zh" if options.language == "zh" else "en"
            normalizer = Normalizer(glossary=glossary, compat=options.compat, language=language)
            text = normalizer(text)
        tokenizer = self.tokenizer(options.compat)
        pieces = tokenizer.encode(text)
        if unknown := tokenizer.unknown(pieces):
            _log.warning("not in the vocabulary: %s", " ".join(unknown))
        if not pieces or not (options.compat or tokenizer.can_speak(pieces)):
            raise InputError("nothing of the text is left to say")
        return split_segments(pieces, limit, compat=options.compat)

    # Conditions of T2S.

    def conditions(
        self, request: Request, *, trace: Trace | None = None
    ) -> tuple[jax.Array, jax.Array]:
        """Computes what T2S is told about voice and emotion.

        Args:
          request: its speaker, emotion and options matter here.
          trace: sees the intermediate arrays.

        Returns:
          Speaker latents [32, D] and the emotion vector [D].

        Raises:
          InputError: if the weights do not fit the checkpoint's emotions.
        """
        speaker, emotion, compat = request.speaker, request.emotion, request.options.compat
        other, weights = emotion.features, emotion.weights
        if compat and weights is not None:
            other = None  # the original drops a second recording then
        latents = programs.speaker_latents(self.t2s, *padded(speaker.features))[0]
        heard = self._emotion_vector(speaker.emotion_features if other is None else other)
        if other is None and not trace:
            base, merged = None, heard
        else:
            base = self._emotion_vector(speaker.features)
            merged = heard if other is None else mixing.merge(base, heard, emotion.alpha)
        final = merged
        if weights is not None:
            weights = np.asarray(weights, np.float64)
            if weights.shape != (len(self.settings.emotions.names),):
                raise InputError(
                    f"{weights.size} emotion weights, want {len(self.settings.emotions.names)}"
                )
            if not (emotion.raw or compat):
                weights = mixing.normalize_weights(weights, self.settings.emotions.max_sum)
            if other is None:
                weights = mixing.apply_alpha(weights, emotion.alpha)
            if emotion.random:
                key = jax.random.key(request.options.seed)
                rows = self.prototypes.random_rows(jax.random.fold_in(key, RANDOM_EMOTION))
            else:
                rows = self.prototypes.rows(speaker.style)
            final = mixing.mix(weights, self.prototypes, rows, merged)
        if trace:
            trace("conditions", latents=latents, base=base, other=heard, merged=merged, final=final)
        return latents, final

    def _emotion_vector(self, features: np.ndarray) -> jax.Array:
        return programs.emotion_vector(self.t2s, *padded(features))[0].astype(jnp.float32)

    # Speech.

    def synthesize(
        self,
        text: str,
        speaker: Speaker,
        *,
        emotion: Emotion = Emotion(),
        options: Options = Options(),
        duration: Duration = Duration(),
        glossary: Mapping | None = None,
        words: Words | None = None,
        **settings: Any,
    ) -> Speech:
        """Speaks a text; the arguments are those of `Request` and of `synthesize_batch`."""
        request = Request(text, speaker, emotion, options, duration, glossary, words)
        return self.synthesize_batch([request], **settings)[0]

    def synthesize_batch(
        self,
        requests: Sequence[Request],
        *,
        batch_size: int = 4,
        noise: np.ndarray | None = None,
        progress: Progress | None = None,
        trace: Trace | None = None,
    ) -> list[Speech]:
        """Speaks several texts, in any mix of voices, emotions, durations and options.

        An item's codes and samples do not depend on what else is in the batch.

        Args:
          requests: what to speak.
          batch_size: how many segments go through the networks together.
          noise: [1, 80, N] flow-matching noise to use in place of the seeds'; segment i of a
            request takes the columns from 97 i on.
          progress: called as progress(stage, done, total) when a stage of a batch begins.
          trace: sees the intermediate arrays (of one request, segment by segment, and slower).

        Returns:
          One speech per request.

        Raises:
          InputError: if a text or a setting cannot be used.
        """
        if noise is not None and not np.isfinite(noise).all():
            raise InputError("the noise bank holds NaN or infinite values")
        if noise is not None and noise.shape[1] != self.settings.mel.num_mels:
            raise InputError(
                f"the noise bank has {noise.shape[1]}, want {self.settings.mel.num_mels} mel bins"
            )
        clock = Clock(progress)
        with clock("conditions"):
            owned = [list(self._items(request, trace)) for request in requests]
        for request, own in zip(requests, owned, strict=True):
            self._set_targets(request, own, batch_size, clock)
        items = [item for own in owned for item in own]
        batches = list(groups(items, 1 if trace else batch_size))
        clock.total = 4 * len(batches)
        prefixes = [self._decode(group, clock, trace=trace is not None) for group in batches]
        for request, own in zip(requests, owned, strict=True):
            stretch(request, own, self.settings)
        for group, prefix in zip(batches, prefixes, strict=True):
            self._voice(group, prefix, noise, clock, trace)
        speeches = [
            join(
                [x.segment for x in own],
                request.options,
                self.settings.mel.sample_rate,
                clock.seconds,
            )
            for request, own in zip(requests, owned, strict=True)
        ]
        if trace:
            trace("speech", speech=speeches[0])
        return speeches

    def count_codes(self, requests: Sequence[Request], *, batch_size: int = 4) -> list[int]:
        """Decodes texts and counts their codes, without a mel or a wave.

        Args:
          requests: what to speak.
          batch_size: how many segments go through T2S together.

        Returns:
          Codes of each request, of all its segments together.

        Raises:
          InputError: if a text or a setting cannot be used.
        """
        clock = Clock(None)
        owned = [list(self._items(request, None)) for request in requests]
        for request, own in zip(requests, owned, strict=True):
            self._set_targets(request, own, batch_size, clock)
        for group in groups([x for own in owned for x in own], batch_size):
            self._decode(group, clock)
        return [sum(len(item.codes) for item in own) for own in owned]

    def stream(self, request: Request) -> Iterator[Segment]:
        """Speaks a request segment by segment, each as soon as it is ready.

        What is done to a speech as a whole (silences, trimmed ends, loudness) is left to the caller
        (`results.join`).
        """
        clock = Clock(None)
        items = list(self._items(request, None))
        self._set_targets(request, items, 1, clock)
        prefixes = (self._decode([item], clock) for item in items)
        if request.duration.by == "stretch":  # the shares of segments need all their codes
            prefixes = list(prefixes)
            stretch(request, items, self.settings)
        for item, prefix in zip(items, prefixes, strict=True):
            self._voice([item], prefix, None, clock, None)
            yield item.segment

    def speak_codes(
        self, request: Request, codes: np.ndarray, *, num_frames: int | None = None
    ) -> Speech:
        """Speaks semantic codes that are there already, such as those of a recording.

        Args:
          request: whose voice speaks; text and emotion are those of the codes. T2S reads them for
            the GPT latents, so that a text has to be one segment. Without a text, S2M reads the
            codes alone.
          codes: [T] int32.
          num_frames: mel frames of the speech; as many as the codes stand for if None.

        Returns:
          The speech.

        Raises:
          InputError: if a text or a setting cannot be used.
        """
        clock = Clock(None)
        if request.text:
            if len(codes) > (most := self.t2s.cfg.max_codes):
                raise InputError(f"there are {len(codes)} codes; the model has {most} at most")
            items = list(self._items(request, None))
            prefix = self._prefix(items[:1], request.options.rules(self.settings.decoding))
        else:
            self._check_words(request.words, 1)
            nothing = np.zeros(0, np.int32)
            items, prefix = [Item(request, 0, "", nothing, jnp.zeros(0), jnp.zeros(0))], None
        if len(items) != 1:
            raise InputError(f"codes are of one segment, and the text has {len(items)}")
        item = items[0]
        item.codes, item.stopped = np.asarray(codes, np.int32), True
        item.target = Target(frames=num_frames)
        self._voice(items, prefix, None, clock, None)
        return join([item.segment], request.options, self.settings.mel.sample_rate, clock.seconds)

    def _items(self, request: Request, trace: Trace | None) -> Iterator[Item]:
        cfg, tokenizer = self.t2s.cfg, self.tokenizer(request.options.compat)
        latents, emotion = self.conditions(request, trace=trace)
        parts = self.segments(request.text, request.options, request.glossary)
        self._check_words(request.words, len(parts))
        for index, pieces in enumerate(parts):
            ids = np.asarray(tokenizer.ids(pieces), np.int32)
            text = tokenizer.decode(ids.tolist())
            spoken = ids[(ids != cfg.start_text) & (ids != cfg.stop_text)]
            yield Item(request, index, text, spoken, latents, emotion)

    def _check_words(self, words: Words | None, num_segments: int) -> None:
        width = self.s2m.cfg.word_width
        if words is None:
            return
        if words.vectors.shape[1] != width:
            raise InputError(
                f"the word vectors have width {words.vectors.shape[1]}; "
                + (f"the checkpoint reads {width}" if width else "the checkpoint reads none")
            )
        if num_segments != 1:
            raise InputError(f"word vectors are of one segment, and the text has {num_segments}")

    def _set_targets(
        self, request: Request, items: list[Item], batch_size: int, clock: Clock
    ) -> None:
        def natural_lengths() -> list[int]:
            free = [item.by_itself() for item in items]
            for group in groups(free, batch_size):
                self._decode(group, clock)
            return [len(item.codes) for item in free]

        most = self.t2s.cfg.max_codes - 1
        set_targets(request, items, self.settings, most, natural_lengths)

    def _decode(self, group: list[Item], clock: Clock, *, trace: bool = False) -> gpt.Prefix:
        """Decodes the semantic codes of a group of items; returns their prefix."""
        options = group[0].request.options
        rules = options.rules(self.settings.decoding)
        rows = group + group[:1] * (bucket(len(group), 1) - len(group))
        real = np.arange(len(rows)) < len(group)
        with clock("codes"):
            prefix = self._prefix(rows, rules)
            sampling = generate.Sampling.stack(
                [generate.Sampling.make(1, **item.request.options.sampling()) for item in rows]
            )
            most = np.array([item.most_codes(self.t2s.cfg.max_codes) for item in rows])
            exact = np.array([item.exact_codes() for item in rows])
            limits = generate.CodeLimits(*map(jnp.int32, (np.where(real, most, 1), exact * real)))
            keys = jnp.stack([item.key(0) for item in rows])
            if (beams := options.beams(self.settings.num_beams)) == 1:
                out = generate.generate(
                    self.t2s, prefix, sampling, keys, limits, rules=rules, trace=trace
                )
            else:
                out = beam_generate(
                    self.t2s, prefix, sampling, keys, limits, rules=rules, num_beams=beams,
                    length_penalty=options.length_penalty,
                )  # fmt: skip
            codes, lengths, stopped = map(np.asarray, (out.codes, out.lengths, out.stopped))
            latents = None if out.latents is None else np.asarray(out.latents)
        out = dataclasses.replace(out, latents=None)  # they have room for the longest speech
        for row, item in enumerate(group):
            item.codes, item.stopped = codes[row, : lengths[row]], bool(stopped[row])
            item.gpt_latents = None if latents is None else latents[row, : lengths[row]].copy()
            item.generated = out
            if not len(item.codes):
                raise InputError(
                    f"the model had nothing to say to {item.text!r}; try another seed, or sampling "
                    "settings closer to the defaults"
                )
            if not item.stopped:
                _log.warning(
                    "segment %d was cut off after %d codes (max_codes)",
                    item.index + 1,
                    len(item.codes),
                )
        return prefix

    def _prefix(self, rows: list[Item], rules: generate.DecodingRules) -> gpt.Prefix:
        cfg = self.t2s.cfg
        lengths = np.array([len(item.ids) for item in rows], np.int32)
        L = min(bucket(int(lengths.max()), 32), cfg.max_text_tokens)
        wanted = np.array([item.target.codes or 0 for item in rows], np.int32)
        return programs.embed_prefix(
            self.t2s,
            jnp.stack([item.latents for item in rows]),
            jnp.stack([item.emotion for item in rows]),
            np.stack([pad(item.ids, L) for item in rows]),
            lengths,
            num_codes=wanted,
            slots=rows[0].request.options.slots(self.settings.duration_slots),
            row_offset=rules.row_offset,
        )

    def _voice(
        self,
        group: list[Item],
        prefix: gpt.Prefix | None,
        noise: np.ndarray | None,
        clock: Clock,
        trace: Trace | None,
    ) -> None:
        """Turns the codes of a group of items into mels and waves."""
        rows = group + group[:1] * (bucket(len(group), 1) - len(group))
        with clock("latents"):
            codes = stacked([item.codes for item in rows])[0]
            latents = self._latents(rows, prefix, codes)
            semantic = programs.semantic(self.semantic_codec, self.s2m, codes, latents)
            jax.block_until_ready(semantic)
        with clock("mel"):
            whole = self._mels(rows, semantic, noise, trace)[: len(group)]
        with clock("wave"):
            hop, rate = self.settings.mel.hop_length, self.settings.mel.sample_rate
            mels = [
                finish.trim_tail(mel, rate / hop) if item.trims_tail else mel
                for item, mel in zip(group, whole, strict=True)
            ]
            waves = np.asarray(programs.vocode(self.vocoder, *stacked(mels, len(rows))))
        for row, item in enumerate(group):
            samples = waves[row, : len(mels[row]) * hop]
            if trace:
                T, heard = len(item.codes), {}
                if latents is not None:
                    projected = self.s2m.latent_projection(latents)
                    heard = {"latents": latents[row, :T], "projected": projected[row, :T]}
                trace(
                    "segment", index=item.index, ids=item.ids, prefix=prefix,
                    generated=item.generated, mel=mels[row], samples=samples,
                    semantic=semantic[row, :T], **heard,
                    embedded=self.semantic_codec.embed(jnp.asarray(item.codes)),
                )  # fmt: skip
            if item.request.options.fades:
                samples = finish.fade_out(samples, rate)
            trimmed = len(whole[row]) - len(mels[row])
            item.segment = Segment(item.text, item.codes, item.stopped, mels[row], trimmed, samples)

    def _latents(
        self, rows: list[Item], prefix: gpt.Prefix | None, codes: np.ndarray
    ) -> jax.Array | None:
        """Returns the GPT latents [B, T, D] that S2M reads beside codes; None if it reads none."""
        heard = rows[0].request.options.latents and self.s2m.cfg.latent_widths
        if prefix is None or not heard:
            return None
        known = [item.gpt_latents for item in rows if item.gpt_latents is not None]
        if known:
            return jnp.asarray(stacked(known)[0])
        return programs.gpt_latents(self.t2s, prefix, codes)

    def _mels(
        self,
        rows: list[Item],
        semantic: jax.Array,
        noise: np.ndarray | None,
        trace: Trace | None,
    ) -> list[np.ndarray]:
        """Turns semantic frames [B, T, C] (codes and latents) into log-mels [M, 80]."""
        speakers = [item.request.speaker for item in rows]
        per_code = self.settings.frames_per_code
        spoken = np.array([len(item.codes) for item in rows], np.int32)
        frames = np.array([item.frames(per_code) for item in rows], np.int32)
        prompt_mels, prompts = stacked([s.mel for s in speakers])
        total = prompts + frames
        size = bucket(int(total.max()))
        if size >= MAX_FRAMES or (frames > 100 * spoken).any():
            raise InputError(f"a segment would have {frames.max()} mel frames; that is too long")
        regulate = functools.partial(programs.regulate, self.s2m)
        embedding = stacked([s.embedding for s in speakers])
        before = regulate(*embedding, prompts, num_frames=prompt_mels.shape[1])
        words = {}
        if any(item.request.words for item in rows):
            words = stacked_words(rows, frames, self.s2m.cfg.word_width)
            words = dict(zip(("word_vectors", "word_frames"), words, strict=True))
        longest = bucket(int(frames.max()))
        after = regulate(semantic, spoken, frames, num_frames=longest, **words)
        conditions = programs.conditions(
            before,
            after,
            prompt_mel=prompt_mels,
            prompt_lengths=prompts,
            style=np.stack([s.style for s in speakers]),
            frame_lengths=frames,
            num_frames=size,
        )
        drawn = self._noise(rows, total, size, noise)
        options = rows[0].request.options
        mels, path = flow_matching.sample(
            self.s2m.velocity,
            conditions,
            drawn,
            steps=options.steps,
            guidance=self.settings.guidance if options.guidance is None else options.guidance,
            record=trace is not None,
        )
        mels = np.asarray(mels)
        if trace:
            P, N = int(prompts[0]), int(total[0])
            trace(
                "flow", prompt=before[0, :P], generated=after[0, : frames[0]],
                mu=conditions.mu[0, :N], noise=drawn[0, :N], path=path, mel=mels[0, :N],
            )  # fmt: skip
        return [mels[row, prompts[row] : total[row]] for row in range(len(rows))]

    def _noise(
        self, rows: list[Item], lengths: np.ndarray, size: int, bank: np.ndarray | None
    ) -> jax.Array:
        """Draws the flow-matching noise [B, size, 80], of the seeds or of a noise bank."""
        if bank is None:
            keys = jnp.stack([item.key(1) for item in rows])
            return programs.draw_noise(keys, size, self.settings.mel.num_mels)
        columns = [
            _columns(bank, item.index, int(n), size) for item, n in zip(rows, lengths, strict=True)
        ]
        return jnp.asarray(np.stack(columns))


def _columns(noise: np.ndarray, index: int, length: int, size: int) -> np.ndarray:
    """Returns the noise [size, 80] of segment `index` from a bank [1, 80, N]."""
    left = noise[0, :, NOISE_STRIDE * index :].T
    if len(left) < length:
        raise InputError(f"the noise bank has {len(left)} columns left, want {length}")
    return pad(left[:length], size)


def _recording(voice: Any, sample_rate: int) -> np.ndarray:
    if isinstance(voice, tuple):
        samples, rate = voice
        return wav.prepare(samples, rate, sample_rate, max_seconds=PROMPT_SECONDS)
    return wav.load(voice, sample_rate, max_seconds=PROMPT_SECONDS)

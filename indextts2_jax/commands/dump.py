"""Writes every intermediate array of a run under the names that PyTorch's reference dumps have.

The arrays keep the reference's axes (channel-first where it is), leading ones and dtypes, so that
two dumps compare array by array.
"""

import os
from typing import Any

import numpy as np

from indextts2_jax import outputs
from indextts2_jax.audio import wav
from indextts2_jax.request.results import Speech
from indextts2_jax.request.speaker import Speaker


class Dump:
    """A `trace` for `IndexTTS2` that collects arrays; `save` writes them."""

    def __init__(self):
        self.arrays: dict[str, np.ndarray] = {}
        self._of_segment: dict[str, Any] = {}  # what belongs to the segment at hand

    def __call__(self, stage: str, **values: Any) -> None:
        """Takes the arrays of a stage."""
        getattr(self, f"_{stage}")(**values)

    def save(self, path: str | os.PathLike) -> None:
        """Writes an `npz`, whole or not at all; makes missing folders.

        Raises:
          InputError: if the system cannot write it.
        """
        with outputs.replacing(path) as temporary, open(temporary, "wb") as file:
            np.savez(file, **self.arrays)  # pyright: ignore[reportArgumentType]

    def _features(self, prefix: str, audio_16k, features, mask, hidden, normalized) -> None:
        self.arrays[f"{prefix}_audio_16k"] = audio_16k[None]
        if prefix == "emo":
            self.arrays["emo_audio_loaded"] = audio_16k[None]
        self.arrays[f"{prefix}_input_features"] = features[None]
        self.arrays[f"{prefix}_attention_mask"] = mask[None].astype(np.int32)
        for layer, x in zip((0, 1, 17), hidden, strict=True):
            self.arrays[f"{prefix}_w2v_hidden{layer}"] = x[None]
        self.arrays[f"{prefix}_cond_emb"] = np.asarray(normalized)[None]

    def _speaker(self, audio, audio_16k, fbank, centered, speaker: Speaker) -> None:
        self.arrays |= {
            "spk_audio_loaded": audio[None],
            "spk_audio_22k": audio[None],
            "spk_audio_16k": audio_16k[None],
            "prompt_codes": speaker.codes[None].astype(np.int64),
            "S_ref": speaker.embedding[None],
            "ref_mel": speaker.mel.T[None],
            "fbank": fbank,
            "fbank_centered": centered[None],
            "style": speaker.style[None],
        }

    def _conditions(self, latents, base, other, merged, final) -> None:
        self._of_segment |= {
            "emovec_emo": other[None],
            "emovec_base": base[None],
            "emovec_merged": merged[None],
            "emovec_final": final[None],
            "speech_conditioning_latent": latents[None],
        }

    def _flow(self, prompt, generated, mu, noise, path, mel) -> None:
        self.arrays["prompt_condition"] = np.asarray(prompt)[None]
        total = len(mu)
        states = np.asarray(path.states[:, :, :total]).swapaxes(2, 3)  # [steps, B, mels, T]
        self._of_segment |= {
            "cond": generated[None],
            "target_len": np.array([len(generated)], np.int64),
            "cat_condition": mu[None],
            "cfm_noise": noise.T[None],
            "cfm_x_step1": states[min(1, len(states) - 1)],
            "cfm_x_step12": states[min(12, len(states) - 1)],
            "dit_out_step0": np.asarray(path.velocities[0, :, 0, :total]).swapaxes(1, 2),
            "mel_with_prompt": mel.T[None],
        }

    def _segment(self, index: int, ids, prefix, generated, semantic, mel, samples, embedded,
                 latents=None, projected=None) -> None:  # fmt: skip
        T = int(generated.lengths[0])
        raw = T + int(generated.stopped[0])
        codes = np.asarray(generated.codes, np.int64)
        values = {
            **self._of_segment,
            "text_ids": ids[None],
            "gpt_prefix_emb": np.asarray(prefix.x)[:, np.asarray(prefix.mask[0])],
            "codes_raw": codes[:, :raw],
            "codes": codes[:, :T],
            "code_len": np.array([T], np.int64),
            "vq2emb": embedded.T[None],
            "S_infer": semantic[None],
            "mel": mel.T[None],
            "wav": samples[None, None],
        }
        if latents is not None and projected is not None:  # of an S2M that reads them
            values |= {"gpt_latent": latents[None], "gpt_layer": projected[None]}
        if generated.trace is not None:  # beams keep none
            values["logits_first16"] = generated.trace.logits[0, : min(raw, 16)]
            values["greedy_margins"] = generated.trace.margins[0, :raw]
        if index > 0:  # the reference keeps these of the first segment alone
            for name in ("cfm_x_step1", "cfm_x_step12", "dit_out_step0"):
                del values[name]
        self.arrays |= {f"seg{index}_{name}": np.asarray(x) for name, x in values.items()}

    def _speech(self, speech: Speech) -> None:
        self.arrays["wav_pcm_float"] = (speech.samples * np.float32(32767))[None]
        self.arrays["wav_int16_file"] = wav.to_pcm16(speech.samples)

"""Writes tests/golden/beam.npz: `python -m tests.make_goldens.beam`.

Beam search of transformers' GPT-2, in float64, one unpadded prompt at a time. The prompt is given
as embeddings, so that our sequence fits: position rows are zero up to the start code, and the
second of our two last norms sits in front of the head.

An item is done here when no beam could beat its worst hypothesis. Older versions, which the
released pipeline follows, compare with all candidates of the step, those that stop included, and so
may go on for longer. Without a length penalty that finds nothing better, nor does it in the cases
that have one.

Weights are multiples of 1/32: exact in half precision, and small when compressed.
"""

import numpy as np
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from tests.common import GOLDEN
from tests.test_beam import CASES, CFG, RULES, STEPS

PROMPTS = (9, 6)  # positions of the prompts
STOP_BIAS = 2.0  # so that the cases stop at different steps


def draw_weights(rng: np.random.Generator) -> dict[str, torch.Tensor]:
    """Random weights of what decoding needs, under their torch names."""
    D, V = CFG.width, CFG.num_codes
    shapes = {
        "mel_embedding.weight": (V, D),
        "mel_pos_embedding.emb.weight": (CFG.code_positions, D),
        "mel_head.weight": (V, D),
        "mel_head.bias": (V,),
    }
    for name in ["gpt.ln_f", "final_norm", *(f"gpt.h.{i}.ln_{j}" for i in (0, 1) for j in (1, 2))]:
        shapes |= {f"{name}.weight": (D,), f"{name}.bias": (D,)}
    for i in range(CFG.num_layers):
        for name, inputs, outputs in (
            ("attn.c_attn", D, 3 * D),
            ("attn.c_proj", D, D),
            ("mlp.c_fc", D, 4 * D),
            ("mlp.c_proj", 4 * D, D),
        ):
            shapes[f"gpt.h.{i}.{name}.weight"] = inputs, outputs
            shapes[f"gpt.h.{i}.{name}.bias"] = (outputs,)
    weights = {}
    for name, shape in shapes.items():
        mean = float(len(shape) == 1 and name.endswith("weight"))  # of a norm
        deviation = 0.2 if len(shape) == 1 else 0.5 if "emb" in name else shape[0] ** -0.5
        if name == "mel_head.weight":
            deviation = 0.5  # decisive logits
        weights[name] = torch.from_numpy(np.round(32 * rng.normal(mean, deviation, shape)) / 32)
    weights["mel_head.bias"][CFG.stop_code] += STOP_BIAS
    return weights


def language_model(w: dict[str, torch.Tensor], prompt_length: int) -> GPT2LMHeadModel:
    """GPT-2 with our weights, for prompts of this many positions, the start code counted."""
    model = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=CFG.num_codes,
            n_positions=prompt_length + STEPS,
            n_embd=CFG.width,
            n_layer=CFG.num_layers,
            n_head=CFG.num_heads,
            bos_token_id=CFG.start_code,
            eos_token_id=CFG.stop_code,
            tie_word_embeddings=False,
        )
    ).double()
    own = {k.removeprefix("gpt."): x for k, x in w.items() if k.startswith("gpt.")}
    own["wte.weight"] = w["mel_embedding.weight"]
    rows = w["mel_pos_embedding.emb.weight"][1 : STEPS + 1]
    own["wpe.weight"] = torch.cat([torch.zeros(prompt_length, CFG.width), rows])
    model.transformer.load_state_dict(own)
    model.lm_head = torch.nn.Sequential(
        torch.nn.LayerNorm(CFG.width), torch.nn.Linear(CFG.width, CFG.num_codes)
    ).double()
    names = ("final_norm.weight", "final_norm.bias", "mel_head.weight", "mel_head.bias")
    model.lm_head.load_state_dict(
        dict(zip(model.lm_head.state_dict(), (w[n] for n in names), strict=True))
    )
    return model.eval()


@torch.no_grad()
def make_beam() -> None:
    """Writes the file."""
    rng = np.random.default_rng(0)
    w = draw_weights(rng)
    out = {f"w/{k}": x.half().numpy() for k, x in w.items()}
    out["prompts"] = np.zeros((len(PROMPTS), max(PROMPTS), CFG.width), np.float32)
    for case in range(len(CASES)):
        out[f"codes_{case}"] = np.full((len(PROMPTS), STEPS), CFG.stop_code, np.int32)
    start = w["mel_embedding.weight"][CFG.start_code] + w["mel_pos_embedding.emb.weight"][0]
    for item, length in enumerate(PROMPTS):
        prompt = rng.normal(size=(length, CFG.width)).astype(np.float32)
        out["prompts"][item, -length:] = prompt
        x = torch.cat([torch.from_numpy(prompt).double(), start[None]])[None]
        model = language_model(w, length + 1)
        for case, (num_beams, penalty, length_penalty) in enumerate(CASES):
            codes = model.generate(
                inputs_embeds=x,
                attention_mask=torch.ones(1, length + 1, dtype=torch.long),
                max_new_tokens=STEPS,
                num_beams=num_beams,
                do_sample=False,
                repetition_penalty=penalty,
                length_penalty=length_penalty,
                suppress_tokens=list(RULES.forbidden),
                pad_token_id=CFG.stop_code,
            )
            print(item, CASES[case], codes.tolist())
            out[f"codes_{case}"][item, : codes.shape[1]] = codes[0].numpy()
    np.savez_compressed(GOLDEN / "beam.npz", **out)


if __name__ == "__main__":
    make_beam()

"""Writes tests/golden/qwen3.npz with transformers' Qwen3: `python -m tests.make_goldens.qwen3`."""

import numpy as np
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM, Qwen3ForSequenceClassification

from tests.common import GOLDEN

SIZES = {
    "vocab_size": 61,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1_000_000.0,
    "attn_implementation": "eager",
}
PREFILL = 7
NEW_TOKENS = 12
LABELS = 7


@torch.no_grad()
def make_qwen3() -> None:
    """One set of weights, with the head tied (own `lm_head.weight` unread) and not tied.

    And with a classification head, `score`, in place of the language head.
    """
    torch.manual_seed(0)
    free = Qwen3ForCausalLM(Qwen3Config(**SIZES, tie_word_embeddings=False)).eval()
    for name, weight in free.named_parameters():
        weight.normal_(1.0 if "norm" in name else 0.0, 0.2)
    tied = Qwen3ForCausalLM(Qwen3Config(**SIZES, tie_word_embeddings=True)).eval()
    tied.model.load_state_dict(free.model.state_dict())

    tokens = torch.randint(0, SIZES["vocab_size"], (2, 11))
    prompts = [torch.randint(0, SIZES["vocab_size"], (1, length)) for length in (5, 40)]
    arrays = {"tokens": tokens, "prompt_0": prompts[0][0], "prompt_1": prompts[1][0]}
    for name, model in {"tied": tied, "free": free}.items():
        step = model(tokens[:, :PREFILL], use_cache=True)
        logits = [step.logits]
        for t in range(PREFILL, tokens.shape[1]):
            step = model(tokens[:, t : t + 1], past_key_values=step.past_key_values)
            logits.append(step.logits)
        arrays[f"logits_{name}"] = torch.cat(logits, dim=1)
        for i, prompt in enumerate(prompts):
            arrays[f"greedy_{name}_{i}"] = model.generate(
                prompt,
                attention_mask=torch.ones_like(prompt),
                max_new_tokens=NEW_TOKENS,
                do_sample=False,
                eos_token_id=None,
                pad_token_id=0,
            )[0, prompt.shape[1] :]
    classifier = Qwen3ForSequenceClassification(Qwen3Config(**SIZES, num_labels=LABELS)).eval()
    classifier.model.load_state_dict(free.model.state_dict())
    arrays["score"] = classifier.score.weight.normal_(0.0, 0.2)
    arrays["label_logits"] = torch.cat([classifier(prompt).logits for prompt in prompts])
    weights = {f"w/{name}": w for name, w in free.state_dict().items()}
    GOLDEN.mkdir(exist_ok=True)
    np.savez_compressed(
        GOLDEN / "qwen3.npz", **{k: v.detach().numpy() for k, v in {**arrays, **weights}.items()}
    )


if __name__ == "__main__":
    make_qwen3()

"""Writes tests/golden/t2s.npz and t2s_loss.npz: `python -m tests.make_goldens.t2s`.

The trunk and the logits processors are those of transformers. No permissive implementation of the
conditioners exists to compare with, so this file derives them a second time, by their formulas.

The networks run in float64, one unpadded item at a time; only the trunk is also run on a padded
batch. Weights are multiples of 1/32: exact in half precision, and small when compressed.

Dims: B batch, T frames or positions, S subsampled frames, D width, V codes.
"""

import math

import numpy as np
import torch
from torch.nn import functional
from transformers import GPT2Config, GPT2Model
from transformers.generation import logits_process as processors

from indextts2_jax import convert
from indextts2_jax.nn import pytree
from indextts2_jax.t2s import gpt
from indextts2_jax.t2s.generate import DecodingRules
from tests.common import GOLDEN
from tests.test_t2s_peers import (
    CFG,
    CHAINS,
    FREE,
    GRADIENTS,
    LOGITS,
    MASSES,
    PENALTIES,
    RULES,
    SLOTS,
    STEPS,
    TEXT_WEIGHT,
    TOP_KS,
    TOP_PS,
)

Weights = dict[str, torch.Tensor]
TORCH_PREFIXES = {"speaker": "", "emotion": "emo_"}


def draw_weights(rng: np.random.Generator) -> Weights:
    """Random weights, also of norms and biases, under their torch names."""
    arrays = pytree.random_arrays(lambda rngs: gpt.T2S(CFG, rngs=rngs), seed=0)
    weights = {}
    for name, array in convert.to_torch(arrays, gpt.TORCH_RULES).items():
        shape = array.shape
        if name.endswith("bias"):
            mean, deviation = 0.0, 0.2
        elif len(shape) == 1:  # of a norm
            mean, deviation = 1.0, 0.2
        elif "emb" in name or "latents" in name or "pos_bias" in name:
            mean, deviation = 0.0, 0.5
        else:
            inputs = shape[0] if name.startswith("gpt.h.") else math.prod(shape[1:])
            mean, deviation = 0.0, inputs**-0.5
        if name == "mel_head.weight":
            deviation *= 4  # decisive logits
        values = rng.normal(mean, deviation, shape)
        weights[name] = torch.from_numpy(np.round(32 * values) / 32)
    return weights


def under(w: Weights, prefix: str) -> Weights:
    return {name.removeprefix(prefix): x for name, x in w.items() if name.startswith(prefix)}


def linear(w: Weights, name: str, x: torch.Tensor) -> torch.Tensor:
    """Also of convolutions over one frame."""
    return functional.linear(x, w[f"{name}.weight"].flatten(1), w.get(f"{name}.bias"))


def norm(w: Weights, name: str, x: torch.Tensor) -> torch.Tensor:
    return functional.layer_norm(x, x.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"])


def sinusoid(length: int, width: int) -> torch.Tensor:
    table = torch.zeros(length, width, dtype=torch.float64)
    for j in range(length):
        for i in range(width // 2):
            angle = j * 10000 ** (-2 * i / width)
            table[j, 2 * i], table[j, 2 * i + 1] = math.sin(angle), math.cos(angle)
    return table


def self_attention(w: Weights, x: torch.Tensor, heads: int) -> torch.Tensor:
    S, D = x.shape
    q, k, v = (linear(w, f"linear_{n}", x).chunk(heads, dim=1) for n in "qkv")
    p = linear(w, "linear_pos", sinusoid(S, D)).chunk(heads, dim=1)
    out = []
    for n in range(heads):
        content = (q[n] + w["pos_bias_u"][n]) @ k[n].T
        position = (q[n] + w["pos_bias_v"][n]) @ p[n].T
        score = (content + position) / math.sqrt(D // heads)
        out.append(functional.softmax(score, dim=1) @ v[n])
    return linear(w, "linear_out", torch.cat(out, dim=1))


def convolution(w: Weights, x: torch.Tensor) -> torch.Tensor:
    x = functional.glu(linear(w, "pointwise_conv1", x), dim=1)
    kernel, bias = w["depthwise_conv.weight"], w["depthwise_conv.bias"]
    x = functional.conv1d(x.T[None], kernel, bias, padding=7, groups=x.shape[1])[0].T
    return linear(w, "pointwise_conv2", functional.silu(norm(w, "norm", x)))


def conformer(w: Weights, x: torch.Tensor, heads: int, num_blocks: int) -> torch.Tensor:
    """Maps features [T, F] to [S, D]."""
    image = x[None, None]
    x = functional.conv2d(image, w["embed.conv.0.weight"], w["embed.conv.0.bias"], stride=2)
    x = functional.relu(x)[0].transpose(0, 1).flatten(1)  # [S, channels * bins]
    x = linear(w, "embed.out.0", x)
    x = x * math.sqrt(x.shape[1])
    for i in range(num_blocks):
        block = under(w, f"encoders.{i}.")
        x = x + self_attention(under(block, "self_attn."), norm(block, "norm_mha", x), heads)
        x = x + convolution(under(block, "conv_module."), norm(block, "norm_conv", x))
        y = functional.silu(linear(block, "feed_forward.w_1", norm(block, "norm_ff", x)))
        x = norm(block, "norm_final", x + linear(block, "feed_forward.w_2", y))
    return norm(w, "after_norm", x)


def perceiver(w: Weights, x: torch.Tensor, heads: int) -> torch.Tensor:
    """Maps encoded frames [S, D] to latents."""
    latents = w["latents"]
    if "proj_context.weight" in w:
        x = linear(w, "proj_context", x)
    for i in range(2):
        layer = under(w, f"layers.{i}.")
        context = torch.cat([latents, x])
        q = linear(layer, "0.to_q", latents).chunk(heads, dim=1)
        k, v = (y.chunk(heads, dim=1) for y in linear(layer, "0.to_kv", context).chunk(2, dim=1))
        out = []
        for n in range(heads):
            score = q[n] @ k[n].T / math.sqrt(q[n].shape[1])
            out.append(functional.softmax(score, dim=1) @ v[n])
        latents = latents + linear(layer, "0.to_out", torch.cat(out, dim=1))
        content, gate = linear(layer, "1.0", latents).chunk(2, dim=1)
        latents = latents + linear(layer, "1.2", content * functional.gelu(gate))
    return functional.normalize(latents, dim=1) * math.sqrt(latents.shape[1]) * w["norm.gamma"]


class Reference:
    """T2S around transformers' GPT-2."""

    def __init__(self, weights: Weights):
        self.w = weights
        config = GPT2Config(
            n_embd=CFG.width,
            n_layer=CFG.num_layers,
            n_head=CFG.num_heads,
            vocab_size=1,
            bos_token_id=0,
            eos_token_id=0,
            attn_implementation="eager",
        )
        self.gpt = GPT2Model(config).double().eval()
        # Its own embeddings of tokens and positions have no part in this.
        unused = {
            k: torch.zeros_like(v) for k, v in self.gpt.state_dict().items() if k.startswith("w")
        }
        self.gpt.load_state_dict(under(weights, "gpt.") | unused)

    def trunk(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """Maps [B, T, D] to [B, T, D]; `mask` [B, T]."""
        hidden = self.gpt(inputs_embeds=x, attention_mask=mask).last_hidden_state
        return norm(self.w, "final_norm", hidden)

    def prefix(
        self,
        latents: torch.Tensor,
        emotion: torch.Tensor,
        text: list[int],
        told: int | None = None,
    ) -> torch.Tensor:
        """Conditions, with a free duration or the number of codes `told`, and the text: [P, D]."""
        ids = [CFG.start_text, *text, CFG.stop_text]
        position = self.w["text_pos_embedding.emb.weight"][: len(ids)]
        embedded = self.w["text_embedding.weight"][ids] + position
        if told is None:
            durations = self.w["speed_emb.weight"][[1, 0]]
        else:
            rows = {"pos(T)": told, "pos(T//2)": told // 2}
            table = self.w["mel_pos_embedding.emb.weight"]
            durations = table[[rows[slot] for slot in SLOTS]]
        return torch.cat([latents + emotion, durations, embedded])

    def encoded(self, part: str, features: torch.Tensor) -> torch.Tensor:
        """What the conformer `part` makes of features [T, F]."""
        weights = under(self.w, f"{TORCH_PREFIXES[part]}conditioning_encoder.")
        cfg = getattr(CFG, part)
        return conformer(weights, features, cfg.num_heads, cfg.num_blocks)

    def latents(self, part: str, features: torch.Tensor) -> torch.Tensor:
        """Latents of the conditioner `part`, of features [T, F]."""
        weights = under(self.w, f"{TORCH_PREFIXES[part]}perceiver_encoder.")
        return perceiver(weights, self.encoded(part, features), getattr(CFG, part).num_heads)

    def emotion(self, features: torch.Tensor) -> torch.Tensor:
        """Emotion vector of features [T, F]."""
        first = self.latents("emotion", features)[0]
        return linear(self.w, "emo_layer", linear(self.w, "emovec_layer", first))

    def states(self, prefix: torch.Tensor, codes: list[int], rows: list[int]) -> torch.Tensor:
        """Hidden states of the start code and of `codes`, at these rows of the position table."""
        embedded = self.w["mel_embedding.weight"][[CFG.start_code, *codes]]
        embedded = embedded + self.w["mel_pos_embedding.emb.weight"][rows]
        return self.trunk(torch.cat([prefix, embedded])[None])[0, len(prefix) :]

    def greedy(self, prefix: torch.Tensor, rules: DecodingRules) -> tuple[list[int], torch.Tensor]:
        """Codes with the last stop code, and the logits [steps, V] that the penalty was put on."""
        penalize = processors.RepetitionPenaltyLogitsProcessor(10.0)
        first = {"plain": 1, "released": 2}[rules.positions]
        codes, logits = [], []
        while len(codes) < STEPS and CFG.stop_code not in codes:
            rows = [0, *range(first, first + len(codes))]
            logits.append(linear(self.w, "mel_head", self.states(prefix, codes, rows)[-1]))
            past = torch.tensor([[*rules.penalized, *codes]], dtype=torch.long)
            codes.append(int(penalize(past, logits[-1][None]).argmax()))
        return codes, torch.stack(logits)


def stack(items: list[torch.Tensor], padding: float = 0) -> torch.Tensor:
    """Makes a batch of items of different lengths, padded on the right."""
    return torch.nn.utils.rnn.pad_sequence(items, batch_first=True, padding_value=padding)


def make_networks(reference: Reference, rng: np.random.Generator) -> dict[str, torch.Tensor]:
    """Weights, inputs and outputs."""
    w = reference.w

    def normal(*shape):
        return torch.from_numpy(rng.normal(size=shape).astype(np.float32)).double()

    def integers(lowest, end, lengths):
        return [torch.from_numpy(rng.integers(lowest, end, length)) for length in lengths]

    features = [normal(length, CFG.speaker.feature_dim) for length in (11, 8)]
    text = integers(2, CFG.num_text_tokens, (5, 7))
    codes = integers(0, CFG.start_code, (6, 4))
    x, mask = normal(2, 10, CFG.width), torch.arange(10) >= torch.tensor([[0], [4]])
    out = {
        **{f"w/{name}": tensor.half() for name, tensor in w.items()},
        "features": stack(features),
        "text": stack(text),
        "codes": stack(codes),
        "features_lengths": torch.tensor([len(item) for item in features]),
        "text_lengths": torch.tensor([len(item) for item in text]),
        "codes_lengths": torch.tensor([len(item) for item in codes]),
        "trunk_x": x,
        "trunk_mask": mask,
        "trunk_hidden": reference.trunk(x, mask.long()),
    }

    for part in TORCH_PREFIXES:
        out[f"{part}_encoded"] = stack([reference.encoded(part, f) for f in features])
        out[f"{part}_latents"] = torch.stack([reference.latents(part, f) for f in features])
    out["emotion_vectors"] = torch.stack([reference.emotion(f) for f in features])

    conditions = zip(out["speaker_latents"], out["emotion_vectors"], text, strict=True)
    prefixes = [reference.prefix(s, e, t.tolist()) for s, e, t in conditions]
    hidden = [
        reference.states(prefix, c.tolist(), list(range(len(c) + 1)))
        for prefix, c in zip(prefixes, codes, strict=True)
    ]
    out["code_states"] = stack(hidden)
    out["code_logits"] = linear(w, "mel_head", stack(hidden))
    out["text_logits"] = linear(w, "text_head", stack(hidden))

    out["prefixes"] = stack(prefixes)
    for name, rules in RULES.items():
        items = [reference.greedy(prefix, rules) for prefix in prefixes]
        out[f"greedy_{name}"] = stack([torch.tensor(c) for c, _ in items], CFG.stop_code)
        out[f"greedy_{name}_logits"] = stack([logits[:LOGITS] for _, logits in items])
    return out


def make_processed(rng: np.random.Generator) -> dict[str, torch.Tensor]:
    """Logits [rows, V], and what processors and chains of them leave; float32."""
    V = CFG.num_codes
    scales = np.array([[1], [2], [4], [2], [2], [0]], np.float32)
    logits = rng.normal(size=(len(scales), V)).astype(np.float32) * scales
    logits[3:] = np.round(logits[3:])  # many ties
    logits, past = torch.from_numpy(logits), torch.from_numpy(rng.integers(0, V, (len(scales), 9)))

    def process(penalty=1.0, mass=1.0, temperature=1.0, top_k=0, top_p=1.0):
        """As `generate` of transformers does, with the typical filter moved to the second place."""
        chain = [processors.RepetitionPenaltyLogitsProcessor(penalty)]
        if mass < 1:
            chain.append(processors.TypicalLogitsWarper(mass))
        chain.append(processors.TemperatureLogitsWarper(temperature))
        if top_k:
            chain.append(processors.TopKLogitsWarper(top_k))
        if top_p < 1:
            chain.append(processors.TopPLogitsWarper(top_p))
        x = logits
        for processor in chain:
            x = processor(past, x)
        return x

    out = {"logits": logits, "past": past}
    out |= {f"penalty_{p}": process(penalty=p) for p in PENALTIES}
    out |= {f"mass_{m}": process(mass=m) for m in MASSES}
    out |= {f"top_k_{k}": process(top_k=k) for k in TOP_KS}
    out |= {f"top_p_{p}": process(top_p=p) for p in TOP_PS}
    return out | {f"chain_{i}": process(*settings) for i, settings in enumerate(CHAINS)}


def make_losses(reference: Reference, rng: np.random.Generator) -> dict[str, torch.Tensor]:
    """A batch, cross-entropy of its rows, and gradients of the mean of all rows.

    The rows are computed one by one: nothing here is padded but what is written.
    """
    w, n = reference.w, CFG.num_conditions
    codes = [torch.from_numpy(rng.integers(0, CFG.start_code, length)) for length in (7, 4, 5)]
    text = [torch.from_numpy(rng.integers(2, CFG.num_text_tokens, length)) for length in (3, 6, 5)]
    width = CFG.speaker.feature_dim
    features, prompts = (
        [torch.from_numpy(rng.normal(size=(T, width)).astype(np.float16)) for T in lengths]
        for lengths in ((9, 12, 7), (11, 8, 13))
    )
    latents = [reference.latents("speaker", x.double()) for x in prompts]
    emotions = [reference.emotion(x.double()) for x in features]
    code_losses, text_losses = [], []
    for row, free in enumerate(FREE):
        ids, spoken = text[row].tolist(), codes[row].tolist()
        told = None if free else len(spoken)
        prefix = reference.prefix(latents[row], emotions[row], ids, told)
        embedded = w["mel_embedding.weight"][[CFG.start_code, *spoken]]
        embedded = embedded + w["mel_pos_embedding.emb.weight"][: len(spoken) + 1]
        hidden = reference.trunk(torch.cat([prefix, embedded])[None])[0]
        code_logits = linear(w, "mel_head", hidden[len(prefix) :])
        text_logits = linear(w, "text_head", hidden[n : len(prefix) - 1])
        code_targets = torch.tensor([*spoken, CFG.stop_code])
        text_targets = torch.tensor([*ids, CFG.stop_text])
        code_losses.append(functional.cross_entropy(code_logits, code_targets))
        text_losses.append(functional.cross_entropy(text_logits, text_targets))
    out = {"code_loss": torch.stack(code_losses), "text_loss": torch.stack(text_losses)}
    mean = (out["code_loss"] + TEXT_WEIGHT * out["text_loss"]).mean()
    trained = w | {f"gpt.{name}": x for name, x in reference.gpt.named_parameters()}
    gradients = torch.autograd.grad(mean, [trained[name] for name in GRADIENTS])
    out |= {f"d/{name}": x for name, x in zip(GRADIENTS, gradients, strict=True)}
    out |= {"speaker_latents": torch.stack(latents), "emotion_vectors": torch.stack(emotions)}
    named = {"code": codes, "text": text, "feature": features, "prompt_feature": prompts}
    for name, items in named.items():
        out[name if name == "text" else f"{name}s"] = stack(items)
        out[f"{name}_lengths"] = torch.tensor([len(item) for item in items])
    return out


def save(name: str, tensors: dict[str, torch.Tensor]) -> None:
    stored = {torch.float64: torch.float32, torch.int64: torch.int32}
    arrays = {k: x.detach().to(stored.get(x.dtype, x.dtype)).numpy() for k, x in tensors.items()}
    np.savez_compressed(GOLDEN / f"{name}.npz", **arrays)


def make_t2s() -> None:
    """Writes the files."""
    rng = np.random.default_rng(1)
    reference = Reference(draw_weights(rng))
    with torch.no_grad():
        save("t2s", {**make_networks(reference, rng), **make_processed(rng)})
    for tensor in reference.w.values():
        tensor.requires_grad_()
    save("t2s_loss", make_losses(reference, np.random.default_rng(2)))


if __name__ == "__main__":
    make_t2s()

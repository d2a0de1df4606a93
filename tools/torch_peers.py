"""What `benchmark.py --peer torch` compares with: the stages in PyTorch, for inference.

T2S is transformers' GPT-2, w2v-BERT is transformers' own, the vocoder is NVIDIA's `bigvgan`. There
is no package for S2M: `Velocity` is a plain transcription of its formulas. Each function takes a
config of this project, weights under their torch names and inputs, and returns `run` (timed) and
`prepare` (not timed), whose result `run` takes.

Dims: B batch, T mel frames or positions, M mel bins, D width, N heads, H head dim, V codes.
"""

import contextlib
import io
import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
import transformers
from bigvgan.bigvgan import BigVGAN
from bigvgan.env import AttrDict
from torch.nn import functional

Weights = dict[str, torch.Tensor]
Peer = tuple[Callable[[Any], np.ndarray], Callable[[], Any]]

torch.set_num_threads(os.cpu_count() or 1)
torch.set_grad_enabled(False)


def _tensor(array: np.ndarray, dtype: str) -> torch.Tensor:
    return torch.tensor(array).to(getattr(torch, dtype))


def _load(model: torch.nn.Module, tensors: Mapping[str, np.ndarray], dtype: str) -> None:
    """Loads all `tensors`; the model may have buffers and unused weights beside them."""
    weights = {name: _tensor(array, "float32") for name, array in tensors.items()}
    unexpected = model.load_state_dict(weights, strict=False).unexpected_keys
    if unexpected:
        raise ValueError(f"the peer has no {unexpected}")
    model.eval().to(getattr(torch, dtype))


def t2s(
    cfg: Any, tensors: Mapping[str, np.ndarray], prefix: np.ndarray, tokens: int, *, dtype: str
) -> Peer:
    """Greedy decoding of `tokens` codes with repetition penalty 10 after `prefix` [B, P, D]."""
    config = transformers.GPT2Config(
        n_embd=cfg.width,
        n_layer=cfg.num_layers,
        n_head=cfg.num_heads,
        n_positions=512,
        vocab_size=1,
        bos_token_id=0,
        eos_token_id=0,
    )
    gpt = transformers.GPT2Model(config)
    gpt.wpe.weight.zero_()
    blocks = {k.removeprefix("gpt."): x for k, x in tensors.items() if k.startswith("gpt.")}
    _load(gpt, blocks, dtype)
    w = {k: _tensor(x, dtype) for k, x in tensors.items() if k.startswith(("mel_", "final_"))}
    x = _tensor(prefix, dtype)
    B = len(x)

    def step(x: torch.Tensor, cache: transformers.Cache) -> torch.Tensor:
        hidden = gpt(inputs_embeds=x, past_key_values=cache, use_cache=True).last_hidden_state
        norm = w["final_norm.weight"], w["final_norm.bias"]
        hidden = functional.layer_norm(hidden[:, -1], hidden.shape[-1:], *norm)
        return functional.linear(hidden, w["mel_head.weight"], w["mel_head.bias"]).float()

    def embed(codes: torch.Tensor, row: int) -> torch.Tensor:
        embedded = w["mel_embedding.weight"][codes] + w["mel_pos_embedding.emb.weight"][row]
        return embedded[:, None]

    def prepare() -> tuple[transformers.Cache, torch.Tensor]:
        cache = transformers.DynamicCache(config=config)
        start = embed(torch.full((B,), cfg.start_code), 0)
        return cache, step(torch.cat([x, start], dim=1), cache)

    def run(prepared: tuple[transformers.Cache, torch.Tensor]) -> np.ndarray:
        cache, logits = prepared
        seen, trace = torch.zeros_like(logits, dtype=torch.bool), []
        for i in range(tokens):
            trace.append(logits)
            penalized = torch.where(logits < 0, logits * 10, logits / 10)
            scores = torch.where(seen, penalized, logits)
            scores[:, cfg.stop_code] = -torch.inf
            codes = scores.argmax(dim=1)
            seen[torch.arange(B), codes] = True
            logits = step(embed(codes, i + 1), cache)
        return torch.stack(trace[:16], dim=1).numpy()

    return run, prepare


class Velocity:
    """The velocity field of S2M with folded weight norms, on items without padding."""

    def __init__(self, cfg: Any, weights: Weights):
        self.cfg, self.w = cfg, weights
        for name in [k.removesuffix("_v") for k in weights if k.endswith("weight_v")]:
            v, gain = weights[f"{name}_v"], weights[f"{name}_g"]
            weights[name] = gain * v / v.flatten(1).norm(dim=1).reshape(gain.shape)

    def linear(self, name: str, x: torch.Tensor) -> torch.Tensor:
        """[..., in] -> [..., out]; also convolutions over one frame."""
        return functional.linear(x, self.w[f"{name}.weight"].flatten(1), self.w.get(f"{name}.bias"))

    def conv(self, name: str, x: torch.Tensor) -> torch.Tensor:
        """[B, in, T] -> [B, out, T']."""
        return functional.conv1d(x, self.w[f"{name}.weight"], self.w[f"{name}.bias"])

    def embed_time(self, name: str, t: torch.Tensor) -> torch.Tensor:
        """[B] -> [B, D]."""
        angle = 1000 * t[:, None] * self.w[f"{name}.freqs"].float()
        waves = torch.cat([angle.cos(), angle.sin()], dim=1).to(
            self.w[f"{name}.mlp.0.weight"].dtype
        )
        return self.linear(f"{name}.mlp.2", functional.silu(self.linear(f"{name}.mlp.0", waves)))

    def adaptive_norm(self, name: str, x: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        """Normalizes x [B, T, D] under time [B, D]."""
        scale, shift = self.linear(f"{name}.project_layer", time)[:, None].chunk(2, dim=-1)
        weight = self.w[f"{name}.norm.weight"]
        return scale * functional.rms_norm(x, x.shape[-1:], weight, eps=1e-5) + shift

    def attention(self, name: str, x: torch.Tensor, turn: torch.Tensor) -> torch.Tensor:
        """[B, T, D] -> [B, T, D]."""
        B, T, D = x.shape
        qkv = self.linear(f"{name}.wqkv", x).reshape(B, T, 3, self.cfg.num_heads, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # [B, N, T, H]
        q, k = (
            torch.view_as_real(torch.view_as_complex(y.float().unflatten(-1, (-1, 2))) * turn)
            .flatten(-2)
            .to(x.dtype)
            for y in (q, k)
        )
        y = functional.scaled_dot_product_attention(q, k, v)
        return self.linear(f"{name}.wo", y.transpose(1, 2).reshape(B, T, D))

    def wavenet(self, y: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        """Maps y [B, D, T], under time [B, D], to [B, D, T]."""
        layers, D = self.cfg.wavenet.num_layers, y.shape[1]
        gates = self.conv("wavenet.cond_layer.conv.conv", time[..., None]).chunk(layers, dim=1)
        out = torch.zeros_like(y)
        for i in range(layers):
            padded = functional.pad(y, [self.cfg.wavenet.kernel_size // 2] * 2, mode="reflect")
            z = self.conv(f"wavenet.in_layers.{i}.conv.conv", padded) + gates[i]
            a = torch.tanh(z[:, :D]) * torch.sigmoid(z[:, D:])
            s = self.conv(f"wavenet.res_skip_layers.{i}.conv.conv", a)
            if i < layers - 1:
                y = y + s[:, :D]
            out = out + s[:, -D:]
        return out

    def __call__(
        self,
        x: torch.Tensor,
        prompt_x: torch.Tensor,
        t: torch.Tensor,
        style: torch.Tensor,
        mu: torch.Tensor,
        turn: torch.Tensor,
    ) -> torch.Tensor:
        """The velocity [B, T, M]; `turn` [T, H / 2] are the rotations of the positions."""
        T, depth = x.shape[1], self.cfg.num_layers
        time = self.embed_time("t_embedder", t)
        style = style[:, None].expand(-1, T, -1)
        inputs = torch.cat([x, prompt_x, self.linear("cond_projection", mu), style], dim=-1)
        h, skips = self.linear("cond_x_merge_linear", inputs), []
        for i in range(depth):
            layer = f"transformer.layers.{i}"
            if i > depth // 2:
                h = self.linear(f"{layer}.skip_in_linear", torch.cat([h, skips.pop()], dim=-1))
            n = self.adaptive_norm(f"{layer}.attention_norm", h, time)
            h = h + self.attention(f"{layer}.attention", n, turn)
            n = self.adaptive_norm(f"{layer}.ffn_norm", h, time)
            gate = functional.silu(self.linear(f"{layer}.feed_forward.w1", n))
            n = gate * self.linear(f"{layer}.feed_forward.w3", n)
            h = h + self.linear(f"{layer}.feed_forward.w2", n)
            if i < depth // 2:
                skips.append(h)
        h = self.adaptive_norm("transformer.norm", h, time)
        r = self.linear("skip_linear", torch.cat([h, x], dim=-1))
        y = self.linear("conv1", r).transpose(1, 2)
        y = self.wavenet(y, self.embed_time("t_embedder2", t)).transpose(1, 2)
        y = functional.layer_norm(y + self.linear("res_projection", r), y.shape[-1:], eps=1e-6)
        modulation = self.linear("final_layer.adaLN_modulation.1", functional.silu(time))
        shift, scale = modulation[:, None].chunk(2, dim=-1)
        return self.linear("conv2", self.linear("final_layer.linear", y * (1 + scale) + shift))


def s2m(
    cfg: Any,
    tensors: Mapping[str, np.ndarray],
    mu: np.ndarray,
    prompt: np.ndarray,
    style: np.ndarray,
    noise: np.ndarray,
    steps: int,
    *,
    dtype: str,
) -> Peer:
    """Euler steps with guidance 0.7 from noise [B, T, M] behind `prompt` [B, P, M]."""
    velocity = Velocity(cfg, {name: _tensor(array, dtype) for name, array in tensors.items()})
    B, T, _ = noise.shape
    P, head_dim = prompt.shape[1], cfg.width // cfg.num_heads
    angle = np.outer(np.arange(T), 10000.0 ** (-np.arange(0, head_dim, 2) / head_dim))
    turn = torch.from_numpy(np.exp(1j * angle).astype(np.complex64))
    prompt = np.pad(prompt, ((0, 0), (0, T - P), (0, 0)))
    inputs = [_tensor(array, dtype) for array in (prompt, style, mu)]
    prompt_x, both_style, both_mu = (torch.cat([x, torch.zeros_like(x)]) for x in inputs)

    def run(_: Any) -> np.ndarray:
        x = torch.from_numpy(noise).clone()
        x[:, :P] = 0
        for i in range(steps):
            both, t = torch.cat([x, x]).to(prompt_x.dtype), torch.full((2 * B,), i / steps)
            v = velocity(both, prompt_x, t, both_style, both_mu, turn).float()
            x = x + (1.7 * v[:B] - 0.7 * v[B:]) / steps
            x[:, :P] = 0
        return x.numpy()

    return run, lambda: None


def vocoder(cfg: Any, tensors: Mapping[str, np.ndarray], mel: np.ndarray, *, dtype: str) -> Peer:
    """BigVGAN on mel [B, T, M]."""
    options = {
        "num_mels": cfg.num_mels,
        "upsample_initial_channel": cfg.width,
        "upsample_rates": cfg.upsample_rates,
        "upsample_kernel_sizes": [2 * rate for rate in cfg.upsample_rates],
        "resblock": "1",
        "resblock_kernel_sizes": cfg.block_kernels,
        "resblock_dilation_sizes": cfg.block_dilations,
        "activation": "snakebeta",
        "snake_logscale": True,
        "use_tanh_at_final": cfg.final_tanh,
        "use_bias_at_final": cfg.final_bias,
    }
    model = BigVGAN(AttrDict(options))
    _load(model, tensors, dtype)
    with contextlib.redirect_stdout(io.StringIO()):  # it prints
        model.remove_weight_norm()
    x = _tensor(mel.swapaxes(1, 2), dtype)
    return lambda _: model(x)[:, 0].float().numpy(), lambda: None


def w2v(cfg: Any, tensors: Mapping[str, np.ndarray], features: np.ndarray, *, dtype: str) -> Peer:
    """w2v-BERT on features [B, T, F]."""
    config = transformers.Wav2Vec2BertConfig(
        num_hidden_layers=cfg.num_layers,
        hidden_size=cfg.width,
        num_attention_heads=cfg.num_heads,
        intermediate_size=cfg.ffn_width,
        feature_projection_input_dim=cfg.feature_width,
        conv_depthwise_kernel_size=cfg.conv_kernel,
        left_max_position_embeddings=cfg.max_left,
        right_max_position_embeddings=cfg.max_right,
    )
    model = transformers.Wav2Vec2BertModel(config)
    _load(model, tensors, dtype)
    x, mask = _tensor(features, dtype), torch.ones(features.shape[:2], dtype=torch.long)
    return lambda _: model(x, attention_mask=mask).last_hidden_state.float().numpy(), lambda: None

"""Writes `tests/golden/s2m.npz`: S2M by its formulas, in float64, one unpadded item at a time.

No permissive implementation of these networks exists to compare with, so this file derives them a
second time, slowly and plainly: torch's weight names and layouts, loops, no batches, no padding.

    python -m tests.make_goldens.s2m

Dims: T frames, D width, M mel bins, N heads, H head dim.
"""

import numpy as np

from tests.common import GOLDEN

MELS, STYLE, WIDTH, DEPTH, HEADS, FEED_FORWARD = 8, 8, 16, 5, 2, 24
WAVENET_LAYERS, KERNEL, SEMANTIC, CONDITION = 3, 5, 16, 12
LATENTS = (20, 8, 4, SEMANTIC)
SIGMA_MIN = 1e-6


def weight_shapes() -> dict[str, tuple[int, ...]]:
    """Torch name -> shape, also of tensors that have no effect."""
    D, M = WIDTH, MELS
    shapes = {}

    def linear(name, out, inputs, *kernel, bias=True):
        shapes[f"{name}.weight"] = (out, inputs, *kernel)
        if bias:
            shapes[f"{name}.bias"] = (out,)

    def weight_norm(name, out, inputs, *kernel):
        shapes[f"{name}.weight_v"] = (out, inputs, *kernel)
        shapes[f"{name}.weight_g"] = (out, 1, *(1 for _ in kernel))
        shapes[f"{name}.bias"] = (out,)

    def adaptive_norm(name):
        linear(f"{name}.project_layer", 2 * D, D)
        shapes[f"{name}.norm.weight"] = (D,)

    for i in range(3):
        linear(f"net/gpt_layer/{i}", LATENTS[i + 1], LATENTS[i])

    regulator = "net/length_regulator/"
    linear(f"{regulator}content_in_proj", CONDITION, SEMANTIC)
    for i in range(4):
        linear(f"{regulator}model.{3 * i}", CONDITION, CONDITION, 3)
        shapes[f"{regulator}model.{3 * i + 1}.weight"] = (CONDITION,)
        shapes[f"{regulator}model.{3 * i + 1}.bias"] = (CONDITION,)
    linear(f"{regulator}model.12", CONDITION, CONDITION, 1)
    shapes[f"{regulator}embedding.weight"] = (2, CONDITION)
    shapes[f"{regulator}mask_token"] = (1, CONDITION)

    estimator = "net/cfm/estimator."
    for embedder in ("t_embedder", "t_embedder2"):
        shapes[f"{estimator}{embedder}.freqs"] = (128,)
        linear(f"{estimator}{embedder}.mlp.0", D, 256)
        linear(f"{estimator}{embedder}.mlp.2", D, D)
    linear(f"{estimator}cond_projection", D, CONDITION)
    linear(f"{estimator}cond_x_merge_linear", D, 2 * M + D + STYLE)
    for i in range(DEPTH):
        layer = f"{estimator}transformer.layers.{i}."
        linear(f"{layer}skip_in_linear", D, 2 * D)
        adaptive_norm(f"{layer}attention_norm")
        linear(f"{layer}attention.wqkv", 3 * D, D, bias=False)
        linear(f"{layer}attention.wo", D, D, bias=False)
        adaptive_norm(f"{layer}ffn_norm")
        linear(f"{layer}feed_forward.w1", FEED_FORWARD, D, bias=False)
        linear(f"{layer}feed_forward.w3", FEED_FORWARD, D, bias=False)
        linear(f"{layer}feed_forward.w2", D, FEED_FORWARD, bias=False)
    adaptive_norm(f"{estimator}transformer.norm")
    linear(f"{estimator}skip_linear", D, D + M)
    linear(f"{estimator}conv1", D, D)
    weight_norm(f"{estimator}wavenet.cond_layer.conv.conv", WAVENET_LAYERS * 2 * D, D, 1)
    for i in range(WAVENET_LAYERS):
        out = D if i == WAVENET_LAYERS - 1 else 2 * D
        weight_norm(f"{estimator}wavenet.in_layers.{i}.conv.conv", 2 * D, D, KERNEL)
        weight_norm(f"{estimator}wavenet.res_skip_layers.{i}.conv.conv", out, D, 1)
    linear(f"{estimator}res_projection", D, D)
    linear(f"{estimator}final_layer.adaLN_modulation.1", 2 * D, D)
    weight_norm(f"{estimator}final_layer.linear", D, D)
    linear(f"{estimator}conv2", M, D, 1)
    weight_norm(f"{estimator}x_embedder", D, M)
    linear(f"{estimator}content_mask_embedder", 1, D, bias=False)
    linear(f"{estimator}cond_embedder", 3, D, bias=False)
    shapes[f"{estimator}input_pos"] = (4,)
    return shapes


def draw_weights(rng) -> dict[str, np.ndarray]:
    """Random weights, rounded to half precision so that the file is small and still exact."""
    weights = {}
    for name, shape in weight_shapes().items():
        if name.endswith("freqs"):
            weights[name] = 10000.0 ** (-np.arange(128) / 128)
        elif len(shape) == 1 and name.endswith("weight"):
            weights[name] = rng.normal(1, 0.2, shape)  # of a norm
        elif name.endswith("weight_g"):
            weights[name] = rng.uniform(0.5, 1.5, shape)
        elif name.endswith("bias"):
            weights[name] = rng.normal(0, 0.2, shape)
        else:
            weights[name] = rng.normal(0, 1, shape) / np.sqrt(np.prod(shape[1:]))
    return {k: v.astype(np.float32 if "freqs" in k else np.float16) for k, v in weights.items()}


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def silu(x):
    return x * sigmoid(x)


class Reference:
    """The networks of S2M on single items; arrays are [T, channels]."""

    def __init__(self, weights):
        self.w = {name: np.asarray(value, np.float64) for name, value in weights.items()}

    def linear(self, name, x):
        weight = self.w[f"{name}.weight"]
        bias = self.w.get(f"{name}.bias", 0)
        return x @ weight.reshape(weight.shape[:2]).T + bias  # also convolutions over one frame

    def weight_norm(self, name):
        v, gain = self.w[f"{name}.weight_v"], self.w[f"{name}.weight_g"]
        norm = np.sqrt((v.reshape(len(v), -1) ** 2).sum(1)).reshape(gain.shape)
        return gain * v / norm, self.w[f"{name}.bias"]

    @staticmethod
    def convolve(x, weight, bias):
        """Valid convolution with weight [out, in, K]."""
        K = weight.shape[2]
        frames = [
            np.einsum("ki,oik->o", x[t : t + K], weight) + bias for t in range(len(x) - K + 1)
        ]
        return np.array(frames)

    def project_latents(self, x):
        for i in range(3):
            x = self.linear(f"net/gpt_layer/{i}", x)
        return x

    def regulate(self, s, num_frames):
        name = "net/length_regulator/"
        scale = np.float32(len(s)) / np.float32(num_frames)
        index = np.floor(np.arange(num_frames, dtype=np.float32) * scale).astype(int)
        x = self.linear(f"{name}content_in_proj", s)[np.minimum(index, len(s) - 1)]
        for i in range(4):
            weight = self.w[f"{name}model.{3 * i}.weight"]
            bias = self.w[f"{name}model.{3 * i}.bias"]
            x = self.convolve(np.pad(x, ((1, 1), (0, 0))), weight, bias)
            x = (x - x.mean()) / np.sqrt(x.var() + 1e-5)
            x = x * self.w[f"{name}model.{3 * i + 1}.weight"]
            x = x + self.w[f"{name}model.{3 * i + 1}.bias"]
            x = x * np.tanh(np.log1p(np.exp(x)))
        return self.linear(f"{name}model.12", x)

    def embed_time(self, name, t):
        angle = 1000 * t * self.w[f"{name}.freqs"]
        waves = np.concatenate([np.cos(angle), np.sin(angle)])
        return self.linear(f"{name}.mlp.2", silu(self.linear(f"{name}.mlp.0", waves)))

    def adaptive_norm(self, name, x, time):
        scale, shift = np.split(self.linear(f"{name}.project_layer", time), 2)
        rms = np.sqrt((x**2).mean(1, keepdims=True) + 1e-5)
        return scale * (x / rms * self.w[f"{name}.norm.weight"]) + shift

    @staticmethod
    def rotate(x):
        """Rotates the pairs (2 j, 2 j + 1) of x [T, H] as complex numbers."""
        T, H = x.shape
        turn = np.exp(1j * np.outer(np.arange(T), 10000.0 ** (-2 * np.arange(H // 2) / H)))
        turned = (x[:, ::2] + 1j * x[:, 1::2]) * turn
        return np.stack([turned.real, turned.imag], -1).reshape(T, H)

    def attend(self, name, x):
        H = WIDTH // HEADS
        q, k, v = np.split(self.linear(f"{name}.wqkv", x), 3, axis=1)
        heads = []
        for n in range(HEADS):
            head = slice(n * H, (n + 1) * H)
            scores = self.rotate(q[:, head]) @ self.rotate(k[:, head]).T / np.sqrt(H)
            scores = np.exp(scores - scores.max(1, keepdims=True))
            heads.append(scores / scores.sum(1, keepdims=True) @ v[:, head])
        return self.linear(f"{name}.wo", np.concatenate(heads, 1))

    def wavenet(self, name, y, time):
        weight, bias = self.weight_norm(f"{name}.cond_layer.conv.conv")
        gates = (weight[:, :, 0] @ time + bias).reshape(WAVENET_LAYERS, -1)
        out = 0
        for i in range(WAVENET_LAYERS):
            padded = np.pad(y, ((KERNEL // 2, KERNEL // 2), (0, 0)), mode="reflect")
            z = self.convolve(padded, *self.weight_norm(f"{name}.in_layers.{i}.conv.conv"))
            content, gate = np.split(z + gates[i], 2, axis=1)
            a = np.tanh(content) * sigmoid(gate)
            s = self.convolve(a, *self.weight_norm(f"{name}.res_skip_layers.{i}.conv.conv"))
            if i < WAVENET_LAYERS - 1:
                y, s = y + s[:, :WIDTH], s[:, WIDTH:]
            out = out + s
        return out

    def velocity(self, x, prompt_x, t, style, mu, drop=False):
        name = "net/cfm/estimator."
        time = self.embed_time(f"{name}t_embedder", t)
        condition = self.linear(f"{name}cond_projection", mu)
        style = np.tile(style, (len(x), 1))
        inputs = np.concatenate([prompt_x, condition, style], 1)
        inputs = np.concatenate([x, inputs * (not drop)], 1)
        h = self.linear(f"{name}cond_x_merge_linear", inputs)
        stack = []
        for i in range(DEPTH):
            layer = f"{name}transformer.layers.{i}."
            if i > DEPTH // 2:
                h = self.linear(f"{layer}skip_in_linear", np.concatenate([h, stack.pop()], 1))
            n = self.adaptive_norm(f"{layer}attention_norm", h, time)
            h = h + self.attend(f"{layer}attention", n)
            n = self.adaptive_norm(f"{layer}ffn_norm", h, time)
            gate = silu(self.linear(f"{layer}feed_forward.w1", n))
            n = gate * self.linear(f"{layer}feed_forward.w3", n)
            h = h + self.linear(f"{layer}feed_forward.w2", n)
            if i < DEPTH // 2:
                stack.append(h)
        h = self.adaptive_norm(f"{name}transformer.norm", h, time)
        r = self.linear(f"{name}skip_linear", np.concatenate([h, x], 1))
        y = self.linear(f"{name}conv1", r)
        y = self.wavenet(f"{name}wavenet", y, self.embed_time(f"{name}t_embedder2", t))
        y = y + self.linear(f"{name}res_projection", r)
        y = (y - y.mean(1, keepdims=True)) / np.sqrt(y.var(1, keepdims=True) + 1e-6)
        modulation = self.linear(f"{name}final_layer.adaLN_modulation.1", silu(time))
        shift, scale = np.split(modulation, 2)
        weight, bias = self.weight_norm(f"{name}final_layer.linear")
        return self.linear(f"{name}conv2", (y * (1 + scale) + shift) @ weight.T + bias)

    def sample(self, mu, prompt, style, noise, steps, guidance):
        prompt_x = np.concatenate([prompt, np.zeros((len(mu) - len(prompt), MELS))])
        x = noise.copy()
        x[: len(prompt)] = 0
        for i in range(steps):
            v = self.velocity(x, prompt_x, i / steps, style, mu)
            if guidance > 0:
                null = self.velocity(x, 0 * prompt_x, i / steps, 0 * style, 0 * mu)
                v = (1 + guidance) * v - guidance * null
            x = x + v / steps
            x[: len(prompt)] = 0
        return x

    def loss(self, mel, prompt_length, style, mu, t, noise, drop):
        x = (1 - (1 - SIGMA_MIN) * t) * noise + t * mel
        x[:prompt_length] = 0
        prompt_x = mel.copy()
        prompt_x[prompt_length:] = 0
        v = self.velocity(x, prompt_x, t, style, mu, drop)
        return np.abs(v - (mel - (1 - SIGMA_MIN) * noise))[prompt_length:].mean()


def make_s2m() -> None:
    """Writes the file."""
    rng = np.random.default_rng(0)
    weights = draw_weights(rng)
    reference = Reference(weights)

    def normal(*shape):
        return rng.normal(size=shape).astype(np.float32)

    lengths, prompt_lengths = np.array([14, 9]), np.array([5, 3])
    code_lengths, frame_lengths = np.array([7, 5]), np.array([12, 4])
    drop = np.array([False, True])
    T, steps = lengths.max(), 4
    latents, s = normal(2, 7, LATENTS[0]), normal(2, 7, SEMANTIC)
    x, mel, prompt_mel, noise = (normal(2, n, MELS) for n in (T, T, prompt_lengths.max(), T))
    mu, style = normal(2, T, CONDITION), normal(2, STYLE)
    t = np.array([0.25, 0.8125], np.float32)
    prompt_x = np.zeros_like(mel)
    for b, n in enumerate(prompt_lengths):
        prompt_x[b, :n] = prompt_mel[b, :n]

    def each(compute):
        """Stacks the outputs of the two items, with zeros as padding."""
        items = [compute(b) for b in range(2)]
        padded = np.zeros((2, max(map(len, items)), items[0].shape[1]), np.float32)
        for out, item in zip(padded, items, strict=True):
            out[: len(item)] = item
        return padded

    def velocity(b, drop=False):
        n = lengths[b]
        return reference.velocity(x[b, :n], prompt_x[b, :n], t[b], style[b], mu[b, :n], drop)

    def sample(b, guidance):
        n, p = lengths[b], prompt_lengths[b]
        noise_b = noise[b, :n].astype(np.float64)
        return reference.sample(mu[b, :n], prompt_mel[b, :p], style[b], noise_b, steps, guidance)

    def loss(scale):
        """The loss with all trained weights multiplied by `scale`."""
        scaled = {k: v * (1 if "freqs" in k else np.float64(scale)) for k, v in weights.items()}
        model, losses = Reference(scaled), []
        for b, n in enumerate(lengths):
            item = (mel[b, :n].astype(np.float64), prompt_lengths[b], style[b], mu[b, :n])
            losses.append(model.loss(*item, t[b], noise[b, :n], drop[b]))
        return np.mean(losses)

    arrays = {
        **{f"w/{name}": value for name, value in weights.items()},
        "lengths": lengths,
        "prompt_lengths": prompt_lengths,
        "code_lengths": code_lengths,
        "frame_lengths": frame_lengths,
        "drop_condition": drop,
        "steps": steps,
        "latents": latents,
        "s": s,
        "x": x,
        "prompt_x": prompt_x,
        "prompt_mel": prompt_mel,
        "mel": mel,
        "mu": mu,
        "style": style,
        "t": t,
        "noise": noise,
        "out_projected": each(lambda b: reference.project_latents(latents[b])),
        "out_regulated": each(
            lambda b: reference.regulate(s[b, : code_lengths[b]], frame_lengths[b])
        ),
        "out_velocity": each(velocity),
        "out_velocity_dropped": each(lambda b: velocity(b, drop=True)),
        "out_sample_guided": each(lambda b: sample(b, 0.7)),
        "out_sample_unguided": each(lambda b: sample(b, 0.0)),
        "out_loss": loss(1),
        "out_loss_slope": (loss(1 + 1e-6) - loss(1 - 1e-6)) / 2e-6,  # d loss / d scale
    }
    np.savez_compressed(GOLDEN / "s2m.npz", **arrays)


if __name__ == "__main__":
    make_s2m()

"""Writes a PyTorch release with random weights, as a user would have it on disk, at any size.

By hand, the released size (6.5 GB in float32, without Qwen3):  python -m tests.release_factory DIR
"""

import dataclasses
import pathlib
import sys
import zlib

import numpy as np
import sentencepiece

from indextts2_jax import convert
from indextts2_jax.audio.mel import MelConfig
from indextts2_jax.checkpoint.demo import train_tokenizer
from indextts2_jax.checkpoint.parts import PARTS
from indextts2_jax.emotion.qwen3 import Qwen3Config
from indextts2_jax.nn import pytree
from indextts2_jax.prompt.campplus import CAMPPlusConfig
from indextts2_jax.prompt.semantic_codec import SemanticCodecConfig
from indextts2_jax.prompt.w2v_bert import W2VBertConfig
from indextts2_jax.release.texts import FILES, release_texts
from indextts2_jax.s2m.model import S2MConfig
from indextts2_jax.t2s.conditioner import ConditionerConfig
from indextts2_jax.t2s.gpt import T2SConfig
from indextts2_jax.vocoder import bigvgan
from indextts2_jax.vocoder.bigvgan import BigVGANConfig

EMOTION_GROUPS = (1, 2, 1, 1, 1, 1, 2, 1)


def small_configs(num_text_tokens=330):
    """Architectures of a tiny release; widths that differ, so that a mix-up shows."""
    features, width, codes = 24, 32, 48
    s2m = S2MConfig.tiny()
    return {
        "t2s": dataclasses.replace(
            T2SConfig.tiny(num_text_tokens),
            num_codes=codes + 2,
            start_code=codes,
            stop_code=codes + 1,
            text_positions=62,
            code_positions=163,
            speaker=ConditionerConfig(features, 16, 24, 2, 1, 4, width),
            emotion=ConditionerConfig(features, 8, 12, 1, 1, 1, 20),
        ),
        "s2m": dataclasses.replace(
            s2m,
            latent_widths=(width, 16, 8, features),
            length_regulator=dataclasses.replace(s2m.length_regulator, in_width=features, width=16),
            velocity=dataclasses.replace(
                s2m.velocity, num_mels=80, style_width=192, condition_width=16
            ),
        ),
        "w2v_bert": dataclasses.replace(W2VBertConfig.tiny(), num_layers=18, width=features),
        "semantic_codec": dataclasses.replace(
            SemanticCodecConfig.tiny(), feature_width=features, codebook_size=codes
        ),
        "campplus": dataclasses.replace(
            CAMPPlusConfig.indextts2(),
            growth=4,
            init_channels=16,
            bn_size=2,
            block_layers=(2, 2, 2),
        ),
        "vocoder": BigVGANConfig(
            num_mels=80,
            width=16,
            upsample_rates=(16, 16),
            block_kernels=(3, 5),
            block_dilations=((1, 3), (1, 2)),
        ),
        "qwen3": Qwen3Config.tiny(),
    }


def released_configs():
    """The released architectures."""
    return {
        name: PARTS[name].config.indextts2()
        for name in ("t2s", "s2m", "w2v_bert", "semantic_codec", "campplus", "vocoder")
    }


def random_tensors(name, config, seed=0):
    """Torch name -> random float32 array, scaled so that signals neither die nor explode."""
    shapes = pytree.shapes(PARTS[name].abstract(config))
    empty = {k: np.broadcast_to(np.float32(0), shape) for k, shape in shapes.items()}
    for key, x in convert.to_torch(empty, PARTS[name].rules).items():
        rng = np.random.default_rng([seed, zlib.crc32(f"{name}/{key}".encode())])
        noise = rng.standard_normal(x.shape, np.float32)
        leaf = key.rsplit(".", 1)[-1]
        if leaf == "filter":  # tables are no random numbers
            yield key, bigvgan.kaiser_sinc().reshape(x.shape)
        elif leaf == "freqs":
            yield key, np.exp(-np.log(1e4) * np.arange(len(x)) / len(x)).astype(np.float32)
        elif leaf in ("running_var", "weight_g"):
            yield key, 1 + 0.1 * np.abs(noise)
        elif len(x.shape) <= 1 and leaf in ("weight", "gamma"):
            yield key, 1 + 0.1 * noise
        elif len(x.shape) <= 1:
            yield key, 0.1 * noise
        else:
            yield key, noise / np.float32(np.sqrt(np.prod(x.shape[1:])))


def write_release(path, configs=None, seed=0):
    """Writes the release directory `path`."""
    import torch
    from safetensors.torch import save_file

    path = pathlib.Path(path)
    bpe = train_tokenizer()
    configs = configs or small_configs(
        sentencepiece.SentencePieceProcessor(model_proto=bpe).vocab_size()
    )
    for name, config in configs.items():
        file = path / FILES[name]
        file.parent.mkdir(parents=True, exist_ok=True)
        tensors = {k: torch.from_numpy(v) for k, v in random_tensors(name, config, seed)}
        if file.suffix == ".safetensors":
            save_file(tensors, file)
        elif name == "s2m":
            net = {}
            for key, tensor in tensors.items():
                _, part, rest = key.split("/")
                net.setdefault(part, {})[rest] = tensor
            torch.save({"net": net, "epoch": 3}, file)
        else:
            torch.save({"generator": tensors} if name == "vocoder" else tensors, file)
        del tensors
    rows, rng = sum(EMOTION_GROUPS), np.random.default_rng(seed)
    width, features = configs["t2s"].width, configs["w2v_bert"].width

    def table(*shape):
        return torch.from_numpy(rng.standard_normal(shape, np.float32))

    torch.save(table(rows, 192), path / FILES["emotion_styles"])
    torch.save(table(rows, width), path / FILES["emotion_vectors"])
    statistics = {"mean": 0.1 * table(features), "var": 1 + table(features).abs()}
    torch.save(statistics, path / FILES["feature_statistics"])
    (path / FILES["tokenizer"]).write_bytes(bpe)
    for place, text in release_texts(configs, EMOTION_GROUPS, MelConfig()).items():
        (path / place).write_text(text)


if __name__ == "__main__":
    write_release(sys.argv[1], released_configs())

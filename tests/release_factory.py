"""Writes a PyTorch release with random weights, as a user would have it on disk, at any size.

By hand, the released size (6.5 GB in float32, without Qwen3):  python -m tests.release_factory DIR
"""

import dataclasses
import json
import pathlib
import sys
import zlib

import numpy as np
import sentencepiece
import yaml

from indextts2_jax import convert
from indextts2_jax.demo import SENTENCES
from indextts2_jax.emotion.qwen3 import Qwen3Config
from indextts2_jax.parts import PARTS
from indextts2_jax.prompt.campplus import CAMPPlusConfig
from indextts2_jax.prompt.semantic_codec import SemanticCodecConfig
from indextts2_jax.prompt.w2v_bert import W2VBertConfig
from indextts2_jax.s2m.model import S2MConfig
from indextts2_jax.t2s.conditioner import ConditionerConfig
from indextts2_jax.t2s.gpt import T2SConfig
from indextts2_jax.vocoder import bigvgan
from indextts2_jax.vocoder.bigvgan import BigVGANConfig

EMOTION_GROUPS = (1, 2, 1, 1, 1, 1, 2, 1)
FILES = {
    "t2s": "gpt.pth",
    "s2m": "s2mel.pth",
    "w2v_bert": "hf_cache/w2v-bert-2.0/model.safetensors",
    "semantic_codec": "hf_cache/semantic_codec_model.safetensors",
    "campplus": "hf_cache/campplus_cn_common.bin",
    "vocoder": "hf_cache/bigvgan/bigvgan_generator.pt",
    "qwen3": "qwen/model.safetensors",
}


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
    shapes = convert.shapes(PARTS[name].abstract(config))
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
    bpe = _tokenizer()
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

    torch.save(table(rows, 192), path / "feat1.pt")
    torch.save(table(rows, width), path / "feat2.pt")
    statistics = {"mean": 0.1 * table(features), "var": 1 + table(features).abs()}
    torch.save(statistics, path / "wav2vec2bert_stats.pt")
    (path / "bpe.model").write_bytes(bpe)
    (path / "config.yaml").write_text(yaml.safe_dump(_settings(configs)))
    _write_auxiliary_configs(path, configs)


def _tokenizer():
    import io

    file = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES),
        model_writer=file,
        model_type="bpe",
        vocab_size=330,
        byte_fallback=True,
        bos_id=0,
        eos_id=1,
        unk_id=2,
        minloglevel=2,
    )
    return file.getvalue()


def _conditioner(cfg):
    return {
        "output_size": cfg.width,
        "linear_units": cfg.ffn_width,
        "attention_heads": cfg.num_heads,
        "num_blocks": cfg.num_blocks,
        "input_layer": "conv2d2",
        "perceiver_mult": cfg.perceiver_mult,
    }


def _settings(configs):
    t2s, s2m, codec = configs["t2s"], configs["s2m"], configs["semantic_codec"]
    velocity = s2m.velocity
    return {
        "version": 2.0,
        "dataset": {"bpe_model": "bpe.model"},
        "gpt": {
            "condition_type": "conformer_perceiver",
            "layers": t2s.num_layers,
            "heads": t2s.num_heads,
            "start_mel_token": t2s.start_code,
            "stop_mel_token": t2s.stop_code,
            "condition_module": _conditioner(t2s.speaker),
            "emo_condition_module": _conditioner(t2s.emotion),
        },
        "semantic_codec": {
            "hidden_size": codec.feature_width,
            "codebook_size": codec.codebook_size,
            "codebook_dim": codec.codebook_width,
            "vocos_dim": codec.backbone_width,
            "vocos_intermediate_dim": codec.ffn_width,
            "vocos_num_layers": codec.num_blocks,
        },
        "s2mel": {
            "preprocess_params": {
                "sr": 22050,
                "spect_params": {
                    "n_fft": 1024, "win_length": 1024, "hop_length": 256, "n_mels": 80,
                    "fmin": 0, "fmax": "None",
                },
            },
            "style_encoder": {"dim": velocity.style_width},
            "length_regulator": {
                "channels": s2m.length_regulator.width,
                "is_discrete": False,
                "f0_condition": False,
            },
            "DiT": {
                "hidden_dim": velocity.width,
                "num_heads": velocity.num_heads,
                "depth": velocity.num_layers,
                "in_channels": velocity.num_mels,
                "content_dim": velocity.condition_width,
                "style_condition": True,
                "final_layer_type": "wavenet",
                "is_causal": False,
                "long_skip_connection": True,
                "time_as_token": False,
                "style_as_token": False,
                "uvit_skip_connection": True,
            },
            "wavenet": {
                "hidden_dim": velocity.wavenet.width,
                "num_layers": velocity.wavenet.num_layers,
                "kernel_size": velocity.wavenet.kernel_size,
                "dilation_rate": velocity.wavenet.dilation_rate,
                "p_dropout": velocity.wavenet.dropout,
            },
        },
        "gpt_checkpoint": "gpt.pth",
        "s2mel_checkpoint": "s2mel.pth",
        "w2v_stat": "wav2vec2bert_stats.pt",
        "spk_matrix": "feat1.pt",
        "emo_matrix": "feat2.pt",
        "emo_num": list(EMOTION_GROUPS),
        "qwen_emo_path": "qwen/",
    }  # fmt: skip


def _write_auxiliary_configs(path, configs):
    w2v, vocoder = configs["w2v_bert"], configs["vocoder"]
    _write_json(
        path / "hf_cache/w2v-bert-2.0/config.json",
        {
            "model_type": "wav2vec2-bert",
            "hidden_size": w2v.width,
            "num_hidden_layers": w2v.num_layers,
            "num_attention_heads": w2v.num_heads,
            "intermediate_size": w2v.ffn_width,
            "feature_projection_input_dim": w2v.feature_width,
            "conv_depthwise_kernel_size": w2v.conv_kernel,
            "left_max_position_embeddings": w2v.max_left,
            "right_max_position_embeddings": w2v.max_right,
            "position_embeddings_type": "relative_key",
            "hidden_act": "swish",
            "layer_norm_eps": 1e-5,
            "add_adapter": False,
        },
    )
    _write_json(
        path / "hf_cache/bigvgan/config.json",
        {
            "resblock": "1",
            "activation": "snakebeta",
            "snake_logscale": True,
            "num_mels": vocoder.num_mels,
            "upsample_initial_channel": vocoder.width,
            "upsample_rates": vocoder.upsample_rates,
            "upsample_kernel_sizes": [2 * r for r in vocoder.upsample_rates],
            "resblock_kernel_sizes": vocoder.block_kernels,
            "resblock_dilation_sizes": vocoder.block_dilations,
            "hop_size": vocoder.hop_length,
            "use_tanh_at_final": vocoder.final_tanh,
            "use_bias_at_final": vocoder.final_bias,
        },
    )
    if "qwen3" in configs:
        qwen = configs["qwen3"]
        _write_json(
            path / "qwen/config.json",
            {
                "model_type": "qwen3",
                "hidden_size": qwen.width,
                "num_hidden_layers": qwen.num_layers,
                "num_attention_heads": qwen.num_heads,
                "num_key_value_heads": qwen.num_kv_heads,
                "head_dim": qwen.head_dim,
                "intermediate_size": qwen.ffn_width,
                "vocab_size": qwen.vocab_size,
                "rms_norm_eps": qwen.norm_epsilon,
                "rope_theta": qwen.rope_base,
                "tie_word_embeddings": qwen.tied_head,
                "attention_bias": False,
                "use_sliding_window": False,
                "rope_scaling": None,
                "hidden_act": "silu",
            },
        )


def _write_json(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


if __name__ == "__main__":
    write_release(sys.argv[1], released_configs())

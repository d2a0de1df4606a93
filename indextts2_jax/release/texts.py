"""Our settings -> the settings of a PyTorch release: config.yaml, and JSON of its models."""

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from indextts2_jax.audio.mel import MelConfig
from indextts2_jax.emotion.qwen3 import CLASSIFIER, Qwen3Config
from indextts2_jax.prompt.semantic_codec import SemanticCodecConfig
from indextts2_jax.prompt.w2v_bert import W2VBertConfig
from indextts2_jax.s2m.model import S2MConfig
from indextts2_jax.t2s.conditioner import ConditionerConfig
from indextts2_jax.t2s.gpt import T2SConfig
from indextts2_jax.vocoder.bigvgan import BigVGANConfig

# Where a release has its files; the auxiliary ones where the original finds them by itself.
FILES = {
    "t2s": "gpt.pth",
    "s2m": "s2mel.pth",
    "w2v_bert": "hf_cache/w2v-bert-2.0/model.safetensors",
    "semantic_codec": "hf_cache/semantic_codec_model.safetensors",
    "campplus": "hf_cache/campplus_cn_common.bin",
    "vocoder": "hf_cache/bigvgan/bigvgan_generator.pt",
    "qwen3": "qwen0.6bemo4-merge/model.safetensors",
    "feature_statistics": "wav2vec2bert_stats.pt",
    "emotion_styles": "feat1.pt",
    "emotion_vectors": "feat2.pt",
    "tokenizer": "bpe.model",
}


def release_texts(
    configs: Mapping[str, Any],
    emotion_groups: Sequence[int],
    mel: MelConfig,
    places: Mapping[str, str] = FILES,
) -> dict[str, str]:
    """Writes architectures in the form of a release, as far as it has one for them.

    Args:
      configs: part name -> its Config.
      emotion_groups: number of prototypes of each emotion.
      mel: the spectrogram.
      places: what it is -> path in the release.

    Returns:
      Path in a release -> text of config.yaml and of the auxiliary models' JSON files.
    """
    config = {
        "dataset": {"bpe_model": places["tokenizer"]},
        "gpt": _gpt_block(configs["t2s"]),
        "semantic_codec": _semantic_codec_block(configs["semantic_codec"]),
        "s2mel": {"preprocess_params": _mel_block(mel), **_s2mel_block(configs["s2m"])},
        "gpt_checkpoint": places["t2s"],
        "w2v_stat": places["feature_statistics"],
        "s2mel_checkpoint": places["s2m"],
        "emo_matrix": places["emotion_vectors"],
        "spk_matrix": places["emotion_styles"],
        "emo_num": list(emotion_groups),
        "qwen_emo_path": f"{pathlib.PurePosixPath(places['qwen3']).parent}/",
        "vocoder": {"type": "bigvgan", "name": "nvidia/bigvgan_v2_22khz_80band_256x"},
        "version": 2.0,
    }
    json_files = {
        ("w2v_bert", "config.json"): _w2v_bert_json(configs["w2v_bert"]),
        ("w2v_bert", "preprocessor_config.json"): _feature_extractor_json(configs["w2v_bert"]),
        ("vocoder", "config.json"): _bigvgan_json(configs["vocoder"], mel),
    }
    if "qwen3" in configs:
        json_files["qwen3", "config.json"] = qwen3_json(configs["qwen3"])
    texts = {
        str(pathlib.PurePosixPath(places[name]).with_name(file)): json.dumps(value, indent=2) + "\n"
        for (name, file), value in json_files.items()
    }
    return {"config.yaml": yaml.safe_dump(config, sort_keys=False), **texts}


def _gpt_block(cfg: T2SConfig) -> dict[str, Any]:
    return {
        "model_dim": cfg.width,
        "max_mel_tokens": cfg.code_positions - 3,
        "max_text_tokens": cfg.text_positions - 2,
        "heads": cfg.num_heads,
        "use_mel_codes_as_input": True,
        "mel_length_compression": 1024,
        "layers": cfg.num_layers,
        "number_text_tokens": cfg.num_text_tokens - 1,
        "number_mel_codes": cfg.num_codes,
        "start_mel_token": cfg.start_code,
        "stop_mel_token": cfg.stop_code,
        "start_text_token": cfg.start_text,
        "stop_text_token": cfg.stop_text,
        "train_solo_embeddings": False,
        "condition_type": "conformer_perceiver",
        "condition_module": _conditioner_block(cfg.speaker),
        "emo_condition_module": _conditioner_block(cfg.emotion),
    }


def _conditioner_block(cfg: ConditionerConfig) -> dict[str, Any]:
    return {
        "output_size": cfg.width,
        "linear_units": cfg.ffn_width,
        "attention_heads": cfg.num_heads,
        "num_blocks": cfg.num_blocks,
        "input_layer": "conv2d2",
        "perceiver_mult": cfg.perceiver_mult,
    }


def _semantic_codec_block(cfg: SemanticCodecConfig) -> dict[str, Any]:
    return {
        "codebook_size": cfg.codebook_size,
        "hidden_size": cfg.feature_width,
        "codebook_dim": cfg.codebook_width,
        "vocos_dim": cfg.backbone_width,
        "vocos_intermediate_dim": cfg.ffn_width,
        "vocos_num_layers": cfg.num_blocks,
        "downsample_scale": cfg.downsample_scale,
    }


def _mel_block(cfg: MelConfig) -> dict[str, Any]:
    return {
        "sr": cfg.sample_rate,
        "spect_params": {
            "n_fft": cfg.n_fft,
            "win_length": cfg.n_fft,
            "hop_length": cfg.hop_length,
            "n_mels": cfg.num_mels,
            "fmin": cfg.fmin,
            "fmax": "None" if cfg.fmax is None else cfg.fmax,
        },
    }


def _s2mel_block(cfg: S2MConfig) -> dict[str, Any]:
    velocity, wavenet = cfg.velocity, cfg.velocity.wavenet
    return {
        "dit_type": "DiT",
        "reg_loss_type": "l1",
        "style_encoder": {"dim": velocity.style_width},
        "length_regulator": {
            "channels": cfg.length_regulator.width,
            "is_discrete": False,
            "in_channels": cfg.length_regulator.in_width,
            "content_codebook_size": 2048,
            "sampling_ratios": [1, 1, 1, 1],
            "vector_quantize": False,
            "n_codebooks": 1,
            "quantizer_dropout": 0.0,
            "f0_condition": False,
            "n_f0_bins": 512,
        },
        "DiT": {
            "hidden_dim": velocity.width,
            "num_heads": velocity.num_heads,
            "depth": velocity.num_layers,
            "class_dropout_prob": 0.1,
            "block_size": 8192,
            "in_channels": velocity.num_mels,
            "style_condition": True,
            "final_layer_type": "wavenet",
            "target": "mel",
            "content_dim": velocity.condition_width,
            "content_codebook_size": 1024,
            "content_type": "discrete",
            "f0_condition": False,
            "n_f0_bins": 512,
            "content_codebooks": 1,
            "is_causal": False,
            "long_skip_connection": True,
            "zero_prompt_speech_token": False,
            "time_as_token": False,
            "style_as_token": False,
            "uvit_skip_connection": True,
            "add_resblock_in_transformer": False,
        },
        "wavenet": {
            "hidden_dim": wavenet.width,
            "num_layers": wavenet.num_layers,
            "kernel_size": wavenet.kernel_size,
            "dilation_rate": wavenet.dilation_rate,
            "p_dropout": wavenet.dropout,
            "style_condition": True,
        },
    }


def _w2v_bert_json(cfg: W2VBertConfig) -> dict[str, Any]:
    return {
        "architectures": ["Wav2Vec2BertModel"],
        "model_type": "wav2vec2-bert",
        "hidden_size": cfg.width,
        "num_hidden_layers": cfg.num_layers,
        "num_attention_heads": cfg.num_heads,
        "intermediate_size": cfg.ffn_width,
        "feature_projection_input_dim": cfg.feature_width,
        "conv_depthwise_kernel_size": cfg.conv_kernel,
        "left_max_position_embeddings": cfg.max_left,
        "right_max_position_embeddings": cfg.max_right,
        "position_embeddings_type": "relative_key",
        "hidden_act": "swish",
        "layer_norm_eps": 1e-5,
        "add_adapter": False,
        # No masking of features, and so no weight for it.
        "apply_spec_augment": False,
        "mask_time_prob": 0.0,
        "mask_feature_prob": 0.0,
    }


def _feature_extractor_json(cfg: W2VBertConfig) -> dict[str, Any]:
    stride = 2
    return {
        "feature_extractor_type": "SeamlessM4TFeatureExtractor",
        "feature_size": cfg.feature_width // stride,
        "num_mel_bins": cfg.feature_width // stride,
        "padding_side": "right",
        "padding_value": 1,
        "return_attention_mask": True,
        "sampling_rate": 16000,
        "stride": stride,
    }


def _bigvgan_json(cfg: BigVGANConfig, mel: MelConfig) -> dict[str, Any]:
    return {
        "resblock": "1",
        "activation": "snakebeta",
        "snake_logscale": True,
        "upsample_rates": cfg.upsample_rates,
        "upsample_kernel_sizes": [2 * rate for rate in cfg.upsample_rates],
        "upsample_initial_channel": cfg.width,
        "resblock_kernel_sizes": cfg.block_kernels,
        "resblock_dilation_sizes": cfg.block_dilations,
        "use_tanh_at_final": cfg.final_tanh,
        "use_bias_at_final": cfg.final_bias,
        "num_mels": cfg.num_mels,
        "n_fft": mel.n_fft,
        "hop_size": cfg.hop_length,
        "win_size": mel.n_fft,
        "sampling_rate": mel.sample_rate,
        "fmin": mel.fmin,
        "fmax": mel.fmax,
    }


def qwen3_json(cfg: Qwen3Config) -> dict[str, Any]:
    """Writes the architecture of the emotion model as transformers' config.json has it."""
    labels = {}
    if cfg.labels:
        labels["id2label"] = {str(i): label for i, label in enumerate(cfg.labels)}
        labels["label2id"] = {label: i for i, label in enumerate(cfg.labels)}
    return {
        "architectures": [CLASSIFIER if cfg.labels else "Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "hidden_size": cfg.width,
        "num_hidden_layers": cfg.num_layers,
        "num_attention_heads": cfg.num_heads,
        "num_key_value_heads": cfg.num_kv_heads,
        "head_dim": cfg.head_dim,
        "intermediate_size": cfg.ffn_width,
        "vocab_size": cfg.vocab_size,
        "rms_norm_eps": cfg.norm_epsilon,
        "rope_theta": cfg.rope_base,
        "tie_word_embeddings": cfg.tied_head,
        "attention_bias": False,
        "use_sliding_window": False,
        "rope_scaling": None,
        "hidden_act": "silu",
        **labels,
    }

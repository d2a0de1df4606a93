"""Writes tests/golden/semantic_codec.npz: `python -m tests.make_goldens.semantic_codec`.

RepCodec comes from ttsdb-maskgct, which carries Amphion's source (MIT) without its dependencies:
einops must be installed; of torchaudio only two names are imported, and never called.
"""

import importlib.util
import pathlib
import sys
import types

import numpy as np
import torch

from tests.common import GOLDEN

# SemanticCodecConfig.tiny()
CONFIG = {
    "codebook_size": 40,
    "hidden_size": 24,
    "codebook_dim": 8,
    "vocos_dim": 16,
    "vocos_intermediate_dim": 32,
    "vocos_num_layers": 2,
}


def rep_codec() -> type:
    for name in ("torchaudio", "torchaudio.functional", "torchaudio.functional.functional"):
        sys.modules[name] = types.ModuleType(name)
    for name in ("_hz_to_mel", "_mel_to_hz"):
        setattr(sys.modules["torchaudio.functional.functional"], name, None)
    package = importlib.util.find_spec("ttsdb_maskgct")
    source = pathlib.Path(package.submodule_search_locations[0]) / "_vendor" / "source"
    sys.path.insert(0, str(source))
    from models.codec.kmeans.repcodec_model import RepCodec

    return RepCodec


@torch.no_grad()
def make_semantic_codec() -> None:
    """The same weights with and without `downsample_scale` 2 (`half_*`)."""
    torch.manual_seed(0)
    RepCodec = rep_codec()
    half = RepCodec(**CONFIG, downsample_scale=2).eval()
    for name, weight in half.named_parameters():
        if "norm.weight" in name or "weight_g" in name or "gamma" in name:
            weight.normal_(1.0, 0.2)
        else:
            weight.normal_(0.0, weight[0].numel() ** -0.5 if weight.ndim > 1 else 0.2)
    full = RepCodec(**CONFIG).eval()
    full.load_state_dict(half.state_dict(), strict=False)

    features = torch.randn(2, 18, CONFIG["hidden_size"])
    codes, embedding = full.quantize(features)
    rebuilt, _, half_codes = half(features)
    arrays = {
        "features": features,
        "codes": codes,
        "embedding": embedding,
        "decoded": full.decoder(embedding.transpose(1, 2)),
        "half_codes": half_codes[0],
        "half_decoded": rebuilt,
    }
    weights = {f"w/{name}": w for name, w in half.state_dict().items()}
    np.savez_compressed(
        GOLDEN / "semantic_codec.npz", **{k: v.numpy() for k, v in {**arrays, **weights}.items()}
    )


if __name__ == "__main__":
    make_semantic_codec()

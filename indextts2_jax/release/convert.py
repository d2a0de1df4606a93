"""PyTorch models on a user's disk -> one checkpoint of ours (`indextts2 convert`).

    RELEASE_DIR/                        AUX (RELEASE_DIR/hf_cache if not given)
      config.yaml bpe.model               w2v-bert-2.0/{config.json, model.safetensors}
      gpt.pth s2mel.pth                   semantic_codec_model.safetensors
      feat1.pt feat2.pt                   campplus_cn_common.bin
      wav2vec2bert_stats.pt               bigvgan/{config.json, bigvgan_generator.pt}
      qwen0.6bemo4-merge/
      indextts2_jax.json (of a model that was trained here)

Who trains from scratch needs no release: `convert_encoders` takes the files of AUX,
wav2vec2bert_stats.pt and a tokenizer alone.

The Hugging Face hub's own cache layout is understood too. `provenance.json` and the directory
`release/` of the checkpoint hold what `indextts2_jax.release.export` needs for the way back.
"""

import dataclasses
import pathlib
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import ml_dtypes
import numpy as np
from flax import nnx
from sentencepiece import SentencePieceProcessor
from tqdm import tqdm

from indextts2_jax import convert
from indextts2_jax.checkpoint import store
from indextts2_jax.checkpoint.parts import PARTS, Settings, save_part
from indextts2_jax.convert import ConversionError
from indextts2_jax.nn import pytree
from indextts2_jax.release.files import WeightFile, read_weights, require_torch, to_numpy, unwrap
from indextts2_jax.release.find import Release
from indextts2_jax.t2s.gpt import keep_positions

LICENCE_NOTICE = (
    "The converted weights stay under the licence of the weights they were made from "
    "(for IndexTTS-2: bilibili's model licence). Do not pass them on without reading it."
)
ENCODERS_NOTICE = (
    "The converted weights stay under the licences of the models they were made from. "
    "This checkpoint cannot speak yet: train.prepare, train.t2s and train.s2m start from it."
)

DTYPES = {"float32": np.float32, "bfloat16": ml_dtypes.bfloat16}
# What `--dtype bfloat16` stores in bfloat16: the large generators. Encoders, codec and vocoder keep
# float32: their codes and waves must not depend on it.
LOW_PRECISION_PARTS = ("t2s", "s2m", "qwen3")
# The small tables: file -> its torch names -> our names; "" is a file that is one tensor.
TABLES = {
    "feature_statistics": {"mean": "feature_mean", "var": "feature_variance"},
    "emotion_styles": {"": "emotion_styles"},
    "emotion_vectors": {"": "emotion_vectors"},
}


@dataclasses.dataclass
class Writer:
    """Converts part after part into a checkpoint directory, collecting errors and provenance."""

    release: Release
    out: pathlib.Path
    dtype: Any
    configs: dict[str, Any] = dataclasses.field(default_factory=dict)
    fingerprints: dict[str, str] = dataclasses.field(default_factory=dict)
    provenance: dict[str, Any] = dataclasses.field(default_factory=dict)
    errors: list[str] = dataclasses.field(default_factory=list)

    def part(self, name: str) -> None:
        """Converts one network."""
        path, part = self.release.files[name], PARTS[name]
        try:
            file = read_weights(path)
            wrapper, keys = unwrap(name, file.tensors)
            tensors = {torch_name: to_numpy(file.tensors[key]) for torch_name, key in keys.items()}
            origin = self._origin(name, file, wrapper, keys)
            del file
            config = self.release.part_config(name, {k: v.shape for k, v in tensors.items()})
            if name == "t2s" and self.release.own is None:
                config = keep_positions(config, tensors)
            model = part.abstract(config)
            unused = part.unused(config)
            arrays = convert.to_jax(tensors, part.rules, pytree.shapes(model), unused)
        except ConversionError as error:
            self.errors.append(f"{path}: {error}" if str(path) not in str(error) else str(error))
            return
        keep = {k: v for k, v in tensors.items() if any(re.fullmatch(u, k) for u in unused)}
        del tensors
        if keep:
            origin["unused"] = store.save_arrays(self.out / "unused" / name, keep)
        self.provenance[name] = {**origin, "config": store.to_dict(config)}
        self.configs[name] = config
        low = pytree.params(model, nnx.Param) if name in LOW_PRECISION_PARTS else ()
        arrays = {  # views where nothing changes
            k: v.astype(self.dtype if k in low else np.float32, copy=False)
            for k, v in arrays.items()
        }
        self.fingerprints[name] = save_part(self.out, name, arrays)

    def tables(self) -> None:
        """Converts the small tables: feature statistics, and emotion prototypes if there are."""
        arrays: dict[str, np.ndarray] = {}
        for source, names in TABLES.items():
            if source not in self.release.files:
                continue
            path = self.release.files[source]
            try:
                file = read_weights(path)
            except ConversionError as error:
                self.errors.append(str(error))
                continue
            if file.tensors.keys() != names.keys():
                self.errors.append(f"{path}: holds {sorted(file.tensors)}, want {sorted(names)}")
                continue
            self.provenance[source] = self._origin(source, file, "", {k: k for k in file.tensors})
            arrays |= {names[k]: _table(names[k], to_numpy(v)) for k, v in file.tensors.items()}
        if not self.errors:
            self.errors += self._table_errors(arrays)
        if not self.errors:
            statistics = TABLES["feature_statistics"].values()
            for part in ("tables", "prototypes"):
                own = {k: v for k, v in arrays.items() if (k in statistics) == (part == "tables")}
                if own:
                    self.fingerprints[part] = save_part(self.out, part, own)

    def tokenizer(self) -> None:
        """Checks that the tokenizer is one, and that of the T2S."""
        path = self.release.files["tokenizer"]
        try:
            pieces = SentencePieceProcessor(model_file=str(path)).vocab_size()
        except (RuntimeError, OSError):
            self.errors.append(f"{path}: is no SentencePiece model, or damaged")
            return
        if "t2s" in self.configs:
            rows = self.configs["t2s"].num_text_tokens
            # A release has one row more than pieces, a T2S that was trained here has not.
            if pieces not in (rows - 1, rows):
                self.errors.append(
                    f"{path}: has {pieces} pieces, but {self.release.files['t2s']} is made for "
                    f"{rows - 1} (number_text_tokens): is it of another model?"
                )

    def _table_errors(self, arrays: Mapping[str, np.ndarray]) -> Iterator[str]:
        width = self.configs["w2v_bert"].width
        wanted = {"feature_mean": (width,), "feature_variance": (width,)}
        if "emotion_styles" in arrays:
            rows = sum(self.release.emotion_groups)
            wanted |= {
                "emotion_styles": (rows, self.configs["s2m"].velocity.style_width),
                "emotion_vectors": (rows, self.configs["t2s"].width),
            }
        for name, shape in wanted.items():
            if arrays[name].shape != shape:
                yield f"{name}: shape {arrays[name].shape}, want {shape}"

    def _origin(
        self, name: str, file: WeightFile, wrapper: str, keys: Mapping[str, str]
    ) -> dict[str, Any]:
        """Returns what `provenance.json` says of a file and its converted tensors (name -> key)."""
        converted = set(keys.values())
        others = (*file.others, *(key for key in file.tensors if key not in converted))
        return {
            "file": self.release.places[name],
            "wrapper": wrapper,
            "metadata": file.metadata,
            # Below the wrapper in full; of the rest the top level says enough.
            "left_out": sorted(
                {k if k.split("/")[0] == wrapper else k.split("/")[0] for k in others}
            ),
            "tensors": [
                [key, str(file.tensors[key].dtype).removeprefix("torch."), file.tensors[key].shape]
                for key in keys.values()
            ],
        }


def _table(name: str, values: np.ndarray) -> np.ndarray:
    """Returns a small table in the dtype to store it in."""
    # The root of the variance is taken in the dtype of the file.
    keep = name == "feature_variance" and values.itemsize < 4
    return values if keep else values.astype(np.float32)


def convert_release(
    src: pathlib.Path,
    out: pathlib.Path,
    *,
    aux: pathlib.Path | None = None,
    dtype: str = "float32",
    emotion_text: bool = True,
    sources: Sequence[Mapping[str, Any]] = (),
) -> None:
    """Converts a release into the new checkpoint directory `out`.

    Args:
      src: RELEASE_DIR.
      out: must not exist; appears only when everything is converted.
      aux: where the auxiliary models lie, see `Release.find`.
      dtype: float32 or bfloat16 storage of the large generators.
      emotion_text: also convert the Qwen3 emotion model.
      sources: where the files were fetched from, for `provenance.json`.

    Raises:
      ConversionError: lists every file, name and shape that does not match.
      CheckpointError: if `out` exists.
    """
    require_torch()
    release = Release.find(src, aux, emotion_text=emotion_text)
    _convert(release, out, release.settings, DTYPES[dtype], sources)


def convert_encoders(src: pathlib.Path, bpe: pathlib.Path, out: pathlib.Path) -> None:
    """Converts the public auxiliary models into a checkpoint to train T2S and S2M with.

    Args:
      src: where w2v-BERT 2.0, the semantic codec, CAMPPlus, BigVGAN and wav2vec2bert_stats.pt lie;
        see `AUXILIARY` and `STATISTICS`.
      bpe: the tokenizer's model file, e.g. from `train.tokenizer`.
      out: must not exist; appears only when everything is converted.

    Raises:
      ConversionError: lists every file, name and shape that does not match.
      CheckpointError: if `out` exists.
    """
    require_torch()
    release = Release.find_encoders(src, bpe)
    _convert(release, out, release.encoder_settings, np.float32)


def _convert(
    release: Release,
    out: pathlib.Path,
    settings: Callable[..., Settings],
    dtype: Any,
    sources: Sequence[Mapping[str, Any]] = (),
) -> None:
    """Converts all that a release has; `settings` are made of configs and fingerprints."""
    names = [name for name in PARTS if name in release.files]
    with store.writing(out) as directory:
        writer = Writer(release, directory, dtype)
        with tqdm(names, unit="part", desc="convert", disable=None) as bar:
            for name in bar:
                bar.set_postfix_str(release.files[name].name)
                writer.part(name)
        writer.tokenizer()
        if not writer.errors:
            writer.tables()
        if writer.errors:
            raise ConversionError("\n".join(writer.errors))
        settings(writer.configs, writer.fingerprints).save(directory)
        texts = {}
        for path, place, kept in release.texts():
            (directory / kept).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, directory / kept)
            texts[place] = kept
        provenance = {**writer.provenance, "texts": texts, "sources": list(sources)}
        store.write_json(directory / "provenance.json", provenance)

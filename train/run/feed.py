"""The data of a run: what of the corpus it reads, and batches for a stage."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from indextts2_jax import sharding
from indextts2_jax.errors import InputError
from train.data import shards
from train.data.batch_plan import BatchPlan
from train.data.batches import Batches, ValidationBatches, open_plan
from train.data.config import DataConfig
from train.data.records import Records
from train.data.shards import Utterance
from train.run.artifacts import Base
from train.run.config import Config

# Fields of DataConfig that follow from the network, the mesh, the stage or the rest of the run.
_DECIDED = ("fields", "weights", "rows_multiple", "max_text", "seed")


def data_config(measure: str, budget: int, **changes: Any) -> ConfigDict:
    """Returns what a run says of its data: the fields of DataConfig that no trainer decides.

    Args:
      measure: "codes" or "frames".
      budget: of a batch, in these.
      **changes: of the other keys.
    """
    own = {"paths": ("",), "measure": measure, "budget": budget, "validation": 64}
    fields = {field.name: field.default for field in dataclasses.fields(DataConfig)}
    out = ConfigDict({name: own.get(name, fields[name]) for name in fields if name not in _DECIDED})
    out.lock().update(changes)
    return out


@dataclasses.dataclass(frozen=True)
class Feed:
    """Batches of this process, stage by stage.

    Attributes:
      run: the configuration.
      plan: of the data in equal shares, for validation and the list of speakers.
    """

    run: Config
    plan: BatchPlan

    @classmethod
    def open(
        cls,
        run: Config,
        base: Base,
        mesh: Mesh,
        fields: Sequence[str],
        *,
        max_codes: int,
        max_text: int,
        encoded: bool = True,
    ) -> "Feed":
        """Opens the data of a run.

        Args:
          run: the configuration.
          base: its checkpoint, whose encoders must be those of the data.
          mesh: that batches are split over.
          fields: what is loaded.
          max_codes: that the model has positions for; 0 = no limit.
          max_text: likewise.
          encoded: whether the data must be made with the encoders of the checkpoint; else it has
            the filterbank and the audio (`train.prepare --features fbank`).

        Raises:
          InputError: if there is no data, or it does not fit.
        """
        check_mixes(run)
        values = run.data.to_dict()
        longest = values.pop("max_codes")
        cfg = DataConfig(
            **values,
            fields=tuple(fields),
            rows_multiple=sharding.batch_parts(mesh) * run.accumulation,
            max_codes=min(filter(None, (longest, max_codes)), default=0),
            max_text=max_text,
            seed=run.seed,
        )
        plan = open_plan(cfg)
        made_with = shards.fingerprints if encoded else shards.audio_fingerprints
        wanted = made_with(base.path, base.settings)
        shards.check_fingerprints(
            plan.fingerprints, wanted, f"data {', '.join(cfg.paths)} and checkpoint {base.path}"
        )
        return cls(run, plan)

    def batches(self, stage: Config, start: int) -> Batches:
        """Endless batches of a stage from step `start` on."""
        plan = open_plan(dataclasses.replace(self.plan.cfg, weights=tuple(stage.mix)))
        return Batches(plan, start, workers=self.run.workers, **_process())

    def validation(self) -> Sequence[Mapping[str, np.ndarray]]:
        """Returns the batches of one validation."""
        return ValidationBatches(self.plan, **_process())

    def samples(self, count: int) -> list[tuple[Utterance, Utterance]]:
        """Finds validation utterances of all lengths, each with its prompt; all if they are fewer.

        Where nothing is held out, utterances of the first training batches.
        """
        prompts = {
            int(row): int(prompt)
            for batch in self.plan.validation or [self.plan[i] for i in range(count)]
            for row, prompt in zip(batch.rows, batch.prompts, strict=True)
        }
        pairs = list(prompts.items())
        chosen = np.linspace(0, len(pairs) - 1, min(count, len(pairs))).round().astype(int)
        records = Records(self.plan.shards)
        return [(records[pairs[i][0]], records[pairs[i][1]]) for i in chosen]


def check_mixes(run: Config) -> None:
    """Demands of every stage a weight for each data set, before the first of them trains.

    Args:
      run: the configuration.

    Raises:
      InputError: names the stage.
    """
    paths = run.data.paths
    for number, stage in enumerate(run.stages):
        weights = stage.mix
        sound = len(weights) == len(paths) and all(
            isinstance(w, int | float) and 0 <= w < math.inf for w in weights
        )
        if not sound or not sum(weights):
            example = (1.0,) * len(paths)
            raise InputError(
                f"stages.{number}.mix is {weights}; want a weight for each of data.paths "
                f"({', '.join(paths)}), none negative, not all 0, such as {example}"
            )


def _process() -> dict[str, int]:
    return {"process": jax.process_index(), "processes": jax.process_count()}

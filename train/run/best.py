"""Keeps the weights of the step at which a metric was best."""

import dataclasses
import math

import jax
import numpy as np
from jax.experimental import multihost_utils

from indextts2_jax.errors import InputError
from train.run.config import Config
from train.run.writer import MetricsWriter

BEST_SUFFIX = "-best"  # of the directory of the result
_SIGNS = {"min": 1.0, "max": -1.0}


@dataclasses.dataclass
class Best:
    """Watches a metric in the table of a run.

    Attributes:
      metric: its column.
      sign: 1 where the lowest is best, -1 where the highest is.
      writer: of the table.
      value: the best until now, times `sign`; infinite before the first.
    """

    metric: str
    sign: float
    writer: MetricsWriter
    value: float

    @classmethod
    def of(cls, run: Config, writer: MetricsWriter, begin: int) -> "Best | None":
        """Makes that of a run; None if it keeps no best weights.

        Args:
          run: the configuration.
          writer: of the run; its table tells what was best before a run went on.
          begin: steps of earlier stages, whose values do not count: their loss is another one.

        Raises:
          InputError: if `best_is` is neither "min" nor "max".
        """
        if run.best_is not in _SIGNS:
            raise InputError(f"best_is is {run.best_is!r}; want min or max")
        if not run.keep_best:
            return None
        sign = _SIGNS[run.best_is]
        before = writer.column(run.keep_best)
        values = [sign * x for step, x in before.items() if step > begin and math.isfinite(x)]
        return cls(run.keep_best, sign, writer, min(values, default=math.inf))

    def improved(self, step: int) -> bool:
        """Tells whether the metric is better at `step` than ever before, in every process."""
        value = self.sign * self.writer.value(self.metric, step)
        better = value < self.value  # not if it is NaN: not measured at this step
        if jax.process_count() > 1:  # the first one has the table
            better = bool(multihost_utils.broadcast_one_to_all(np.array(better)))
        if better:
            self.value = value
        return better

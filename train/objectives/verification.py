"""How well embeddings tell speakers apart: error rates over pairs of recordings.

A pair is accepted as one speaker's if its score is at least a threshold. Each threshold misses some
pairs of one speaker and falsely accepts some pairs of two.

Dims: N recordings, E embedding width, P pairs.
"""

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PRIOR = 0.01  # of one speaker, for the detection cost (NIST SRE; VoxSRC takes .05)


def pair_scores(embeddings: np.ndarray, speakers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scores every pair of recordings.

    Args:
      embeddings: [N, E].
      speakers: [N] int.

    Returns:
      [P] cosines; [P] bool, whether it is one speaker.
    """
    units = embeddings / np.maximum(np.linalg.norm(embeddings, axis=1, keepdims=True), 1e-9)
    first, second = np.triu_indices(len(units), k=1)
    return (units @ units.T)[first, second], speakers[first] == speakers[second]


@dataclasses.dataclass(frozen=True)
class Errors:
    """Error rates by threshold; the first accepts nothing, the last everything.

    Attributes:
      missed: share of the pairs of one speaker that are not accepted, falling from 1 to 0.
      accepted: share of the pairs of two that are, rising from 0 to 1.
    """

    missed: np.ndarray
    accepted: np.ndarray

    @classmethod
    def of(cls, scores: np.ndarray, same: np.ndarray) -> "Errors":
        """Counts those of scores [P], of which `same` [P] are of one speaker.

        Raises:
          ValueError: if there are no pairs of one speaker, or none of two.
        """
        if same.all() or not same.any():
            raise ValueError("want pairs of one speaker and of two")
        order = np.argsort(-scores, kind="stable")
        # Equal scores are accepted together.
        ends = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
        true = np.concatenate([[0], np.cumsum(same[order])[ends]])
        false = np.concatenate([[0], np.cumsum(~same[order])[ends]])
        return cls(1 - true / true[-1], false / false[-1])

    @property
    def equal_rate(self) -> float:
        """Returns the equal error rate: where as many are missed as are falsely accepted."""
        apart = self.missed - self.accepted  # falls from 1 to -1
        k = int(np.argmax(apart <= 0))  # not 0
        share = apart[k - 1] / (apart[k - 1] - apart[k])
        return float(self.accepted[k - 1] + share * (self.accepted[k] - self.accepted[k - 1]))

    def least_cost(self, prior: float = PRIOR) -> float:
        """Returns the minimum detection cost (minDCF); 1 = no better than one answer."""
        cost = prior * self.missed + (1 - prior) * self.accepted
        return float(cost.min() / min(prior, 1 - prior))


def scores_figure(scores: np.ndarray, same: np.ndarray, title: str) -> "Figure":
    """Draws how the scores of both kinds of pairs lie, and the trade between both errors.

    Args:
      scores: [P].
      same: [P] bool.
      title: of the picture.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    histogram, trade = figure.subplots(1, 2)
    edges = np.linspace(-1, 1, 81)
    for kind, label in ((same, "one speaker"), (~same, "two speakers")):
        histogram.hist(scores[kind], edges, density=True, alpha=0.6, label=label)
    histogram.set(xlabel="cosine", ylabel="density", title=title)
    histogram.legend()
    errors = Errors.of(scores, same)
    least = 0.5 / len(scores)  # both axes are logarithmic
    trade.loglog(np.maximum(errors.accepted, least), np.maximum(errors.missed, least))
    trade.plot([least, 1], [least, 1], linewidth=0.5, color="black")
    trade.set(xlabel="falsely accepted", ylabel="missed")
    trade.grid(alpha=0.3)
    return figure

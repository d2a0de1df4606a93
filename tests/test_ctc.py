"""CTC: losses as PyTorch's, alignments as by trying all, error rates."""

import itertools

import jax
import numpy as np
import pytest

from tests.common import load_golden, relative_error
from train.objectives import ctc


def test_losses_and_gradients_are_those_of_pytorch():
    golden = load_golden("ctc")
    lengths = golden["label_lengths"]

    @jax.jit
    def losses(logits):
        per_label = ctc.loss(logits, golden["frame_lengths"], golden["labels"], lengths)
        return per_label * np.maximum(lengths, 1)

    assert relative_error(losses(golden["logits"]), golden["losses"]) < 1e-5
    gradient = jax.jit(jax.grad(lambda x: losses(x).sum()))(golden["logits"])
    assert relative_error(gradient, golden["gradient"]) < 1e-5
    assert not np.any(golden["losses"][4]) and np.all(golden["losses"][:4] > 0)


def test_labels_that_were_cut_off_teach_nothing():
    golden = load_golden("ctc")
    beyond = golden["label_lengths"] + 4
    logits, frames = golden["logits"], golden["frame_lengths"] + 100
    assert not np.any(ctc.loss(logits, frames, golden["labels"][:, :3], beyond))


def spell(path):
    return ctc.read(np.array(path))


def test_repetitions_and_blanks_are_not_read():
    assert spell([0, 0, 3, 3, 0, 3, 1, 1, 2, 0]) == [3, 3, 1, 2]
    assert spell([0, 0]) == spell([]) == []


@pytest.mark.parametrize("labels", [[1], [1, 1], [2, 1, 2], []])
def test_alignment_is_the_best_of_all_paths(labels):
    rng = np.random.default_rng(len(labels))
    log_probabilities = np.log(rng.dirichlet(np.ones(3), 6))
    paths = [p for p in itertools.product(range(3), repeat=6) if spell(p) == labels]
    best = max(paths, key=lambda p: log_probabilities[range(6), list(p)].sum())
    spans, score = ctc.align(log_probabilities, np.array(labels, int))
    assert score == pytest.approx(log_probabilities[range(6), list(best)].sum())
    aligned = np.zeros(6, int)
    for label, (start, stop) in zip(labels, spans, strict=True):
        aligned[start:stop] = label
    np.testing.assert_array_equal(aligned, best)


def test_what_does_not_fit_cannot_be_aligned():
    with pytest.raises(ValueError, match="2 frames cannot hold 2 labels"):
        ctc.align(np.zeros((2, 3)), np.array([1, 1]))


@pytest.mark.parametrize(
    "a, b, edits",
    [("kitten", "sitting", 3), ("", "abc", 3), ("abc", "", 3), ("abc", "abc", 0), ("ab", "ba", 2)],
)
def test_edit_distance(a, b, edits):
    assert ctc.edit_distance(a, b) == ctc.edit_distance(b, a) == edits

"""Durations: shares, targets, and what is impossible."""

import pytest

from indextts2_jax.errors import InputError
from indextts2_jax.request.duration import (
    Duration,
    Target,
    natural_frames,
    shares,
    stretch_targets,
    token_targets,
    total_frames,
)


@pytest.mark.parametrize("total", [3, 4, 10, 101, 1000])
@pytest.mark.parametrize("weights", [[1, 1, 1], [1, 2, 4], [100, 1, 1]])
def test_shares_add_up_and_follow_the_weights(total, weights):
    got = shares(total, weights)
    assert sum(got) == total and min(got) >= 1
    for share, weight in zip(got, weights, strict=True):
        assert abs(share - 1 - weight / sum(weights) * (total - 3)) < 1


def test_every_segment_needs_something():
    with pytest.raises(InputError, match="2 is too little for 3 segments"):
        shares(2, [1, 1, 1])


def test_natural_frames_are_those_of_torch():
    assert all(natural_frames(n, 1.72) == 172 * n // 100 for n in range(3000))


def test_seconds_leave_room_for_pauses():
    assert total_frames(2.0, 4410, 22050, 256) == round((44100 - 4410) / 256)
    with pytest.raises(InputError, match=r"0\.2 s leave no time to speak beside 0\.4 s of pauses"):
        total_frames(0.2, 8820, 22050, 256)


def test_targets_of_each_kind_of_wish():
    assert token_targets(Duration(tokens=30), [1, 2], None, 1.72) == [Target(10), Target(20)]
    assert token_targets(Duration(speed=2.0), [10, 20], None, 1.72) == [Target(5), Target(10)]
    parts = token_targets(Duration(seconds=1), [1, 1], 86, 1.72)
    assert parts == [Target(25, 43), Target(25, 43)]
    assert stretch_targets(Duration(seconds=1), [9, 9], 86, 1.72) == [Target(None, 43)] * 2
    assert stretch_targets(Duration(speed=0.5), [100], None, 1.72) == [Target(None, 344)]


@pytest.mark.parametrize(
    "wish, message",
    [
        ({"tokens": 0}, "tokens is 0"),
        ({"tokens": 5, "seconds": 1.0}, "tokens and seconds are given"),
        ({"seconds": 0.0}, "seconds is 0.0"),
        ({"seconds": float("nan")}, "seconds is nan"),
        ({"speed": 9.0}, r"speed is 9.0; it must be in 0\.25 \.\. 4"),
        ({"speed": float("nan")}, "speed is nan"),
        ({"mode": "sloppy"}, "duration_mode is 'sloppy'"),
        ({"by": "magic"}, "duration_by is 'magic'"),
        ({"tokens": 5, "by": "stretch"}, "cannot be had by stretching"),
    ],
)
def test_impossible_wishes_are_refused(wish, message):
    with pytest.raises(InputError, match=message):
        Duration(**wish)

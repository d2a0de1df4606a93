import itertools
import random
import re

import pytest

from indextts2_jax.text import split_segments
from indextts2_jax.text.split import Cut, find_cuts

LATIN = ["▁THE", "▁W", "ORD", "S", "▁A", "▁LIGHT", "HOUSE"]
HAN = ["▁你", "▁好", "▁", "世", "▁", "界"]
MARKS = [",", ".", "!", "?", "...", "-", "'", "▁'", "▁.", "▁,", "'.", ".'", "▁-"]


def pieces_of(text):
    """Cuts a text with ▁ for blanks into words, marks and single CJK characters."""
    return re.findall("▁?(?:[A-Za-z]+|.)", text)


def random_pieces(rng, total):
    kinds = [LATIN * rng.randint(0, 4), HAN * rng.randint(0, 4), MARKS * rng.randint(0, 2)]
    return rng.choices(sum(kinds, []) or LATIN, k=total)  # noqa: RUF017


def cases(count=150, largest=300):
    rng = random.Random(0)
    for _ in range(count):
        yield random_pieces(rng, rng.randint(0, largest)), rng.choice([1, 2, 5, 8, 17, 40, 120])


def joined(segments):
    return list(itertools.chain.from_iterable(segments))


def cut_kinds(pieces, segments):
    """What the cuts between the segments are."""
    ends = list(itertools.accumulate(len(segment) for segment in segments))[:-1]
    return [find_cuts(pieces)[end] for end in ends]


def test_nothing_is_lost_or_doubled_and_no_segment_is_empty_or_too_long():
    for pieces, limit in cases():
        segments = split_segments(pieces, limit)
        assert joined(segments) == pieces
        assert all(0 < len(segment) <= limit for segment in segments)


def test_no_two_neighbours_would_fit_in_one_segment():
    for pieces, limit in cases():
        for left, right in itertools.pairwise(split_segments(pieces, limit)):
            assert len(left) + len(right) > limit


def test_tiny_segments_are_whole_sentences():
    for pieces, limit in cases():
        segments = split_segments(pieces, limit)
        kinds = [Cut.SENTENCE, *cut_kinds(pieces, segments), Cut.SENTENCE]
        for segment, before, after in zip(segments, kinds, kinds[1:], strict=False):
            assert len(segment) * 8 >= limit or before == after == Cut.SENTENCE


def test_words_are_cut_only_where_they_must_be():
    """A cut inside a word: no way without such cuts exists."""

    def possible(cuts, limit, smallest):
        reachable = {0}
        for end in range(1, len(cuts)):
            for start in range(max(0, end - limit), end):
                whole = cuts[start] == cuts[end] == Cut.SENTENCE
                if (
                    start in reachable
                    and cuts[end] < Cut.INSIDE
                    and (whole or end - start >= smallest)
                ):
                    reachable.add(end)
        return len(cuts) - 1 in reachable

    for pieces, limit in cases():
        inside = Cut.INSIDE in cut_kinds(pieces, split_segments(pieces, limit))
        assert inside != possible(find_cuts(pieces), limit, limit / 8)


def test_sentences_that_fit_are_not_cut():
    rng = random.Random(1)
    for _ in range(50):
        sentences = [["▁W"] * rng.randint(14, 39) + ["."] for _ in range(rng.randint(1, 9))]
        segments = split_segments(joined(sentences), 40)
        assert all(segment[-1] == "." for segment in segments)


def test_a_text_that_fits_is_one_segment():
    pieces = ["▁A", ".", "▁B", ",", "▁C", "."]
    assert split_segments(pieces) == [pieces]
    assert split_segments([]) == []
    assert split_segments(["▁A"]) == [["▁A"]]


def test_a_sentence_just_too_long_is_cut_near_its_middle_at_a_clause():
    clauses = [["▁W"] * size + [","] for size in (9, 49, 19, 39)]
    segments = split_segments([*joined(clauses), "."], 120)
    assert [len(segment) for segment in segments] == [60, 61]


def test_without_marks_words_are_kept_and_lengths_are_even():
    assert [len(s) for s in split_segments(["▁W"] * 121)] == [60, 61]
    segments = split_segments(["▁W", "O", "RD"] * 100, 120)
    assert all(segment[0] == "▁W" for segment in segments)
    assert {len(segment) for segment in segments} <= {99, 102}


def test_a_word_longer_than_a_segment_is_cut_evenly():
    assert [len(s) for s in split_segments(["▁SU", *["PER"] * 49], 40)] == [25, 25]


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("▁He▁said▁'yes.'▁She▁left.", ["▁He▁said▁'yes.'", "▁She▁left."]),
        ("▁He▁said▁'yes.'▁'No.'", ["▁He▁said▁'yes.'", "▁'No.'"]),
        ("▁I▁don't▁know.▁He▁left.", ["▁I▁don't▁know.", "▁He▁left."]),
        ("▁他▁说,'▁好.'▁我▁说.", ["▁他▁说,'▁好.'", "▁我▁说."]),
        ("▁他▁说.'▁好.'▁我▁说.", ["▁他▁说.", "'▁好.'", "▁我▁说."]),
        ("▁'▁好▁'!▁我▁说.", ["▁'▁好▁'!", "▁我▁说."]),
        ("▁No?!▁Yes...▁Well.", ["▁No?!", "▁Yes...", "▁Well."]),
        ("▁See▁a.com▁now.▁OK.", ["▁See▁a.com▁now.", "▁OK."]),
    ],
)
def test_sentences_end_after_their_closing_quotes(text, want):
    pieces = pieces_of(text)
    ends = [i for i, cut in enumerate(find_cuts(pieces)) if cut == Cut.SENTENCE]
    sentences = ["".join(pieces[a:b]) for a, b in itertools.pairwise(ends)]
    assert sentences == want


def test_no_segment_begins_with_a_mark_or_a_closing_quote():
    pieces = pieces_of("▁He▁said,▁'yes,'▁and▁left,▁no?!▁Well...▁'so.'") * 5
    for limit in (7, 11, 19, 40):
        for segment in split_segments(pieces, limit):
            first = "".join(segment).lstrip("▁")
            assert first[0] not in ",.!?"
            assert not first.startswith("'") or first[1].isalpha()


def test_clauses_are_better_cuts_than_words():
    pieces = pieces_of("▁a▁b▁c▁d▁e▁f▁g,▁h▁i▁j.")
    assert split_segments(pieces, 9) == [pieces[:8], pieces[8:]]


def test_a_limit_below_one_is_refused():
    with pytest.raises(ValueError, match="at least 1, got 0"):
        split_segments(["▁A"], 0)


def test_compat_keeps_the_originals_defects():
    quote = ["▁HE", "▁SAID", ".", "'", "▁SHE", "▁LEFT", "."]
    assert split_segments(quote, 4, compat=True) == [quote[:4], quote[3:]]
    lengths = [len(s) for s in split_segments(["▁W"] * 250, 120, compat=True)]
    assert lengths == [120, 1, 120, 9]
    assert split_segments([], compat=True) == []

"""Recordings as the trainers of the encoders and the vocoder read them: no network is asked."""

from collections.abc import Iterable, Iterator

import numpy as np

from train.corpus.recordings import Recording
from train.data.shards import Take, Utterance


def utterances(recordings: Iterable[Recording]) -> Iterator[Utterance]:
    """Yields utterances with filterbank input in place of features, and with audio.

    Args:
      recordings: read by a `RecordingReader` that keeps the audio.
    """
    for recording in recordings:
        row = recording.row
        yield Utterance(
            id=row.id,
            speaker=row.speaker,
            text=recording.text,
            text_ids=recording.text_ids,
            takes=tuple(
                Take(x.speed, np.zeros(len(x.features), np.int32), x.features.astype(np.float16))
                for x in recording.takes
            ),
            mel=recording.mel,
            style=np.zeros(0, np.float32),
            language=row.language,
            emotion=row.emotion,
            word_vectors=recording.word_vectors,
            word_frames=recording.word_frames,
            audio=recording.audio,
            bank=_pairs(recording.bank),
            prosody=recording.prosody,
        )


def _pairs(bank: np.ndarray) -> np.ndarray:
    """Joins bank frames [F, 80] in pairs, as tokens are: [F // 2, 160] float16."""
    pairs = len(bank) // 2
    return bank[: 2 * pairs].reshape(pairs, 2 * bank.shape[1]).astype(np.float16)

"""Finds the most similar reports by the cosine similarity of sentence embeddings, with exact search in blocks."""

import hashlib
import json
from base64 import b64decode, b64encode
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from crimson_core.judges.rules.minilm import MODEL, load_encoder
from training.corpus import Study, same_text
from training.journal import Journal

ENCODED_AT_ONCE = 1024  # reports; a run that is killed loses no more
SEARCHED_AT_ONCE = 1024  # reports whose neighbours are searched together
BLOCK_BYTES = 64 * 2**20  # of similarities held at once
# The last bits of a float32 product depend on the size of its block. So more neighbours than asked for are taken, and float64
# decides their order.
_SPARE = 8


def nearest(
    studies: Sequence[Study],
    *,
    kept: Path,
    encoder: str = MODEL,
    count: int = 5,
    batch: int = 64,
    block_bytes: int = BLOCK_BYTES,
    progress: bool = False,
) -> list[list[int]]:
    """For each study, the places of the studies with the most similar reports, the most similar first.

    The study itself, reports with the same text (letter case and blanks aside) and studies of the same patient are left out.
    Ties are in the order of the studies. The encoder reads the first 256 word pieces of a report. Embeddings are kept, so a
    killed run continues where it stopped.

    Args:
        studies: All studies of one split.
        kept: The journal of embeddings (2 KB per distinct text).
        encoder: Hub id or folder of a sentence-transformers model.
        count: Neighbours per study; fewer if there are not enough others.
        batch: Reports that are encoded together; it changes results by rounding only.
        block_bytes: Memory for similarities; the embeddings (1.5 KB each) take more.
        progress: Show progress bars.

    Raises:
        JudgeError: sentence-transformers or the encoder cannot be loaded.
        CrimsonError: `kept` cannot be written.
    """
    if not studies:
        return []
    keys = [same_text(study.report) for study in studies]
    texts: dict[str, str] = {}  # each is encoded once
    for key, study in zip(keys, studies, strict=True):
        texts.setdefault(key, study.report)
    places = {key: place for place, key in enumerate(texts)}
    text_of = np.array([places[key] for key in keys], np.int32)
    patient_of = _patients(studies)
    vectors = embeddings(list(texts.values()), kept, encoder=encoder, batch=batch, progress=progress)
    found: list[list[int]] = []
    with tqdm(total=len(studies), desc="similar reports", unit="report", disable=not progress) as bar:
        for start in range(0, len(studies), SEARCHED_AT_ONCE):
            stop = min(start + SEARCHED_AT_ONCE, len(studies))
            near = search(vectors, text_of, patient_of, start, stop, count=count, block_bytes=block_bytes)
            found += [[place for place in row if place >= 0] for row in near.tolist()]
            bar.update(stop - start)
    return found


def embeddings(
    texts: Sequence[str], kept: Path, *, encoder: str = MODEL, batch: int = 64, progress: bool = False
) -> np.ndarray:
    """Sentence embeddings of unit length, float32 [text, dimension]; each is written to the journal `kept` at once."""
    keys = [_digest(encoder, text) for text in texts]
    with Journal(kept) as done, tqdm(total=len(texts), desc="embeddings", unit="report", disable=not progress) as bar:
        waiting = [place for place, key in enumerate(keys) if key not in done]
        bar.update(len(texts) - len(waiting))
        if waiting:
            model: Any = load_encoder(
                encoder, "The search for similar reports", "name another one under `encoder`", None
            )
        for start in range(0, len(waiting), ENCODED_AT_ONCE):
            some = waiting[start : start + ENCODED_AT_ONCE]
            vectors = model.encode(
                [texts[place] for place in some],
                batch_size=batch,
                normalize_embeddings=True,
                convert_to_numpy=True,
                show_progress_bar=False,
            ).astype("<f4")
            for place, vector in zip(some, vectors, strict=True):
                done.add({"id": keys[place], "vector": b64encode(vector.tobytes()).decode()})
            bar.update(len(some))
        return np.stack([np.frombuffer(b64decode(done.get(key)["vector"]), "<f4") for key in keys]).astype(np.float32)


def search(
    vectors: np.ndarray,
    text_of: np.ndarray,
    patient_of: np.ndarray,
    start: int,
    stop: int,
    *,
    count: int,
    block_bytes: int = BLOCK_BYTES,
) -> np.ndarray:
    """Places of the studies most similar to the studies from `start` up to `stop`, int32 [study, count]; -1 if there are no more.

    Args:
        vectors: Unit embeddings of the distinct texts, float32 [text, dimension].
        text_of: The row of each study's text in `vectors`.
        patient_of: The number of each study's patient; studies of unknown patients have numbers of their own.
        start: The first study.
        stop: The study after the last one.
        count: Neighbours per study.
        block_bytes: Memory for similarities.
    """
    total, rows = len(text_of), stop - start
    queries = vectors[text_of[start:stop]]
    # A similarity takes 4 bytes, its place in the order 8, and comparisons 3.
    width = max(count + _SPARE, block_bytes // (rows * 15))
    best = np.full((rows, 0), -1, np.int32)
    scores = np.full((rows, 0), -np.inf, np.float32)
    for left in range(0, total, width):
        right = min(left + width, total)
        block = queries @ vectors[text_of[left:right]].T
        block[text_of[start:stop, None] == text_of[left:right]] = -np.inf
        block[patient_of[start:stop, None] == patient_of[left:right]] = -np.inf
        columns = _top(block, count + _SPARE)
        scores = np.hstack([scores, np.take_along_axis(block, columns, 1)])
        best = np.hstack([best, (columns + left).astype(np.int32)])
        kept = _top(scores, count + _SPARE)
        scores, best = np.take_along_axis(scores, kept, 1), np.take_along_axis(best, kept, 1)
    return _ordered(queries, vectors[text_of[best]], best, np.isneginf(scores), count)


def _ordered(queries: np.ndarray, found: np.ndarray, best: np.ndarray, none: np.ndarray, count: int) -> np.ndarray:
    similar = np.einsum("qd,qkd->qk", queries.astype(np.float64), found.astype(np.float64))
    similar[none] = -np.inf
    order = np.lexsort((best, -similar), axis=1)[:, :count]
    places = np.where(np.isneginf(similar), -1, best)
    kept = np.take_along_axis(places, order, 1)
    return np.pad(kept, ((0, 0), (0, count - kept.shape[1])), constant_values=-1).astype(np.int32)


def _top(scores: np.ndarray, count: int) -> np.ndarray:
    """Columns of the highest scores of each row, in no order."""
    if scores.shape[1] <= count:
        return np.broadcast_to(np.arange(scores.shape[1]), scores.shape)
    return np.argpartition(scores, -count, axis=1)[:, -count:]


def _patients(studies: Sequence[Study]) -> np.ndarray:
    numbers: dict[str, int] = {}
    known = [None if s.patient is None else numbers.setdefault(s.patient, len(numbers)) for s in studies]
    return np.array([-1 - place if number is None else number for place, number in enumerate(known)], np.int32)


def _digest(*parts: str) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]

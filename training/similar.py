"""Finds the most similar reports by the cosine similarity of sentence embeddings, by exact search."""

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
_CELL_BYTES = 15  # a similarity takes 4, its place in the order 8, and comparisons 3
# The last bits of a float32 product depend on how many reports are searched together. So more neighbours than asked for are
# taken, and float64 decides their order.
_SPARE = 8


def nearest(
    studies: Sequence[Study],
    *,
    kept: Path,
    encoder: str = MODEL,
    count: int = 5,
    batch: int = 64,
    most_bytes: int = 64 * 2**20,
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
        most_bytes: Memory for similarities, of one report to all at least; the embeddings (1.5 KB each) take more.
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
    vectors = embeddings(list(texts.values()), kept, encoder=encoder, batch=batch, progress=progress)[text_of]
    at_once = max(1, most_bytes // (len(studies) * _CELL_BYTES))
    found: list[list[int]] = []
    with tqdm(total=len(studies), desc="similar reports", unit="report", disable=not progress) as bar:
        for start in range(0, len(studies), at_once):
            found += search(vectors, text_of, patient_of, slice(start, start + at_once), count)
            bar.update(len(found) - bar.n)
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
    vectors: np.ndarray, text_of: np.ndarray, patient_of: np.ndarray, some: slice, count: int
) -> list[list[int]]:
    """The places of at most `count` studies that are most similar to each of `some` studies, the most similar first.

    The embeddings `vectors` are of unit length, float32 [study, dimension]. `text_of` and `patient_of` have the number of each
    study's text and patient; studies of unknown patients have numbers of their own.
    """
    similar = vectors[some] @ vectors.T
    for same in (text_of, patient_of):
        similar[same[some, None] == same] = -np.inf
    near = np.argpartition(similar, -min(count + _SPARE, len(vectors)), axis=1)[:, -count - _SPARE :]
    exact = np.einsum("qd,qkd->qk", vectors[some].astype(np.float64), vectors[near].astype(np.float64))
    exact[np.isneginf(np.take_along_axis(similar, near, 1))] = -np.inf
    order = np.lexsort((near, -exact), axis=1)[:, :count]
    ordered, kept = (np.take_along_axis(values, order, 1) for values in (near, ~np.isneginf(exact)))
    return [row[there].tolist() for row, there in zip(ordered, kept, strict=True)]


def _patients(studies: Sequence[Study]) -> np.ndarray:
    numbers: dict[str, int] = {}
    known = [None if s.patient is None else numbers.setdefault(s.patient, len(numbers)) for s in studies]
    return np.array([-1 - place if number is None else number for place, number in enumerate(known)], np.int32)


def _digest(*parts: str) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]

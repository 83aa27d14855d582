"""The offline judge with a sentence encoder for wording outside the lexicon: `offline+minilm`."""

from collections.abc import Generator, Iterable, Sequence
from pathlib import Path
from typing import Any

from crimson_core.errors import JudgeError, missing
from crimson_core.judges.base import Judgement
from crimson_core.judges.rules.extraction import unnamed_clauses
from crimson_core.judges.rules.judge import OfflineJudge, evaluate_pair, read_findings
from crimson_core.judges.rules.lexicon import concept_entries, lexicon, rules
from crimson_core.protocol.pair import ReportPair

MODEL = "sentence-transformers/all-MiniLM-L6-v2"
_PAIRS_AT_ONCE = 64  # their unknown wording is encoded together
_WANTED, _UNWANTED = ["*.json", "*.txt", "*.model", "*.safetensors"], ["onnx/*", "openvino/*"]  # files of an encoder


class MiniLMJudge(OfflineJudge):
    """The offline judge, which takes a clause without any known finding for the concept whose terms are most like it.

    A clause that is more like a normal or neutral statement of the lexicon, or like nothing in it, stays without a finding.

    Args:
        model: Hub id or folder of a sentence-transformers model; all-MiniLM-L6-v2 is what the threshold was set for.
        threshold: Least cosine similarity, from 0 to 1; that of `rules.yaml` if None.

    Raises:
        JudgeError: sentence-transformers or the model cannot be had.
    """

    def __init__(self, model: str = MODEL, threshold: float | None = None) -> None:
        super().__init__()
        self.threshold = rules()["wording"]["threshold"] if threshold is None else threshold
        self.model = model
        self._encoder = load_encoder(model, "offline+minilm", "use the judge offline")
        self._names, statements = _statements()
        self._known = self._encode(statements)

    def judge(self, pairs: Sequence[ReportPair]) -> Generator[tuple[int, Judgement], None, None]:
        """Yield the judgements in order; this judge fails on no report."""
        for start in range(0, len(pairs), _PAIRS_AT_ONCE):
            chunk = pairs[start : start + _PAIRS_AT_ONCE]
            reports = {text for pair in chunk for text in (pair.reference, pair.candidate)}
            names = self._name({clause for report in reports for clause in unnamed_clauses(report)})
            read = {report: read_findings(report, names.get) for report in reports}
            for index, pair in enumerate(chunk, start):
                yield index, Judgement(evaluate_pair(pair, read.__getitem__))

    def signature(self) -> dict[str, str]:
        """The offline judge's, the encoder and its threshold."""
        revision = getattr(self._encoder[0].auto_model.config, "_commit_hash", None)
        encoder = {"encoder": self.model} | ({"revision": revision} if revision else {})
        return super().signature() | {"judge": "offline+minilm"} | encoder | {"threshold": f"{self.threshold:g}"}

    def _name(self, clauses: Iterable[str]) -> dict[str, str]:
        """Clause -> concept, for the clauses that are like a term of one."""
        clauses = sorted(clauses)
        if not clauses:
            return {}
        similar = self._encode(clauses) @ self._known.T
        best = similar.argmax(axis=1)
        named = {}
        for row, (clause, nearest) in enumerate(zip(clauses, best, strict=True)):
            name = self._names[nearest]
            if name and similar[row, nearest] >= self.threshold:
                named[clause] = name
        return named

    def _encode(self, texts: Sequence[str]) -> Any:
        return self._encoder.encode(list(texts), normalize_embeddings=True, batch_size=128, show_progress_bar=False)


def _statements() -> tuple[list[str | None], list[str]]:
    """Concept ids and their terms; None for a statement that is no finding."""
    told: list[tuple[str | None, str]] = [
        (key, term) for key, entry in concept_entries().items() for term in entry["terms"]
    ]
    told += [(None, statement) for entry in concept_entries().values() for statement in entry.get("normal", ())]
    told += [(None, statement) for statement in lexicon().neutral_statements]
    return [name for name, _ in told], [text for _, text in told]


def load_encoder(model: str, needed_by: str, instead: str, device: str | None = "cpu") -> Any:
    """A sentence-transformers model.

    Args:
        model: Hub id or folder.
        needed_by: Who needs it, for an error.
        instead: What to do where it cannot be had, for an error.
        device: As torch names it; the best that there is if None.

    Raises:
        JudgeError: sentence-transformers or the model cannot be had.
    """
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        raise missing(error, "minilm", needed_by) from None
    from huggingface_hub import errors, snapshot_download

    on_hub = not Path(model).is_dir()
    try:
        if on_hub:
            # at once: sentence-transformers asks for each file, and waits each time where the Hub is out of reach
            snapshot_download(model, allow_patterns=_WANTED, ignore_patterns=_UNWANTED)
        return SentenceTransformer(
            model,
            device=device,
            trust_remote_code=False,
            local_files_only=on_hub,
            model_kwargs={"use_safetensors": True},
        )
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled):
        raise JudgeError(
            f"The sentence encoder {model} cannot be loaded: the Hub cannot be reached, and it is not in the Hub's cache. "
            f"Connect to the network, give the folder of a copy, or {instead}."
        ) from None
    except Exception as error:  # whatever the Hub or the file system raises
        raise JudgeError(
            f"The sentence encoder {model} cannot be loaded ({type(error).__name__}). Check the name or the folder, "
            f"and that it can be downloaded, or {instead}."
        ) from error

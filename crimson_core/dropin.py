"""A drop-in for `CRIMSON.CRIMSONScore`: code written for the reference implementation runs with one import changed."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from crimson_core.errors import InputError
from crimson_core.prompt import PUBLISHED_MODEL, prompt_for
from crimson_core.report import ReportPair, make_pairs
from crimson_core.scorer import CrimsonScorer, PairResult

_DEFAULT_MODELS = {"hf": PUBLISHED_MODEL, "openai": "gpt-5.2"}


class CRIMSONScore:
    """The reference implementation's class, on our judges.

    Args:
        api: `hf` (or `huggingface`), `openai`, `azure` or `offline`.
        model_name: Hub id, folder, API model or deployment; by default the published model, or gpt-5.2 for `openai`.
        device: For `hf`: where the model runs. The reference implementation's default is "cuda"; ours is the best there is.
        **judge_options: For the judge's constructor.

    Raises:
        InputError: The api or an option is unknown.
        JudgeError: The judge cannot be loaded.
    """

    def __init__(
        self, api: str = "hf", model_name: str | None = None, device: str | None = None, **judge_options: Any
    ) -> None:
        self.api = "hf" if api == "huggingface" else api
        self.model_name = model_name or _DEFAULT_MODELS.get(self.api)
        if device is not None:
            judge_options["device"] = device
        spec = self.api if self.model_name is None else f"{self.api}:{self.model_name}"
        self._scorer = CrimsonScorer(spec, **judge_options)

    def evaluate(
        self,
        reference_findings: str | Sequence[str],
        predicted_findings: str | Sequence[str],
        patient_context: Mapping[str, Any] | None = None,
        include_guidelines: bool = True,
    ) -> dict[str, Any]:
        """Score one report pair.

        Args:
            reference_findings: Reference report, or a list of findings.
            predicted_findings: Candidate report, or a list of findings.
            patient_context: Any of age, sex and indication.
            include_guidelines: Whether a model judge's prompt holds the guidelines; the published model never gets them.

        Returns:
            The reference implementation's keys (`raw_evaluation`, `error_counts`, `weighted_error_counts`, `metrics`,
            `crimson_score`), and `repairs`.

        Raises:
            InputError: The pair cannot be scored.
            ValueError: The judge's output could not be read.
        """
        (result,) = self._score([reference_findings], [predicted_findings], [patient_context], include_guidelines)
        if result.score is None:
            raise ValueError(f"the pair is unscored: {result.failure}")
        return _keys(result)

    def evaluate_batch(
        self,
        reference_findings_list: Sequence[str | Sequence[str]],
        predicted_findings_list: Sequence[str | Sequence[str]],
        patient_contexts: Sequence[Mapping[str, Any] | None] | None = None,
        include_guidelines: bool = True,
        batch_size: int | None = None,
    ) -> list[dict[str, Any] | None]:
        """Score several pairs; a pair that could not be scored is None, with a warning that says why."""
        results = self._score(
            reference_findings_list, predicted_findings_list, patient_contexts, include_guidelines, batch_size
        )
        for result in results:
            if result.score is None:
                warnings.warn(f"pair {result.index} is unscored: {result.failure}", stacklevel=2)
        return [None if result.score is None else _keys(result) for result in results]

    def _score(
        self,
        references: Sequence[str | Sequence[str]],
        predictions: Sequence[str | Sequence[str]],
        contexts: Sequence[Mapping[str, Any] | None] | None,
        guidelines: bool,
        batch_size: int | None = None,
    ) -> list[PairResult]:
        judge = self._scorer.judge
        if hasattr(judge, "prompt") and judge.prompt.style == "reference":
            judge.prompt = replace(judge.prompt, guidelines=prompt_for(self.model_name, guidelines).guidelines)
        if batch_size is not None and hasattr(judge, "batch_size"):
            judge.batch_size = batch_size
        return self._scorer.score(self._pairs(references, predictions, contexts))

    @staticmethod
    def _pairs(
        references: Sequence[str | Sequence[str]],
        predictions: Sequence[str | Sequence[str]],
        contexts: Sequence[Mapping[str, Any] | None] | None,
    ) -> list[ReportPair]:
        for name, column in (("reference_findings_list", references), ("predicted_findings_list", predictions)):
            if isinstance(column, str):
                raise InputError(f"{name} is a string. Give a list with one entry per report pair.")
        return make_pairs([_joined(p) for p in predictions], [_joined(r) for r in references], contexts)


def _joined(report: str | Sequence[str]) -> str:
    """A list of findings as one text, in the way of the reference implementation."""
    return " ".join(report) if isinstance(report, list) else report


def _keys(result: PairResult) -> dict[str, Any]:
    return {**result.score, "repairs": result.repairs}

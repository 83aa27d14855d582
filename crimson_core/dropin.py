"""A drop-in for `CRIMSON.CRIMSONScore`: code written for the reference implementation runs with one import changed."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from crimson_core.errors import InputError
from crimson_core.judges.model import ModelJudge
from crimson_core.protocol.pair import ReportPair, check_report, make_pairs
from crimson_core.protocol.prompt import PUBLISHED_MODEL
from crimson_core.run.scorer import CrimsonScorer, PairResult

# make_pairs' argument names -> the names of this class, for errors
_ARGUMENTS = {
    "predictions": "predicted_findings",
    "references": "reference_findings",
    "patient_contexts": "patient_context",
}
_DEFAULT_MODELS = {"hf": PUBLISHED_MODEL, "vllm": PUBLISHED_MODEL, "openai": "gpt-5.2"}


class CRIMSONScore:
    """The reference implementation's class, with our judges.

    Args:
        api: `hf` (or `huggingface`), `vllm`, `openai`, `azure` or `offline`.
        model_name: Hub id, folder, API model or deployment; defaults to the published model, or gpt-5.2 for `openai`.
        device: The device of an `hf` model. The reference implementation's default is "cuda"; ours is the best
            available.
        **judge_options: Options of the judge.

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
        judge = self._scorer.judge
        if isinstance(judge, ModelJudge) and "delimited" not in judge_options:
            judge.prompt = replace(judge.prompt, delimited=False)  # as the reference implementation sends it
        self._prompt = judge.prompt if isinstance(judge, ModelJudge) else None

    def evaluate(
        self,
        reference_findings: str | list[str],
        predicted_findings: str | list[str],
        patient_context: Mapping[str, Any] | None = None,
        include_guidelines: bool = True,
    ) -> dict[str, Any]:
        """Score one report pair.

        Args:
            reference_findings: Reference report, or a list of findings.
            predicted_findings: Candidate report, or a list of findings.
            patient_context: Any of age, sex and indication.
            include_guidelines: Whether a model judge's prompt contains the guidelines; the published model never gets
                them.

        Returns:
            The reference implementation's keys (`raw_evaluation`, `error_counts`, `weighted_error_counts`, `metrics`,
            `crimson_score`), and `repairs`.

        Raises:
            InputError: The pair cannot be scored.
            ValueError: The judge's output could not be read.
        """
        (result,) = self._score([reference_findings], [predicted_findings], [patient_context], include_guidelines)
        record = _record(result)
        if record is None:
            raise ValueError(f"the pair is unscored: {result.failure}")
        return record

    def evaluate_batch(
        self,
        reference_findings_list: Sequence[str | list[str]],
        predicted_findings_list: Sequence[str | list[str]],
        patient_contexts: Sequence[Mapping[str, Any] | None] | None = None,
        include_guidelines: bool = True,
        batch_size: int | None = None,
    ) -> list[dict[str, Any] | None]:
        """Score several pairs; an unscored pair is None, and a warning says why."""
        if not len(reference_findings_list) and not len(predicted_findings_list):
            return []  # as the reference implementation does
        results = self._score(
            reference_findings_list, predicted_findings_list, patient_contexts, include_guidelines, batch_size
        )
        for result in results:
            if result.evaluation is None:
                warnings.warn(f"pair {result.index} is unscored: {result.failure}", stacklevel=2)
        return list(map(_record, results))

    def _score(
        self,
        references: Sequence[str | list[str]],
        predictions: Sequence[str | list[str]],
        contexts: Sequence[Mapping[str, Any] | None] | None,
        guidelines: bool,
        batch_size: int | None = None,
    ) -> list[PairResult]:
        judge = self._scorer.judge
        if isinstance(judge, ModelJudge) and self._prompt:
            # the model's default prompt, or the same one without guidelines
            judge.prompt = self._prompt if guidelines else replace(self._prompt, guidelines=False)
            engine: Any = judge.engine
            if batch_size is not None and hasattr(engine, "batch_size"):
                engine.batch_size = batch_size
        return self._scorer.score(self._pairs(references, predictions, contexts))

    def _pairs(
        self,
        references: Sequence[str | list[str]],
        predictions: Sequence[str | list[str]],
        contexts: Sequence[Mapping[str, Any] | None] | None,
    ) -> list[ReportPair]:
        columns = {"reference_findings": references, "predicted_findings": predictions}
        texts = {}
        for name, column in columns.items():
            if isinstance(column, str):
                raise InputError(f"{name}_list is a string. Give a list with one entry per report pair.")
            texts[name] = [self._joined(report, f"{name} {row}") for row, report in enumerate(column)]
        return make_pairs(
            texts["predicted_findings"],
            texts["reference_findings"],
            contexts,
            where=lambda argument, row: f"{_ARGUMENTS.get(argument, argument)} {row}",
        )

    def _joined(self, report: str | list[str], where: str) -> str:
        """Join a list of findings with blanks, like the reference implementation.

        The offline judge reads sentences, so there each finding ends with a full stop: a "no" must not deny the next.
        """
        if not isinstance(report, list):
            return report
        findings = [check_report(finding, f"{where}, a finding,") for finding in report]
        if self.api == "offline":
            findings = [f if f.rstrip().endswith((".", "!", "?")) else f"{f}." for f in findings]
        return " ".join(findings)


def _record(result: PairResult) -> dict[str, Any] | None:
    return None if (score := result.score) is None else {**score, "repairs": result.repairs}

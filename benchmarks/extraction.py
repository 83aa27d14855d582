"""Does the offline judge read the findings that `radlabels` labels? Precision, recall and F1 per finding and status.

`radlabels` ships 1,000 synthetic chest X-ray reports, labelled with RadGraph-XL for 49 radiologist-defined findings (present,
uncertain, absent). It also labels the indication and the technique, which a judge must not read: the text under such headings
is left out.
"""

import json
import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
import yaml

from benchmarks.common import JsonOption, console, run, table, write_json
from crimson_core.judges.rules.extraction import ReportFinding, read_report
from training.corpus import radlabels_samples

STATUSES = ("present", "uncertain", "absent")
# RadGraph takes most hedged findings for present ones; the first column tells whether a finding is read at all.
_COLUMNS = {"present or uncertain": ("present", "uncertain"), **{status: (status,) for status in STATUSES}}
_THEIRS = {"definitely present": "present", "uncertain": "uncertain", "definitely absent": "absent"}
# Our own list, so that a section which the judge skips by mistake counts against it.
_OTHER_SECTION = re.compile(
    r"\b(?:indications?|history|clinical \w+|comparisons?|technique|examination|exam|reason for \w+|study) :", re.I
)
_HEADING = re.compile(r"\b[A-Z][A-Z ]{3,} :")


def main(
    samples: Annotated[
        Path | None, typer.Argument(help="Folder `samples` of radlabels; found if it is installed.")
    ] = None,
    show: Annotated[int, typer.Option(help="Print this many disagreements per kind, with the sentence.")] = 0,
    json_file: JsonOption = None,
) -> None:
    """Compare what the offline judge reads with the labels of radlabels."""
    folder = samples or radlabels_samples()
    matches = json.loads((folder / "synthetic_matches.json").read_text(encoding="utf-8"))
    concepts = yaml.safe_load((Path(__file__).parent / "radlabels.yaml").read_text(encoding="utf-8"))
    reports = {r: (folder / "synthetic_reports" / f"{r}.txt").read_text(encoding="utf-8") for r in matches}
    ours = {report: labels_of(text, concepts) for report, text in reports.items()}
    theirs = {report: labels_in(entry) for report, entry in matches.items()}
    counts = count(ours, theirs)
    print_counts(counts)
    if show:
        print_disagreements(reports, matches, ours, theirs, show)
    write_json(json_file, {status: prf(sum_of(counts, status)) for status in _COLUMNS})


def labels_of(text: str, concepts: dict[str, list[str]]) -> dict[str, str]:
    """The labels of our reading of a report, with their status; present outweighs uncertain, and uncertain absent."""
    found: dict[str, set[str]] = defaultdict(set)
    for finding in read_report(text):
        words = text[finding.start : finding.end].lower()
        for label, names in concepts.items():
            if any(means(name, finding, words) for name in names):
                found[label].add(status_of(finding))
    return {label: next(s for s in STATUSES if s in statuses) for label, statuses in found.items()}


def means(name: str, finding: ReportFinding, words: str) -> bool:
    """Whether a finding matches an entry of `radlabels.yaml`."""
    concept, _, word = name.partition(":")
    return concept in finding.concepts and word in words


def status_of(finding: ReportFinding) -> str:
    """present, uncertain or absent."""
    return "absent" if not finding.present else "uncertain" if finding.attributes.uncertain else "present"


def labels_in(entry: dict) -> dict[str, str]:
    """The labels of radlabels for the findings of a report."""
    left_out = set(other_tokens(entry["text"]))
    found: dict[str, set[str]] = defaultdict(set)
    for match in entry["matches"]:
        if not left_out.issuperset(match["start_ix"]):
            found[match["disease"]].add(_THEIRS[match["label"]])
    return {label: next(s for s in STATUSES if s in statuses) for label, statuses in found.items()}


def other_tokens(text: str) -> Iterator[int]:
    """Positions of the tokens under a heading such as INDICATION or TECHNIQUE."""
    inside, offset = False, 0
    headings = {m.start(): bool(_OTHER_SECTION.match(text, m.start())) for m in _HEADING.finditer(text)}
    for position, token in enumerate(text.split(" ")):
        inside = headings.get(offset, inside)
        if inside:
            yield position
        offset += len(token) + 1


def count(ours: dict, theirs: dict) -> dict[tuple[str, str], Counter]:
    """(label, status) -> how often both give it, only we, only they."""
    counts: dict[tuple[str, str], Counter] = defaultdict(Counter)
    for report in theirs:
        for label in ours[report].keys() | theirs[report].keys():
            we, they = ours[report].get(label), theirs[report].get(label)
            for status, members in _COLUMNS.items():
                if we in members or they in members:
                    kind = "both" if we in members and they in members else "ours" if we in members else "theirs"
                    counts[label, status][kind] += 1
    return counts


def sum_of(counts: dict[tuple[str, str], Counter], status: str) -> Counter:
    """The counts of all labels in one status."""
    return sum((c for (_, s), c in counts.items() if s == status), Counter())


def prf(c: Counter) -> dict[str, float]:
    """Precision, recall and F1."""
    ours, theirs = c["both"] + c["ours"], c["both"] + c["theirs"]
    return {
        "precision": c["both"] / ours if ours else 0.0,
        "recall": c["both"] / theirs if theirs else 0.0,
        "f1": 2 * c["both"] / (ours + theirs) if ours + theirs else 0.0,
        "n": theirs,
    }


def print_counts(counts: dict[tuple[str, str], Counter]) -> None:
    """Print precision, recall, F1 and number of labels, per finding and status, commonest first."""
    made = table("Extraction against radlabels (precision / recall / F1 / n)", ("finding", *_COLUMNS))

    def cell(c: Counter) -> str:
        f = prf(c)
        return f"{f['precision']:.2f} / {f['recall']:.2f} / {f['f1']:.3f} / {f['n']:4d}" if c.total() else ""

    made.add_row("all (micro)", *(cell(sum_of(counts, status)) for status in _COLUMNS), end_section=True)
    for label in sorted({label for label, _ in counts}, key=lambda k: -counts[k, "present or uncertain"]["both"]):
        made.add_row(label, *(cell(counts[label, status]) for status in _COLUMNS))
    console.print(made)


def print_disagreements(reports: dict, matches: dict, ours: dict, theirs: dict, show: int) -> None:
    """Print the most common kinds of disagreement, with some sentences for each."""
    kinds: dict[tuple[str, str, str], list[str]] = defaultdict(list)
    for report in theirs:
        for label in ours[report].keys() | theirs[report].keys():
            we, they = ours[report].get(label, "-"), theirs[report].get(label, "-")
            if we != they:
                kinds[label, we, they].append(report)
    for (label, we, they), where in sorted(kinds.items(), key=lambda item: -len(item[1])):
        console.print(f"\n{label}: we {we}, they {they} ({len(where)})")
        for report in random.Random(0).sample(where, min(show, len(where))):
            words = matches[report]["text"].split(" ")
            places = [m["start_ix"] for m in matches[report]["matches"] if m["disease"] == label]
            theirs_said = {" ".join(words[max(0, min(p) - 12) : max(p) + 12]) for p in places}
            said = theirs_said or {" ".join(reports[report].split())}
            console.print(f"  {report}: {' // '.join(sorted(said)[:2])}")


if __name__ == "__main__":
    run(main)

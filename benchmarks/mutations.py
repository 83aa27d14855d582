"""Mutations: does a judge find nothing where nothing changed, and exactly the one error that was made?

Changes a folder of labelled chest X-ray reports (the `samples` of the PyPI package `radlabels`) in three ways: *invariances*,
pairs with the same meaning, which must score 1 without errors; *known errors*, pairs with one error; *monotony*, candidates
that get worse step by step. The changes use the labels and the tables in `mutations.yaml`, and not the judge's lexicon.

    pip install --no-deps radlabels
    python -m benchmarks.mutations
"""

import json
import random
import re
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer
import yaml

from benchmarks.common import JUDGE_HELP, JsonOption, console, number, ratio, run, score_with, table, write_json
from crimson_core.errors import InputError
from crimson_core.protocol.pair import ReportPair
from crimson_core.run.scorer import PairResult
from training.corpus import radlabels_samples

_TABLES = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
_ROUNDING = 1e-9
_MOST_STEPS = 5

# A line that begins with capitals and a colon, or with one capitalised word or two and a colon, heads a section.
_HEADING = re.compile(
    r"^[ \t]*([A-Z][A-Z /,()&-]{2,60}|[A-Z][a-z]+(?: [A-Za-z]+)?|FINDINGS and IMPRESSION)[ \t]*:", re.M
)
_STOP = re.compile(r"(?<!\bDr)(?<!\bMr)(?<!\bvs)(?<!\bapprox)(?<![ap]\.m)(?<!\b[A-Z])[.!?](?=\s|$)")
_LIST_NUMBER = re.compile(r"\s*\d{1,2}[.)]\s+")
_PARAGRAPH = re.compile(r"\n[^\S\n]*\n")
_VERB = re.compile(r"\b(is|are|has|have|remains?|was|were)\b", re.I)


def _pattern(name: str) -> re.Pattern[str]:
    return re.compile(_TABLES[name].replace("| ", "|"), re.IGNORECASE)  # YAML folds lines after a bar


_LEANING, _NOT_PLAIN, _HEDGES = _pattern("leaning"), _pattern("not_plain"), _pattern("hedges")
_FIXED_SIDES, _CHANGE, _SEVERITY_ANY = _pattern("fixed_sides"), _pattern("change_words"), _pattern("severity_any")
_OLD = _pattern("old")
_TEMPORAL_ANY, _BODY, _SKIP = _pattern("temporal_any"), _pattern("body_headings"), _pattern("skip_headings")
_TEMPORAL = [(re.compile(words, re.IGNORECASE), flip) for words, flip in _TABLES["temporal"]]
_SEVERITY = re.compile(rf"\b({'|'.join(_TABLES['severity'])})\b", re.IGNORECASE)
_ADJECTIVES = _TABLES["adjectives"].replace("| ", "|")
_FAMILIES = {
    name: (frozenset(family["labels"]), re.compile(rf"\b(?:{'|'.join(family['words'])})", re.IGNORECASE))
    for name, family in _TABLES["families"].items()
}
_FAMILY_OF = {label: name for name, (labels, _) in _FAMILIES.items() for label in labels}
_SIDE = re.compile(r"\b(left|right)\b", re.IGNORECASE)
_OTHER = {"left": "right", "right": "left"}
_PLAIN_START = re.compile(r"(there (?:is|are) )?(an? )?", re.IGNORECASE)


class Span(NamedTuple):
    """Characters of a report."""

    start: int
    end: int


class Label(NamedTuple):
    """A labelled mention."""

    name: str
    state: str
    start: int  # its first character


class Section(NamedTuple):
    """A section of a report."""

    start: int
    end: int
    skipped: bool
    sentences: tuple[Span, ...]  # none if it reports no findings


@dataclass(frozen=True)
class Report:
    """A report of the corpus with its labels."""

    id: str
    text: str
    labels: tuple[Label, ...]

    @cached_property
    def sections(self) -> list[Section]:
        """The sections in their order; sentences are given only under headings of `body_headings`."""
        heads = list(_HEADING.finditer(self.text))
        starts = [0, *(head.start() for head in heads)]
        ends = [*(head.start() for head in heads), len(self.text)]
        sections = [Section(starts[0], ends[0], False, ())]
        for head, start, end in zip(heads, starts[1:], ends[1:], strict=True):
            name = head[1].strip()
            body = bool(_BODY.fullmatch(name)) and not re.match(r"exam|study|technique|reason|procedure", name, re.I)
            told = tuple(sentence_spans(self.text, head.end(), end)) if body else ()
            sections.append(Section(start, end, not body and bool(_SKIP.fullmatch(name)), told))
        return sections

    @cached_property
    def sentences(self) -> list[Span]:
        """All complete sentences that report findings."""
        return [span for section in self.sections for span in section.sentences if self.is_whole(span)]

    def is_whole(self, span: Span) -> bool:
        """Whether a sentence ends in a full stop; reports of the corpus may end anywhere."""
        return bool(re.search(r"(?<!\s\d)(?<!\s\d\d)[.!?]$", self.cut(span)))

    def cut(self, span: Span) -> str:
        """The text of a span."""
        return self.text[span.start : span.end]

    def labels_in(self, span: Span) -> list[Label]:
        """The labelled mentions in a span."""
        return [label for label in self.labels if span.start <= label.start < span.end]

    def tells(self, family: str, besides: Span | None = None) -> bool:
        """Whether a family appears, by label or by word, outside a span."""
        labels, words = _FAMILIES[family]
        start, end = besides or (0, 0)
        if any(label.name in labels and not start <= label.start < end for label in self.labels):
            return True
        for section in self.sections:
            inside = besides is not None and section.start <= start < section.end
            parts = [(section.start, start), (end, section.end)] if inside else [section[:2]]
            if not section.skipped and any(words.search(self.text[a:b]) for a, b in parts):
                return True
        return False

    @cached_property
    def single_findings(self) -> list[tuple[Span, Label]]:
        """Plain sentences with one labelled finding that the report names nowhere else, with the label."""
        found = []
        for span in self.sentences:
            inside = self.labels_in(span)
            names = {label.name for label in inside}
            if len(names) != 1 or {label.state for label in inside} != {"definitely present"}:
                continue
            family = _FAMILY_OF.get(inside[0].name)
            if family and not _NOT_PLAIN.search(self.cut(span)) and not self.tells(family, besides=span):
                found.append((span, inside[0]))
        return found

    def replaced(self, span: Span, text: str) -> str:
        """The report with another text in place of a span."""
        return self.text[: span.start] + text + self.text[span.end :]

    def without(self, spans: Iterable[Span]) -> str:
        """The report without some sentences, and without the list numbers that they leave behind."""
        text = self.text
        for span in sorted(spans, reverse=True):
            before = re.sub(r"(?:^|(?<=\n))[^\S\n]*\d{1,2}[.)][^\S\n]+$", "", text[: span.start])
            text = before + text[span.end :].lstrip(" ")
        return text

    def with_more(self, *added: str) -> str | None:
        """The report with sentences added to its findings, or to the last section that reports any."""
        told = [section for section in self.sections if any(self.is_whole(span) for span in section.sentences)]
        if not told:
            return None
        named = [s for s in told if re.match(r"\s*findings", self.text[s.start : s.end], re.IGNORECASE)]
        spans = (named or told)[-1].sentences
        last = max(span for span in spans if self.is_whole(span))
        if any(span > last and _LEANING.match(self.cut(span)) for span in spans):
            return None  # a cut sentence stands at the end, and would lean on what is added
        return self.text[: last.end] + "".join(f" {sentence}" for sentence in added) + self.text[last.end :]


def sentence_spans(text: str, start: int, end: int) -> Iterator[Span]:
    """The sentences of a section, without list numbers; a blank line ends a sentence too."""
    cuts = sorted(
        {
            m.end()
            for m in _STOP.finditer(text, start, end)
            if not re.search(r"(^|\s)\d{1,2}\.$", text[max(start, m.end() - 4) : m.end()])
        }
        | {m.end() for m in _PARAGRAPH.finditer(text, start, end)}
        | {end}
    )
    for cut in cuts:
        while numbered := _LIST_NUMBER.match(text, start, cut):
            start = numbered.end()
        piece = text[start:cut]
        if piece.strip():
            yield Span(start + len(piece) - len(piece.lstrip()), cut - len(piece) + len(piece.rstrip()))
        start = cut


Check = Callable[[Sequence[PairResult]], "Verdict"]


class Case(NamedTuple):
    """One case: a report pair, or one per step."""

    report: str
    pairs: list[ReportPair]
    check: Check


Maker = Callable[[Report, random.Random], Case | None]


def _same(change: Callable[[Report, random.Random], str | None]) -> Maker:
    """Makes cases of a report and a candidate with the same meaning."""

    def make(report: Report, rng: random.Random) -> Case | None:
        text = change(report, rng)
        return None if text is None else Case(report.id, [ReportPair(report.text, text)], check_same)

    return make


def _wrong(expected: str, change: Callable[[Report, random.Random], tuple[str, str] | None]) -> Maker:
    """Makes cases of two reports with one error."""

    def make(report: Report, rng: random.Random) -> Case | None:
        made = change(report, rng)
        return made and Case(report.id, [ReportPair(*made)], partial(check_error, expected=expected))

    return make


def _changed(report: Report, text: str | None) -> str | None:
    return None if text == report.text else text


# A. Invariances


def shuffled(report: Report, rng: random.Random) -> str | None:
    """Sentences change places within their section; one that refers to another stays behind it."""
    text = report.text
    for section in reversed(report.sections):
        groups: list[Span] = []
        for span in section.sentences:
            if not report.is_whole(span):
                break  # a cut sentence stays last
            if groups and _LEANING.match(report.cut(span)):
                groups[-1] = Span(groups[-1].start, span.end)
            else:
                groups.append(span)
        # A list number inside a group, or a sentence that leans on nothing, would be torn from its place.
        if any(re.search(r"\n\s*\d{1,2}[.)]\s", report.cut(g)) or _LEANING.match(report.cut(g)) for g in groups):
            continue
        order = rng.sample(groups, len(groups))
        for slot, moved in reversed(list(zip(groups, order, strict=True))):
            text = text[: slot.start] + report.cut(moved) + text[slot.end :]
    return _changed(report, text)


def normal_added(report: Report, rng: random.Random) -> str | None:
    """Up to four normal statements are added, about structures that the report does not mention."""
    fitting = [sentence for family, sentence in _TABLES["normal"] if not report.tells(family)]
    return report.with_more(*rng.sample(fitting, min(4, len(fitting)))) if fitting else None


def _in_sentences(report: Report, change: Callable[[str], str]) -> str | None:
    text = report.text
    for span in reversed([span for section in report.sections for span in section.sentences]):
        # A line that starts with a capital may be a sentence of its own, whose line break means something.
        if not re.search(r"\n\s*[A-Z]", report.cut(span)):
            text = text[: span.start] + change(report.cut(span)) + text[span.end :]
    return _changed(report, text)


def wrapped(report: Report, rng: random.Random) -> str | None:
    """Lines of the sentences break at other places."""
    width = rng.randint(30, 90)
    return _in_sentences(
        report,
        lambda text: textwrap.fill(" ".join(text.split()), width, break_long_words=False, break_on_hyphens=False),
    )


def last_stop_dropped(report: Report, rng: random.Random) -> str | None:
    """The section ends have no full stop."""
    text = report.text
    for section in reversed(report.sections):
        if section.sentences and report.is_whole(section.sentences[-1]):
            end = section.sentences[-1].end
            text = text[: end - 1] + text[end:]
    return _changed(report, text)


def semicolon(report: Report, rng: random.Random) -> str | None:
    """A semicolon joins two independent sentences."""
    fitting = []
    for section in report.sections:
        for one, other in zip(section.sentences, section.sentences[1:], strict=False):
            between, first, second = report.text[one.end : other.start], report.cut(one), report.cut(other)
            free = not (_NOT_PLAIN.search(first) or _HEDGES.search(first) or _LEANING.match(second))
            verbs = _VERB.search(first) and _VERB.search(second)
            if report.is_whole(one) and between == " " and free and verbs and re.match(r"[A-Z][a-z]|[A-Z] ", second):
                fitting.append((one, other))
    if not fitting:
        return None
    one, other = rng.choice(fitting)
    second = report.cut(other)
    return report.text[: one.end - 1] + "; " + second[0].lower() + second[1:] + report.text[other.end :]


def hyphens_dropped(report: Report, rng: random.Random) -> str | None:
    """Compounds with blanks for hyphens ("right sided")."""
    joined = r"(?<=[a-z]{3})(?<!\bnon)(?<!\bpre)(?<!\bsemi)(?<!\bpost)(?<!\banti)(?<!\bself)-(?=[a-z]{3})"
    return _changed(report, re.sub(joined, " ", report.text))


INVARIANCES: dict[str, Maker] = {
    "self": _same(lambda report, rng: report.text),
    "shuffled": _same(shuffled),
    "normal added": _same(normal_added),
    "upper case": _same(lambda report, rng: report.text.upper()),
    "lower case": _same(lambda report, rng: report.text.lower()),
    "lines wrapped": _same(wrapped),
    "double blanks": _same(lambda report, rng: _in_sentences(report, lambda text: text.replace(" ", "  "))),
    "CRLF": _same(lambda report, rng: report.text.replace("\n", "\r\n")),
    "last stop dropped": _same(last_stop_dropped),
    "semicolon": _same(semicolon),
    "hyphens dropped": _same(hyphens_dropped),
}


# B. Known errors


def _free(report: Report) -> list[Span]:
    """Sentences that can be left out: they refer to no other, and the next one does not refer to them."""
    following = dict(zip(report.sentences, report.sentences[1:], strict=False))
    leaning = {span for span in report.sentences if _LEANING.match(report.cut(span))}
    return [span for span in report.sentences if span not in leaning and following.get(span) not in leaning]


def _droppable(report: Report) -> list[tuple[Span, Label]]:
    free = _free(report)
    return [(span, label) for span, label in report.single_findings if span in free]


def dropped(report: Report, rng: random.Random) -> tuple[str, str] | None:
    """The only sentence with a finding is left out."""
    fitting = _droppable(report)
    return (report.text, report.without([rng.choice(fitting)[0]])) if fitting else None


def _additions(report: Report, rng: random.Random) -> list[str]:
    """Abnormal findings that the report does not mention, one per family, in random order."""
    fitting = [(family, text) for family, text in _TABLES["false_findings"] if not report.tells(family)]
    rng.shuffle(fitting)
    return list(dict(reversed(fitting)).values())


def added(report: Report, rng: random.Random) -> tuple[str, str] | None:
    """A finding is added that the report does not mention."""
    sentences = _additions(report, rng)
    text = report.with_more(sentences[0]) if sentences else None
    return text and (report.text, text)


def _like(word: str, model: str) -> str:
    return word.upper() if model.isupper() else word.capitalize() if model[0].isupper() else word


def _edited(expected: str, edit: Callable[[str, int], str | None], devices: bool = False) -> Maker:
    """The sentence of a single finding is edited; `edit` takes the sentence and the place of the finding in it."""

    def change(report: Report, rng: random.Random) -> tuple[str, str] | None:
        fitting = [
            (span, text)
            for span, label in report.single_findings
            if (devices or label.name not in _TABLES["devices"])  # a device is there or not, and has no degree
            and (text := edit(report.cut(span), label.start - span.start)) is not None
        ]
        return (report.text, report.replaced(*rng.choice(fitting))) if fitting else None

    return _wrong(expected, change)


def _side_flipped(sentence: str, place: int) -> str | None:
    sides = _SIDE.findall(sentence)
    if len(sides) != 1 or _FIXED_SIDES.search(sentence):
        return None
    return _SIDE.sub(lambda side: _like(_OTHER[side[0].lower()], side[0]), sentence)


def _severity_changed(sentence: str, place: int) -> str | None:
    words = list(_SEVERITY_ANY.finditer(sentence))
    word = _SEVERITY.search(sentence)
    if len(words) != 1 or not word or word.span() != words[0].span():
        return None
    # The word must stand in the finding's own phrase: "mild edema", "the heart is mildly enlarged".
    between = sentence[word.end() : place] if word.end() <= place else sentence[place : word.start()]
    if (
        len(between.split()) > 4
        or re.search(r"[,;]|\b(and|with|at|in)\b", between)
        or _CHANGE.match(sentence[word.end() :].lstrip())
    ):
        return None
    return _SEVERITY.sub(lambda found: _like(_TABLES["severity"][found[0].lower()], found[0]), sentence)


def _hedged(sentence: str, place: int) -> str | None:
    start = _PLAIN_START.match(sentence)
    phrase = re.match(rf"(?:(?:{_ADJECTIVES})[ ,-]+)*", sentence[start.end() :], re.IGNORECASE)
    # The finding must be the sentence's first noun, and nothing may stand before it but words about it.
    # "Possible heart is enlarged" would be no sentence.
    structure = re.match(r"(the )?(heart|cardiac|lung|aort|mediastin|vascul|unfold)", sentence[place:], re.IGNORECASE)
    if _HEDGES.search(sentence) or structure or place > start.end() + phrase.end():
        return None
    rest = sentence[start.end() :]
    rest = rest if re.match(r"[A-Z]{2}", rest) else rest[0].lower() + rest[1:]
    hedge = f"{start[1] or ''}{'a ' if start[2] else ''}possible {rest}"
    return hedge[0].upper() + hedge[1:]


def _temporal_flipped(sentence: str, place: int) -> str | None:
    if len(_TEMPORAL_ANY.findall(sentence)) != 1:
        return None
    for words, flip in _TEMPORAL:
        if words.search(sentence):
            return words.sub(lambda found, flip=flip: _like_first(found, flip), sentence)
    return None


def _like_first(found: re.Match[str], flip: str) -> str:
    text = found.expand(flip)
    return text[0].upper() + text[1:] if found[0][0].isupper() else text


def _carried(expected: str) -> Maker:
    """A sentence of ours is added to both reports, with one difference."""

    def change(report: Report, rng: random.Random) -> tuple[str, str] | None:
        fitting = [(one, other) for family, one, other in _TABLES["carriers"][expected] if not report.tells(family)]
        if not fitting:
            return None
        side = rng.choice(["left", "right"])
        texts = [text.format(side=side, Side=side.capitalize()) for text in rng.choice(fitting)]
        rng.shuffle(texts)
        reports = [report.with_more(text) for text in texts]
        return None if reports[0] is None else tuple(reports)

    return _wrong(expected, change)


# Each names the error that must be listed. A device out of place is another finding than one in place.
KNOWN_ERRORS: dict[str, Maker] = {
    "finding dropped": _wrong("missing", dropped),
    "finding added": _wrong("false", added),
    "side flipped": _edited("location", _side_flipped, devices=True),
    "side flipped, own words": _carried("location"),
    "device moved, own words": _carried("position"),
    "severity changed": _edited("severity", _severity_changed),
    "severity changed, own words": _carried("severity"),
    "size changed, own words": _carried("measurement"),
    "hedge added": _edited("certainty", _hedged),
    "hedge changed, own words": _carried("certainty"),
    "change flipped": _edited("temporal", _temporal_flipped),
    "change flipped, own words": _carried("temporal"),
}


# C. Monotony


def _steps(report: Report, candidates: Iterable[str], strict: bool) -> Case:
    """A case of candidates, each worse by one finding; if `strict`, the last must score below the first."""
    pairs = [ReportPair(report.text, candidate) for candidate in candidates]
    return Case(report.id, pairs, partial(check_steps, strict=strict))


def added_steps(report: Report, rng: random.Random) -> Case | None:
    """One false finding more at each step."""
    sentences = _additions(report, rng)[:_MOST_STEPS]
    if len(sentences) < 2 or report.with_more() is None:
        return None
    return _steps(report, [report.with_more(*sentences[:k]) for k in range(len(sentences) + 1)], strict=True)


def dropped_steps(report: Report, rng: random.Random) -> Case | None:
    """One sentence with a finding less at each step."""
    present = [s for s in _free(report) if any(label.state == "definitely present" for label in report.labels_in(s))]
    if not present:
        return None
    gone = rng.sample(present, min(_MOST_STEPS, len(present)))
    lost = {label.name for span, label in _droppable(report) if span in gone and not _OLD.search(report.cut(span))}
    shorter = [report.without(gone[:k]) for k in range(len(gone) + 1)]
    return _steps(report, shorter, strict=bool(lost - set(_TABLES["benign"])))


KINDS = INVARIANCES | KNOWN_ERRORS | {"k findings added": added_steps, "k findings dropped": dropped_steps}


# Checks


class Verdict(NamedTuple):
    """The result of a case: whether it holds; for known errors, whether the error is found, and found alone."""

    holds: bool
    found: bool = False
    exact: bool = False


def errors_of(result: PairResult) -> list[tuple[str, str]]:
    """Each listed error: its type and the finding that it is about."""
    outcome = result.outcome
    return [
        *(("false", finding.id) for finding in outcome.false),
        *(("missing", finding.id) for finding in outcome.missing),
        *((kind, error.ref_id) for error in outcome.errors for kind in error.types),
    ]


def check_same(results: Sequence[PairResult]) -> Verdict:
    """Score 1 and no errors."""
    (result,) = results
    return Verdict(result.crimson_score == 1.0 and not errors_of(result))


def check_error(results: Sequence[PairResult], expected: str) -> Verdict:
    """The expected error is listed, and at most one more, on the same finding."""
    (result,) = results
    errors = errors_of(result)
    if expected == "position":
        replaced = sorted(kind for kind, _ in errors) == ["false", "missing"]
        return Verdict(replaced, replaced, replaced)
    hit = {finding for kind, finding in errors if kind == expected}
    others = [(kind, finding) for kind, finding in errors if kind != expected]
    if expected == "missing":  # what was lost with a sentence may show once more, as a place or a degree now left out
        near = not any(kind == "false" for kind, _ in others)
    else:
        near = all(finding in hit for _, finding in others)
    return Verdict(bool(hit) and len(others) <= 1 and near, bool(hit), bool(hit) and not others)


def check_steps(results: Sequence[PairResult], strict: bool) -> Verdict:
    """The score never rises, and falls if it must."""
    scores = [result.crimson_score for result in results]
    falling = all(later <= earlier + _ROUNDING for earlier, later in zip(scores, scores[1:], strict=False))
    return Verdict(falling and (scores[-1] < scores[0] or not strict))


def cases_of(reports: Sequence[Report]) -> dict[str, list[Case]]:
    """All cases by kind. Each has its own random seed, so that it does not depend on the others."""
    cases = {
        kind: [case for report in reports if (case := make(report, random.Random(f"{kind} {report.id}")))]
        for kind, make in KINDS.items()
    }
    return {kind: found for kind, found in cases.items() if found}


# The corpus


def read_reports(folder: Path, limit: int | None = None) -> list[Report]:
    """The reports of a folder with their labels.

    Raises:
        InputError: The folder does not contain the corpus.
    """
    try:
        matches = json.loads((folder / "synthetic_matches.json").read_text(encoding="utf-8"))
        files = sorted((folder / "synthetic_reports").glob("*.txt"))[:limit]
        texts = {file.stem: file.read_text(encoding="utf-8") for file in files}
    except (OSError, ValueError) as error:
        raise InputError(f"{folder} does not hold the reports of radlabels: {error}.") from None
    if not texts:
        raise InputError(f"{folder} holds no reports under synthetic_reports.")
    return [Report(name, text, _labels(text, matches.get(name, {}))) for name, text in texts.items()]


def _labels(text: str, record: dict[str, Any]) -> tuple[Label, ...]:
    """Labels with their first character; the corpus counts in tokens, which differ from the text in white space."""
    places, at = [], 0
    for token in record.get("text", "").split(" "):
        found = text.find(token, at)
        if found < 0 or text[at:found].strip():
            break  # the tokens are of another text from here on
        places.append(found)
        at = found + len(token)
    return tuple(
        Label(match["disease"], match["label"], places[min(match["start_ix"])])
        for match in record.get("matches", [])
        if match["start_ix"] and min(match["start_ix"]) < len(places)
    )


# The command


def main(
    reports: Annotated[
        Path | None,
        typer.Argument(
            metavar="REPORTS", help="The folder `samples` of radlabels.  [default: that of the installed package]"
        ),
    ] = None,
    judge: Annotated[str, typer.Option("--judge", "-j", help=JUDGE_HELP)] = "offline",
    limit: Annotated[int | None, typer.Option(min=1, help="Mutate only the first N reports.")] = None,
    kinds: Annotated[
        list[str] | None, typer.Option("--kind", help="Only this kind of case. May be given several times.")
    ] = None,
    show: Annotated[int, typer.Option(min=0, help="Print that many failures of each kind, with both reports.")] = 0,
    json_file: JsonOption = None,
) -> None:
    """Change reports with a known effect, and check whether a judge finds it."""
    cases = cases_of(read_reports(reports or radlabels_samples(), limit))
    if unknown := sorted(set(kinds or ()) - set(KINDS)):
        raise InputError(f"--kind {', '.join(unknown)} is none of {', '.join(KINDS)}.")
    cases = {kind: found for kind, found in cases.items() if not kinds or kind in kinds}
    pairs = [pair for found in cases.values() for case in found for pair in case.pairs]
    if not pairs:
        raise InputError("No report offers a place for a case.")
    results, signature = score_with(judge, pairs)

    remaining = iter(results)
    shown = table(f"{judge}  {signature}", ["kind", "cases", "holds", "found", "typed exactly"])
    figures: dict[str, Any] = {}
    for kind, found in cases.items():
        verdicts, failures = [], []
        for case in found:
            of_case = [next(remaining) for _ in case.pairs]
            # An unscored pair holds nothing.
            scored = all(result.evaluation is not None for result in of_case)
            verdict = case.check(of_case) if scored else Verdict(False)
            verdicts.append(verdict)
            if not verdict.holds:
                failures.append((case, of_case))
        figures[kind] = _figures(kind, verdicts) | {"failed": [case.report for case, _ in failures]}
        shown.add_row(kind, str(len(found)), *(number(figures[kind][key], 3) for key in ("holds", "found", "exact")))
        for case, of_case in failures[:show]:
            _show_failure(kind, case, of_case)
    console.print(shown)
    write_json(json_file, {"signature": signature, "kinds": figures})


def _figures(kind: str, verdicts: Sequence[Verdict]) -> dict[str, Any]:
    known = kind in KNOWN_ERRORS
    share = {key: ratio(sum(getattr(v, key) for v in verdicts), len(verdicts)) for key in Verdict._fields}
    return {"cases": len(verdicts)} | {key: share[key] if known or key == "holds" else float("nan") for key in share}


def _show_failure(kind: str, case: Case, results: Sequence[PairResult]) -> None:
    console.print(f"\n=== {kind}: {case.report}")
    console.print(f"--- reference\n{case.pairs[0].reference}\n--- candidate\n{case.pairs[-1].candidate}")
    for result in results:
        if result.evaluation is None:
            console.print(f"--- unscored: {result.failure}")
            continue
        findings = result.outcome.references | result.outcome.predictions
        listed = "; ".join(
            f"{error} {finding} {' '.join(findings[finding].text.split())!r}" for error, finding in errors_of(result)
        )
        console.print(f"--- score {result.crimson_score}: {listed or 'no errors'}")


if __name__ == "__main__":
    run(main)

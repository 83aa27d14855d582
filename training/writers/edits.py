"""Errors put into a report by rule: a false finding, a wrong attribute, an omission.

Each function yields ways to make one error, best drawn at random by the caller. They are made so that the sentence stays
right: a word takes a word of the same sort, an adjective is put before a noun only, and a sentence that tells two things
is left alone. Whether the error is there, and nothing else, is for the caller to check: the words of a report can always
hold a surprise.
"""

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import NamedTuple

from crimson_core.judges.rules.extraction import ReportFinding, extract_findings
from crimson_core.judges.rules.lexicon import lexicon
from training.writers import ATTRIBUTES, Aim, Attribute, ErrorKind
from training.writers.pieces import Piece, like, phrases, with_article, without

_NODULE_SIZES = (5, 6, 7, 8, 9, 11, 12, 14, 16, 18, 22, 25)  # mm
_SCALES = (0.5, 1.5, 2, 2.5)
_LARGEST_CM = 12
_ABOVE_CARINA_CM = (1, 2, 3, 4, 5, 6, 7, 8)
_LEAST_SHIFT_CM = 2  # of a tip
_DENIED = 0.4  # of the omissions, the share with a normal statement in place of the finding
_WORD = re.compile(r"[A-Za-z]+(?:-[A-Za-z]+)*")
_SIZE = re.compile(
    r"(?<![\d.–-])(?<!to )\b\d+(?:\.\d+)?(?:\s*(?:x|by)\s*\d+(?:\.\d+)?)*\s*(?P<unit>mm|cm)\b", re.IGNORECASE
)
_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_TO_CARINA = re.compile(r"\s+(?:above|from|superior to|proximal to) the carina", re.IGNORECASE)
# "more mild", "minimally displaced", "mild to moderate": the word is part of more.
_PART_OF_MORE_BEFORE = re.compile(
    r"\b(?:\w+ly|more|less|most|least|very|quite|to|or|than|too|not|no)[\s-]+$", re.IGNORECASE
)
_PART_OF_MORE_BEHIND = re.compile(r"[\s-]+(?:to|or|than|bore|bowel|versus|and)\b", re.IGNORECASE)
_NOUN = re.compile(
    r"(?P<there>There (?:is|are) )?(?P<article>an? )?(?P<noun>.+?)"
    r"(?P<state> (?:is|are) (?:seen|noted|present|identified|visualized|demonstrated))?(?P<stop>\.)",
    re.IGNORECASE,
)
_DEFINITE = re.compile(r"(?:the|this|these|its|both|some|any|all|each)\b", re.IGNORECASE)


@dataclass(frozen=True)
class Edit:
    """One error in a report.

    Attributes:
        kind: What kind of error.
        pieces: The report with it.
        target: The finding of the ground truth that it is about, as a position; None for a false finding.
        attribute: Which attribute is wrong.
        concepts: Of a false finding, what it is.
        before: The sentence of the ground truth; empty for a false finding.
        after: The sentence that stands in its place; empty where none does.
    """

    kind: ErrorKind
    pieces: list[Piece] = field(repr=False)
    target: int | None = None
    attribute: Attribute | None = None
    concepts: frozenset[str] = frozenset()
    before: str = field(default="", repr=False)
    after: str = field(default="", repr=False)


def false_findings(pieces: Sequence[Piece], findings: Sequence[ReportFinding], rng: random.Random) -> Iterator[Edit]:
    """Sentences that tell a finding which the report neither tells nor comes near to; a denial of it makes room."""
    words = lexicon()
    present = {concept for finding in findings for concept in finding.concepts}
    categories = phrases()["false_findings"]
    order = rng.sample(list(categories), len(categories))
    drawn = [(rng.random() * (1 + order.index(name)), text) for name, texts in categories.items() for text in texts]
    for _, template in sorted(drawn):
        text = _filled(template, rng)
        (told,) = extract_findings(text)
        if words.related(told.concepts, present):
            continue
        denying = {i for i, piece in enumerate(pieces) if words.related(told.concepts, piece.denies | piece.implies)}
        # A sentence that denies other things too would have to be taken apart.
        if any(
            pieces[i].tells or pieces[i].changed or any(not words.related([d], told.concepts) for d in pieces[i].denies)
            for i in denying
        ):
            continue
        rest = without(pieces, denying)
        places = [i for i in range(1, len(rest) + 1) if i == len(rest) or not rest[i].leaning]
        if places:
            made = _inserted(rest, rng.choice(places), text)
            yield Edit("false_finding", made, concepts=frozenset(told.concepts), after=text)


def omissions(
    pieces: Sequence[Piece], targets: Sequence[int], findings: Sequence[ReportFinding], rng: random.Random
) -> Iterator[Edit]:
    """Every sentence that tells one of the target findings goes; sometimes a normal statement takes its place."""
    words = lexicon()
    for target in rng.sample(list(targets), len(targets)):
        telling = {i for i, piece in enumerate(pieces) if target in piece.tells}
        leant_on = any(i + 1 < len(pieces) and pieces[i + 1].leaning and i + 1 not in telling for i in telling)
        if not telling or leant_on or any(pieces[i].tells != {target} or pieces[i].changed for i in telling):
            continue
        others = [c for i, finding in enumerate(findings) if i != target for c in finding.concepts]
        fitting = [
            normal["text"]
            for normal in phrases()["normal"]
            if words.related(normal["about"], findings[target].concepts) and not words.related(normal["about"], others)
        ]
        first = min(telling)
        said = pieces[first].text
        if fitting and (rng.random() < _DENIED or len(telling) == len(pieces)):
            denial = Piece(pieces[first].lead, rng.choice(fitting), changed=True)
            rest = [denial if i == first else piece for i, piece in enumerate(pieces)]
            yield Edit("omission", without(rest, telling - {first}), target, before=said)
        elif len(telling) < len(pieces):  # something is left
            yield Edit("omission", without(pieces, telling), target, before=said)


def attribute_errors(
    pieces: Sequence[Piece], findings: Sequence[ReportFinding], rng: random.Random, aim: Aim | None = None
) -> Iterator[Edit]:
    """One attribute of one finding is another, in every sentence that tells the finding; none of these tells another one."""
    for attribute in [aim.attribute] if aim else rng.sample(ATTRIBUTES, len(ATTRIBUTES)):
        for target in rng.sample(range(len(findings)), len(findings)):
            if aim and findings[target].concepts[0] != aim.concept:
                continue
            telling = [i for i, piece in enumerate(pieces) if target in piece.tells]
            if any(pieces[i].tells != {target} or pieces[i].denies or pieces[i].changed for i in telling):
                continue
            seed = rng.random()  # so that the same words change alike in all the sentences
            edited = list(pieces)
            for i in telling:
                text = _ALTERATIONS[attribute](pieces[i].text, findings[target], random.Random(seed))
                if text is None or text == pieces[i].text:
                    break
                edited[i] = replace(pieces[i], text=text, spans=(), changed=True)
            else:
                if telling:
                    before, after = pieces[telling[0]].text, edited[telling[0]].text
                    yield Edit("attribute_error", edited, target, attribute, before=before, after=after)


def _filled(template: str, rng: random.Random) -> str:
    side = rng.choice(("left", "right"))
    lobe, size = rng.choice(("upper", "lower")), str(rng.choice(_NODULE_SIZES))
    before, sized, behind = template.partition("{size}")
    if sized:
        before, behind = with_article(before, size), size + behind
    return (before + behind).format(side=side, Side=side.capitalize(), lobe=lobe)


def _inserted(pieces: Sequence[Piece], place: int, text: str) -> list[Piece]:
    before = pieces[place - 1]
    listed = re.match(r"\s*\n\s*$", before.lead) and place > 1  # one sentence a line
    return [*pieces[:place], Piece("\n" if listed else " ", text, changed=True), *pieces[place:]]


# --- attributes: a sentence that tells one finding -> the sentence with another attribute; None where it has none to change


def _location(text: str, finding: ReportFinding, rng: random.Random) -> str | None:
    if not finding.attributes.sides and not finding.attributes.zones:
        return None
    tables = [] if _pattern("one_sided").search(text) else [phrases()["sides"]]
    if _is_one_of(finding, "zoned") and "rml" not in text.lower() and "middle" not in text.lower():
        tables.append(phrases()["zones"])
    for table in rng.sample(tables, len(tables)):
        made = _swapped(table, text, rng)
        if made:
            return made
    return None


def _descriptor(text: str, finding: ReportFinding, rng: random.Random) -> str | None:
    return None if _is_device(finding) else _swapped(phrases()["descriptor"], text, rng)


def _severity(text: str, finding: ReportFinding, rng: random.Random) -> str | None:
    if _is_device(finding):
        return None
    said = {word.lower() for word in _WORD.findall(text)}
    table: dict[str, list[str]] = {}
    for scale in phrases()["size" if _is_one_of(finding, "sized") else "degree"]:
        for word in scale:
            table.setdefault(word, []).extend(other for other in scale if other != word)
    if any(word.endswith("ly") for word in said & table.keys()):
        graded = "|".join(phrases()["graded"])
        if not re.search(rf"\b\w+ly (?:{graded})\b", text, re.IGNORECASE):
            return None
    return _swapped(table, text, rng)


def _measurement(text: str, finding: ReportFinding, rng: random.Random) -> str | None:
    found = list(_SIZE.finditer(text))
    if len(found) != 1 or _pattern("advice").search(text):
        return None
    (size,) = found
    per_cm = 10 if size["unit"].lower() == "mm" else 1
    numbers = [float(number) / per_cm for number in _NUMBER.findall(size[0])]
    if _is_device(finding):
        if len(numbers) != 1 or not _TO_CARINA.match(text, size.end()):
            return None
        heights = [h for h in _ABOVE_CARINA_CM if abs(h - numbers[0]) >= _LEAST_SHIFT_CM]
        scale = rng.choice(heights) / numbers[0] if numbers[0] else None
    else:
        scales = [scale for scale in _SCALES if max(numbers) * scale <= _LARGEST_CM]
        scale = rng.choice(scales) if scales else None
    if scale is None:
        return None
    digits = 0 if per_cm == 10 else 1
    made = _NUMBER.sub(lambda number: f"{round(float(number[0]) * scale, digits):g}", size[0])
    return with_article(text[: size.start()], made) + made + text[size.end() :]


def _temporal(text: str, finding: ReportFinding, rng: random.Random) -> str | None:
    if not _is_one_of(finding, "changing") or finding.attributes.uncertain:
        return None
    behind = _behind().fullmatch(text)
    if behind:
        if _pattern("not_plain").search(behind["subject"]) or _temporal_words().search(behind["subject"]):
            return None
        other = rng.choice(phrases()["temporal_behind"][behind["verb"].lower()])
        return f"{behind['subject']} {other}{behind['rest']}."
    noun = _noun_in(text)
    if noun is None:
        return None
    first, _, rest = noun.noun.partition(" ")
    others = phrases()["temporal_before"].get(first)
    if others and not _temporal_words().search(rest):
        return noun.said(f"{rng.choice(others)} {rest}")
    if finding.attributes.temporal is None and not _temporal_words().search(text):
        return noun.said(f"{rng.choice(phrases()['temporal_added'])} {noun.noun}")
    return None


def _certainty(text: str, finding: ReportFinding, rng: random.Random) -> str | None:
    noun = _noun_in(text) if _is_one_of(finding, "doubtful") else None
    if noun is None:
        return None
    first, _, rest = noun.noun.partition(" ")
    if first in phrases()["certainty_dropped"]:
        return noun.said(rest)
    if finding.attributes.uncertain or _pattern("certain").search(text):
        return None
    if finding.attributes.temporal is not None or _temporal_words().search(text):
        return None  # nobody doubts what he has seen change
    return noun.said(f"{rng.choice(phrases()['certainty_added'])} {noun.noun}")


_ALTERATIONS = {
    "location": _location,
    "severity": _severity,
    "descriptor": _descriptor,
    "measurement": _measurement,
    "certainty": _certainty,
    "temporal": _temporal,
}


# --- parts of sentences


class _Noun(NamedTuple):
    """A sentence that is a noun with its adjectives and its place, with or without "there is" or "is seen"."""

    before: str
    article: str
    noun: str
    behind: str

    def said(self, noun: str) -> str:
        """The sentence with another noun, which takes the article that it needs."""
        article = with_article(self.article, noun) if self.article else ""
        text = f"{self.before}{article}{noun}{self.behind}"
        return text[:1].upper() + text[1:]


def _noun_in(text: str) -> _Noun | None:
    found = _NOUN.fullmatch(text)
    if not found or (found["there"] and found["state"]):
        return None
    noun = found["noun"]
    if _pattern("not_plain").search(noun) or _DEFINITE.match(noun):
        return None
    if not found["there"] and not found["article"] and not re.match(r"[A-Z]{2}", noun):
        noun = noun[:1].lower() + noun[1:]
    return _Noun(found["there"] or "", (found["article"] or "").lower(), noun, (found["state"] or "") + found["stop"])


def _swapped(table: dict[str, list[str]], text: str, rng: random.Random) -> str | None:
    """The text with another word for the only one of a table; "right-sided" is "right" and more."""
    found = [m for m in _WORD.finditer(text) if m[0].lower() in table]
    found += [
        m for m in re.finditer(r"[A-Za-z]+(?=-(?:sided|sidedly)\b)", text) if m[0].lower() in table and m not in found
    ]
    if len(found) != 1 or _PART_OF_MORE_BEFORE.search(text[: found[0].start()]):
        return None
    (word,) = found
    if _PART_OF_MORE_BEHIND.match(text, word.end()):
        return None
    other = like(rng.choice(table[word[0].lower()]), word[0])
    return with_article(text[: word.start()], other) + other + text[word.end() :]


def _is_device(finding: ReportFinding) -> bool:
    return lexicon().concepts[finding.concepts[0]].device


def _is_one_of(finding: ReportFinding, group: str) -> bool:
    """Whether all concepts of a finding are in a group of `phrases.yaml`, or narrower than one there."""
    broader = lexicon().distances
    apart = phrases()["settled"] if group in ("doubtful", "changing") else ()
    return all(
        c not in apart and any(c == one or (c, one) in broader for one in phrases()[group]) for c in finding.concepts
    )


@cache
def _pattern(name: str) -> re.Pattern[str]:
    return re.compile(phrases()[name].replace("| ", "|"), re.IGNORECASE)


@cache
def _behind() -> re.Pattern[str]:
    verbs = "|".join(phrases()["temporal_behind"])
    return re.compile(
        rf"(?P<subject>[^,;:]+?) (?P<verb>{verbs})(?P<rest>(?: {phrases()['comparison']})?)\.", re.IGNORECASE
    )


@cache
def _temporal_words() -> re.Pattern[str]:
    """What tells a change or its lack."""
    words = {*phrases()["temporal_before"], *phrases()["temporal_added"]}
    return re.compile(
        rf"\b(?:{'|'.join(sorted(words))}|acute|old|chronic|recent\w*|resol\w+|increas\w+|decreas\w+|improv\w+|worse\w*|interval"
        r"|known|again|continu\w*|remain\w*|persist\w*|residual|develop\w*|prior|previous\w*|post\w*)\b",
        re.IGNORECASE,
    )

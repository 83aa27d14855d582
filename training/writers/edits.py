"""Makes errors in a report by rule: false findings, wrong attributes, omissions.

Each function yields ways to make one error. Sentences stay correct: a word is replaced by one of the same kind, an adjective
is put only before a noun, and a sentence with two statements is left alone. The caller must check that the result has this
error and no other, since reports are full of surprises.
"""

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import NamedTuple

from crimson_core.judges.rules.attributes import ReportFinding
from crimson_core.judges.rules.extraction import extract_findings
from crimson_core.judges.rules.lexicon import lexicon
from training.writers import ATTRIBUTES, Aim, Attribute, ErrorKind
from training.writers.pieces import Piece, like, pattern, phrases, with_article, without

_NODULE_SIZES = (5, 6, 7, 8, 9, 11, 12, 14, 16, 18, 22, 25)  # mm
_SCALES = (0.5, 1.5, 2, 2.5)
_LARGEST_CM = 12
_ABOVE_CARINA_CM = (1, 2, 3, 4, 5, 6, 7, 8)
_LEAST_SHIFT_CM = 2  # of a tip
_DENIED = 0.4  # share of the omissions with a normal statement instead of the finding
_WORD = re.compile(r"[A-Za-z]+(?:-[A-Za-z]+)*")
_SIZE = re.compile(
    r"(?<![\d.–-])(?<!to )\b\d+(?:\.\d+)?(?:\s*(?:x|by)\s*\d+(?:\.\d+)?)*\s*(?P<unit>mm|cm)\b", re.IGNORECASE
)
_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_TO_CARINA = re.compile(r"\s+(?:above|from|superior to|proximal to) the carina", re.IGNORECASE)
# In "more mild", "minimally displaced" and "mild to moderate", the word is part of a phrase.
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
    """One error in a report."""

    kind: ErrorKind  # the kind of error
    pieces: list[Piece] = field(repr=False)  # the report with the error
    # position of the changed or omitted finding of the ground truth; None for a false finding
    target: int | None = None
    attribute: Attribute | None = None
    concepts: frozenset[str] = frozenset()  # the concepts of a false finding
    before: str = field(default="", repr=False)  # the sentence of the ground truth; empty for a false finding
    after: str = field(default="", repr=False)  # the sentence that replaces it; empty if none does


def false_findings(pieces: Sequence[Piece], findings: Sequence[ReportFinding], rng: random.Random) -> Iterator[Edit]:
    """Add a finding that is unlike any in the report, and drop the sentence that denies it."""
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
        # a sentence that denies other things too would have to be split
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
    """Drop all sentences with one of the target findings; sometimes put a normal statement in their place."""
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
    """Change one attribute of one finding in all its sentences, which must have no other finding."""
    for attribute in [aim.attribute] if aim else rng.sample(ATTRIBUTES, len(ATTRIBUTES)):
        for target in rng.sample(range(len(findings)), len(findings)):
            if aim and findings[target].concepts[0] != aim.concept:
                continue
            telling = [i for i, piece in enumerate(pieces) if target in piece.tells]
            if any(pieces[i].tells != {target} or pieces[i].denies or pieces[i].changed for i in telling):
                continue
            seed = rng.random()  # so that the same words change alike in all sentences
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


# --- attributes: a sentence with one finding -> the sentence with another attribute; None if it cannot be changed


def _location(text: str, finding: ReportFinding, rng: random.Random) -> str | None:
    if not finding.attributes.sides and not finding.attributes.zones:
        return None
    tables = [] if pattern("one_sided").search(text) else [phrases()["sides"]]
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
    if len(found) != 1 or pattern("advice").search(text):
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
        if pattern("not_plain").search(behind["subject"]) or _temporal_words().search(behind["subject"]):
            return None
        other = rng.choice(phrases()["temporal_behind"][behind["verb"].lower()])
        return f"{behind['subject']} {other}{behind['rest']}."
    noun = _noun_in(text)
    if noun is None:
        return None
    first, _, rest = noun.noun.partition(" ")
    others = phrases()["temporal_before"].get(first)
    if others and not _temporal_words().search(rest):
        return noun.with_noun(f"{rng.choice(others)} {rest}")
    if finding.attributes.temporal is None and not _temporal_words().search(text):
        return noun.with_noun(f"{rng.choice(phrases()['temporal_added'])} {noun.noun}")
    return None


def _certainty(text: str, finding: ReportFinding, rng: random.Random) -> str | None:
    noun = _noun_in(text) if _is_one_of(finding, "doubtful") else None
    if noun is None:
        return None
    first, _, rest = noun.noun.partition(" ")
    if first in phrases()["certainty_dropped"]:
        return noun.with_noun(rest)
    if finding.attributes.uncertain or pattern("certain").search(text):
        return None
    if finding.attributes.temporal is not None or _temporal_words().search(text):
        return None  # nobody doubts a finding that has changed
    return noun.with_noun(f"{rng.choice(phrases()['certainty_added'])} {noun.noun}")


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
    """A sentence that consists of a noun with adjectives and a place, and perhaps of "there is" or "is seen"."""

    before: str
    article: str
    noun: str
    behind: str

    def with_noun(self, noun: str) -> str:
        """The sentence with another noun and its article."""
        article = with_article(self.article, noun) if self.article else ""
        text = f"{self.before}{article}{noun}{self.behind}"
        return text[:1].upper() + text[1:]


def _noun_in(text: str) -> _Noun | None:
    found = _NOUN.fullmatch(text)
    if not found or (found["there"] and found["state"]):
        return None
    noun = found["noun"]
    if pattern("not_plain").search(noun) or _DEFINITE.match(noun):
        return None
    if not found["there"] and not found["article"] and not re.match(r"[A-Z]{2}", noun):
        noun = noun[:1].lower() + noun[1:]
    return _Noun(found["there"] or "", (found["article"] or "").lower(), noun, (found["state"] or "") + found["stop"])


def _swapped(table: dict[str, list[str]], text: str, rng: random.Random) -> str | None:
    """The text with its only word of a table replaced; "right-sided" contains "right"."""
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
    """Whether all concepts of a finding are in a group of `phrases.yaml`, or narrower than a member."""
    broader = lexicon().distances
    apart = phrases()["settled"] if group in ("doubtful", "changing") else ()
    return all(
        c not in apart and any(c == one or (c, one) in broader for one in phrases()[group]) for c in finding.concepts
    )


@cache
def _behind() -> re.Pattern[str]:
    verbs = "|".join(phrases()["temporal_behind"])
    return re.compile(
        rf"(?P<subject>[^,;:]+?) (?P<verb>{verbs})(?P<rest>(?: {phrases()['comparison']})?)\.", re.IGNORECASE
    )


@cache
def _temporal_words() -> re.Pattern[str]:
    """Matches words about a change over time, or about its absence."""
    words = {*phrases()["temporal_before"], *phrases()["temporal_added"]}
    return re.compile(
        rf"\b(?:{'|'.join(sorted(words))}|acute|old|chronic|recent\w*|resol\w+|increas\w+|decreas\w+|improv\w+|worse\w*|interval"
        r"|known|again|continu\w*|remain\w*|persist\w*|residual|develop\w*|prior|previous\w*|post\w*)\b",
        re.IGNORECASE,
    )

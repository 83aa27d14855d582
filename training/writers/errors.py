"""Errors put into a report by rule: a false finding, a wrong attribute, an omission.

Each function yields ways to make one error, best drawn at random by the caller. Whether the error is there, and nothing
else, is for the caller to check: the words of a report can always hold a surprise.
"""

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from crimson_core.judges.rules.extraction import ReportFinding, extract_findings
from crimson_core.judges.rules.lexicon import lexicon
from training.writers import Attribute, ErrorKind
from training.writers.pieces import Piece, like, phrases, with_article, without

_SIZE = re.compile(r"\b(\d+(?:\.\d+)?)(?=\s*(?:x\s*\d+(?:\.\d+)?\s*)*(?:mm|cm)\b)", re.IGNORECASE)
_STATE = re.compile(r"\b(is|are|appears?|remains?|has|have)\b", re.IGNORECASE)
_NODULE_SIZES = (5, 6, 7, 8, 9, 11, 12, 14, 16, 18, 22, 25)  # mm
_SCALES = (0.5, 1.5, 2, 2.5)
_DENIED = 0.4  # of the omissions, the share with a normal statement in place of the finding


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
        denying = {i for i, piece in enumerate(pieces) if words.related(told.concepts, piece.denies)}
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
        if fitting and rng.random() < _DENIED:
            denial = Piece(pieces[first].lead, rng.choice(fitting), changed=True)
            rest = [denial if i == first else piece for i, piece in enumerate(pieces)]
            yield Edit("omission", without(rest, telling - {first}), target, before=said)
        elif len(telling) < len(pieces):
            yield Edit("omission", without(pieces, telling), target, before=said)


def attribute_errors(pieces: Sequence[Piece], count: int, rng: random.Random) -> Iterator[Edit]:
    """One attribute of one of `count` findings is another, in every sentence that tells the finding."""
    kinds = rng.sample(list(_ALTERATIONS), len(_ALTERATIONS))
    for attribute in kinds:
        alter = _ALTERATIONS[attribute]
        for target in rng.sample(range(count), count):
            seed = rng.random()  # so that the same words change alike in all the sentences
            edited, changed = list(pieces), []
            for i, piece in enumerate(pieces):
                for index, start, end in piece.spans:
                    if index == target and not piece.changed:
                        text = alter(piece.text, start, end, random.Random(seed))
                        if text is not None and text != piece.text:
                            edited[i] = replace(piece, text=text, spans=(), changed=True)
                            changed.append(i)
                            break
            if changed:
                before, after = pieces[changed[0]].text, edited[changed[0]].text
                yield Edit("attribute_error", edited, target, attribute, before=before, after=after)


def _filled(template: str, rng: random.Random) -> str:
    side = rng.choice(("left", "right"))
    return template.format(
        side=side, Side=side.capitalize(), lobe=rng.choice(("upper", "lower")), size=rng.choice(_NODULE_SIZES)
    )


def _inserted(pieces: Sequence[Piece], place: int, text: str) -> list[Piece]:
    before = pieces[place - 1]
    listed = re.match(r"\s*\n\s*$", before.lead) and place > 1  # one sentence a line
    return [*pieces[:place], Piece("\n" if listed else " ", text, changed=True), *pieces[place:]]


def _swapped(table: dict[str, list[str]], text: str, start: int, end: int, rng: random.Random) -> str | None:
    """The text with the only word of a table in a span replaced."""
    found = [m for m in re.finditer(r"[A-Za-z]+(?:-[A-Za-z]+)?", text[start:end]) if m[0].lower() in table]
    if not found:  # "right-sided" is "right" and more
        found = [m for m in re.finditer(r"[A-Za-z]+", text[start:end]) if m[0].lower() in table]
    if not found:
        return None
    word = rng.choice(found)
    other = like(rng.choice(table[word[0].lower()]), word[0])
    before = with_article(text[: start + word.start()], other)
    return before + other + text[start + word.end() :]


def _location(text: str, start: int, end: int, rng: random.Random) -> str | None:
    return _swapped(phrases()["location"], text, start, end, rng)


def _descriptor(text: str, start: int, end: int, rng: random.Random) -> str | None:
    return _swapped(phrases()["descriptor"], text, start, end, rng)


def _severity(text: str, start: int, end: int, rng: random.Random) -> str | None:
    table: dict[str, list[str]] = {}
    for scale in phrases()["severity"]:
        for word in scale:
            table.setdefault(word, []).extend(other for other in scale if other != word)
    return _swapped(table, text, start, end, rng)


def _measurement(text: str, start: int, end: int, rng: random.Random) -> str | None:
    scale = rng.choice(_SCALES)
    # The size may stand behind the words of the finding.
    found = list(_SIZE.finditer(text, start))
    if not found:
        return None
    return text[: found[0].start()] + _SIZE.sub(lambda m: f"{float(m[1]) * scale:.3g}", text[found[0].start() :])


def _temporal(text: str, start: int, end: int, rng: random.Random) -> str | None:
    table = phrases()["temporal"]
    said = [word for word in re.findall(r"[a-z]+", text.lower()) if word in table]
    if said:
        return _swapped(table, text, 0, len(text), rng)
    return _qualified(text, start, end, rng.choice(phrases()["temporal_added"]))


def _certainty(text: str, start: int, end: int, rng: random.Random) -> str | None:
    for hedge, plain in phrases()["certainty_dropped"].items():
        found = re.search(rf"\b{hedge}", text, re.IGNORECASE)
        if found:
            rest = text[found.end() :]
            if not plain and found[0][0].isupper():
                rest = rest[:1].upper() + rest[1:]
            return with_article(text[: found.start()], plain or rest) + plain + rest
    word = rng.choice(phrases()["certainty_added"])
    state = _STATE.search(text, start, end)
    if state and state[0].lower() in ("is", "are"):
        return text[: state.end()] + " possibly" + text[state.end() :]
    return _qualified(text, start, end, word)


def _qualified(text: str, start: int, end: int, word: str) -> str | None:
    """The text with an adjective before a finding, where the finding is a noun with its adjectives."""
    if _STATE.search(text, start, end) or re.match(r"(?:the|an?|there)\b", text[start:], re.IGNORECASE):
        return None
    noun = text[start:]
    if start == 0:
        noun = noun if re.match(r"[A-Z]{2}", noun) else noun[:1].lower() + noun[1:]
        return f"{word.capitalize()} {noun}"
    return f"{with_article(text[:start], word)}{word} {noun}"


_ALTERATIONS = {
    "location": _location,
    "severity": _severity,
    "descriptor": _descriptor,
    "measurement": _measurement,
    "certainty": _certainty,
    "temporal": _temporal,
}

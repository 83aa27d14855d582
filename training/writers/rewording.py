"""Rewords a report: phrases, forms of sentences, order, normal statements."""

import random
import re
from collections.abc import Sequence
from dataclasses import replace
from functools import cache

from crimson_core.judges.rules.lexicon import lexicon
from training.writers.pieces import Piece, pattern, phrases, with_article, without

_SHARE_OF_PHRASES, _SHARE_OF_FRAMES = 0.6, 0.5
_MOST_NORMALS = 3
_ARTICLE = re.compile(r"(?:an?|any) ", re.IGNORECASE)
_PLURAL = re.compile(r"[a-z](?<![sui])s\b")


def reworded(pieces: Sequence[Piece], present: set[str], rng: random.Random, strength: float) -> list[Piece]:
    """A report in other words; `strength` is the amount of change, from 0 (none) to 1. Pieces with an error stay."""
    made = list(pieces)
    if rng.random() < strength * 0.6:
        made = _reordered(made, rng)
    if rng.random() < strength * 0.6:
        made = _without_normals(made, rng)
    made = [p if p.changed else _rephrased(p, rng, strength) for p in made]
    if rng.random() < strength * 0.6:
        made = _with_normals(made, present, rng)
    if rng.random() < strength * 0.4:
        made = _laid_out(made, rng)
    return made


def _reordered(pieces: list[Piece], rng: random.Random) -> list[Piece]:
    """Shuffle the sentences of each section; those that refer to another stay behind it. The leads stay in their places."""
    groups: list[list[list[Piece]]] = []
    for piece in pieces:
        if not groups or piece.heads:
            groups.append([])
        if piece.leaning and groups[-1]:
            groups[-1][-1].append(piece)
        else:
            groups[-1].append([piece])
    texts = [piece for section in groups for group in rng.sample(section, len(section)) for piece in group]
    return [replace(piece, lead=place.lead) for place, piece in zip(pieces, texts, strict=True)]


def _without_normals(pieces: list[Piece], rng: random.Random) -> list[Piece]:
    """Drop some sentences without findings."""
    free = {
        i
        for i, piece in enumerate(pieces)
        if not piece.tells and not piece.changed and not (i + 1 < len(pieces) and pieces[i + 1].leaning)
    }
    gone = {i for i in sorted(free) if rng.random() < 0.5}
    return without(pieces, gone) if len(gone) < len(pieces) else pieces


def _with_normals(pieces: list[Piece], present: set[str], rng: random.Random) -> list[Piece]:
    """Add normal statements about structures that the report does not mention."""
    words = lexicon()
    mentioned = present | {concept for piece in pieces for concept in piece.denies | piece.implies}
    fitting = [normal for normal in phrases()["normal"] if not words.related(normal["about"], mentioned)]
    made = list(pieces)
    for normal in rng.sample(fitting, min(len(fitting), rng.randint(1, _MOST_NORMALS))):
        if words.related(normal["about"], mentioned):
            continue
        mentioned |= set(normal["about"])
        places = [i for i in range(1, len(made) + 1) if i == len(made) or not made[i].leaning]
        if places:
            place = rng.choice(places)
            made.insert(place, Piece(" ", normal["text"]))
    return made


def _laid_out(pieces: list[Piece], rng: random.Random) -> list[Piece]:
    """Put all sentences into one paragraph, or each on a line of its own."""
    between = rng.choice((" ", "\n"))
    return [replace(piece, lead="" if i == 0 else between) for i, piece in enumerate(pieces)]


def _rephrased(piece: Piece, rng: random.Random, strength: float) -> Piece:
    text = piece.text
    if rng.random() < strength * _SHARE_OF_FRAMES:
        text = _reframed(text, rng)
    for known, others in _interchangeable():
        found = known.search(text)
        if found and rng.random() < strength * _SHARE_OF_PHRASES:
            other = _like(rng.choice([o for o in others if o != found[0].lower()]), found[0], found.start() == 0)
            text = with_article(text[: found.start()], other) + other + text[found.end() :]
    return replace(piece, text=text, spans=())


def _reframed(text: str, rng: random.Random) -> str:
    """A sentence in another form, if it has a known one."""
    stop = text[-1:] if text[-1:] in ".!" else ""
    body = text.removesuffix(stop) if stop else text
    for known, forms in _frames():
        found = known.fullmatch(body)
        if not found:
            continue
        groups = found.groupdict()
        noun = groups.get("np") or groups.get("none") or ""
        if noun and (pattern("not_plain").search(noun) or ("none" in groups and _PLURAL.search(noun))):
            continue
        noun = noun if re.match(r"[A-Z]{2}|[A-Z]\d", noun) else noun[:1].lower() + noun[1:]
        groups |= {"np": noun, "none": _ARTICLE.sub("", noun)}
        made = rng.choice(forms).format(**groups)
        return made[:1].upper() + made[1:] + stop
    return text


@cache
def _frames() -> list[tuple[re.Pattern[str], list[str]]]:
    return [(re.compile(words, re.IGNORECASE), forms) for words, forms in phrases()["frames"]]


@cache
def _interchangeable() -> list[tuple[re.Pattern[str], list[str]]]:
    groups = []
    for group in phrases()["interchangeable"]:
        longest_first = sorted(group, key=len, reverse=True)
        groups.append((re.compile(rf"\b(?:{'|'.join(map(re.escape, longest_first))})\b", re.IGNORECASE), group))
    groups += [(re.compile(rf"\b{words}\b", re.IGNORECASE), [other]) for words, other in phrases()["one_way"].items()]
    return groups


def _like(text: str, model: str, starts: bool) -> str:
    """A phrase in the letter case of the one that it replaces."""
    if text in ("rul", "rll", "lul", "lll", "ett", "svc", "picc") or (model.isupper() and len(model) > 4):
        return text.upper()
    text = re.sub(r"\b(et|ng|picc)\b", lambda m: m[0].upper(), text)
    return text[:1].upper() + text[1:] if starts else text

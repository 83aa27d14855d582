"""The lexicon of the offline judge: loads `concepts/`, `language.yaml` and `rules.yaml`, and finds their phrases in words."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.resources import files
from typing import Any, NamedTuple

import yaml

# Parts of the lexicon that are plain lists of phrases.
_LISTS = (
    "neutral",
    "alternative",
    "clause_end",
    "negation_end",
    "conjunction",
    "glue",
    "joint",
    "normal",
    "course",
    "earlier",
)


@dataclass(frozen=True)
class Concept:
    """One entry of `concepts/`; the fields are explained at the top of `language.yaml`."""

    id: str
    name: str
    significance: str
    by_severity: dict[int, str]
    broader: tuple[str, ...]
    sided: bool
    vague: bool
    device: bool


class Tag(NamedTuple):
    """A phrase found in a sentence: words `start` to `end` (exclusive) mean `value` of the given kind."""

    start: int
    end: int
    kind: str
    value: Any


@dataclass(frozen=True)
class Lexicon:
    """The lexicon in the form in which it is used.

    Attributes:
        version: Of the data; part of the judge's signature.
        concepts: By id.
        distances: (concept, broader concept) -> steps between them; a concept is 0 steps from itself.
        composites: (structure, state) -> concept.
        near: Concept -> the concepts that are broader or narrower, and itself.
        phrases: Tree of words; the key None holds the (kind, value) pairs of the phrase that ends there.
    """

    version: int
    concepts: dict[str, Concept]
    distances: dict[tuple[str, str], int]
    composites: dict[tuple[str, str], str]
    near: dict[str, frozenset[str]]
    phrases: dict[Any, Any]
    skipped_sections: frozenset[str]

    def related(self, some: Iterable[str], others: Iterable[str]) -> bool:
        """Whether a concept of `some` is the same as one of `others`, broader or narrower."""
        return any(b in self.near[a] for a in some for b in others)

    def tags(self, words: list[str]) -> Iterator[Tag]:
        """The longest phrase at each place of a sentence, from left to right, once per meaning."""
        return _tags(self.phrases, words)


def _tags(phrases: dict[Any, Any], words: list[str]) -> Iterator[Tag]:
    position = 0
    while position < len(words):
        node, end, meanings = phrases, position, None
        for offset in range(position, len(words)):
            node = node.get(words[offset])
            if node is None:
                break
            if None in node:
                end, meanings = offset + 1, node[None]
        if meanings:
            for kind, value in meanings:
                yield Tag(position, end, kind, value)
        position = end if meanings else position + 1


@cache
def rules() -> dict[str, Any]:
    """The content of `rules.yaml`."""
    return _load("rules.yaml")


@cache
def lexicon() -> Lexicon:
    """The content of `concepts/` and `language.yaml`."""
    data = _load("language.yaml")
    entries = concept_entries()
    concepts = {key: _concept(key, entry) for key, entry in entries.items()}
    phrases: dict[Any, Any] = {}

    def add(phrase: str, kind: str, value: Any) -> None:
        node = phrases
        for word, _, _ in words_of(phrase):
            node = node.setdefault(word, {})
        meanings = node.setdefault(None, [])
        if (kind, value) not in meanings:
            meanings.append((kind, value))

    for kind in ("anatomy", "states", "link", "assertion"):
        for value, terms in data[kind].items():
            for term in terms:
                add(term, kind, value)
    for kind in _LISTS:
        for term in data[kind]:
            add(term, kind, None)
    for kind, values in data["modifiers"].items():
        for value, terms in values.items():
            if kind == "lobe":
                side, zone = value.split()
                for term in terms:
                    add(term, "side", side)
                    add(term, "zone", zone)
            elif kind == "descriptor":
                for word, synonyms in terms.items():
                    for term in synonyms:
                        add(term, "descriptor", (value, word))
            else:
                for term in terms:
                    add(term, kind, value)

    # Last, since a term may hold modifiers ("apical scarring"), and what these say must not get lost with the longer phrase.
    for key, entry in entries.items():
        for term in entry["terms"]:
            within = [word for word, _, _ in words_of(term)]
            held = [tag for tag in _tags(phrases, within) if tag.kind in ("side", "zone", "descriptor")]
            add(term, "concept", key)
            for tag in held:
                add(term, tag.kind, tag.value)

    composites = {
        (entry["anatomy"], entry["state"]): key for key, entry in entries.items() if "anatomy" in entry
    }
    distances = _distances(concepts)
    near = {key: frozenset(b for pair in distances if key in pair for b in pair) for key in concepts}
    return Lexicon(data["version"], concepts, distances, composites, near, phrases, frozenset(data["skipped_sections"]))


_WORD = re.compile(r"\d+(?:\.\d+)?|[^\W\d_]+|[,;/]")
_PLURAL = re.compile(r"(?<=..)(?:(?P<y>ies)|(?P<ss>ss)es|(?P<x>x|ch|sh)es|(?<![sui])s)$")


def words_of(text: str) -> list[tuple[str, int, int]]:
    """The normalised words of a text with their character spans; hyphens and other signs separate words."""
    return [(normalise(match[0]), match.start(), match.end()) for match in _WORD.finditer(text)]


@lru_cache(maxsize=100_000)  # words recur; bounded, since reports hold endless names and numbers
def normalise(word: str) -> str:
    """A word in lower case, US spelling and singular."""
    word = word.lower()
    for pattern, replacement in _spelling():
        word = pattern.sub(replacement, word)
    return _PLURAL.sub(lambda m: "y" if m["y"] else m["ss"] or m["x"] or "", word) if len(word) > 3 else word


@cache
def _spelling() -> list[tuple[re.Pattern[str], str]]:
    return [(re.compile(pattern), text) for pattern, text in _load("language.yaml")["spelling"].items()]


@cache
def concept_entries() -> dict[str, dict[str, Any]]:
    """The entries of `concepts/` as they are written, by id.

    Raises:
        ValueError: An id stands in two files.
    """
    entries: dict[str, dict[str, Any]] = {}
    for file in sorted(files(__package__).joinpath("concepts").iterdir(), key=lambda f: f.name):
        if file.name.endswith(".yaml"):
            region = _load(f"concepts/{file.name}")
            if twice := entries.keys() & region.keys():
                raise ValueError(f"concepts/{file.name} repeats {', '.join(sorted(twice))}")
            entries |= region
    return entries


@cache
def _load(name: str) -> dict[str, Any]:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return yaml.load(files(__package__).joinpath(name).read_text(encoding="utf-8"), Loader=loader)  # noqa: S506 - both are safe


def _concept(key: str, entry: dict[str, Any]) -> Concept:
    return Concept(
        id=key,
        name=entry["terms"][0],
        significance=entry["significance"],
        by_severity=entry.get("by_severity", {}),
        broader=tuple(entry.get("broader", ())),
        sided=entry.get("sided", True),
        vague=entry.get("vague", False),
        device=entry.get("device", False),
    )


def _distances(concepts: dict[str, Concept]) -> dict[tuple[str, str], int]:
    distances = {}
    for key in concepts:
        level, steps = {key}, 0
        while level:
            for broader in level:
                distances.setdefault((key, broader), steps)
            level = {up for broader in level for up in concepts[broader].broader}
            steps += 1
    return distances

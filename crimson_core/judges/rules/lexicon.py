"""The lexicon of the offline judge: loads `concepts/`, `language.yaml` and `rules.yaml`, and finds their phrases in words."""

import hashlib
import marshal
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache, partial
from importlib.resources import files
from itertools import chain, groupby, pairwise, product
from operator import attrgetter, itemgetter
from pathlib import Path
from sys import intern
from typing import Any, NamedTuple

from rapidfuzz import process
from rapidfuzz.distance import OSA

from crimson_core.errors import JudgeError
from crimson_core.judges.rules.compiled import compiled

# Parts of the lexicon that are plain lists of phrases.
_LISTS = (
    "neutral",
    "alternative",
    "negation_end",
    "conjunction",
    "glue",
    "joint",
    "normal",
    "course",
    "earlier",
    "general",
    "beside",
    "nearby",
    "likewise",
    "showing",
    "symptom",
    "anaphor",
    "definite",
    "pronoun",
    "appearance",
    "similar",
    "prior",
    "elsewhere",
    "harmless",
)
# Parts that tell values apart, each with its phrases.
_GROUPS = ("anatomy", "states", "link", "assertion", "clause_end", "sites", "extent")


@dataclass(frozen=True)
class Concept:
    """One entry of `concepts/`; the fields are explained at the top of `language.yaml`."""

    id: str
    name: str
    significance: str
    by_severity: dict[int, str]
    broader: tuple[str, ...]
    sided: bool
    directed: bool
    vague: bool
    device: bool
    reported: bool
    percent: bool
    parts: tuple[str, ...]
    belongs_to: frozenset[str]
    tip_normal: frozenset[str]
    tip_misplaced: frozenset[str]
    looped: bool
    once_old: str | None
    one_sided: str | None
    apart: bool
    signs: tuple[str, ...]
    tip_levels: frozenset[str]
    tip_above_carina_mm: tuple[float, float] | None


class Tag(NamedTuple):
    """A phrase found in a sentence: words `start` to `end` (exclusive) mean `value` of the given kind."""

    start: int
    end: int
    kind: str
    value: Any


# A tree of words: word -> what the phrase means that ends there, as (kind, value) pairs, and the tree of the words that may
# follow, or None. What begins with a word is packed until a report holds the word, since one report needs little of it all.
Phrases = dict[str, Any]


@dataclass(frozen=True)
class Lexicon:
    """The lexicon in the form in which it is used.

    Attributes:
        version: Of the data; part of the judge's signature.
        concepts: By id.
        distances: (concept, broader concept) -> steps between them; a concept is 0 steps from itself.
        composites: (structure, state) -> concept.
        depths: Concept -> minus the number of concepts broader than it.
        near: Concept -> the concepts that are broader or narrower, and itself.
        broader: Concept -> all concepts that are broader, and itself.
        near_sites: Site -> those that are told for it of a device that does not lie there, and itself.
        phrases: All phrases, but for those of `statements`.
        statements: The same of the statements that rule a concept out; apart, since they hold other phrases.
        known: All words of the phrases, and those that only look like one.
        long_words: The long words of the phrases by their first letter.
        words: The words by which the code chooses between two readings, by the name of their list.
        units: Unit of length -> its millimetres.
        spine: Name of a region of the spine -> its letter.
    """

    version: int
    concepts: dict[str, Concept]
    distances: dict[tuple[str, str], int]
    composites: dict[tuple[str, str], str]
    depths: dict[str, int]
    near: dict[str, frozenset[str]]
    broader: dict[str, frozenset[str]]
    phrases: Phrases
    statements: Phrases
    known: frozenset[str]
    long_words: dict[str, list[str]]
    words: dict[str, frozenset[str]]
    units: dict[str, float]
    skipped_sections: frozenset[str]
    sections: frozenset[str]
    one_sentence_sections: frozenset[str]
    findings_sections: frozenset[str]
    preliminary_sections: frozenset[str]
    final_sections: frozenset[str]
    growing_states: frozenset[str]
    malignant_fluids: frozenset[str]
    not_in_lobes: frozenset[str]
    bare_states: dict[str, str]
    naming_states: frozenset[str]
    device_damage: frozenset[str]
    spine: dict[str, str]
    ordinals: dict[int, list[str]]
    elsewhere: frozenset[str]
    percent: dict[int, int]
    cardiothoracic_ratio: int
    neutral_statements: list[str]
    near_sites: dict[str, frozenset[str]]

    def related(self, some: Iterable[str], others: Iterable[str]) -> bool:
        """Whether a concept of `some` is the same as one of `others`, broader or narrower."""
        return any(b in self.near[a] for a in some for b in others)

    def shows_by(self, diagnosis: Sequence[str], appearance: Sequence[str]) -> bool:
        """Whether a concept of `appearance` is a sign of one of `diagnosis`, or the two are related."""
        return self.related(diagnosis, appearance) or not self.signs_of(diagnosis).isdisjoint(appearance)

    def signs_of(self, diagnosis: Sequence[str]) -> frozenset[str]:
        """What the concepts of `diagnosis` show by, beside what is broader."""
        return frozenset(chain.from_iterable([self.concepts[concept].signs for concept in diagnosis]))

    def akin(self, some: Iterable[str], others: Iterable[str]) -> bool:
        """Whether a concept of `some` and one of `others` are the same, or kinds of the same."""
        return any(not self.broader[a].isdisjoint(self.broader[b]) for a in some for b in others)

    def tags(self, words: list[str]) -> list[Tag]:
        """The longest phrase at each place of a sentence, from left to right, once per meaning."""
        tags = tags_of(self.phrases, words)
        if self.statements.keys().isdisjoint(words):  # of first words
            return tags
        statements = tags_of(self.statements, words)
        return sorted([*tags, *statements], key=START) if statements else tags


START = attrgetter("start")
_tag = partial(tuple.__new__, Tag)  # without the arguments' names, and so in half the time


def tags_of(phrases: Phrases, words: Sequence[str]) -> list[Tag]:
    """The longest phrase of a tree at each place of some words, from left to right, once per meaning."""
    found: list[Tag] = []
    length = len(words)
    free = 0  # first position that no phrase covers
    for position, word in enumerate(words):
        if position < free or (node := phrases.get(word)) is None:
            continue
        if type(node) is bytes:
            node = phrases[word] = marshal.loads(node)
        meanings, longer = node
        end = offset = position + 1
        while longer and offset < length:
            node = longer.get(words[offset])
            if node is None:
                break
            offset += 1
            more, longer = node
            if more:
                meanings, end = more, offset
        if meanings:
            free = end
            for kind, value in meanings:
                found.append(_tag((position, end, kind, value)))  # noqa: PERF401 - a comprehension takes longer
    return found


@cache
def rules() -> dict[str, Any]:
    """The content of `rules.yaml`."""
    return _load("rules.yaml")


@cache
def reading_digest(folder: Path = Path(__file__).parent) -> str:
    """What tells two versions of the lexicon, the rules and the code that reads apart: 8 hex digits, whatever the line endings."""
    digest = hashlib.sha256()
    for file in sorted(file for kind in ("*.py", "*.yaml") for file in folder.rglob(kind)):
        content = file.read_bytes().replace(b"\r\n", b"\n")
        digest.update(f"{file.relative_to(folder).as_posix()} {len(content)}\n".encode() + content)
    return digest.hexdigest()[:8]


@cache
def interchangeable_pairs() -> frozenset[tuple[str, str]]:
    """The pairs of concepts that radiologists use for each other, in both orders."""
    pairs = rules()["attribute_errors"]["specificity"]["interchangeable"]
    return frozenset(order for one, other in pairs for order in ((one, other), (other, one)))


@cache
def extents() -> tuple[frozenset[tuple[str, str]], int]:
    """Pairs of a concept and one whose great extent it tells of, and from which rank that is great."""
    told = rules()["attribute_errors"]["specificity"]["told_by_extent"]
    return frozenset(map(tuple, told["pairs"])), told["from_rank"]


@cache
def places() -> tuple[frozenset[tuple[str, str]], dict[str, Any]]:
    """Pairs of a concept and what it is of a whole lobe, and by which descriptors and from which rank it is."""
    rule = rules()["attribute_errors"]["specificity"]["told_by_place"]
    told = {name: tuple(rule[name]) for name in ("told", "not_told")}
    return frozenset(map(tuple, rule["pairs"])), {**rule, **told}


@cache
def lexicon() -> Lexicon:
    """The content of `concepts/` and `language.yaml`."""
    parts = _built()
    return Lexicon(**parts | {"concepts": {key: Concept(**entry) for key, entry in parts["concepts"].items()}})


@compiled(reading_digest)
def _built() -> dict[str, Any]:
    """The lexicon as plain data."""
    made = _build()
    packed = {
        name: {word: marshal.dumps(node) for word, node in tree.items()}
        for name, tree in (("phrases", made.phrases), ("statements", made.statements))
    }
    return vars(made) | packed | {"concepts": {key: vars(concept) for key, concept in made.concepts.items()}}


def _build() -> Lexicon:
    data = _load("language.yaml")
    entries = concept_entries()
    concepts = {key: _concept(key, entry) for key, entry in entries.items()}
    phrases: Phrases = {}
    statements: Phrases = {}

    def add(phrase: str, kind: str, value: Any, tree: Phrases = phrases) -> None:
        for way in _ways(phrase) if "(" in phrase else (phrase,):
            add_way(way, kind, value, tree)

    def add_way(phrase: str, kind: str, value: Any, tree: Phrases) -> None:
        meaning = intern(kind), intern(value) if type(value) is str else value  # words to compare are the same object
        *first, last = words_of(phrase)
        for word, _, _ in first:
            node = tree.setdefault(word, [(), None])
            if node[1] is None:
                node[1] = {}
            tree = node[1]
        node = tree.setdefault(last[0], [(), None])
        if meaning not in node[0]:
            node[0] += (meaning,)

    having = tuple(f"{verb} " for verb in data["words"]["having"])
    for kind in _GROUPS:
        for value, terms in data[kind].items():
            for term in terms:
                add(term, kind, value)
    for term in data["link"]["tentative"]:
        add(term, "assertion", "uncertain_before")
    for kind in _LISTS:
        for term in data[kind]:
            add(term, kind, None)
    for value, forms in data["change"].items():
        for noun, term in _words_of_change(forms, data["words"]):
            verb = term.startswith(having)  # "the heart has enlarged", but not "which increased from"
            states = [tag for tag in tags_of(phrases, _words(term)) if tag.kind == "states" and verb]
            add(term, "change", (value, noun))
            for state in states:
                add(term, "states", state.value)
    for more in data["asymmetry"]:
        for side, other in (("left", "right"), ("right", "left")):
            for phrase in (
                f"{side} {more} than {other}",
                f"{side} > {other}",
                f"{more} on the {side}",
                f"{more} on {side}",
                f"{side} being {more}",
                f"{side} being the {more}",
                f"{more} {side} than {other}",
            ):
                add(phrase, "dominant", side)
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
                for term in chain.from_iterable(map(_ways, terms)):
                    # lung volumes "are low" as well as tubes, and a hole lies "above the junction"
                    held = tags_of(phrases, _words(term)) if kind == "position" else ()
                    telling = ("states",) if any(tag.kind == "beside" for tag in held) else ("states", "sites")
                    more = [(tag.kind, tag.value) for tag in held if tag.kind in telling]
                    for told in [(kind, value), *more]:
                        add(term, *told)

    composites = {
        tuple(composite.split()): key for key, entry in entries.items() for composite in entry.get("composites", ())
    }
    derived = _composites(entries, phrases)
    for pair in data["not_composites"]:
        structure, state = pair.split()
        derived.pop((structure, state), None)
    composites = {parts: key for parts, key in derived.items() if parts not in composites} | composites
    named = {_words(term): key for key, entry in entries.items() for term in _terms(entry)}
    # Last, since a term may hold modifiers ("apical scarring"), and what these say must not get lost with the longer phrase.
    for key, entry in entries.items():
        for statement in entry.get("normal", ()):
            add(statement, "normal_of", key, statements)
        for term in _terms(entry):
            within = list(_words(term))
            if _parts(within, phrases) in derived and named.get((within[-1],), key) == key:
                continue  # read as a structure and its state, in whatever order they stand
            held = [
                tag
                for tag in tags_of(phrases, within)
                if tag.kind in ("side", "zone", "descriptor", "states", "position")
                # the vein of a device's name is its way in, not where it ends
                or (tag.kind == "sites" and not entry.get("device"))
            ]
            add(term, "concept", key)
            for tag in held:
                add(term, tag.kind, tag.value)

    distances = _distances(concepts)
    near: dict[str, set[str]] = {key: {key} for key in concepts}
    above: dict[str, set[str]] = {key: {key} for key in concepts}
    for narrow, broad in distances:
        above[narrow].add(broad)
        near[narrow].add(broad)
        near[broad].add(narrow)
    skipped = frozenset(data["skipped_sections"])
    known = frozenset(_words_in(phrases))
    return Lexicon(
        version=data["version"],
        concepts=concepts,
        distances=distances,
        composites=composites,
        depths={key: -count for key, count in Counter(narrow for narrow, _ in distances).items()},
        near={key: frozenset(others) for key, others in near.items()},
        broader={key: frozenset(others) for key, others in above.items()},
        phrases=phrases,
        statements=statements,
        known=known.union(data["no_typing_errors"]),
        long_words={
            letter: list(words)
            for letter, words in groupby(sorted(w for w in known if len(w) >= _SHORTEST_SWAPPED), itemgetter(0))
        },
        words={name: frozenset(map(normalise, words)) for name, words in data["words"].items()},
        units={unit: float(millimetres) for millimetres, units in data["units"].items() for unit in units},
        skipped_sections=skipped,
        sections=skipped.union(*(data[f"{kind}_sections"] for kind in ("kept", "findings", "preliminary", "final"))),
        one_sentence_sections=frozenset(data["one_sentence_sections"]),
        findings_sections=frozenset(data["findings_sections"]),
        preliminary_sections=frozenset(data["preliminary_sections"]),
        final_sections=frozenset(data["final_sections"]),
        growing_states=frozenset(data["growing_states"]),
        malignant_fluids=frozenset(data["malignant_fluids"]),
        not_in_lobes=frozenset(data["not_in_lobes"]),
        bare_states=data["bare_states"],
        naming_states=frozenset(data["naming_states"]),
        device_damage=frozenset(data["device_damage"]),
        spine={name: letter for letter, names in data["spine"].items() for name in names},
        ordinals=data["ordinals"],
        elsewhere=frozenset(data["elsewhere"]),
        percent=data["percent"],
        cardiothoracic_ratio=data["cardiothoracic_ratio"],
        neutral_statements=data["neutral_statements"],
        near_sites={
            site: frozenset(chain([site], *(group for group in data["near_sites"] if site in group)))
            for site in data["sites"]
        },
    )


def _words_of_change(forms: dict[str, list[str]], words: dict[str, list[str]]) -> Iterator[tuple[bool, str]]:
    """All words of a change, each with whether it is a noun; of verbs also those behind "has" and the like."""
    for form, terms in forms.items():
        before = ["", *words["amid"], *(words["amid_perfect"] if form == "perfect" else ())]
        for term in chain.from_iterable(map(_ways, terms)):
            if form != "perfect":
                yield form == "nouns", term
            if form in ("verbs", "perfect"):
                for having, amid in product(words["having"], before):
                    yield False, f"{having} {amid} {term}"


def _ways(phrase: str) -> Iterator[str]:
    """All that a phrase with alternatives stands for: of "(should|must) be (considered|)" there are four."""
    parts = [part.split("|") for part in re.split(r"[()]", phrase)]
    yield from map("".join, product(*parts))


def _words_in(tree: Phrases) -> Iterator[str]:
    for word, (_, longer) in tree.items():
        yield word
        if longer:
            yield from _words_in(longer)


def _terms(entry: dict[str, Any]) -> Iterator[str]:
    """The names in an entry of `concepts/`, with all that those with alternatives stand for."""
    return chain.from_iterable(map(_ways, entry["terms"]))


def _words(term: str) -> tuple[str, ...]:
    return tuple(word for word, _, _ in words_of(term))


def _parts(words: list[str], phrases: Phrases) -> tuple[str, str] | None:
    """The structure and the state that a term consists of, with nothing else that says anything; None of another term."""
    tags = tags_of(phrases, words)
    anatomy, states, rest = _structure_and_rest(words, tags)
    if len({tag.start for tag in anatomy}) != 1 or len({tag.start for tag in states}) != 1 or rest:
        return None
    return anatomy[0].value, states[0].value


def _structure_and_rest(words: list[str], tags: list[Tag]) -> tuple[list[Tag], list[Tag], tuple[str, ...]]:
    """The structures and states in some words, and the words that are neither, nor small ones between them."""
    anatomy, states, silent = ([tag for tag in tags if tag.kind == kind] for kind in ("anatomy", "states", "glue"))
    covered = {place for tag in (*anatomy, *states, *silent) for place in range(tag.start, tag.end)}
    return anatomy, states, tuple(word for place, word in enumerate(words) if place not in covered)


def _composites(entries: dict[str, dict[str, Any]], phrases: Phrases) -> dict[tuple[str, str], str]:
    """What the terms say of structures and their states: "tracheal narrowing" names a narrowed trachea.

    And of places of what has a broader name: a "mediastinal mass" is a mass in the mediastinum.
    """
    found: dict[tuple[str, str], set[str]] = {}
    named = {_words(term): key for key, entry in entries.items() for term in _terms(entry)}
    own: set[tuple[str, str]] = set()  # a "lung opacity" is an opacity
    for key, entry in entries.items():
        for term in _terms(entry):
            words = list(_words(term))
            if parts := _parts(words, phrases):
                found.setdefault(parts, set()).add(key)
                own.add((parts[0], key))
                continue
            anatomy, states, rest = _structure_and_rest(words, tags_of(phrases, words))
            head = named.get(rest)
            own |= {(tag.value, key) for tag in anatomy}
            if head and not states and len({tag.start for tag in anatomy}) == 1 and head in entry.get("broader", ()):
                found.setdefault((anatomy[0].value, head), set()).add(key)
    return {parts: keys.pop() for parts, keys in found.items() if len(keys) == 1 and parts not in own}


_WORD = re.compile(
    r"\d+(?:\.\d+| \. \d+)?|(?!s\b(?<=['’]s))[^\W\d_]+|(?<!\w)[-−–+]ve\b|[,;/>%]|\?(?=\w|\)|$)|(?<!\S)\?(?=\s)|(?<!#)#(?! ?(?:#|\d+(?![\d]|st|nd|rd|th)|[A-Z][A-Za-z]{2}))"
)
_GROUP, _SPAN = re.Match.group, re.Match.span
# A short word is too often one letter from another one.
_SHORTEST_MENDED, _SHORTEST_MENDED_TWICE = 7, 12
_SHORTEST_JOINED = 9
_DOUBLED = re.compile(r"([a-z])\1")
_SHORTEST_SWAPPED = 5  # letters in the wrong order, or one twice or once, make no other word
_LONGEST_NUMBER = 9  # characters
_APOSTROPHES, _T = frozenset("'’`"), frozenset("tT")
_LETTERS = {"R": "right", "L": "left", "r": "right", "l": "left"}
_NO_SIDE = re.compile(r"\d|/\s?\w\b|\s?-?\s?spine|\.\w", re.IGNORECASE)
_PLURAL = re.compile(r"(?<=..)(?:(?P<y>ies)|(?P<ss>ss)es|(?P<x>x|ch|sh)es|(?<![sui])s)$")


def words_of(text: str) -> list[tuple[str, int, int]]:
    """The normalised words of a text with their character spans; hyphens and other signs separate words."""
    return [(normalise(match[0]), match.start(), match.end()) for match in _WORD.finditer(text)]


def report_words(text: str) -> tuple[list[str], list[tuple[int, int]]]:
    """As `words_of`, words and spans apart, with typing errors in long words of the lexicon mended."""
    matches = list(_WORD.finditer(text))
    raw = list(map(_GROUP, matches))
    words = list(map(_mended, raw))
    spans = list(map(_SPAN, matches))
    if not _T.isdisjoint(raw):
        _write_out(words, matches)
    if not _LETTERS.keys().isdisjoint(raw):
        for position, match in enumerate(matches):
            if match[0] in _LETTERS:
                words[position] = _side_of(match, text) or words[position]
    if not lexicon().known.issuperset(words):
        _join(words, spans, raw)
    return words, spans


def _join(words: list[str], spans: list[tuple[int, int]], raw: Sequence[str]) -> None:
    """Make one word of one that speech recognition has split: "pneumo thorax", "cardio megaly"."""
    known = lexicon().known
    for position in range(len(raw) - 2, -1, -1):
        if words[position] in known and words[position + 1] in known:
            continue
        whole = normalise(raw[position] + raw[position + 1])
        if len(whole) >= _SHORTEST_JOINED and whole in known and spans[position + 1][0] - spans[position][1] == 1:
            words[position : position + 2] = [whole]
            spans[position : position + 2] = [(spans[position][0], spans[position + 1][1])]


def _write_out(words: list[str], matches: Sequence[re.Match[str]]) -> None:
    """Make "is not" of "isn't", and "can not" of "can't"."""
    for position, (verb, end) in enumerate(pairwise(matches)):
        between = verb.string[verb.end() : end.start()]
        if end[0] in _T and between in _APOSTROPHES and verb[0][-1] in "nN":
            told = verb[0] if verb[0].lower() == "can" else verb[0][:-1]
            words[position : position + 2] = [normalise(told), "not"]


def _number(text: str) -> str:
    """A number, which a tokenizer may have split; one that is no measurement, but a number of a record, is none."""
    return text.replace(" ", "") if len(text) <= _LONGEST_NUMBER else "number"


def _side_of(match: re.Match[str], text: str) -> str | None:
    """Left or right of "L effusion" and "opacity (R)", but not of "L1", "L-spine" and "r/o"."""
    if _NO_SIDE.match(text, match.end()) or text[: match.start()].endswith(("/", "-", "'")):
        return None
    return _LETTERS[match[0]]


def forget_words() -> None:
    """Forget the words of the reports that were read; a process that reads other people's reports keeps none."""
    _mended.cache_clear()
    normalise.cache_clear()


@lru_cache(maxsize=20_000)  # words recur; bounded, since reports hold endless names
def _mended(word: str) -> str:
    """A number or a normalised word; one that is no word of the lexicon but nearly one, as that word.

    A letter that stands twice or once, or two in the wrong order, are mended in words of five letters or more; other errors only in
    long words, whose first letter is right, and never by an ending alone: "resolve" is not "resolved".
    """
    if word[0].isdecimal():
        return _number(word)
    word = normalise(word)
    if len(word) < _SHORTEST_SWAPPED or word in lexicon().known or not word.isalpha():
        return word
    same = _by_single_letters().get(_DOUBLED.sub(r"\1", word))
    if same:
        return same  # "efussion"
    if len(word) < _SHORTEST_MENDED:
        swapped = (word[:i] + word[i + 1] + word[i] + word[i + 2 :] for i in range(1, len(word) - 1))
        return next((other for other in swapped if other in lexicon().long_words.get(other[0], ())), word)
    errors = 1 if len(word) < _SHORTEST_MENDED_TWICE else 2
    found = process.extractOne(word, lexicon().long_words.get(word[0], ()), scorer=OSA.distance, score_cutoff=errors)
    if found is None or word.startswith(found[0]) or found[0].startswith(word):
        return word
    return found[0]


@cache
def _by_single_letters() -> dict[str, str]:
    """The long words of the lexicon by what is left of them without their doubled letters, which are the commonest errors."""
    words = chain.from_iterable(lexicon().long_words.values())
    return {_DOUBLED.sub(r"\1", word): word for word in words}


def is_known(word: str) -> bool:
    """Whether a word stands in the lexicon."""
    return normalise(word) in known_words()


def known_words() -> frozenset[str]:
    """All words of the lexicon and those that only look like one."""
    return lexicon().known


@lru_cache(maxsize=20_000)
def normalise(word: str) -> str:
    """A word in lower case, US spelling and singular."""
    word = word.lower()
    word = abbreviations().get(word, word)
    for pattern, replacement in _spelling():
        word = pattern.sub(replacement, word)
    return _PLURAL.sub(lambda m: "y" if m["y"] else m["ss"] or m["x"] or "", word) if len(word) > 3 else word


@cache
def abbreviations() -> dict[str, str]:
    """Words cut short, and the whole words."""
    return _load("language.yaml")["abbreviations"]


@cache
def _spelling() -> list[tuple[re.Pattern[str], str]]:
    return [(re.compile(pattern), text) for pattern, text in _load("language.yaml")["spelling"].items()]


@cache
def concept_entries() -> dict[str, dict[str, Any]]:
    """The entries of `concepts/` as they are written, by id."""
    return {
        key: entry for name, file in _files().items() if name.startswith("concepts/") for key, entry in file.items()
    }


@cache
def concept_files() -> dict[str, str]:
    """Concept -> the file that holds its entry."""
    return {key: name for name, file in _files().items() if name.startswith("concepts/") for key in file}


def lexicon_faults(folder: Path | None = None) -> list[str]:
    """What is wrong in the files of a folder such as this one; of this one if None."""
    # Imported here, with pydantic and YAML, since the compiled lexicon needs neither.
    from crimson_core.judges.rules import schema

    found, faults = schema.read_files(folder or files(__package__))
    return faults or schema.faults_of(found, _readings)


@cache
@compiled(reading_digest)
def _files() -> dict[str, dict[Any, Any]]:
    """What is in the files of this folder, by name.

    Raises:
        JudgeError: Something is wrong in them.
    """
    from crimson_core.judges.rules import schema

    found, faults = schema.read_files(files(__package__))
    faults = faults or schema.faults_at_load(found, _readings)
    if faults:
        raise JudgeError(
            f"The lexicon of the offline judge has faults: {'; '.join(faults[:5])}. `crimson lexicon check` lists all."
        )
    return found


def _load(name: str) -> dict[str, Any]:
    return _files()[name]


def _readings(phrase: str) -> list[str]:
    """The normalised words of all that a phrase with alternatives stands for."""
    return [" ".join(_words(way)) for way in _ways(phrase)]


def _concept(key: str, entry: dict[str, Any]) -> Concept:
    return Concept(
        id=key,
        name=entry["terms"][0],
        significance=entry["significance"],
        by_severity=entry.get("by_severity", {}),
        broader=tuple(entry.get("broader", ())),
        sided=entry.get("sided", True),
        directed=entry.get("directed", False),
        vague=entry.get("vague", False),
        device=entry.get("device", False),
        percent=entry.get("percent", False),
        parts=tuple(entry.get("parts", ())),
        belongs_to=frozenset(entry.get("belongs_to", ())),
        reported=entry.get("reported", True),
        looped=entry.get("looped", False),
        tip_normal=frozenset(entry.get("tip_normal", ())),
        tip_misplaced=frozenset(entry.get("tip_misplaced", ())),
        once_old=entry.get("once_old"),
        one_sided=entry.get("one_sided"),
        apart=entry.get("apart", False),
        signs=tuple(entry.get("signs", ())),
        tip_levels=frozenset(entry.get("tip_levels", ())),
        tip_above_carina_mm=tuple(entry["tip_above_carina_mm"]) if "tip_above_carina_mm" in entry else None,
    )


def _distances(concepts: dict[str, Concept]) -> dict[tuple[str, str], int]:
    distances: dict[tuple[str, str], int] = {}
    for key in concepts:
        level, steps = {key}, 0
        while level:
            for broader in level:
                distances.setdefault((key, broader), steps)
            level = {up for broader in level for up in concepts[broader].broader}
            steps += 1
    return distances

"""What the files of the lexicon and the rules may hold: keys, types, ranges, and ids that must be known.

Each fault is one line that names the file, the entry and the key. To build the checks of types and ranges takes longer than
all others, so that `crimson lexicon check` and the tests make these, and the judge makes the others whenever it loads.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from graphlib import CycleError, TopologicalSorter
from importlib.resources.abc import Traversable
from typing import Annotated, Any, Literal, NotRequired

import yaml
from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError, with_config
from typing_extensions import TypedDict  # pydantic takes typing's from Python 3.12 on

from crimson_core.protocol.evaluation import Grade, Significance

LANGUAGE, RULES = "language.yaml", "rules.yaml"

Files = Mapping[str, dict[Any, Any]]  # name of a file below the folder -> what is in it


def _in_order(limits: list[float]) -> list[float]:
    if limits != sorted(limits):
        raise ValueError("the lower limit stands first")
    return limits


def _pattern(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"no regular expression: {error}") from None
    return text


def _unnested(phrase: str) -> str:
    if not re.fullmatch(r"[^()]*(?:\([^()]*\)[^()]*)*", phrase):
        raise ValueError("alternatives stand in brackets that hold no others")
    return phrase


# Holds a word or a sign that is read, and perhaps alternatives.
Phrase = Annotated[str, Field(pattern=r"[^\W_]|[,;/>%?#]"), AfterValidator(_unnested)]
Phrases = Annotated[list[Phrase], Field(min_length=1)]
Ids = Annotated[list[str], Field(min_length=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Millimetres = Annotated[float, Field(ge=0, le=300)]
Years = Annotated[float, Field(ge=0, le=120)]
Rank = Annotated[int, Field(ge=1, le=5)]  # of severity
FromRank = Annotated[int, Field(ge=0, le=5)]  # 0 stands for any degree that is told
_EXACT = ConfigDict(extra="forbid", strict=True)
Change = Literal["new", "worse", "better", "stable", "old", "acute", "increased"]


@with_config(_EXACT)
class ConceptEntry(TypedDict):
    """An entry of `concepts/`; the fields are explained at the top of `language.yaml`."""

    terms: Phrases
    broader: NotRequired[Ids]
    composites: NotRequired[list[Annotated[str, Field(pattern=r"^\S+ \S+$")]]]
    significance: Significance
    by_severity: NotRequired[dict[FromRank, Significance]]
    sided: NotRequired[bool]
    percent: NotRequired[bool]
    parts: NotRequired[Ids]
    belongs_to: NotRequired[Ids]
    directed: NotRequired[bool]
    vague: NotRequired[bool]
    device: NotRequired[bool]
    tip_normal: NotRequired[Ids]
    tip_misplaced: NotRequired[Ids]
    looped: NotRequired[bool]
    once_old: NotRequired[str]
    one_sided: NotRequired[str]
    apart: NotRequired[bool]
    signs: NotRequired[Ids]
    tip_levels: NotRequired[list[Annotated[str, Field(pattern="^[CTL][0-9]{1,2}$")]]]
    tip_above_carina_mm: NotRequired[
        Annotated[
            list[Annotated[float, Field(ge=-100, le=300)]], Field(min_length=2, max_length=2), AfterValidator(_in_order)
        ]
    ]
    reported: NotRequired[bool]
    normal: NotRequired[Phrases]
    note: Annotated[str, Field(min_length=1)]
    source: Annotated[str, Field(min_length=1)]


@with_config(_EXACT)
class _ChangeForms(TypedDict):
    words: Phrases
    verbs: NotRequired[Phrases]
    perfect: NotRequired[Phrases]
    nouns: NotRequired[Phrases]


@with_config(_EXACT)
class _Modifiers(TypedDict):
    side: dict[Literal["left", "right", "both"], Phrases]
    zone: dict[Literal["upper", "mid", "lower", "diffuse"], Phrases]
    lobe: dict[Annotated[str, Field(pattern="^(left|right) (upper|mid|lower)$")], Phrases]
    severity: dict[Rank, Phrases]
    temporal: dict[Change, Phrases]
    descriptor: dict[str, dict[str, Phrases]]
    position: dict[Literal["coiled", "moved", "good", "bad"], Phrases]


@with_config(_EXACT)
class _Words(TypedDict):
    copulas: Phrases
    having: Phrases
    amid: Phrases
    amid_perfect: Phrases
    holding: Phrases
    measures: Phrases
    one_more: Phrases
    one: Phrases
    other: Phrases
    within: Phrases
    above: Phrases
    beyond: Phrases
    barely: Phrases
    toward: Phrases
    ways_in: Phrases
    placing: Phrases
    giving_reasons: Phrases
    by_way_of: Phrases
    articles: Phrases
    indefinite: Phrases
    vertebra: Phrases
    distance: Phrases
    times: Phrases
    percent: Phrases
    views: Phrases
    on_another: Phrases
    of_a_device: Phrases
    tip: Phrases
    now: Phrases
    once: Phrases
    comparing: Phrases
    more: Phrases
    less: Phrases
    plainly_denied: Phrases
    perhaps: Phrases
    preferring: Phrases
    seen: Phrases
    answers: Phrases
    follow_up: Phrases
    of_patients: Phrases
    plural_verbs: Phrases
    subordinating: Phrases
    empty_subjects: Phrases
    plainly_normal: Phrases
    removal: Phrases
    low_or_high: Phrases
    related: Phrases
    alike: Phrases
    none: Phrases
    all_of_them: Phrases
    agreeing: Phrases
    dating: Phrases
    opening: Phrases
    staying: Phrases
    persisting: Phrases
    malignant: Phrases
    relative: Phrases
    pointing: Phrases
    remaining: Phrases
    leading_on: Phrases


@with_config(_EXACT)
class LanguageFile(TypedDict):
    """`language.yaml`."""

    version: int
    anatomy: dict[str, Phrases]
    states: dict[str, Phrases]
    growing_states: Ids
    malignant_fluids: Ids
    not_in_lobes: Ids
    not_composites: Phrases
    bare_states: dict[str, str]
    naming_states: Ids
    joint: Phrases
    normal: Phrases
    course: Phrases
    earlier: Phrases
    neutral: Phrases
    asymmetry: Phrases
    assertion: dict[
        Literal[
            "negated_before",
            "negated_after",
            "negated_beside",
            "hypothetical",
            "history",
            "past",
            "removed_after",
            "unassessed_after",
            "advised_after",
            "uncertain_before",
            "uncertain_after",
            "not_excluded_after",
            "outweighed",
            "affirmed",
        ],
        Phrases,
    ]
    link: dict[Literal["firm", "direct", "tentative", "differential", "reversed"], Phrases]
    alternative: Phrases
    clause_end: dict[Literal["contrast", "stop", "concession", "exception"], Phrases]
    negation_end: Phrases
    conjunction: Phrases
    change: dict[Literal["up", "again", "raised", "down", "gone", "any"], _ChangeForms]
    extent: dict[Literal["partial", "little", "complete", "plain"], Phrases]
    modifiers: _Modifiers
    words: _Words
    units: dict[Literal[1, 10], Phrases]
    general: Phrases
    beside: Phrases
    nearby: Phrases
    likewise: Phrases
    showing: Phrases
    symptom: Phrases
    anaphor: Phrases
    definite: Phrases
    pronoun: Phrases
    appearance: Phrases
    similar: Phrases
    harmless: Phrases
    elsewhere: Phrases
    prior: Phrases
    cardiothoracic_ratio: Annotated[int, Field(ge=1, le=100)]
    percent: dict[Annotated[int, Field(ge=1, le=100)], Rank]
    spine: dict[Literal["C", "T", "L"], Phrases]
    ordinals: dict[Annotated[int, Field(ge=1, le=12)], Phrases]
    device_damage: Ids
    sites: dict[str, Phrases]
    near_sites: list[Ids]
    glue: Phrases
    no_typing_errors: Phrases
    skipped_sections: Phrases
    one_sentence_sections: Phrases
    findings_sections: Phrases
    kept_sections: Phrases
    preliminary_sections: Phrases
    final_sections: Phrases
    neutral_statements: Phrases
    abbreviations: dict[str, str]
    spelling: dict[Annotated[str, AfterValidator(_pattern)], str]


@with_config(_EXACT)
class _Graded(TypedDict):
    grade: Grade
    why: Annotated[str, Field(min_length=1)]


@with_config(_EXACT)
class _GradedPlace(_Graded):
    sites: NotRequired[Ids]


@with_config(_EXACT)
class _OtherAge(TypedDict):
    concepts: Ids
    fresh: list[Change]
    past: list[Change]
    loses: Share


@with_config(_EXACT)
class _Matching(TypedDict):
    concept_steps: dict[Annotated[int, Field(ge=0)], Share]
    far_concept: Share
    interchangeable: Share
    other_diagnosis: Share
    other_position: Share
    other_age: _OtherAge
    wrong_side: Share
    one_side_of_two: Share
    zone_gap: dict[Literal[0, 1, 2], Share]
    other_site: Share
    paired_sites: Ids
    severity_step: Share
    detail: Share
    threshold: Share


@with_config(_EXACT)
class _Severity(TypedDict):
    steps_for_significant: Annotated[int, Field(ge=1, le=5)]
    significant: _Graded
    negligible: _Graded


@with_config(_EXACT)
class _DeviceMeasurement(_Graded):
    margin_mm: Millimetres


@with_config(_EXACT)
class _Measurement(TypedDict):
    small_nodule_below_mm: Millimetres
    small_nodule_margin_mm: Millimetres
    nodule_margin_mm: Millimetres
    mass_from_mm: Millimetres
    mass_margin_share: Share
    other_margin_mm: Millimetres
    other_margin_share: Share
    significant: _Graded
    reclassified: _Graded
    negligible: _Graded
    left_out: _Graded
    device: _DeviceMeasurement
    device_opposite: _Graded


@with_config(_EXACT)
class _Temporal(TypedDict):
    acute: list[Change]
    alike: list[Annotated[list[Change], Field(min_length=2, max_length=2)]]
    same_direction: _Graded
    contradicted: _Graded
    acute_left_out: _Graded
    acute_made_up: _Graded
    old_made_up: _Graded
    left_out: _Graded
    made_up: _Graded
    device: _Graded


Pair = Annotated[list[str], Field(min_length=2, max_length=2)]


@with_config(_EXACT)
class _ToldByExtent(TypedDict):
    from_rank: Rank
    pairs: list[Pair]


@with_config(_EXACT)
class _ToldByPlace(TypedDict):
    told: Pair
    not_told: Pair
    from_rank: Rank
    pairs: list[Pair]


@with_config(_EXACT)
class _Specificity(TypedDict):
    too_many_alternatives: Annotated[int, Field(ge=1)]
    alternatives: _Graded
    other_diagnosis: _Graded
    significant: _Graded
    negligible: _Graded
    told_by_extent: _ToldByExtent
    told_by_place: _ToldByPlace
    by_size: list[Pair]
    interchangeable: list[Pair]


@with_config(_EXACT)
class _AttributeErrors(TypedDict):
    location: dict[
        Literal[
            "wrong_side",
            "one_side_of_two",
            "crossed",
            "other_side_worse",
            "far_zone",
            "near_zone",
            "near_level",
            "other_compartment",
            "other_station",
            "other_organ",
            "other_nodes",
            "far_level",
            "device_tip",
            "other_misplacement",
            "device_position",
            "side_left_out",
        ],
        _GradedPlace,
    ]
    severity: _Severity
    measurement: _Measurement
    certainty: dict[Literal["urgent", "device", "inferred", "other"], _Graded]
    temporal: _Temporal
    descriptor: dict[str, _Graded]
    specificity: _Specificity


@with_config(_EXACT)
class _Wording(TypedDict):
    threshold: Share


@with_config(_EXACT)
class _DeviceOutOfPlace(TypedDict):
    significance: Significance
    why: Annotated[str, Field(min_length=1)]


@with_config(_EXACT)
class SignificanceRule(TypedDict):
    """A rule by which the patient, or what is told of a finding, moves its significance."""

    why: Annotated[str, Field(min_length=1)]
    concepts: Ids
    age_from: NotRequired[Years]
    age_below: NotRequired[Years]
    indication: NotRequired[Phrases]
    unless_indication: NotRequired[Phrases]
    beside: NotRequired[Ids]
    unless_beside: NotRequired[Ids]
    sites: NotRequired[Ids]
    temporal: NotRequired[list[Change]]
    not_temporal: NotRequired[list[Change]]
    severity_to: NotRequired[Rank]
    set: NotRequired[Significance]
    at_least: NotRequired[Significance]
    at_most: NotRequired[Significance]


@with_config(_EXACT)
class RulesFile(TypedDict):
    """`rules.yaml`."""

    version: int
    matching: _Matching
    attribute_errors: _AttributeErrors
    wording: _Wording
    device_out_of_place: _DeviceOutOfPlace
    significance: list[SignificanceRule]


# --- files


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]  # C where it is installed
    """Reads YAML, but refuses a key that stands twice, of which YAML keeps the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        made = super().construct_mapping(node, deep)
        if len(made) < len(node.value):
            twice = next(_repeated(key.value for key, _ in node.value))
            raise yaml.constructor.ConstructorError(None, None, f"{twice} stands twice", node.start_mark)
        return made


def _repeated(phrases: Iterable[str]) -> Iterator[str]:
    """What stands in a list again."""
    seen: set[str] = set()
    for phrase in phrases:
        if phrase in seen:
            yield phrase
        seen.add(phrase)


def read_yaml(text: str) -> Any:
    """What a YAML text holds; a key that stands twice is an error."""
    return yaml.load(text, Loader=_Loader)  # noqa: S506 - a safe loader


def read_files(folder: Traversable) -> tuple[dict[str, dict[Any, Any]], list[str]]:
    """The files of a lexicon by their names below its folder, and the faults of those that cannot be read."""
    found: dict[str, dict[Any, Any]] = {}
    faults: list[str] = []
    regions = folder.joinpath("concepts")
    names = sorted(file.name for file in regions.iterdir()) if regions.is_dir() else []
    for name in (LANGUAGE, RULES, *(f"concepts/{name}" for name in names if name.endswith(".yaml"))):
        file = folder.joinpath(name)
        if not file.is_file():
            faults.append(f"{name}: is missing")
            continue
        try:
            content = read_yaml(file.read_text(encoding="utf-8"))
        except yaml.YAMLError as error:
            mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
            faults.append(f"{name}{f', line {mark.line + 1}' if mark else ''}: {problem or 'is no YAML'}")
            continue
        except UnicodeDecodeError:
            faults.append(f"{name}: is no UTF-8")
            continue
        if isinstance(content, dict):
            found[name] = content
        else:
            faults.append(f"{name}: holds no entries")
    if not any(name.startswith("concepts/") for name in found):
        faults.append("concepts: holds no file with concepts")
    return found, faults


Readings = Callable[[str], list[str]]


def faults_of(files: Files, readings: Readings) -> list[str]:
    """What is wrong in the files of a lexicon; what a check needs to be right is checked before it.

    Args:
        files: By name, as `read_files` gives them.
        readings: Gives all that a phrase with alternatives stands for; what is read alike is the same.
    """
    return list(_shape(files)) or _quick(files) or list(_twice(files, readings))


def faults_at_load(files: Files, readings: Readings) -> list[str]:
    """The same, but where nothing is wrong with keys and ids, nothing else is looked at."""
    try:
        quick = _quick(files)
    except (AttributeError, KeyError, TypeError, ValueError):  # of data of another shape
        quick = [""]
    return faults_of(files, readings) if quick else []


def _quick(files: Files) -> list[str]:
    return [*_keys(files)] or [*_unknown(files), *_cycles(files)]


def _keys(files: Files) -> Iterator[str]:
    """Keys of entries that are not known, or missing."""
    entries: list[tuple[str, str, Mapping[str, Any], Any]] = [
        (name, key, entry, ConceptEntry) for name, key, entry in _concepts(files)
    ]
    rules = files[RULES]["significance"]
    entries += [(RULES, f"significance.{place}", rule, SignificanceRule) for place, rule in enumerate(rules)]
    for name, key, entry, kind in entries:
        yield from (f"{name}: {key}.{field}: is no key" for field in entry.keys() - kind.__annotations__.keys())
        yield from (f"{name}: {key}.{field}: is missing" for field in kind.__required_keys__ - entry.keys())
    for place, rule in enumerate(rules):
        if len(rule.keys() & {"set", "at_least", "at_most"}) != 1:
            yield f"{RULES}: significance.{place}: needs one of set, at_least and at_most (why: {rule['why']})"


@cache
def _adapter(of: Any) -> TypeAdapter[Any]:
    return TypeAdapter(of)


def _shape(files: Files) -> Iterator[str]:
    for name, content in files.items():
        kind = {LANGUAGE: LanguageFile, RULES: RulesFile}.get(name, dict[str, ConceptEntry])
        try:
            _adapter(kind).validate_python(content)
        except ValidationError as error:
            for fault in error.errors(include_url=False):
                place = [str(part) for part in fault["loc"] if part != "[key]"]
                yield f"{name}: {'.'.join(place)}: {_said(fault)}"


def _said(fault: Mapping[str, Any]) -> str:
    if fault["type"] == "extra_forbidden":
        return "is no key"
    given = fault["input"]
    message = fault["msg"].removeprefix("Value error, ")
    return f"{message} (is {given!r})" if isinstance(given, (str, int, float, bool)) else message


def _concepts(files: Files) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for name, content in files.items():
        if name not in (LANGUAGE, RULES):
            for key, entry in content.items():
                yield name, key, entry


def _unknown(files: Files) -> Iterator[str]:
    """Ids that name nothing."""
    language, rules = files[LANGUAGE], files[RULES]
    ids = {key for _, key, _ in _concepts(files)}
    sites, states, structures = (language[kind].keys() for kind in ("sites", "states", "anatomy"))
    for name, key, entry in _concepts(files):
        for field, known in (
            ("broader", ids),
            ("parts", ids),
            ("signs", ids),
            ("belongs_to", ids),
            ("tip_normal", sites),
            ("tip_misplaced", sites),
        ):
            yield from (
                f"{name}: {key}.{field}: {one} is not known" for one in entry.get(field, ()) if one not in known
            )
        for field in ("once_old", "one_sided"):
            if (other := entry.get(field, key)) not in ids:
                yield f"{name}: {key}.{field}: {other} is no concept"
        for composite in entry.get("composites", ()):
            of, what = composite.split()
            if of not in structures | states | ids:
                yield f"{name}: {key}.composites: {of} is no structure and no state of {LANGUAGE}, and no concept"
            if what not in states | ids:
                yield f"{name}: {key}.composites: {what} is no state of {LANGUAGE} and no concept"
    for field, known, kind in (
        ("device_damage", ids, "concept"),
        ("growing_states", states, "state"),
        ("malignant_fluids", ids, "concept"),
        ("not_in_lobes", ids, "concept"),
        ("naming_states", states, "state"),
        ("bare_states", states, "state"),
    ):
        yield from (f"{LANGUAGE}: {field}: {one} is no {kind}" for one in language[field] if one not in known)
    for pair in language["not_composites"]:
        of, what = pair.split()
        if of not in structures or what not in states | ids:
            yield f"{LANGUAGE}: not_composites: {pair} is no structure and a state of it"
    for place, group in enumerate(language["near_sites"]):
        yield from (f"{LANGUAGE}: near_sites.{place}: {one} is not known" for one in group if one not in sites)
    skipped = language["skipped_sections"]
    yield from (
        f"{LANGUAGE}: one_sentence_sections: {one} is not among skipped_sections"
        for one in language["one_sentence_sections"]
        if one not in skipped
    )
    for key, rule in rules["attribute_errors"]["location"].items():
        yield from (
            f"{RULES}: attribute_errors.location.{key}.sites: {one} is not known"
            for one in rule.get("sites", ())
            if one not in sites
        )
    for place, rule in enumerate(rules["significance"]):
        for field, known in (("concepts", ids), ("beside", ids), ("unless_beside", ids), ("sites", sites)):
            yield from (
                f"{RULES}: significance.{place}.{field}: {one} is not known (why: {rule['why']})"
                for one in rule.get(field, ())
                if one not in known
            )
    yield from (
        f"{RULES}: matching.other_age.concepts: {one} is no concept"
        for one in rules["matching"]["other_age"]["concepts"]
        if one not in ids
    )
    specificity = rules["attribute_errors"]["specificity"]
    for field, pairs in (
        ("interchangeable", specificity["interchangeable"]),
        ("told_by_extent", specificity["told_by_extent"]["pairs"]),
        ("told_by_place", specificity["told_by_place"]["pairs"]),
        ("by_size", specificity["by_size"]),
    ):
        yield from (
            f"{RULES}: attribute_errors.specificity.{field}: {one} is no concept"
            for pair in pairs
            for one in pair
            if one not in ids
        )


def _cycles(files: Files) -> Iterator[str]:
    """Concepts that are broader than themselves."""
    try:
        TopologicalSorter({key: entry.get("broader", ()) for _, key, entry in _concepts(files)}).prepare()
    except CycleError as circle:
        first = circle.args[1][0]
        name = next(name for name, key, _ in _concepts(files) if key == first)
        yield f"{name}: {first}.broader: goes in a circle: {' < '.join(reversed(circle.args[1]))}"


def _twice(files: Files, readings: Readings) -> Iterator[str]:
    """Ids that stand in two files, terms of two concepts, rules with the same `why`, and phrases that stand twice in a list."""
    ids: dict[str, str] = {}
    terms: dict[str, str] = {}
    for name, key, entry in _concepts(files):
        if key in ids:
            yield f"{name}: {key}: stands in {ids[key]} too"
        ids[key] = name
        for term in entry["terms"]:
            others = {terms.setdefault(reading, key) for reading in readings(term)} - {key}
            yield from (f"{name}: {key}.terms: {term} names {other} too" for other in sorted(others))
    whys: set[str] = set()
    for place, rule in enumerate(files[RULES]["significance"]):
        if rule["why"] in whys:
            yield f"{RULES}: significance.{place}.why: stands twice, and is the name of a rule ({rule['why']})"
        whys.add(rule["why"])
    for name, content in files.items():
        for where, phrases in _lists(content, ()):
            yield from (f"{name}: {where}: {phrase} stands twice" for phrase in _repeated(phrases))
            if not where.endswith(_AS_WRITTEN):
                # the first term is the name of its concept, and stands whatever the others say
                rest = dict.fromkeys(phrases[where.endswith(".terms") :])
                yield from (f"{name}: {where}: {again}" for again in _given_again(rest, readings))


_AS_WRITTEN = ("_sections", "neutral_statements")  # lists whose phrases are not normalised


def _given_again(phrases: Iterable[str], readings: Readings) -> Iterator[str]:
    """What an alternative of a phrase says that another one, or another phrase of the list, says already."""
    given: dict[str, str] = {}
    for phrase in phrases:
        for reading in readings(phrase):
            if reading in given:
                yield f"{phrase} gives “{reading}”, as does {given[reading]}"
                break
            given[reading] = phrase


def _lists(content: Any, place: tuple[str, ...]) -> Iterator[tuple[str, list[str]]]:
    if isinstance(content, dict):
        for key, inner in content.items():
            yield from _lists(inner, (*place, str(key)))
    elif isinstance(content, list) and all(isinstance(item, str) for item in content):
        yield ".".join(place), content

"""The config of a leaderboard: judges, test sets and systems, from a YAML file."""

import difflib
from itertools import combinations
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from crimson_core.errors import InputError
from crimson_core.run.config_file import NOT_QUOTED, read_yaml

SECRET_OPTIONS = frozenset({"api_key"})  # never shown


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Source(_Part):
    """A table: a file (relative to the config), a folder, or a data set of the Hub; in short form the path alone.

    Attributes:
        path: Path of the file or folder, or the Hub id.
        split: The split, if there are several.
        name: Configuration of a Hub data set.
        revision: Commit, tag or branch of a Hub data set.
    """

    path: str
    split: str | None = None
    name: str | None = None
    revision: str | None = None


class Columns(_Part):
    """The columns of a test set's tables. None means the column named after the role, if it exists.

    Attributes:
        reference: The reference reports. A system's own table may lack it if it has ids.
        id: Ids that join tables; without ids, tables must hold the same references in the same order.
        age: The patient's age.
        sex: The patient's sex.
        indication: Why the radiograph was taken.
        patient: The patient; intervals and p values then resample patients. Used only if it is named.
    """

    reference: str = "reference"
    id: str | None = None
    age: str | None = None
    sex: str | None = None
    indication: str | None = None
    patient: str | None = None


def _short(key: str) -> BeforeValidator:
    """Accept a string for a part with only `key`."""
    return BeforeValidator(lambda value: {key: value} if isinstance(value, str) else value)


class TestSet(_Part):
    """Reference reports; in short form their location.

    Attributes:
        data: Their location.
        columns: Names of its columns.
        subgroups: What splits the figures: `age_band` and `sex` (from the patient context), or any column.
    """

    __test__ = False  # pytest takes it for tests

    data: Annotated[Source, _short("path")]
    columns: Columns = Columns()
    subgroups: list[str] = []


class System(_Part):
    """Candidate reports of one system; in short form the column alone.

    Attributes:
        column: Column of the candidate reports.
        data: The table with the reports, by test set; by default the test set's own table.
    """

    column: str = "prediction"
    data: dict[str, Annotated[Source, _short("path")]] = {}


class JudgeChoice(_Part):
    """A judge; in short form the spec alone.

    Attributes:
        spec: The judge spec.
        options: Options of the judge's constructor.
        repair: Make inconsistent evaluations consistent before scoring.
    """

    spec: str
    options: dict[str, Any] = {}
    repair: bool = True

    @property
    def label(self) -> str:
        """Its spec, and what distinguishes it from the same judge with other options."""
        told = [f"{name} {value}" for name, value in self.options.items() if name not in SECRET_OPTIONS]
        told += [] if self.repair else ["no repair"]
        return self.spec + (f" ({', '.join(told)})" if told else "")


class Config(_Part):
    """A leaderboard.

    Attributes:
        title: Title of the report.
        judges: Judges; with two or more, their agreement is reported too.
        test_sets: Test sets by name.
        systems: Systems by name.
        seed: Seed of the resampling.
        fill_missing: Treat missing reports as empty ones, and skip blank rows.
        within: Largest difference of two judges' scores of a pair that counts as close.
    """

    title: str = "CRIMSON leaderboard"
    judges: list[Annotated[JudgeChoice, _short("spec")]] = Field(min_length=1)
    test_sets: dict[str, Annotated[TestSet, _short("data")]] = Field(min_length=1)
    systems: dict[str, Annotated[System, _short("column")]] = Field(min_length=1)
    seed: int = Field(default=0, ge=0)
    fill_missing: bool = False
    within: float = Field(default=0.1, gt=0)


def load_config(file: Path) -> Config:
    """Load a leaderboard from a YAML file.

    Raises:
        InputError: It cannot be read, or has a key that is unknown, missing or of another type; names the key.
    """
    return parse_config(read_yaml(file), str(file))


def parse_config(data: Any, source: str) -> Config:
    """Check the content of a config, which errors call `source`; see `load_config`."""
    if not isinstance(data, dict):
        raise InputError(f"{source} must hold the keys judges, test_sets and systems.")
    try:
        config = Config.model_validate(data)
    except ValidationError as error:
        raise InputError(f"{source}: " + "; ".join(map(_problem, error.errors()))) from None
    for name, system in config.systems.items():
        for test_set in system.data:
            if test_set not in config.test_sets:
                raise InputError(
                    f"{source}: systems.{name}.data names the test set {test_set!r}, which is none."
                    + _meant(test_set, config.test_sets)
                )
    for (name, system), (other, same) in combinations(config.systems.items(), 2):
        for test_set, shared in config.test_sets.items():
            if (system.column, system.data.get(test_set, shared.data)) == (
                same.column,
                same.data.get(test_set, shared.data),
            ):
                raise InputError(
                    f"{source}: systems.{name} and systems.{other} are the same column {system.column!r} on the test set "
                    f"{test_set!r}: it would be compared with itself. Leave one out."
                )
    specs = [(judge.spec, judge.options, judge.repair) for judge in config.judges]
    for spec in specs:
        if specs.count(spec) > 1:
            raise InputError(f"{source}: judges has {spec[0]!r} twice. Give each once.")
    return config


def _problem(error: ErrorDetails) -> str:
    where = ".".join(map(str, error["loc"]))
    if error["type"] != "extra_forbidden":
        quote = " Quote it." if error["type"] == "string_type" and isinstance(error["input"], NOT_QUOTED) else ""
        return f"{where}: {error['msg'][:1].lower()}{error['msg'][1:]}.{quote}"
    *parents, key = error["loc"]
    known = _fields(parents)
    return f"{where} is an unknown key." + (_meant(str(key), known) or f" The keys are {', '.join(known)}.")


def _fields(parents: list[Any]) -> list[str]:
    """The valid keys at a place in the config."""
    parts: dict[Any, type[BaseModel]] = {
        "judges": JudgeChoice,
        "test_sets": TestSet,
        "systems": System,
        "columns": Columns,
        "data": Source,
    }
    part = next((parts[parent] for parent in reversed(parents) if parent in parts), Config)
    return list(part.model_fields)


def _meant(name: str, known: Any) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f" Did you mean {close[0]}?" if close else ""

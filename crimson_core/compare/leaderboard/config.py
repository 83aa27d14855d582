"""The config of a leaderboard: judges, test sets and systems, from a YAML file."""

from itertools import combinations
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, ConfigDict, Field

from crimson_core.errors import InputError
from crimson_core.run.config_file import Strict, checked, meant, read_yaml

SECRET_OPTIONS = frozenset({"api_key"})  # never shown


class _Part(Strict):
    model_config = ConfigDict(frozen=True)


class Source(_Part):
    """A table: a file (relative to the config), a folder, or a data set of the Hub; in short form the path alone."""

    path: str  # path of the file or folder, or the Hub id
    split: str | None = None  # the split, if there are several
    name: str | None = None  # configuration of a Hub data set
    revision: str | None = None  # commit, tag or branch of a Hub data set


class Columns(_Part):
    """The columns of a test set's tables. None means the column named after the role, if it exists."""

    reference: str = "reference"  # a system's own table may lack it if it has ids
    id: str | None = None  # ids that join tables; without ids, tables must hold the same references in the same order
    age: str | None = None
    sex: str | None = None
    indication: str | None = None
    patient: str | None = None  # if named, intervals and p values resample patients


def _short(key: str) -> BeforeValidator:
    """Accept a string for a part with only `key`."""
    return BeforeValidator(lambda value: {key: value} if isinstance(value, str) else value)


class TestSet(_Part):
    """Reference reports; in short form their location."""

    __test__ = False  # pytest takes it for tests

    data: Annotated[Source, _short("path")]
    columns: Columns = Columns()
    subgroups: list[str] = []  # what splits the figures: `age_band` and `sex` (from the patient context), or any column


class System(_Part):
    """Candidate reports of one system; in short form the column alone."""

    column: str = "prediction"  # of the candidate reports
    # the table with the reports, by test set; by default the test set's own table
    data: dict[str, Annotated[Source, _short("path")]] = {}


class JudgeChoice(_Part):
    """A judge; in short form the spec alone."""

    spec: str
    options: dict[str, Any] = {}  # options of the judge's constructor
    repair: bool = True  # make inconsistent evaluations consistent before scoring

    @property
    def label(self) -> str:
        """Its spec, and what distinguishes it from the same judge with other options."""
        details = [f"{name} {value}" for name, value in self.options.items() if name not in SECRET_OPTIONS]
        details += [] if self.repair else ["no repair"]
        return self.spec + (f" ({', '.join(details)})" if details else "")


class Config(_Part):
    """A leaderboard."""

    title: str = "CRIMSON leaderboard"
    # judges; with two or more, their agreement is reported too
    judges: list[Annotated[JudgeChoice, _short("spec")]] = Field(min_length=1)
    test_sets: dict[str, Annotated[TestSet, _short("data")]] = Field(min_length=1)  # by name
    systems: dict[str, Annotated[System, _short("column")]] = Field(min_length=1)  # by name
    seed: int = Field(default=0, ge=0)  # of the resampling
    fill_missing: bool = False  # treat missing reports as empty ones, and skip blank rows
    within: float = Field(default=0.1, gt=0)  # largest difference of two judges' scores of a pair that counts as close


def load_config(file: Path) -> Config:
    """Load a leaderboard from a YAML file.

    Raises:
        InputError: It cannot be read, or has a key that is unknown, missing or of another type; names the key.
    """
    return parse_config(read_yaml(file), str(file))


def parse_config(data: Any, source: str) -> Config:
    """Check the content of a config, which errors call `source`; see `load_config`."""
    config = checked(Config, data, source)
    for name, system in config.systems.items():
        for test_set in system.data:
            if test_set not in config.test_sets:
                raise InputError(
                    f"{source}: systems.{name}.data names the test set {test_set!r}, which is none."
                    + meant(test_set, config.test_sets)
                )
    for (name, system), (other, same) in combinations(config.systems.items(), 2):
        for test_set, shared in config.test_sets.items():
            tables = (own.data.get(test_set, shared.data) for own in (system, same))
            if system.column == same.column and len(set(tables)) == 1:
                raise InputError(
                    f"{source}: systems.{name} and systems.{other} are the same column {system.column!r} on the test set "
                    f"{test_set!r}: it would be compared with itself. Leave one out."
                )
    specs = [(judge.spec, judge.options, judge.repair) for judge in config.judges]
    for spec in specs:
        if specs.count(spec) > 1:
            raise InputError(f"{source}: judges has {spec[0]!r} twice. Give each once.")
    return config

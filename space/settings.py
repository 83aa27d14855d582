"""Settings of a Space's owner, from environment variables."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from crimson_core.errors import InputError
from crimson_core.judges import parse_spec

# A comma between judges; one before `name=` belongs to the options of a judge spec.
_BETWEEN_JUDGES = re.compile(r",(?!\s*[A-Za-z]\w*\s*=)")


@dataclass(frozen=True)
class Settings:
    """Settings of a Space."""

    judge: str  # the spec that is selected at the start
    judges: tuple[str, ...]  # the specs that visitors may choose from
    max_rows: int  # in a file
    max_megabytes: int  # largest file in megabytes of 2^20 bytes; of a Parquet file also what it unpacks to
    max_characters: int  # of a report

    @property
    def max_bytes(self) -> int:
        """`max_megabytes` in bytes."""
        return self.max_megabytes * 2**20


def settings_from(environment: Mapping[str, str]) -> Settings:
    """Read the settings from environment variables.

    Raises:
        InputError: A variable has no possible value; the text names it.
    """
    judge = environment.get("CRIMSON_JUDGE", "").strip() or "offline"
    allowed = [spec.strip() for spec in _BETWEEN_JUDGES.split(environment.get("CRIMSON_JUDGES", "")) if spec.strip()]
    judges = tuple(dict.fromkeys(allowed or [judge]))
    if judge not in judges:
        raise InputError(f"CRIMSON_JUDGE is {judge!r}, which is not among CRIMSON_JUDGES. Add it there.")
    for spec in judges:
        parse_spec(spec)
    return Settings(
        judge,
        judges,
        _positive(environment, "CRIMSON_MAX_ROWS", 5000),
        _positive(environment, "CRIMSON_MAX_MB", 20),
        _positive(environment, "CRIMSON_MAX_CHARACTERS", 20_000),
    )


def _positive(environment: Mapping[str, str], name: str, default: int) -> int:
    text = environment.get(name, "").strip()
    if not text:
        return default
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise InputError(f"{name} is {text!r}. Give a whole number above 0.")
    return int(text)

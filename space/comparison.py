"""The report pairs of several systems over the same references, within the owner's limits."""

from collections.abc import Mapping, Sequence

from crimson_core.compare.section import Systems, name_systems
from crimson_core.errors import InputError
from crimson_core.run.pairs import align_systems
from space.settings import Settings
from space.uploads import UploadedTable, checked_pairs

MOST_SYSTEMS = 10  # every two are compared


def systems_of(
    tables: Sequence[UploadedTable], columns: Mapping[str, str | list[str] | None], settings: Settings
) -> Systems:
    """The system of one file, or the systems of several files or of one with several prediction columns.

    `columns` maps roles to columns, and `prediction` to a list of them if systems are compared. Several files are joined
    by their ids, or else by their order.

    Raises:
        InputError: There are too few or too many systems, or they do not match.
    """
    predictions = columns["prediction"]
    if not isinstance(predictions, list):
        return Systems({predictions or "": checked_pairs(tables[0], columns, settings)}, joined_by="row")
    names = name_systems([table.name for table in tables], predictions)
    if len(names) < 2:
        raise InputError(
            "Choose two or more columns of candidate reports, or give several files: there is nothing to compare."
        )
    if len(names) > MOST_SYSTEMS:
        raise InputError(f"These are {len(names)} systems; at most {MOST_SYSTEMS} are compared here.")
    pairs = {
        name: checked_pairs(tables[number], columns | {"prediction": column}, settings)
        for name, (number, column) in names.items()
    }
    n = sum(map(len, pairs.values()))
    if n > settings.max_rows:
        raise InputError(f"These are {n:,} pairs of all systems together; at most {settings.max_rows:,} are accepted.")
    by_id = columns.get("id") is not None
    return Systems(
        align_systems(pairs, by_id=len(tables) > 1 and by_id),
        joined_by="row" if len(tables) == 1 else "id" if by_id else "order",
    )

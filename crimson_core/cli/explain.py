"""`crimson explain`: shows how the offline judge reads a report or a pair."""

import json
import re
import sys
from pathlib import Path
from typing import Annotated

import typer

from crimson_core.cli.options import given
from crimson_core.compare.explaining import explanation_text
from crimson_core.errors import InputError
from crimson_core.judges.rules.explain import explain as explained
from crimson_core.judges.rules.explain import explain_pair
from crimson_core.protocol.imitation import defused
from crimson_core.protocol.pair import make_pairs


def explain(
    report: Annotated[str, typer.Argument(help="A report: its text, a text file, or - for standard input.")],
    reference: Annotated[
        str | None,
        typer.Option(
            "--reference", "-r", help="Reference report, given likewise: also show how the two are matched and graded."
        ),
    ] = None,
    age: Annotated[str | None, typer.Option(help="The patient's age.")] = None,
    sex: Annotated[str | None, typer.Option(help="The patient's sex.")] = None,
    indication: Annotated[str | None, typer.Option(help="Why the radiograph was taken.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show how the offline judge reads a report, and which lexicon entry or rule decides.

    For each sentence: the observations that it names, what makes them present or absent, and their modifiers. Then the findings
    with their clinical significance. Brackets contain the file and the key of an entry, or the `why` of a rule.
    """
    if report == reference == "-":
        raise InputError("Only one report can come from standard input. Give the other as a file or as text.")
    context = given(age=age, sex=sex, indication=indication)
    candidate, other = _text("report", report), None if reference is None else _text("reference", reference)
    try:
        (pair,) = make_pairs([candidate], [other or ""], [context], where=lambda argument, _: argument.rstrip("s"))
    except InputError as error:
        raise InputError(str(error).replace("patient_context['age']", "--age")) from None
    pair, left_out = defused(pair, in_place=True)  # as when it is scored
    for repair in left_out:
        print(f"crimson: {repair}", file=sys.stderr)
    found = explained(pair.candidate, pair.context) if other is None else explain_pair(pair)
    if as_json:
        print(json.dumps(found.as_dict(), ensure_ascii=False, indent=2))
    else:
        print(explanation_text(found))


def _text(argument: str, given: str) -> str:
    """The given text, or the text of the given file."""
    try:
        if given == "-":
            return sys.stdin.read()
        path = Path(given)
        is_short = 0 < len(given) < 4096 and "\n" not in given
        if is_short and path.is_file():
            return path.read_text(encoding="utf-8")
        is_folder = is_short and path.is_dir()
    except (OSError, ValueError):
        if " " in given or "\n" in given:  # text that cannot be a file name
            return given
        raise InputError(f"{argument} cannot be read as UTF-8 text.") from None
    if is_folder:
        raise InputError(f"{argument} is a folder. Give a file, text, or -.")
    if re.fullmatch(r"\S+\.[A-Za-z]{2,5}", given):
        raise InputError(f"{argument} looks like a file name, but there is no such file. Give a file, text, or -.")
    return given

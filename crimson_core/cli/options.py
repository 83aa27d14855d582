"""Shared by several commands: options, declared once as annotations of parameters, and the console."""

import inspect
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass
from typing import Annotated, Any, TextIO, get_type_hints

import typer
from rich.console import Console

from crimson_core.errors import InputError, InputWarning

# Exit statuses beside 0 and 2; 1 is Python's own for a crash.
UNSCORED, INTERRUPTED = 3, 130

JUDGE_HELP = (
    "default (the published model), offline, offline+minilm, hf:<Hub id or folder>, vllm:<Hub id or folder>, openai:<model> or azure:<deployment>; "
    "for an adapter whose base model is elsewhere hf:<adapter>,base=<folder or Hub id>."
)

JudgeSpec = Annotated[str, typer.Option("--judge", "-j", help=JUDGE_HELP)]


@dataclass
class JudgeOptions:
    """Options of judges; None leaves one to the judge."""

    batch_size: Annotated[int | None, typer.Option(min=1, help="Pairs per batch (hf and vllm judges).")] = None
    device: Annotated[str | None, typer.Option(help="Where the model runs, for example cuda:0 or cpu (hf judges).")] = (
        None
    )
    dtype: Annotated[str | None, typer.Option(help="bfloat16, float16 or float32 (hf and vllm judges).")] = None
    compile: Annotated[
        bool | None,
        typer.Option(
            "--compile/--no-compile", help="Compile the model's layers first; by default on a GPU (hf judges)."
        ),
    ] = None
    base_url: Annotated[str | None, typer.Option(help="URL of an OpenAI-compatible server (openai judges).")] = None
    concurrency: Annotated[
        int | None, typer.Option(min=1, help="Maximum number of requests in flight (openai and azure judges).")
    ] = None


@dataclass
class Columns:
    """The columns of a file besides the candidate reports; None takes the one of the usual name, if it exists."""

    reference_column: Annotated[str, typer.Option(help="Column of the reference reports.")] = "reference"
    id_column: Annotated[str | None, typer.Option(help="Column of ids.  [default: id, if it exists]")] = None
    age_column: Annotated[str | None, typer.Option(help="Column of ages.  [default: age, if it exists]")] = None
    sex_column: Annotated[str | None, typer.Option(help="Column of sexes.  [default: sex, if it exists]")] = None
    indication_column: Annotated[
        str | None, typer.Option(help="Column of indications.  [default: indication, if it exists]")
    ] = None

    @property
    def optional(self) -> dict[str, str | None]:
        """Role -> column, without the references."""
        return {
            "id": self.id_column,
            "age": self.age_column,
            "sex": self.sex_column,
            "indication": self.indication_column,
        }


Repair = Annotated[
    bool, typer.Option("--repair/--no-repair", help="Make inconsistent evaluations consistent before scoring.")
]
Workers = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Processes (offline judge, or Ray's workers).  [default: offline, one per core from 5,000 pairs on, else 1; Ray, one per "
        "CPU, or as many as have GPUs]",
        show_default=False,
    ),
]
Strict = Annotated[
    bool,
    typer.Option(
        "--strict",
        help="Accept nothing doubtful: warnings about the input, such as an age that cannot be read, become errors, and a pair "
        "stays unscored if there is evidence against a model's evaluation (a suspect pair).",
    ),
]

PredictionColumn = Annotated[str, typer.Option(help="Column of the candidate reports.")]
FillMissing = Annotated[
    bool,
    typer.Option("--fill-missing", help="Treat missing reports as empty ones, and skip blank rows."),
]
Progress = Annotated[
    bool | None,
    typer.Option("--progress/--no-progress", help="Show a progress bar.  [default: on a terminal]", show_default=False),
]


def spread(command: Callable[..., None]) -> Callable[..., None]:
    """Replace parameters that are groups of options (dataclasses) by their fields, since typer reads single options only."""
    groups: dict[str, Any] = {}
    options: list[tuple[str, Any, Any]] = []
    for name, parameter in inspect.signature(command).parameters.items():
        group: Any = parameter.annotation
        if is_dataclass(group):
            groups[name] = group
            kinds = get_type_hints(group, include_extras=True)
            options += [(field.name, field.default, kinds[field.name]) for field in fields(group)]
        else:
            options.append((name, parameter.default, group))

    def called(**values: Any) -> None:
        for name, group in groups.items():
            values[name] = group(**{field.name: values.pop(field.name) for field in fields(group)})
        command(**values)

    called.__doc__ = command.__doc__
    called.__annotations__ = {name: kind for name, _, kind in options}
    called.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=own, annotation=kind)
            for name, own, kind in options
        ]
    )
    return called


def wanted(progress: bool | None) -> bool:
    """Whether to show progress bars: as the user says, by default on a terminal."""
    return sys.stderr.isatty() if progress is None else progress


@contextmanager
def warnings_as_lines(strict: bool = False) -> Iterator[None]:
    """Print input warnings as single lines on standard error, or raise them if `strict`.

    Raises:
        InputError: There is a warning, and `strict` is set.
    """
    seen: set[str] = set()

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if not issubclass(category, InputWarning):
            others(message, category, filename, lineno, file, line)
        elif strict:
            raise InputError(f"{message} Refused by --strict.")
        elif str(message) not in seen:
            seen.add(str(message))
            print(f"crimson: {message}", file=sys.stderr)

    with warnings.catch_warnings():
        warnings.simplefilter("always", InputWarning)
        others, warnings.showwarning = warnings.showwarning, show
        yield


def given(**options: Any) -> dict[str, Any]:
    """The options that the user has set."""
    return {name: value for name, value in options.items() if value is not None}


def columns_by_role(have: Sequence[str], fixed: dict[str, str], **optional: str | None) -> dict[str, str]:
    """Role -> column: the `fixed` ones, and optional ones that are named or exist under the role's name."""
    return fixed | {role: name or role for role, name in optional.items() if name or role in have}


def console(stderr: bool = False) -> Console:
    """Standard output or error, without markup, since ids and reasons are data. Not on a terminal, it is 120 wide."""
    made = Console(highlight=False, markup=False, emoji=False, stderr=stderr)
    if not made.is_terminal:
        made.width = 120
    return made

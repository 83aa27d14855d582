"""Leaderboards in the Hub's formats: files like those of `evaluate.save`, metadata of model cards, and a data set."""

import json
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crimson_core.compare.exports import as_json, escaped, markdown, records
from crimson_core.compare.leaderboard.config import Source
from crimson_core.compare.leaderboard.run import Leaderboard
from crimson_core.compare.section import Section
from crimson_core.compare.statistics import Estimate
from crimson_core.compare.summary import CLINICAL_FIGURES
from crimson_core.errors import CrimsonError, InputError
from crimson_core.run.files import without_links, written_whole

if TYPE_CHECKING:
    from datasets import Dataset
    from huggingface_hub import EvalResult, ModelCard

_TASK = "image-to-text"


def write_hub_files(board: Leaderboard, folder: Path) -> list[Path]:
    """Write the Hub's files, which contain no report text, and return their paths.

    Each system gets a model card, `<system>/README.md`, with its results in a `model-index` block; an existing card keeps its
    text, its other metadata and its other results. Each section gets a file of its figures in the format of `evaluate.save`,
    `<system>/<number>-<test set>-<judge>.json`.

    Raises:
        InputError: As `check_hub_files`.
        CrimsonError: The folder cannot be written.
    """
    from evaluate import save

    folders = check_hub_files(list(board.sections[0].results), folder)
    written = []
    try:
        for name, own in folders.items():
            own.mkdir(parents=True, exist_ok=True)
            card = own / "README.md"
            kept = _card(card)
            with written_whole(card) as out:
                out.write(merged_card(kept, board, name) if kept else model_card(board, name))
            written.append(card)
            for number, section in enumerate(board.sections, 1):
                file = own / f"{number}-{_slug(section.test_set)}-{_slug(section.judge)}.json"
                with _quiet():
                    save(file, **_result(section, name))
                written.append(file)
    except OSError as error:
        raise CrimsonError(f"{folder} cannot be written: {error.strerror}.") from None
    return written


def check_hub_files(systems: Sequence[str], folder: Path) -> dict[str, Path]:
    """The folder of each system's files, which `write_hub_files` will create.

    Raises:
        InputError: Two systems would share a folder, a folder cannot be written, its model card cannot be read, or git is not
            installed, which `evaluate.save` needs.
    """
    folders = {name: folder / _slug(name) for name in systems}
    if len(set(folders.values())) < len(folders):
        raise InputError("Two systems have names that make the same folder. Tell them apart by letters or digits.")
    if not shutil.which("git"):
        raise InputError("The Hub's files are written by evaluate.save, which needs git. Install it.")
    for own in folders.values():
        there = next(path for path in (own, *without_links(own).parents) if path.exists())
        if not there.is_dir() or not os.access(there, os.W_OK):
            raise InputError(f"{own} cannot be written: {there} is no folder, or there is no permission.")
        _card(own / "README.md")
    return folders


def model_card(board: Leaderboard, system: str) -> str:
    """A new model card with a system's results in its `model-index` block."""
    from huggingface_hub import ModelCardData

    found = [result for result in eval_results(board, system) if _is_defined(result)]
    if not found:  # an empty model-index is refused by the Hub
        return f"# {escaped(system)}\n\nNo pair was scored.\n"
    data = ModelCardData(model_name=system, eval_results=found)
    return f"---\n{data.to_yaml()}\n---\n\n# {escaped(system)}\n\n{_about(board)}\n"


def merged_card(card: "ModelCard", board: Leaderboard, system: str) -> str:
    """An existing model card in which a system's results replace the earlier ones for the same data and metric."""
    found = list(eval_results(board, system))
    measured = {_measured(result) for result in found}
    data: Any = card.data
    results = [result for result in data.eval_results or [] if _measured(result) not in measured]
    results += filter(_is_defined, found)
    # The Hub refuses an empty model-index.
    data.eval_results = results or None
    data.model_name = (data.model_name or system) if results else None
    return card.content


def _is_defined(result: "EvalResult") -> bool:
    return result.metric_value == result.metric_value


def _measured(result: "EvalResult") -> tuple[Any, ...]:
    """The identity of a result: everything but its value."""
    return result.unique_identifier, result.metric_type, result.metric_name


def _card(file: Path) -> "ModelCard | None":
    """The model card of a file; None if there is none."""
    from huggingface_hub import ModelCard

    if not file.exists():
        return None
    try:
        return ModelCard.load(file)
    except Exception as error:  # the library raises many kinds
        raise InputError(
            f"{file} is there and is no model card that can be kept ({type(error).__name__}). Move it away."
        ) from None


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the standard error of child processes: outside a repository, the git that evaluate calls complains there."""
    kept = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def eval_results(board: Leaderboard, system: str) -> Iterator["EvalResult"]:
    """A system's figures in all sections; an undefined one is NaN."""
    from huggingface_hub import EvalResult

    titles = {"crimson_score": "CRIMSON score"} | {key: figure.title for key, figure in CLINICAL_FIGURES.items()}
    for section in board.sections:
        source = board.config.test_sets[section.test_set].data
        for key, estimate in section.figures[system].items():
            yield EvalResult(
                task_type=_TASK,
                task_name="Chest X-ray report generation",
                dataset_type=_dataset_type(source),
                dataset_name=section.test_set,
                dataset_config=source.name,
                dataset_split=source.split,
                dataset_revision=source.revision,
                metric_type=f"crimson/{key}" if key != "crimson_score" else "crimson",
                metric_name=f"{titles[key]} ({section.judge})",
                metric_value=estimate.value,
                metric_args=_interval(estimate) | {"signature": section.signature},
            )


def as_dataset(board: Leaderboard) -> "Dataset":
    """One row per pair, system, test set and judge; its column `evaluation` contains JSON with report text."""
    from datasets import Dataset

    rows = [
        {key: record[key] for key in ("test_set", "judge", "system", "index", "id", "crimson_score", "failure")}
        | {"evaluation": json.dumps(record["raw_evaluation"], ensure_ascii=False), "signature": record["signature"]}
        for record in records(board)
    ]
    return Dataset.from_list(rows)


def push_to_hub(board: Leaderboard, repository: str, *, private: bool = True) -> None:
    """Push the rows of `as_dataset`, and the leaderboard as `leaderboard.md` and `leaderboard.json`.

    Args:
        board: The leaderboard.
        repository: Hub id of the data set, which is created if necessary.
        private: Whether a new repository is private. The rows contain report text.

    Raises:
        CrimsonError: The Hub refuses the push, or cannot be reached.
    """
    from huggingface_hub import HfApi

    try:
        as_dataset(board).push_to_hub(repository, private=private)
        for name, text in (("leaderboard.md", markdown(board)), ("leaderboard.json", as_json(board))):
            HfApi().upload_file(
                path_or_fileobj=text.encode(), path_in_repo=name, repo_id=repository, repo_type="dataset"
            )
    except Exception as error:  # the Hub's client raises other kinds with each HTTP library that it uses
        raise CrimsonError(
            f"{repository} could not be pushed ({type(error).__name__}). Log in with `hf auth login`, check the name, and run "
            "again."
        ) from None


def _result(section: Section, system: str) -> dict[str, Any]:
    """A flat summary, like that of the metric's `compute`; undefined figures are None, since JSON has no NaN."""
    figures = {key: estimate.value for key, estimate in section.figures[system].items()}
    score = section.figures[system]["crimson_score"]
    every = section.summaries[system].as_dict() | figures
    every |= {"crimson_score_low": score.low, "crimson_score_high": score.high}
    labels = {"system": system, "test_set": section.test_set, "judge": section.judge, "signature": section.signature}
    return {key: None if value != value else value for key, value in every.items()} | labels


def _interval(estimate: Estimate) -> dict[str, Any]:
    ends = {"low": estimate.low, "high": estimate.high} if estimate.low == estimate.low else {}
    return ends | {"n": estimate.n, "n_resampled": estimate.n_resampled}


def _about(board: Leaderboard) -> str:
    signatures = "\n".join(f"- `{signature}`" for signature in dict.fromkeys(s.signature for s in board.sections))
    return f"Scored with CRIMSON; research use only, not for clinical decisions. Signatures:\n\n{signatures}"


def _dataset_type(source: Source) -> str:
    """The Hub id, or the bare name of a local file."""
    local = source.path.startswith(("/", ".")) or Path(source.path).suffix or source.path.count("/") != 1
    return _slug(Path(source.path).stem) if local else source.path


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.]+", "-", text).strip("-.") or "unnamed"

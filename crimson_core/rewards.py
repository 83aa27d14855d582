"""CRIMSON as a reward function for TRL: training report generators with GRPO and similar trainers."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from crimson_core.errors import InputError
from crimson_core.judges import Judge
from crimson_core.protocol.pair import CONTEXT_FIELDS, ReportPair, make_pairs
from crimson_core.run.scorer import CrimsonScorer, PairResult

Reward = Callable[..., list[float | None]]


def crimson_reward(
    judge: str | Judge = "default",
    *,
    reference_column: str = "reference",
    context_column: str | None = None,
    age_column: str | None = None,
    sex_column: str | None = None,
    indication_column: str | None = None,
    report: Callable[[str], str | None] | None = None,
    repair: bool = True,
    **judge_options: Any,
) -> Reward:
    """A reward function: the CRIMSON score of each completion against the reference report of its row.

    TRL calls it as `reward(prompts=, completions=, **columns)`, with plain completions or with conversations, whose
    last message counts. The reward is None if the judge fails, the assistant did not write the last message, or
    `report` finds nothing. An empty completion is an empty report and is judged. Equal completions of a prompt are
    judged once.

    In TRL's GRPOTrainer, a completion without any reward is left out of its group's mean and gets the advantage 0, so
    it has no effect (tested with TRL 1.16). The trainer also prints the first such row as a warning, reports included;
    `logging.getLogger("trl").setLevel(logging.ERROR)` silences it. The share of completions without a reward is logged
    as `crimson/unscored` if the trainer passes `log_metric`.

    Args:
        judge: A judge spec or a judge.
        reference_column: Column of reference reports, or of records as in `make_pairs`.
        context_column: Column of patient contexts: mappings with any of age, sex and indication.
        age_column: Column of ages; None uses the column `age`, if it exists and there is no `context_column`.
        sex_column: The same for `sex`.
        indication_column: The same for `indication`.
        report: Extracts the report from a completion, for example after a chain of thought; None if there is none.
        repair: See `CrimsonScorer`.
        **judge_options: Options of the judge, if `judge` is a spec.

    Returns:
        A function that takes `completions` and columns and returns one reward in (-1, 1], or None, per completion. Its
        `__name__`, which TRL logs, is `crimson_reward`. It raises `InputError` for a missing or unreadable column, and
        `JudgeError` if the judge cannot continue.

    Raises:
        InputError: The spec, an option or the choice of columns is invalid.
        JudgeError: The judge cannot be loaded.
    """
    named = {"age": age_column, "sex": sex_column, "indication": indication_column}
    if context_column and any(named.values()):
        raise InputError(
            "context_column is given together with columns of age, sex or indication. Give one of the two."
        )
    scorer = CrimsonScorer(judge, repair=repair, **judge_options)

    def reward(completions: Sequence[Any], **columns: Any) -> list[float | None]:
        found = (_report(completion, report, row) for row, completion in enumerate(completions))
        reports = {row: text for row, text in enumerate(found) if text is not None}
        references = _column(columns, reference_column, "reference_column", len(completions))
        contexts = _contexts(columns, context_column, named, len(completions))
        rewards: list[float | None] = [None] * len(completions)
        if reports:
            judged = list(reports)
            pairs = make_pairs(
                reports.values(),
                [references[row] for row in judged],
                None if contexts is None else [contexts[row] for row in judged],
                where=lambda argument, place: f"{_SHOWN.get(argument, argument)}[{judged[place]}]",
            )
            scores = _scores(scorer, pairs)
            for row, pair in zip(judged, pairs, strict=True):
                result = scores[pair]
                rewards[row] = None if result.evaluation is None else result.crimson_score
        if rewards and (log_metric := columns.get("log_metric")):
            log_metric("crimson/unscored", rewards.count(None) / len(rewards))
        return rewards

    reward.__name__ = reward.__qualname__ = "crimson_reward"
    return reward


_SHOWN = {"predictions": "completions", "references": "references", "patient_contexts": "contexts"}


def _scores(scorer: CrimsonScorer, pairs: Sequence[ReportPair]) -> dict[ReportPair, PairResult]:
    distinct = list(dict.fromkeys(pairs))
    return dict(zip(distinct, scorer.score(distinct), strict=True))


def _report(completion: Any, take: Callable[[str], str | None] | None, row: int) -> str | None:
    """The report in a completion, if there is one."""
    text = completion if isinstance(completion, str) else _answer(completion, row)
    return text if text is None or take is None else take(text)


def _answer(messages: Any, row: int) -> str | None:
    """The text of a conversation's last message, if the assistant wrote it."""
    if not isinstance(messages, Sequence) or not all(isinstance(message, Mapping) for message in messages):
        raise InputError(f"completions[{row}] is of type {type(messages).__name__}. Give a text or a list of messages.")
    if not messages or messages[-1].get("role") != "assistant":
        return None
    content = messages[-1].get("content")
    if content is None or isinstance(content, str):  # None: it only called a tool
        return content
    return "".join(part["text"] for part in content if part.get("type") == "text")


def _column(columns: Mapping[str, Any], name: str, option: str, rows: int) -> Sequence[Any]:
    if name not in columns:
        raise InputError(
            f"the trainer passes no column {name!r}. Give the data set's column as {option}, and keep unused columns "
            "(remove_unused_columns=False)."
        )
    if len(columns[name]) != rows:
        raise InputError(
            f"{name} has {len(columns[name])} entries and completions has {rows}. Give one per completion."
        )
    return columns[name]


def _contexts(
    columns: Mapping[str, Any], context_column: str | None, named: Mapping[str, str | None], rows: int
) -> list[Any] | None:
    """One context per completion; None if there are no context columns."""
    if context_column:
        return list(_column(columns, context_column, "context_column", rows))
    used = {field: named[field] or field for field in CONTEXT_FIELDS if named[field] or field in columns}
    if not used:
        return None
    values = {field: _column(columns, column, f"{field}_column", rows) for field, column in used.items()}
    return [{field: values[field][row] for field in values} for row in range(rows)]

"""`AccelerateJudge`: one judge in each of the processes that `accelerate launch` or torchrun has started."""

import os
from collections.abc import Generator, Sequence
from datetime import timedelta
from typing import Any

from crimson_core.errors import CrimsonError, JudgeError
from crimson_core.judges import Judgement, load_judge, parse_spec
from crimson_core.report import ReportPair

_ROUND = 128  # pairs of a process between two gatherings: what a crash can cost
_PATIENCE = timedelta(hours=12)  # with a slow process; one that has died is the launcher's affair

Outcome = tuple[int, Judgement] | CrimsonError


def launched() -> bool:
    """Whether a launcher has started several processes, of which this is one."""
    return "LOCAL_RANK" in os.environ and int(os.environ.get("WORLD_SIZE", 1)) > 1


class AccelerateJudge:
    """Judges with all processes: the main one asks, and each judges its share.

    In the main process it is a judge like others, and has to be closed at last; in the others `serve` is all that they do:

        judge = AccelerateJudge("hf:my/model")
        if judge.is_main:
            results = CrimsonScorer(judge).score(pairs)
            judge.close()
        else:
            judge.serve()

    Args:
        judge: A judge spec. An hf judge without a device takes that of its process.
        **judge_options: For the judge's constructor.

    Raises:
        InputError: The spec or an option is unknown.
        JudgeError: The judge or `accelerate` cannot be had.
    """

    def __init__(self, judge: str, **judge_options: Any) -> None:
        try:
            from accelerate import PartialState
        except ImportError:
            raise JudgeError(
                'Several processes need accelerate, which is not installed. Run: pip install "crimson-metric[hf]"'
            ) from None
        self._state = PartialState(timeout=_PATIENCE)
        if parse_spec(judge).prefix == "hf":
            judge_options.setdefault("device", str(self._state.device))
        self._judge = load_judge(judge, **judge_options)

    @property
    def is_main(self) -> bool:
        """Whether this is the process that asks."""
        return self._state.is_main_process

    def signature(self) -> dict[str, str]:
        """The judge's."""
        return self._judge.signature()

    def judge(self, pairs: Sequence[ReportPair]) -> Generator[tuple[int, Judgement], None, None]:
        """Yield (position in `pairs`, judgement), round by round; see `crimson_core.judges.Judge`.

        Raises:
            JudgeError: The judge of a process cannot go on.
        """
        size = _ROUND * self._state.num_processes
        for start in range(0, len(pairs), size):
            for outcome in self._round(list(pairs[start : start + size])):
                if isinstance(outcome, CrimsonError):
                    raise outcome
                index, judgement = outcome
                yield start + index, judgement

    def serve(self) -> None:
        """Judge what the main process asks for, until it closes its judge."""
        while self._round(None) is not None:
            pass

    def close(self) -> None:
        """Let the other processes go."""
        self._round(None)

    def _round(self, pairs: list[ReportPair] | None) -> list[Outcome] | None:
        """Judge the main process's pairs together: all outcomes, or None if it has no more."""
        from accelerate.utils import broadcast_object_list, gather_object

        (pairs,) = broadcast_object_list([pairs])
        if pairs is None:
            return None
        share = range(self._state.process_index, len(pairs), self._state.num_processes)
        outcomes: list[Outcome] = []
        try:
            for index, judgement in self._judge.judge([pairs[index] for index in share]):
                outcomes.append((share[index], judgement))
        except CrimsonError as error:  # told to all, who would wait for this process for ever
            outcomes.append(error)
        return gather_object(outcomes)

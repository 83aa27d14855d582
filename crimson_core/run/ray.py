"""`RayJudge`: one judge in each of several Ray Data workers, on this machine or a cluster."""

import logging
import os
import pickle
import warnings
from collections.abc import Generator, Sequence
from contextlib import closing
from math import ceil
from typing import Any, NamedTuple

from crimson_core.errors import CrimsonError, InputError, JudgeError, check_whole, missing
from crimson_core.judges import Judgement, load_judge, parse_spec
from crimson_core.protocol.pair import ReportPair
from crimson_core.run.guarded import judged

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray sends usage statistics unless told not to
os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # and prints harmless warnings
try:
    import ray
    import ray.data
except ImportError as error:
    raise missing(error, "ray", "Scoring with Ray") from None

_MOST_PAIRS = 256  # per task; they are judged again if the worker dies
_TASKS_A_WORKER = 8  # at least, so that no worker waits long for the last one
_RESTARTS = 10  # per worker, since a pair may kill its worker every time


_Placed = tuple[int, Judgement]  # and where its pair stands


class RayJudge:
    """Judges with one judge in each of several workers.

    Judgements and failures are those of the judge itself. A worker that dies is replaced, and the pairs of its task are
    judged again. Report text travels through Ray's object store, which spills to the nodes' disks when memory is full.
    Ray is started or joined at once, and left when the process ends or `ray.shutdown()` is called.

    Args:
        judge: A judge spec. Every worker loads it, so every node needs a model folder or the keys of an API.
        workers: Number of workers; None starts one per CPU, or as many as `num_gpus` allows.
        num_gpus: GPUs per worker; may be a fraction.
        address: Address of a cluster, or `auto`; None starts Ray on this machine. Every node needs this package.
        **judge_options: Options of the judge.

    Raises:
        InputError: The spec or an option is invalid.
        JudgeError: Ray cannot be started or joined. A worker's failure to load its judge is raised when judging starts.
    """

    def __init__(
        self,
        judge: str,
        *,
        workers: int | None = None,
        num_gpus: float = 0,
        address: str | None = None,
        **judge_options: Any,
    ) -> None:
        parse_spec(judge)
        if workers is not None:
            check_whole("workers", workers)
        if num_gpus < 0:
            raise InputError(f"num_gpus is {num_gpus!r}. Give 0 or more.")
        _start(address)
        self._load = judge, judge_options
        self._num_gpus = num_gpus
        self._workers = workers or _fitting(num_gpus)
        if address is None:
            _check_room(self._workers, num_gpus)
        self._signature: dict[str, str] = {}

    def signature(self) -> dict[str, str]:
        """The workers' signature. Before the first judgement, a worker has to load the judge to find out."""
        if not self._signature:
            for _ in self._answers([], workers=1):
                pass
        return self._signature

    def judge(self, pairs: Sequence[ReportPair]) -> Generator[tuple[int, Judgement], None, None]:
        """Yield (position in `pairs`, judgement) as the tasks are done; see `crimson_core.judges.Judge`.

        Raises:
            JudgeError: A worker cannot load its judge or cannot continue, or the workers' judges differ.
        """
        with closing(self._answers(pairs, self._workers)) as answers:
            for judgements in answers:
                yield from judgements

    def _answers(self, pairs: Sequence[ReportPair], workers: int) -> Generator[list[_Placed], None, None]:
        each = max(1, min(_MOST_PAIRS, ceil(len(pairs) / (workers * _TASKS_A_WORKER))))
        tasks = [list(enumerate(pairs[start : start + each], start)) for start in range(0, len(pairs), each)] or [[]]
        data: Any = ray.data.from_items(
            [{"task": pickle.dumps(task)} for task in tasks], override_num_blocks=len(tasks)
        )
        with warnings.catch_warnings():
            # By default Ray restarts a worker forever. The parameter for a limit is deprecated, without a replacement
            # so far.
            warnings.simplefilter("ignore", ray.util.annotations.RayDeprecationWarning)
            data = data.map(
                _Worker,
                fn_constructor_args=self._load,
                compute=ray.data.ActorPoolStrategy(size=min(workers, len(tasks))),
                num_gpus=self._num_gpus or None,
                ray_remote_args_fn=lambda: {"max_restarts": _RESTARTS, "max_task_retries": _RESTARTS},
            )
        try:
            for row in data.iter_rows():
                answer: _Answer = pickle.loads(row["answer"])
                if answer.error is not None:
                    raise answer.error
                if self._signature not in ({}, answer.signature):
                    raise JudgeError(
                        "The workers have different judges. Put the same model and versions on every node."
                    )
                self._signature = answer.signature
                yield answer.judgements
        except ray.exceptions.RayError as error:
            raise JudgeError(
                f"Ray failed ({type(error).__name__}). Workers that keep dying may lack memory: try fewer."
            ) from None


class _Answer(NamedTuple):
    """A worker's answer to a task: judgements with their positions, or the error."""

    judgements: list[_Placed]
    signature: dict[str, str]
    error: CrimsonError | None


class _Worker:
    """A judge in a worker's process. It returns errors, since Ray would wrap an exception in its own."""

    def __init__(self, spec: str, options: dict[str, Any]) -> None:
        self._error: CrimsonError | None = None
        try:
            self._judge = load_judge(spec, **options)
        except CrimsonError as error:
            self._error = error

    def __call__(self, row: dict[str, bytes]) -> dict[str, bytes]:
        judgements: list[_Placed] = []
        if self._error is None:
            places, pairs = zip(*task, strict=True) if (task := pickle.loads(row["task"])) else ((), ())
            try:
                judgements = [(places[index], judgement) for index, judgement in judged(self._judge, pairs)]
            except CrimsonError as error:
                self._error = error
        signature = {} if self._error else self._judge.signature()
        return {"answer": pickle.dumps(_Answer(judgements, signature, self._error))}


def _start(address: str | None) -> None:
    ray.data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    if ray.is_initialized():
        return
    local: dict[str, Any] = {} if address else {"include_dashboard": False}
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **local)
    except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
        where = f"at {address}" if address else "on this machine"
        raise JudgeError(
            f"Ray cannot be started or joined {where}: {type(error).__name__}. Check the address of the cluster."
        ) from None


def _fitting(num_gpus: float) -> int:
    resources = ray.cluster_resources()
    return max(1, int(resources.get("GPU", 0) / num_gpus if num_gpus else resources.get("CPU", 1)))


def _check_room(workers: int, num_gpus: float) -> None:
    """Refuse more than this machine has, for which Ray would wait forever; a cluster may still grow."""
    resources = ray.cluster_resources()
    for kind, wanted in (("GPU", workers * num_gpus), ("CPU", workers)):
        if wanted > resources.get(kind, 0):
            raise InputError(
                f"{workers} workers need {wanted:g} {kind}s and this machine has {resources.get(kind, 0):g}. Ask for fewer."
            )

"""`AccelerateJudge`: one judge in each of the processes that `accelerate launch` or torchrun has started.

The processes talk through the launcher's key-value store and form no process group: none waits for another but at the end of a
run, nothing of it touches a GPU, and vLLM, which makes groups of its own, finds none.
"""

import os
import pickle
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import cache
from itertools import count
from typing import Any

from crimson_core.errors import CrimsonError, InputError, JudgeError, check_whole, needed
from crimson_core.judges import Judgement, load_judge, parse_spec
from crimson_core.protocol.pair import ReportPair
from crimson_core.run.guarded import judged

_MOST_BYTES = 4 * 2**20  # of a value in the store, which takes 8 MiB and breaks the connection at more
_PATIENCE = timedelta(hours=12)  # with a process that is slow to load; one that has died is the launcher's affair
_PAUSE = 0.05  # seconds between two looks into the store by a process that has nothing else to do
_LAUNCHERS = (  # what a launcher tells its processes, for which torch looks whenever a process group is made
    *("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"),
    *("GROUP_RANK", "GROUP_WORLD_SIZE", "ROLE_RANK", "ROLE_WORLD_SIZE", "ROLE_NAME", "TORCHELASTIC_USE_AGENT_STORE"),
)

_Placed = tuple[int, Judgement]  # and where its pair stands
_Told = _Placed | CrimsonError | None  # None: that was all


def launched() -> bool:
    """Whether a launcher has started several processes, of which this is one."""
    return "LOCAL_RANK" in os.environ and int(os.environ.get("WORLD_SIZE", 1)) > 1


def devices_of(local_rank: int, processes: int, visible: str | None, there: int, each: int = 1) -> str:
    """The GPUs that belong to one of a machine's processes alone, as `CUDA_VISIBLE_DEVICES` names them.

    Args:
        local_rank: Number of the process on its machine, from 0.
        processes: How many there are on this machine.
        visible: `CUDA_VISIBLE_DEVICES` of them all: numbers or UUIDs, with commas between; None if it is not set.
        there: How many GPUs the processes see with it.
        each: GPUs that one process needs.

    Returns:
        `each` numbers or names out of `visible`, with commas between: those behind the GPUs of lower local ranks.

    Raises:
        InputError: There are not enough for all, so that processes would share one.
    """
    names = [str(n) for n in range(there)] if visible is None else [name.strip() for name in visible.split(",")]
    names = names[:there]  # CUDA sees nothing of what stands behind a GPU that does not exist
    needed = processes * each
    if needed > len(names):
        fewer = f"Start {len(names) // each}" if len(names) >= each else "Let a process take fewer GPUs"
        raise InputError(
            f"{processes} processes with {each} GPU{'s' * (each > 1)} each need {needed}, and {len(names)} can be seen on this "
            f"machine: processes would share a GPU. {fewer}, or show more with CUDA_VISIBLE_DEVICES."
        )
    return ",".join(names[local_rank * each : (local_rank + 1) * each])


class AccelerateJudge:
    """Judges with all processes: the main one asks, and each judges its share, on GPUs of its own.

    In the main process it is a judge like others, and has to be closed at last; in the others `serve` is all that they do:

        judge = AccelerateJudge("hf:my/model")
        if judge.is_main:
            results = CrimsonScorer(judge).score(pairs)
            judge.close()
        else:
            judge.serve()

    An hf judge takes one GPU, by the number of its process on its machine, a vllm judge as many as its `tensor_parallel_size`;
    without GPUs both are left on the CPU. Pairs and judgements go through the launcher's store: over TCP and unencrypted, as
    all that processes of a launcher say to each other.

    Args:
        judge: A judge spec.
        **judge_options: For the judge's constructor.

    Raises:
        InputError: The spec or an option is unknown, or processes would have to share a GPU.
        JudgeError: The judge cannot be had, or the launcher's store cannot be reached.
    """

    def __init__(self, judge: str, **judge_options: Any) -> None:
        self._rank, self._processes = _place()
        self._runs = count()
        options = dict(parse_spec(judge).options) | judge_options
        prefix = parse_spec(judge).prefix
        if prefix == "hf" and launched() and (device := _device(options.get("device"))):
            judge_options["device"] = device
        if prefix == "vllm" and launched():
            with _environment(_for_vllm(options.get("tensor_parallel_size", 1))):
                self._judge = load_judge(judge, **judge_options)
        else:
            self._judge = load_judge(judge, **judge_options)
        if self._processes > 1:  # after the judge: what cannot be had is said without waiting for the other processes
            self._store = _Messages()

    @property
    def is_main(self) -> bool:
        """Whether this is the process that asks."""
        return self._rank == 0

    def signature(self) -> dict[str, str]:
        """The judge's."""
        return self._judge.signature()

    def judge(self, pairs: Sequence[ReportPair]) -> Generator[_Placed, None, None]:
        """Yield (position in `pairs`, judgement), each as it is done; see `crimson_core.judges.Judge`.

        Every process gets its whole share at once, each n-th pair, and tells each judgement as it is made. So a crash costs
        what the judges have in hand, and what the others have told since the main process was last asked for a judgement
        or made one of its own. After closing early each of the others goes on until its next judgement.

        Raises:
            JudgeError: The judge of a process cannot go on, or the processes have lost each other.
        """
        run = next(self._runs)
        others = range(1, self._processes)
        for rank in others:
            self._store.put(f"{run}/share/{rank}", list(pairs[rank :: self._processes]))
        told = dict.fromkeys(others, 0)  # of those that are not through: how much has been read
        try:
            own = [pairs[place] for place in range(0, len(pairs), self._processes)]
            for index, judgement in judged(self._judge, own):
                yield index * self._processes, judgement
                yield from self._arrived(run, told)
            while told:
                yield from self._arrived(run, told)
                time.sleep(_PAUSE)
        finally:
            for rank in told:
                self._store.put(f"{run}/stop/{rank}", True)

    def serve(self) -> None:
        """Judge what the main process asks for, until it closes its judge.

        Raises:
            JudgeError: The processes have lost each other. What goes wrong in judging is told to the main process.
        """
        for run in self._runs:
            share = self._store.wait(f"{run}/share/{self._rank}")
            if share is None:
                self._store.put(f"{run}/gone/{self._rank}", True)
                return
            numbers = count()
            for outcome in self._outcomes(run, share):
                self._store.put(f"{run}/told/{self._rank}/{next(numbers)}", outcome)

    def close(self) -> None:
        """Let the other processes go, and return when they have heard it: the store may end with this process.

        Raises:
            JudgeError: The processes have lost each other.
        """
        run = next(self._runs)
        others = range(1, self._processes)
        for rank in others:
            self._store.put(f"{run}/share/{rank}", None)
        for rank in others:
            self._store.wait(f"{run}/gone/{rank}")

    def _outcomes(self, run: int, share: list[ReportPair]) -> Iterator[_Told]:
        """What this process has to say of its share, unless the main one stops asking."""
        stop = f"{run}/stop/{self._rank}"
        try:
            for index, judgement in judged(self._judge, share):
                yield self._rank + index * self._processes, judgement
                if self._store.has(stop):
                    break
        except CrimsonError as error:
            yield error
        yield None

    def _arrived(self, run: int, told: dict[int, int]) -> Iterator[_Placed]:
        """What others have told since the last look; who is through is taken out of `told`."""
        for rank in list(told):
            while rank in told and self._store.has(key := f"{run}/told/{rank}/{told[rank]}"):
                outcome: _Told = self._store.take(key)
                told[rank] += 1
                if outcome is None:
                    del told[rank]
                elif isinstance(outcome, CrimsonError):
                    raise outcome
                else:
                    yield outcome


class _Messages:
    """Objects by name in the launcher's store, each for one reader."""

    def __init__(self) -> None:
        with _connected():
            self._store = _launchers_store()

    def put(self, key: str, message: Any) -> None:
        data = pickle.dumps(message)
        parts = [data[start : start + _MOST_BYTES] for start in range(0, len(data), _MOST_BYTES)]
        with _connected():
            for number, part in enumerate(parts):
                self._store.set(f"{key}/{number}", part)
            self._store.set(key, str(len(parts)))  # last, so that a message that can be seen is whole

    def has(self, key: str) -> bool:
        with _connected():
            return bool(self._store.check([key]))

    def take(self, key: str) -> Any:
        """A message that is there; then it is there no more."""
        with _connected():
            parts = [f"{key}/{number}" for number in range(int(self._store.get(key)))]
            data = b"".join(self._store.get(part) for part in parts)
            for used in (key, *parts):
                self._store.delete_key(used)
        return pickle.loads(data)

    def wait(self, key: str) -> Any:
        """A message, as soon as it is there. Not with the store's own waiting, during which Python hears no Ctrl-C."""
        while not self.has(key):
            time.sleep(_PAUSE)
        return self.take(key)


@contextmanager
def _connected() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise JudgeError(
            f"The launcher's processes have lost each other ({type(error).__name__}): one of them, or the launcher, has ended."
        ) from None


@cache
def _launchers_store() -> Any:
    """The store that the launcher, or else the main process, holds for all processes; once, for it cannot be begun twice."""
    distributed = needed("torch.distributed", "hf", "Scoring with several processes")
    store, _, _ = next(distributed.rendezvous("env://", timeout=_PATIENCE))
    return distributed.PrefixStore("crimson", store)


def _place() -> tuple[int, int]:
    """Number of this process, from 0, and how many there are on all machines."""
    return (int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])) if launched() else (0, 1)


def _place_here() -> tuple[int, int]:
    """Number of this process on this machine, from 0, and how many there are on it."""
    return int(os.environ["LOCAL_RANK"]), int(os.environ.get("LOCAL_WORLD_SIZE", os.environ["WORLD_SIZE"]))


def _device(asked: str | None) -> str | None:
    """The device of this process for an hf judge, made torch's current one; None: what the judge itself makes of it.

    Raises:
        InputError: Processes would share a GPU.
    """
    torch = needed("torch", "hf")
    if asked == "cpu":
        return None
    if asked is not None:
        raise InputError(
            f"device is {asked!r}, which the launcher's processes would share. Leave it out: each takes its own."
        )
    forced = os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true")  # as `accelerate launch --cpu` says it
    if forced:
        return "cpu"
    if not torch.accelerator.is_available():
        return None
    index = int(devices_of(*_place_here(), None, torch.accelerator.device_count()))
    torch.accelerator.set_device_index(index)  # for kernels that ask for the current device and not for their tensors'
    return f"{torch.accelerator.current_accelerator().type}:{index}"


def _for_vllm(each: int) -> dict[str, str | None]:
    """The environment in which vLLM finds this process's GPUs and no launcher; without GPUs, no launcher.

    vLLM would else take the first GPUs in every process. The launcher is hidden since torch's process groups look for its store,
    and vLLM makes one for the GPUs that share a model, to which no other process belongs.

    Raises:
        InputError: There are too few GPUs, or `each` is no number of GPUs.
    """
    check_whole("tensor_parallel_size", each)
    changes: dict[str, str | None] = dict.fromkeys(_LAUNCHERS)
    if there := needed(
        "torch", "vllm"
    ).cuda.device_count():  # which begins nothing on a GPU, so that vLLM may still fork
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        changes["CUDA_VISIBLE_DEVICES"] = devices_of(*_place_here(), visible, there, each)
    return changes


@contextmanager
def _environment(changes: Mapping[str, str | None]) -> Iterator[None]:
    """With environment variables set, or unset where they are None; put back afterwards."""
    before = {name: os.environ.get(name) for name in changes}
    _set(changes)
    try:
        yield
    finally:
        _set(before)


def _set(variables: Mapping[str, str | None]) -> None:
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value

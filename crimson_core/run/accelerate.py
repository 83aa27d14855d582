"""`AccelerateJudge`: one judge in each process that `accelerate launch` or torchrun has started.

The processes communicate through the launcher's key-value store and form no process group. So they wait for each other
only at the end of a run, do not use the GPUs to communicate, and leave vLLM free to create groups of its own.
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

_MOST_BYTES = 4 * 2**20  # of a value in the store, which drops the connection above 8 MiB
_PATIENCE = timedelta(hours=12)  # for processes that load slowly; the launcher handles dead ones
_PAUSE = 0.05  # seconds between two polls of the store by an idle process
_LAUNCHERS = (  # a launcher's environment variables, which torch reads to create a process group
    *("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"),
    *("GROUP_RANK", "GROUP_WORLD_SIZE", "ROLE_RANK", "ROLE_WORLD_SIZE", "ROLE_NAME", "TORCHELASTIC_USE_AGENT_STORE"),
)

_Placed = tuple[int, Judgement]  # position of the pair, judgement
_Outcome = _Placed | CrimsonError | None  # None marks the end


def launched() -> bool:
    """Whether this is one of several processes of a launcher."""
    return "LOCAL_RANK" in os.environ and int(os.environ.get("WORLD_SIZE", 1)) > 1


def devices_of(local_rank: int, processes: int, visible: str | None, there: int, each: int = 1) -> str:
    """The GPUs of one process on a machine, as a value of `CUDA_VISIBLE_DEVICES`.

    Args:
        local_rank: Number of the process on its machine, from 0.
        processes: Number of processes on this machine.
        visible: Their common `CUDA_VISIBLE_DEVICES`, comma-separated numbers or UUIDs; None if it is not set.
        there: Number of GPUs that the processes see.
        each: Number of GPUs that each process needs.

    Returns:
        `each` entries of `visible`, comma-separated, after those of the lower local ranks.

    Raises:
        InputError: There are too few GPUs, so processes would share one.
    """
    names = [str(n) for n in range(there)] if visible is None else [name.strip() for name in visible.split(",")]
    names = names[:there]  # CUDA ignores everything after the first entry that does not exist
    needed = processes * each
    if needed > len(names):
        fewer = f"Start {len(names) // each}" if len(names) >= each else "Let a process take fewer GPUs"
        raise InputError(
            f"{processes} processes with {each} GPU{'s' * (each > 1)} each need {needed}, and {len(names)} can be seen on this "
            f"machine: processes would share a GPU. {fewer}, or show more with CUDA_VISIBLE_DEVICES."
        )
    return ",".join(names[local_rank * each : (local_rank + 1) * each])


class AccelerateJudge:
    """Judges with all processes; each judges its share on GPUs of its own.

    In the main process it is an ordinary judge that must be closed at the end; the other processes only call `serve`:

        judge = AccelerateJudge("hf:my/model")
        if judge.is_main:
            results = CrimsonScorer(judge).score(pairs)
            judge.close()
        else:
            judge.serve()

    An hf judge uses one GPU, selected by the local rank; a vllm judge uses `tensor_parallel_size` GPUs. Without GPUs,
    both run on the CPU. Pairs and judgements travel through the launcher's store, unencrypted over TCP, like all
    communication of a launcher's processes.

    Args:
        judge: A judge spec.
        **judge_options: Options of the judge.

    Raises:
        InputError: The spec or an option is unknown, or processes would have to share a GPU.
        JudgeError: The judge cannot be loaded, or the launcher's store cannot be reached.
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
        if self._processes > 1:  # after the judge, whose errors need not wait for the other processes
            self._store = _Messages()

    @property
    def is_main(self) -> bool:
        """Whether this is the main process."""
        return self._rank == 0

    def signature(self) -> dict[str, str]:
        """The judge's signature."""
        return self._judge.signature()

    def judge(self, pairs: Sequence[ReportPair]) -> Generator[_Placed, None, None]:
        """Yield (position in `pairs`, judgement) as they are done; see `crimson_core.judges.Judge`.

        Every process gets its whole share, each n-th pair, at once and sends each judgement when it is made. A crash
        therefore loses the pairs that are being judged, and the judgements that the main process has not collected yet.
        If the generator is closed early, each other process stops after its next judgement.

        Raises:
            JudgeError: A process's judge cannot continue, or the processes have lost contact.
        """
        run = next(self._runs)
        others = range(1, self._processes)
        for rank in others:
            self._store.put(f"{run}/share/{rank}", list(pairs[rank :: self._processes]))
        received = dict.fromkeys(others, 0)  # unfinished process -> number of its messages that were read
        try:
            own = [pairs[place] for place in range(0, len(pairs), self._processes)]
            for index, judgement in judged(self._judge, own):
                yield index * self._processes, judgement
                yield from self._arrived(run, received)
            while received:
                yield from self._arrived(run, received)
                time.sleep(_PAUSE)
        finally:
            for rank in received:
                self._store.put(f"{run}/stop/{rank}", True)

    def serve(self) -> None:
        """Judge for the main process until it closes its judge.

        Raises:
            JudgeError: The processes have lost contact. Errors of the judge are raised in the main process.
        """
        for run in self._runs:
            share = self._store.wait(f"{run}/share/{self._rank}")
            if share is None:
                self._store.put(f"{run}/gone/{self._rank}", True)
                return
            numbers = count()
            for outcome in self._outcomes(run, share):
                self._store.put(f"{run}/outcome/{self._rank}/{next(numbers)}", outcome)

    def close(self) -> None:
        """End the other processes, and return when all have confirmed it: the store may end with this process.

        Raises:
            JudgeError: The processes have lost contact.
        """
        run = next(self._runs)
        others = range(1, self._processes)
        for rank in others:
            self._store.put(f"{run}/share/{rank}", None)
        for rank in others:
            self._store.wait(f"{run}/gone/{rank}")

    def _outcomes(self, run: int, share: list[ReportPair]) -> Iterator[_Outcome]:
        """The outcomes of this process's share, until the main process stops it."""
        stop = f"{run}/stop/{self._rank}"
        try:
            for index, judgement in judged(self._judge, share):
                yield self._rank + index * self._processes, judgement
                if self._store.has(stop):
                    break
        except CrimsonError as error:
            yield error
        yield None

    def _arrived(self, run: int, received: dict[int, int]) -> Iterator[_Placed]:
        """The judgements that have arrived from others; finished processes are removed from `received`."""
        for rank in list(received):
            while rank in received and self._store.has(key := f"{run}/outcome/{rank}/{received[rank]}"):
                outcome: _Outcome = self._store.take(key)
                received[rank] += 1
                if outcome is None:
                    del received[rank]
                elif isinstance(outcome, CrimsonError):
                    raise outcome
                else:
                    yield outcome


class _Messages:
    """Messages in the launcher's store, each under a key and for one reader."""

    def __init__(self) -> None:
        with _connected():
            self._store = _launchers_store()

    def put(self, key: str, message: Any) -> None:
        data = pickle.dumps(message)
        parts = [data[start : start + _MOST_BYTES] for start in range(0, len(data), _MOST_BYTES)]
        with _connected():
            for number, part in enumerate(parts):
                self._store.set(f"{key}/{number}", part)
            self._store.set(key, str(len(parts)))  # last, so that a visible message is complete

    def has(self, key: str) -> bool:
        with _connected():
            return bool(self._store.check([key]))

    def take(self, key: str) -> Any:
        """Remove and return an existing message."""
        with _connected():
            parts = [f"{key}/{number}" for number in range(int(self._store.get(key)))]
            data = b"".join(self._store.get(part) for part in parts)
            for used in (key, *parts):
                self._store.delete_key(used)
        return pickle.loads(data)

    def wait(self, key: str) -> Any:
        """Wait for a message and take it. The store's own waiting would block Ctrl-C."""
        while not self.has(key):
            time.sleep(_PAUSE)
        return self.take(key)


@contextmanager
def _connected() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise JudgeError(
            f"The launcher's processes have lost contact ({type(error).__name__}): one of them, or the launcher, has ended."
        ) from None


@cache
def _launchers_store() -> Any:
    """The common store of all processes; cached, since it cannot be opened twice."""
    distributed = needed("torch.distributed", "hf", "Scoring with several processes")
    store, _, _ = next(distributed.rendezvous("env://", timeout=_PATIENCE))
    return distributed.PrefixStore("crimson", store)


def _place() -> tuple[int, int]:
    """Rank of this process, and number of processes on all machines."""
    return (int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])) if launched() else (0, 1)


def _place_here() -> tuple[int, int]:
    """Local rank of this process, and number of processes on this machine."""
    return int(os.environ["LOCAL_RANK"]), int(os.environ.get("LOCAL_WORLD_SIZE", os.environ["WORLD_SIZE"]))


def _device(asked: str | None) -> str | None:
    """The device of this process for an hf judge, also set as torch's current device; None leaves it to the judge.

    Raises:
        InputError: Processes would share a GPU.
    """
    torch = needed("torch", "hf")
    if asked == "cpu":
        return None
    if asked is not None:
        raise InputError(
            f"device is {asked!r}, which the launcher's processes would share. Leave it out: each uses its own."
        )
    forced = os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true")  # as `accelerate launch --cpu` says it
    if forced:
        return "cpu"
    if not torch.accelerator.is_available():
        return None
    index = int(devices_of(*_place_here(), None, torch.accelerator.device_count()))
    torch.accelerator.set_device_index(index)  # for kernels that use the current device instead of their tensors'
    return f"{torch.accelerator.current_accelerator().type}:{index}"


def _for_vllm(each: int) -> dict[str, str | None]:
    """Changes to the environment that show vLLM this process's GPUs and hide the launcher.

    Otherwise vLLM would use the first GPUs in every process. The launcher is hidden because vLLM creates a process
    group of the GPUs that share a model, and torch would connect that group to the launcher's store.

    Raises:
        InputError: There are too few GPUs, or `each` is not a number of GPUs.
    """
    check_whole("tensor_parallel_size", each)
    changes: dict[str, str | None] = dict.fromkeys(_LAUNCHERS)
    # counting initialises nothing on a GPU, so that vLLM may still fork
    if there := needed("torch", "vllm").cuda.device_count():
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        changes["CUDA_VISIBLE_DEVICES"] = devices_of(*_place_here(), visible, there, each)
    return changes


@contextmanager
def _environment(changes: Mapping[str, str | None]) -> Iterator[None]:
    """Set environment variables, or unset those that are None, and restore them afterwards."""
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

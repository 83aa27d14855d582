"""Work in several processes of this machine, with answers in the order of the tasks.

The processes are programs of their own, started with the same interpreter. `multiprocessing` would run the caller's
script again in each of them, or fork a process with running threads. The command line, which has no threads, may fork:
copies of it need not import or load anything. All communicate through pipes and end when the pipe closes, even if this
process is killed. They have a session of their own, so that Ctrl-C reaches only this process.
"""

import gc
import json
import os
import pickle
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from queue import Empty, Queue, SimpleQueue
from typing import IO, Any, NoReturn

from crimson_core.errors import CrimsonError, JudgeError

_AHEAD = 2  # tasks per process that are prepared in advance, or done and not taken yet
_LENGTH = 8  # bytes of a message's length
_PIPE = (
    2**20
)  # bytes of a pipe's buffer, if it can be set: enough for a whole message, so that no writer waits for its reader
_SERVE = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from crimson_core.run.processes import serve; serve()"
)


def cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def in_processes(
    work: Callable[[Any], Any], tasks: Iterable[Any], workers: int, *, copies: bool = False
) -> Generator[Any, None, None]:
    """Yield `work(task)` for each task, in order. Tasks are taken as needed; closing the generator ends the processes.

    Args:
        work: Pickled and sent to each process once.
        tasks: Pickled tasks, each worth a fraction of a second.
        workers: Maximum number of processes; they are started as tasks arrive.
        copies: Fork this process, if it has one thread only, instead of starting others. For programs that hold no
            connection to a database: SQLite breaks if it is copied.

    Raises:
        CrimsonError: Raised by `work` on purpose.
        JudgeError: A process could not be started, failed or was killed.
    """
    first = pickle.dumps(work, pickle.HIGHEST_PROTOCOL)
    started: list[_Process] = []
    idle: SimpleQueue[_Process] = SimpleQueue()

    def asked(task: bytes) -> bytes:
        try:
            process = idle.get_nowait()
        except Empty:
            process = _started(first)
            started.append(process)
        assert process.stdin and process.stdout
        try:
            _send(process.stdin, task)
            answer = _receive(process.stdout)
        except (OSError, EOFError):
            raise JudgeError(
                f"A worker process ended (exit status {process.wait()}). If the memory was full, use fewer workers."
            ) from None
        idle.put(process)
        return answer

    waiting: deque[Future[bytes]] = deque()
    threads = ThreadPoolExecutor(workers, thread_name_prefix="crimson-worker")
    try:
        if copies and _has_one_thread():
            for _ in range(workers):
                started.append(_Copy(work))
                idle.put(started[-1])
        for task in tasks:
            waiting.append(threads.submit(asked, pickle.dumps(task, pickle.HIGHEST_PROTOCOL)))
            if len(waiting) > _AHEAD * workers:
                yield _value_of(waiting.popleft().result())
        while waiting:
            yield _value_of(waiting.popleft().result())
    finally:
        # first the threads, so that none of them replaces a killed process
        threads.shutdown(wait=False, cancel_futures=True)
        for process in started:
            process.kill()
        threads.shutdown()
        for process in started:
            process.kill()  # including one that was just being started
            process.communicate()


class TookTooLongError(CrimsonError):
    """Work was not done in its time."""


class Pool:
    """Processes for work from many threads. They are started when needed, and end with this process."""

    def __init__(self, workers: int) -> None:
        self._places: Queue[subprocess.Popen[bytes] | None] = Queue()
        for _ in range(workers):
            self._places.put(None)

    def ask(self, seconds: float, work: Callable[..., Any], *args: Any) -> Any:
        """`work(*args)`, done in one of the processes. One that takes longer than `seconds` is ended and replaced.

        Raises:
            CrimsonError: Raised by `work` on purpose.
            TookTooLongError: It took longer, or all processes were busy for so long.
            JudgeError: A process could not be started, broke or was killed.
        """
        try:
            process = self._places.get(timeout=seconds)
        except Empty:
            raise TookTooLongError(f"All worker processes were busy for {seconds:g} s. Try again later.") from None
        late = threading.Event()
        try:
            if process is None:
                process = _started(pickle.dumps(_call))
            assert process.stdin and process.stdout
            limit = threading.Timer(seconds, _end, (process, late))
            limit.start()
            try:
                _send(process.stdin, pickle.dumps((work, args), pickle.HIGHEST_PROTOCOL))
                answer = _receive(process.stdout)
            finally:
                limit.cancel()
        except (OSError, EOFError):
            process, gone = None, process
            if gone is not None:
                gone.kill()
                gone.communicate()
            if late.is_set():
                raise TookTooLongError(f"It took more than {seconds:g} s.") from None
            raise JudgeError("A worker process ended. If the memory was full, take fewer.") from None
        finally:
            self._places.put(process)
        return _value_of(answer)

    def close(self) -> None:
        """End the processes that are idle."""
        while True:
            try:
                process = self._places.get_nowait()
            except Empty:
                return
            if process is not None:
                process.kill()
                process.communicate()


def _call(task: tuple[Callable[..., Any], tuple[Any, ...]]) -> Any:
    work, args = task
    return work(*args)


def _end(process: "subprocess.Popen[bytes]", late: threading.Event) -> None:
    late.set()
    process.kill()


def _started(first: bytes) -> "subprocess.Popen[bytes]":
    """Start a process and send it the work."""
    # Ctrl-C reaches all processes of the terminal's group, which these leave
    apart: dict[str, Any] = {"start_new_session": True}
    if sys.platform == "win32":
        apart = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
    command = [sys.executable, "-c", _SERVE, json.dumps(sys.path)]
    try:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, **apart)
    except OSError as error:
        raise _not_started(error) from None
    assert process.stdin and process.stdout
    _widen(process.stdin)
    _widen(process.stdout)
    with suppress(OSError):  # if the process is gone, the next message fails
        _send(process.stdin, first)
    return process


def _not_started(error: OSError) -> JudgeError:
    return JudgeError(f"A worker process cannot be started: {error.strerror}. Use fewer workers.")


class _Copy:
    """A copy of this process at work, with what is needed here of `subprocess.Popen`."""

    def __init__(self, work: Callable[[Any], Any]) -> None:
        asked, ask = os.pipe()
        answer, answers = os.pipe()
        usual = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # until the copy is in a session of its own
        try:
            self._pid = os.fork()
            if not self._pid:
                _be_a_copy(work, asked, answers)
        except OSError as error:
            raise _not_started(error) from None
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, usual)
        os.close(asked)
        os.close(answers)
        self.stdin, self.stdout = os.fdopen(ask, "wb"), os.fdopen(answer, "rb")
        _widen(self.stdin)
        _widen(self.stdout)
        self._status: int | None = None

    def wait(self) -> int:
        if self._status is None:
            self._status = os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])
        return self._status

    def kill(self) -> None:
        if self._status is None:
            os.kill(self._pid, signal.SIGKILL)

    def communicate(self) -> None:
        self.stdout.close()
        with suppress(OSError):  # the rest was not sent
            self.stdin.close()
        self.wait()


_Process = subprocess.Popen[bytes] | _Copy


def _widen(pipe: IO[bytes]) -> None:
    with suppress(ImportError, AttributeError, OSError):  # another system, or a user with too many
        import fcntl

        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE)


def _has_one_thread() -> bool:
    """Whether this process has one thread; False if that is unknown. Linux also counts the threads of libraries."""
    try:
        return len(os.listdir("/proc/self/task")) == 1
    except OSError:
        return False


def _be_a_copy(work: Callable[[Any], Any], asked: int, answers: int) -> NoReturn:
    """Work until the pipe closes, then exit at once: what the copied process was doing is not continued or cleaned up."""
    try:
        os.setsid()
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        # Otherwise the pipes of other copies would stay open after the first process has ended.
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(2, 1)
        for descriptor in map(int, os.listdir("/proc/self/fd")):
            if descriptor > 2 and descriptor not in (asked, answers):
                with suppress(OSError):  # that of the list itself
                    os.close(descriptor)
        gc.freeze()  # collections need not look at what exists already
        with suppress(EOFError, BrokenPipeError):
            _work(work, os.fdopen(asked, "rb"), os.fdopen(answers, "wb"))
    finally:
        os._exit(0)


def _value_of(answer: bytes) -> Any:
    value, error = pickle.loads(answer)
    if error is not None:
        raise error
    return value


def serve() -> None:
    """The main loop of a process: receive the work, then tasks, until the pipe closes."""
    asked, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # printed text goes to standard error, not into the answers
    with suppress(EOFError, BrokenPipeError):
        _work(pickle.loads(_receive(asked)), asked, answers)
    os._exit(0)  # nothing to clean up, and nobody reads the pipe


def _work(work: Callable[[Any], Any], asked: IO[bytes], answers: IO[bytes]) -> NoReturn:
    while True:
        task = pickle.loads(_receive(asked))
        answer: tuple[Any, CrimsonError | None]
        try:
            answer = work(task), None
        except CrimsonError as error:
            answer = None, error
        except Exception as error:  # the message may contain report text
            answer = None, JudgeError(f"A worker process failed ({type(error).__name__}).")
        _send(answers, pickle.dumps(answer, pickle.HIGHEST_PROTOCOL))


def _send(pipe: IO[bytes], message: bytes) -> None:
    pipe.write(len(message).to_bytes(_LENGTH))
    pipe.write(message)
    pipe.flush()


def _receive(pipe: IO[bytes]) -> bytes:
    length = pipe.read(_LENGTH)
    message = pipe.read(int.from_bytes(length)) if len(length) == _LENGTH else b""
    if not message or len(message) < int.from_bytes(length):
        raise EOFError
    return message

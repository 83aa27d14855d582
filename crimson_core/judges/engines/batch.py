"""Batch APIs: OpenAI and Azure answer batches within a day, at half the price and without rate limits.

A small database in a folder records what was sent and what came back, so a run may end at any point and the next one
collects the answers. It is not a store: it holds requests that are under way, and an answer only until the caller has it.
Before a batch is created again, the server is searched for it by name, so none is paid for twice.
"""

import hashlib
import json
import sqlite3
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from crimson_core.errors import InputError, JudgeError
from crimson_core.judges.engines.servers import Server, openai_package

if TYPE_CHECKING:
    from openai import OpenAI
    from openai.types import Batch

_MOST_REQUESTS, _MOST_BYTES = 20_000, 90_000_000  # of one batch; the servers take 50,000 and 100 MB or more
_OVER = ("completed", "failed", "expired", "cancelled")
_NAME = "crimson"  # the metadata key of a batch's name
# Words from servers that may be shown; any other may come from a report.
_CODES = frozenset(
    """
    token_limit_exceeded invalid_json_line invalid_request model_not_found mismatched_model server_error
    billing_hard_limit_reached insufficient_quota invalid_file empty_file too_many_tasks duplicate_custom_id
    """.split()
)
_LISTED = 1000  # how many of an account's batches are searched
_PATH: dict[str, Any] = {"openai": "/v1/chat/completions", "azure": "/chat/completions"}


class Batching(NamedTuple):
    """How to send questions in batches.

    Attributes:
        folder: Where to record what was sent and what came back.
        wait: Wait for the answers. False stops the run once everything is sent; a later run collects.
        every: Seconds between two polls of the server.
    """

    folder: Path
    wait: bool = True
    every: float = 30.0


class BatchesPending(JudgeError):
    """Everything is sent, and the run does not wait for the answers."""


class Asker(Protocol):
    """The part of `Chat` that batches use; they pass questions and answers on unread."""

    server: Server
    max_retries: int
    timeout: float

    def body(self, question: Any, form: Any) -> dict[str, Any]:
        """The body of a request."""
        ...

    def heard(self, status: int, content: str, body: dict[str, Any]) -> Any:
        """The answer in a response; None if the request must be sent again without a refused part."""
        ...

    def failed(self, status: int) -> Any:
        """The answer for an HTTP status alone."""
        ...


def ask_in_batches(
    chat: Asker,
    batching: Batching,
    questions: Iterable[Any],
    form: Any,
    follow_up: Callable[[int, Any], Any] | None,
) -> Generator[tuple[int, Any], None, None]:
    """Yield (position in `questions`, answer), like `Chat.ask`; follow-ups go into further batches.

    A batch that fails, expires or comes back incomplete gives failed answers that name it. An answer is deleted from
    the folder only when the caller takes the next one, so an answer that was not kept is not lost.

    Raises:
        BatchesPending: `batching.wait` is false, and answers are outstanding.
        JudgeError: The server refuses a batch or cannot be reached.
        InputError: The folder cannot be used.
    """
    with closing(_Ledger(batching.folder)) as ledger, _client(chat) as client:
        sender = _Sender(chat, client, ledger)
        sender.find_unsure()
        asking = dict(enumerate(questions))
        asked: dict[int, Any] = {}
        chains: dict[int, list[str]] = {}  # position -> the ids of its requests
        waiting: dict[str, list[int]] = {}  # id -> positions
        bodies: dict[str, dict[str, Any]] = {}
        while asking or waiting:
            for index, question in asking.items():
                body = chat.body(question, form)
                name = _digest_of(body)
                bodies[name], asked[index] = body, question
                waiting.setdefault(name, []).append(index)
                chains.setdefault(index, []).append(name)
            asking = {}
            sender.send({name: bodies[name] for name in waiting if not ledger.knows(name)})
            ready = [name for name in waiting if ledger.answered(name)]
            if not ready:
                if not sender.collect(ledger.batches_of(waiting)):
                    if not batching.wait:
                        raise BatchesPending(
                            f"{len(waiting)} requests are waiting in batches at {chat.server.host}. Run the same command "
                            "later to collect the answers."
                        )
                    time.sleep(batching.every)
                continue
            for name in ready:
                status, content = ledger.answer(name)
                for index in waiting.pop(name):
                    answer = chat.heard(status, content, bodies[name])
                    again = asked[index]
                    if answer is None and _digest_of(chat.body(again, form)) == name:
                        answer = chat.failed(status)  # leaving out the refused part changed nothing
                    if answer is not None:
                        again = follow_up(index, answer) if follow_up else None
                    if again is not None:
                        asking[index] = again
                    else:
                        yield index, answer
                        ledger.forget(chains.pop(index))


class _Sender:
    """Sends batches and collects them."""

    def __init__(self, chat: Asker, client: "OpenAI", ledger: "_Ledger") -> None:
        self._chat, self._client, self._ledger = chat, client, ledger

    def find_unsure(self) -> None:
        """Settle the batches that may or may not exist, because a run ended while it created them."""
        for name in self._ledger.unsure():
            batch = self._called(name)
            if batch:
                self._ledger.sent(name, batch)
            else:
                self._ledger.give_up(name)

    def send(self, bodies: dict[str, dict[str, Any]]) -> None:
        """Send requests (id -> body) in as many batches as they need."""
        lines = {
            name: json.dumps(
                {"custom_id": name, "method": "POST", "url": _PATH[self._chat.server.name], "body": body},
                ensure_ascii=False,
            ).encode()
            + b"\n"
            for name, body in bodies.items()
        }
        part: list[str] = []
        size = 0
        for name, line in lines.items():
            if part and (len(part) == _MOST_REQUESTS or size + len(line) > _MOST_BYTES):
                self._send_part(part, lines)
                part, size = [], 0
            part.append(name)
            size += len(line)
        if part:
            self._send_part(part, lines)

    def _send_part(self, part: Sequence[str], lines: dict[str, bytes]) -> None:
        openai = openai_package()
        name = _digest("".join(part) + str(time.time_ns()))
        content = b"".join(lines[one] for one in part)
        file = self._try(lambda: self._client.files.create(file=(f"{name}.jsonl", content), purpose="batch"))
        self._ledger.begin(name, part)
        try:
            # No retries: after a broken connection the server may have created the batch all the same.
            batch = self._client.with_options(max_retries=0).batches.create(
                input_file_id=file.id,
                endpoint=_PATH[self._chat.server.name],
                completion_window="24h",
                metadata={_NAME: name},
            )
        except (openai.APIConnectionError, openai.InternalServerError):
            found = self._called(name)
            if found is None:
                self._ledger.give_up(name)
                raise JudgeError(
                    f"{self._chat.server.host} did not create a batch. Run the same command again: nothing is lost."
                ) from None
            self._ledger.sent(name, found)
        except openai.OpenAIError as error:
            self._ledger.give_up(name)
            raise self._refusal(error) from None
        else:
            self._ledger.sent(name, batch.id)

    def collect(self, batches: Sequence[str]) -> bool:
        """Fetch the batches that are over; return whether there were any."""
        came = False
        for batch_id in batches:
            batch = self._try(partial(self._client.batches.retrieve, batch_id))
            if batch.status in _OVER:
                self._ledger.came(batch_id, self._answers(batch), _why(batch))
                came = True
        return came

    def _answers(self, batch: "Batch") -> dict[str, tuple[int, str]]:
        answers = {}
        for file in filter(None, (batch.output_file_id, batch.error_file_id)):
            for line in self._try(partial(self._client.files.content, file)).text.splitlines():
                try:
                    entry = json.loads(line)
                    response = entry.get("response")
                    if response:  # none if the request was never processed
                        answers[entry["custom_id"]] = (int(response["status_code"]), json.dumps(response["body"]))
                except (ValueError, KeyError, TypeError, AttributeError):
                    continue  # counts as unanswered
        return answers

    def _called(self, name: str) -> str | None:
        """The id of the batch with this name, if the server has one."""
        for place, batch in enumerate(self._try(lambda: self._client.batches.list(limit=100))):
            if (batch.metadata or {}).get(_NAME) == name:
                return batch.id
            if place == _LISTED:
                break
        return None

    def _try(self, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except openai_package().OpenAIError as error:
            raise self._refusal(error) from None

    def _refusal(self, error: Exception) -> JudgeError:
        status = getattr(error, "status_code", None)
        reason = f"HTTP {status}" if status else "the connection broke"
        return JudgeError(
            f"{self._chat.server.host} refuses batches ({reason}). Check {self._chat.server.where_wrong}, and "
            f"{self._chat.server.key_variable}. Nothing that was sent is lost: run the same command again to collect it."
        )


class _Ledger:
    """What was sent and what came back, per request; a request belongs to a batch until it is answered."""

    def __init__(self, folder: Path) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._base = sqlite3.connect(folder / "batches.sqlite", isolation_level=None)
            self._base.execute("PRAGMA synchronous = FULL")
            self._base.execute("CREATE TABLE IF NOT EXISTS parts (name TEXT PRIMARY KEY, batch TEXT)")
            self._base.execute(
                "CREATE TABLE IF NOT EXISTS requests (id TEXT PRIMARY KEY, part TEXT, status INTEGER, content TEXT)"
            )
        except (OSError, sqlite3.Error) as error:
            raise InputError(f"{folder} cannot be used for batches: {error}. Give another output folder.") from None

    def close(self) -> None:
        self._base.close()

    def begin(self, name: str, requests: Sequence[str]) -> None:
        """Record the requests of a batch before it is created."""
        with self._base:
            self._base.execute("BEGIN")
            self._base.execute("INSERT INTO parts VALUES (?, NULL)", (name,))
            self._base.executemany(
                "INSERT OR REPLACE INTO requests VALUES (?, ?, NULL, NULL)", [(one, name) for one in requests]
            )

    def sent(self, name: str, batch: str) -> None:
        self._base.execute("UPDATE parts SET batch = ? WHERE name = ?", (batch, name))

    def give_up(self, name: str) -> None:
        with self._base:
            self._base.execute("BEGIN")
            self._base.execute("DELETE FROM requests WHERE part = ? AND status IS NULL", (name,))
            self._base.execute("DELETE FROM parts WHERE name = ?", (name,))

    def unsure(self) -> list[str]:
        return [name for (name,) in self._base.execute("SELECT name FROM parts WHERE batch IS NULL").fetchall()]

    def knows(self, request: str) -> bool:
        return self._base.execute("SELECT 1 FROM requests WHERE id = ?", (request,)).fetchone() is not None

    def answered(self, request: str) -> bool:
        found = self._base.execute("SELECT status FROM requests WHERE id = ?", (request,)).fetchone()
        return found is not None and found[0] is not None

    def answer(self, request: str) -> tuple[int, str]:
        return self._base.execute("SELECT status, content FROM requests WHERE id = ?", (request,)).fetchone()

    def batches_of(self, requests: Iterable[str]) -> list[str]:
        found = "SELECT batch FROM parts JOIN requests ON part = name WHERE id = ? AND status IS NULL"
        return list(
            dict.fromkeys(row[0] for request in requests for row in self._base.execute(found, (request,)).fetchall())
        )

    def came(self, batch: str, answers: dict[str, tuple[int, str]], why: str) -> None:
        """Record the answers of a batch; a request without one has failed."""
        (name,) = self._base.execute("SELECT name FROM parts WHERE batch = ?", (batch,)).fetchone()
        with self._base:
            self._base.execute("BEGIN")
            held = self._base.execute("SELECT id FROM requests WHERE part = ? AND status IS NULL", (name,)).fetchall()
            self._base.executemany(
                "UPDATE requests SET status = ?, content = ? WHERE id = ?",
                [(*answers.get(one, (0, why)), one) for (one,) in held],
            )
            self._base.execute("DELETE FROM parts WHERE name = ?", (name,))

    def forget(self, requests: Sequence[str]) -> None:
        self._base.executemany("DELETE FROM requests WHERE id = ?", [(one,) for one in requests])


def _why(batch: "Batch") -> str:
    """Why a request in a finished batch has no answer."""
    codes = [error.code for error in (batch.errors and batch.errors.data) or [] if error.code]
    code = next((f", {code}" for code in codes if code in _CODES), "")
    if batch.status == "completed":
        return f"batch {batch.id} came back without it"
    return f"batch {batch.id} {'has ' if batch.status in ('failed', 'expired') else 'was '}{batch.status}{code}"


def _client(chat: Asker) -> "OpenAI":
    return chat.server.connect_blocking(
        api_key=chat.server.key.get_secret_value(), max_retries=chat.max_retries, timeout=max(chat.timeout, 60.0)
    )


def _digest_of(body: dict[str, Any]) -> str:
    return _digest(json.dumps(body, sort_keys=True))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]

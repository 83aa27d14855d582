"""A client for chat completions of OpenAI, Azure and OpenAI-compatible servers, with many requests in flight.

Parts of a request that the server refuses (the JSON schema, the seed, the temperature with GPT-5 models) are left out
from then on, and the signature says so.
"""

import asyncio
import json
import logging
import re
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager
from dataclasses import replace
from inspect import signature
from itertools import islice
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict

from pydantic import BaseModel, Field, ValidationError

from crimson_core.errors import InputError, JudgeError, check_whole
from crimson_core.judges.engines.batch import Batching, ask_in_batches
from crimson_core.judges.engines.servers import SERVERS, Server, openai_package
from crimson_core.judges.model import Answer, Question

if TYPE_CHECKING:
    from openai import APIConnectionError, APIStatusError, AsyncOpenAI

_CONNECT_TIMEOUT = 10.0  # seconds; a missing host shows sooner than a slow answer

# Fields that `request` cannot contain: each has an option of its own, or the code below relies on it.
_OWN_FIELDS = frozenset(
    """
    model messages temperature seed max_tokens max_completion_tokens response_format n stream tools functions
    logprobs
    """.split()
)

# Parts of a request that a server may refuse. Besides these fields: the keyword `pattern` of the JSON schema, which
# Azure and OpenAI's fine-tuned models refuse although they accept the rest, and the kinds of response_format.
_REFUSABLE_FIELDS = ("temperature", "seed", "max_tokens")
_FORMAT_WORDS = ("response_format", "json_schema", "json_object", "json schema", "json mode", "structured output")

# Words from servers that may be shown. Any other word may come from a report: a server can echo what it was sent.
_FINISHES = frozenset(
    ["content_filter", "tool_calls", "function_call", "error", "abort", "cancelled", "max_tokens", "end_turn", "safety"]
)
_CODES = frozenset(
    """
    rate_limit_exceeded insufficient_quota billing_hard_limit_reached invalid_api_key invalid_request_error
    model_not_found context_length_exceeded string_above_max_length content_filter content_policy_violation
    invalid_prompt server_error unsupported_parameter unsupported_value invalid_value permission_denied
    authentication_error not_found_error api_error overloaded_error tokens requests DeploymentNotFound
    OperationNotSupported InternalServerError BadRequestError NotFoundError
    """.split()
)

_THREAD = "crimson-openai"
_HTTP_LOGGERS = ("openai", "httpx", "httpx2", "httpcore", "httpcore2", "h11", "h2", "hpack")


class Form(NamedTuple):
    """The JSON that an answer must be: a name for it, and its schema."""

    name: str
    schema: dict[str, Any]


class _Message(BaseModel):
    content: str | None = None
    refusal: str | None = None


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None = None


class _Usage(BaseModel):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cost: Any = None  # not one of OpenAI's fields, so it may be anything


class _Completion(BaseModel):
    """The parts of a chat completion that are used; servers differ in the rest."""

    choices: list[_Choice] = Field(min_length=1)
    usage: _Usage | None = None
    model: str | None = None


class ChatOptions(TypedDict, total=False):
    """Options of `Chat` that a judge passes on."""

    concurrency: int
    max_retries: int
    timeout: float
    max_output_tokens: int | None
    request: dict[str, Any] | None
    batch: Batching | None


class Chat:
    """A model on a server, for many questions.

    The `openai` client retries a request that fails with 408, 409, 429 or 5xx, times out or loses its connection, with
    exponential backoff (0.5 to 8 s) or after the server's Retry-After (up to two minutes; a longer one fails the
    question). A request that still fails, a refusal, and an output cut at the token limit are failed answers. 401, 403,
    404 and an account without credit would fail every question, so they stop the run; so does a server that none of the
    first `concurrency` questions can reach.

    Args:
        model: The model's name on the server; on Azure, the deployment's.
        server: The server.
        temperature: Sampling temperature, from 0 to 2.
        concurrency: Maximum number of requests in flight.
        max_retries: How often a failed request is sent again.
        timeout: Seconds to wait for an answer.
        max_output_tokens: Length limit of an answer, in tokens; None leaves it to the server. A longer answer fails.
        request: Further fields of each request, such as {"reasoning_effort": "low", "service_tier": "flex"}.
        batch: Send the questions in batches; None sends them one by one.

    Raises:
        InputError: An argument is out of range.
    """

    def __init__(
        self,
        model: str,
        server: Server,
        *,
        temperature: float = 0.0,
        concurrency: int = 8,
        max_retries: int = 6,
        timeout: float = 120.0,
        max_output_tokens: int | None = None,
        request: dict[str, Any] | None = None,
        batch: Batching | None = None,
    ) -> None:
        self.model = model
        self.server = server
        self.temperature = _temperature(temperature)
        self.concurrency = check_whole("concurrency", concurrency)
        self.max_retries = check_whole("max_retries", max_retries, least=0)
        self.timeout = _timeout(timeout)
        self.max_output_tokens = (
            None if max_output_tokens is None else check_whole("max_output_tokens", max_output_tokens)
        )
        self.request = _more_fields(request)
        self.batch = batch
        # What the server has refused, and the output formats and model names of its answers, for the signature. Only
        # the thread of a run writes them; any thread may read them.
        self._refused: frozenset[str] = frozenset()
        self._outputs: set[str] = set()
        self._revisions: set[str] = set()

    def ask(
        self,
        questions: Iterable[Question],
        form: Form,
        follow_up: Callable[[int, Answer], Question | None] | None = None,
    ) -> Generator[tuple[int, Answer], None, None]:
        """Yield (position in `questions`, answer) as answers arrive.

        The requests run in a thread of their own, so this also works where an event loop is running (Jupyter). A new
        request starts only when the caller takes an answer, so the work stops with the caller.

        Args:
            questions: Taken one by one, each when its request can start.
            form: The format of every answer.
            follow_up: Called with each answer first; if it returns a question, that one is asked next in its place.

        Raises:
            JudgeError: Every further question would fail too.
        """
        _keep_reports_out_of_logs()
        if self.batch is not None:
            yield from ask_in_batches(self, self.batch, questions, form, follow_up)
            return
        client = self._client()
        waiting = iter(enumerate(questions))
        running: dict[Future[Answer | JudgeError], int] = {}
        asked, reached, unreachable = 0, False, 0
        with _event_loop(client, running) as loop:

            def start(index: int, question: Question) -> None:
                running[asyncio.run_coroutine_threadsafe(self._ask(client, question, form), loop)] = index

            while True:
                # A follow-up takes the place of its predecessor, so there may be no room for another question.
                for index, question in islice(waiting, self.concurrency - len(running)):
                    start(index, question)
                    asked += 1
                if not running:
                    return
                done = next(iter(wait(running, return_when=FIRST_COMPLETED).done))
                index, outcome = running.pop(done), done.result()
                if isinstance(outcome, JudgeError):
                    raise outcome
                reached = reached or outcome.failure != self._unreachable
                unreachable += not reached
                if unreachable >= min(self.concurrency, asked):
                    raise JudgeError(
                        f"{self.server.host} cannot be reached. Check {self.server.where_wrong}, and the network."
                    )
                again = follow_up(index, outcome) if follow_up else None
                if again is None:
                    yield index, outcome
                else:
                    start(index, again)

    def signature(self) -> dict[str, str]:
        """Model, host and decoding as they are sent, without the seed's value, which belongs to each question.

        `output` is the requested output format: `json_schema` (or `json_schema-without-pattern`), `json_object` or
        `text`, joined by + if there were several. `revision` is the model name in the server's answers, where it
        differs. Both, and a refused temperature or seed (`none`), are known only after a run.
        """
        return self._signature(self._refused, self._outputs, self._revisions)

    def asked_signature(self) -> dict[str, str]:
        """The signature before any answer."""
        return self._signature(frozenset(), set(), set())

    def _signature(self, refused: frozenset[str], outputs: set[str], revisions: set[str]) -> dict[str, str]:
        fields = {
            "model": self.model,
            "revision": "+".join(sorted(revisions - {self.model})),
            "host": self.server.host,
            "output": "+".join(sorted(outputs | {_output(refused)})),
            "temperature": "default" if "temperature" in refused else f"{self.temperature:g}",
            "seed": "none" if "seed" in refused else "sent",
            "max_output_tokens": str(self.max_output_tokens or ""),
            "openai": openai_package().__version__,
        } | self.server.version
        fields |= {name: value if isinstance(value, str) else json.dumps(value) for name, value in self.request.items()}
        return {key: value for key, value in fields.items() if value}

    def _client(self) -> "AsyncOpenAI":
        """A client for one run; its connections belong to the run's event loop."""
        timeout = openai_package().Timeout(self.timeout, connect=min(self.timeout, _CONNECT_TIMEOUT))
        return self.server.connect(
            api_key=self.server.key.get_secret_value(), max_retries=self.max_retries, timeout=timeout
        )

    def _request(self, question: Question, form: Form, refused: frozenset[str]) -> dict[str, Any]:
        """The fields of a request besides its messages, without the refused ones."""
        fields: dict[str, Any] = {"model": self.model, "temperature": self.temperature, "seed": question.seed}
        fields = {name: value for name, value in fields.items() if name not in refused}
        if self.max_output_tokens is not None:
            # OpenAI's newer models know only the second name, many servers only the first
            name = "max_completion_tokens" if "max_tokens" in refused else "max_tokens"
            fields[name] = self.max_output_tokens
        if "json_schema" not in refused:
            schema = _without_pattern(form.schema) if "pattern" in refused else form.schema
            fields["response_format"] = {
                "type": "json_schema",
                "json_schema": {"name": form.name, "strict": True, "schema": schema},
            }
        elif "json_object" not in refused:
            fields["response_format"] = {"type": "json_object"}
        return fields

    async def _ask(self, client: "AsyncOpenAI", question: Question, form: Form) -> Answer | JudgeError:
        """Ask one question until the server answers or fails, leaving out the parts that it refuses.

        An error is returned, not raised: raised, it would carry a chain of exceptions that contain the request.
        """
        openai = openai_package()
        refused = self._refused
        while True:
            request = self._request(question, form, refused)
            try:
                messages: Any = question.messages
                response = await client.chat.completions.with_raw_response.create(
                    messages=messages, extra_body=self.request or None, **request
                )
            except openai.APIStatusError as error:
                part = _refused_part(error, request)
                if part is None or part in refused:
                    return self._status_failure(error)
                refused |= {part}
                continue
            except openai.APIConnectionError as error:
                return Answer(failure=self._connection_failure(error))
            except openai.OpenAIError as error:
                return Answer(failure=f"the request failed ({type(error).__name__})")
            # Only now is it certain that the server refused that part and not this question's reports.
            self._refused |= refused
            self._outputs.add(_output(refused))
            return self._read(response.content)

    def body(self, question: Question, form: Form) -> dict[str, Any]:
        """The body of a request, without what the server has refused before."""
        return {"messages": question.messages} | self._request(question, form, self._refused) | self.request

    def heard(self, status: int, content: str, body: dict[str, Any]) -> Answer | None:
        """The answer to a request in a batch; None if the server refused a part of it, which is left out next time."""
        if status == 0:  # there was no response, and the content says why
            return Answer(failure=content)
        if status == 200:
            self._outputs.add(_output(self._refused))
            answer = self._read(content.encode())
            # Under names of their own: they cost less.
            return replace(answer, usage={f"batch_{name}": count for name, count in answer.usage.items()})
        told = json.loads(content) if content else {}
        told = told.get("error", told) if isinstance(told, dict) else {}
        told = told if isinstance(told, dict) else {}
        error: Any = SimpleNamespace(
            status_code=status, body=told, **{k: told.get(k) for k in ("param", "code", "type")}
        )
        part = _refused_part(error, body)
        if part is not None:
            self._refused |= {part}
            return None
        failure = self._status_failure(error)
        return failure if isinstance(failure, Answer) else self.failed(status)

    def failed(self, status: int) -> Answer:
        """The answer for an HTTP status without a reason that may be shown."""
        return Answer(failure=f"the server answered HTTP {status}")

    def _read(self, body: bytes) -> Answer:
        try:
            completion = _Completion.model_validate_json(body)
        except ValidationError:
            return Answer(failure="the server's answer is not a chat completion")
        if completion.model and self._is_name(completion.model):
            self._revisions.add(completion.model)
        told = completion.usage or _Usage()
        usage, cost = told.model_dump(exclude={"cost"}, exclude_none=True), told.cost
        choice = completion.choices[0]
        text, finish = choice.message.content, choice.finish_reason
        failure = None
        if choice.message.refusal:
            failure, text = "the model refused to answer", text or choice.message.refusal
        elif finish == "length":
            failure = "the output was cut at the token limit (finish_reason length)"
        elif finish not in ("stop", None):
            word = finish if finish in _FINISHES else "unknown"
            failure = f"the output was not finished (finish_reason {word})"
        elif not (text and text.strip()):
            failure = "the output is empty"
        return Answer(text, failure, finish, usage, float(cost) if _is_number(cost) else None)

    def _status_failure(self, error: "APIStatusError") -> Answer | JudgeError:
        """A failed answer, or the error that stops the run if the set-up is wrong.

        A server's message may repeat the key or the reports, so only its error code is shown, and only a known one.
        """
        word = next((w for w in (error.code, error.type) if isinstance(w, str) and w in _CODES), None)
        reason = f"HTTP {error.status_code}" + (f", {word}" if word else "")
        host, key = self.server.host, f"{self.server.key_variable} (or api_key)"
        if error.status_code == 401:
            return JudgeError(f"{host} does not accept the API key ({reason}). Set {key} to a valid one.")
        if error.status_code == 403:
            return JudgeError(
                f"{host} does not let this API key use {self.model!r} ({reason}). "
                f"Set {key} to one that may, or choose another model."
            )
        if error.status_code == 404:
            return JudgeError(f"{host} has no {self.model!r} there ({reason}). Check {self.server.where_wrong}.")
        wrong = error.param if isinstance(error.param, str) else None
        if error.status_code in (400, 422) and wrong in self.request:
            return JudgeError(f"{host} does not accept {wrong!r} in request ({reason}). Leave it out, or correct it.")
        if error.code == "insufficient_quota":
            return JudgeError(f"The account behind {key} has no credit left ({reason}). Top it up, or use another key.")
        return Answer(failure=f"the server answered {reason}")

    def _connection_failure(self, error: "APIConnectionError") -> str:
        # By name, since the client uses httpx or httpx2, depending on its version.
        cause = type(error.__cause__).__name__
        if cause in ("ConnectError", "ConnectTimeout"):
            return self._unreachable
        if isinstance(error, openai_package().APITimeoutError):
            return f"no answer within {self.timeout:g} s, asked {self.max_retries + 1} times"
        return f"the connection broke, asked {self.max_retries + 1} times"

    @property
    def _unreachable(self) -> str:
        return f"{self.server.host} cannot be reached, tried {self.max_retries + 1} times"

    def _is_name(self, text: str) -> bool:
        """Whether a server's name for its model is short and plain enough to be shown, and does not contain the key."""
        key = self.server.key.get_secret_value()
        return bool(re.fullmatch(r"[\w./:@-]{1,100}", text)) and key not in text and text not in key


def load_chat(spec: str, **options: Any) -> Chat:
    """A `Chat` with the model that `openai:<model>` or `azure:<deployment>` names, and options of it and the server.

    Raises:
        InputError: The spec names no model, or an option is unknown or out of range.
        JudgeError: The `openai` package, the key or the endpoint is missing.
    """
    prefix, _, model = spec.partition(":")
    if prefix not in SERVERS or not model.strip():
        raise InputError(f"{spec!r} names no API model. Use openai:<model> or azure:<deployment>.")
    where = set(signature(SERVERS[prefix]).parameters)
    known = where | set(signature(Chat).parameters) - {"model", "server"}
    for option in options:
        if option not in known:
            raise InputError(f"{spec!r} knows no API option {option!r}. The API's options: {', '.join(sorted(known))}.")
    server = SERVERS[prefix](**{name: value for name, value in options.items() if name in where})
    return Chat(model.strip(), server, **{name: value for name, value in options.items() if name not in where})


def _more_fields(value: Any) -> dict[str, Any]:
    if value is not None and not (isinstance(value, dict) and all(isinstance(name, str) for name in value)):
        raise InputError(
            f"request is of type {type(value).__name__}. Give a mapping such as {{reasoning_effort: low}}."
        )
    for name in value or {}:
        if name in _OWN_FIELDS:
            raise InputError(f"request contains {name!r}, which has an option of its own or is fixed. Leave it out.")
    return dict(value or {})


def _temperature(value: Any) -> float:
    if not _is_number(value) or not 0 <= value <= 2:
        raise InputError(f"temperature is {value!r}. Give a number from 0 to 2.")
    return float(value)


def _timeout(value: Any) -> float:
    if not _is_number(value) or not value > 0:
        raise InputError(f"timeout is {value!r}. Give a number of seconds above 0.")
    return float(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _output(refused: frozenset[str]) -> str:
    """The requested output format, as in the signature."""
    if "json_schema" not in refused:
        return "json_schema-without-pattern" if "pattern" in refused else "json_schema"
    return "text" if "json_object" in refused else "json_object"


def _without_pattern(schema: Any) -> Any:
    if isinstance(schema, dict):
        return {key: _without_pattern(value) for key, value in schema.items() if key != "pattern"}
    return schema


def _refused_part(error: "APIStatusError", request: dict[str, Any]) -> str | None:
    """The part of a request that a 400 or 422 refuses; None if it refuses something else, the reports for example."""
    if error.status_code not in (400, 422):
        return None
    body = error.body if isinstance(error.body, dict) else {"message": error.body}
    # FastAPI's format: {"detail": text} or {"detail": [{"loc": ["body", "seed"], "msg": …, "input": the whole
    # request}]}
    details = body.get("detail")
    details = details if isinstance(details, list) else [{"msg": details}]
    said = [part for d in details if isinstance(d, dict) for part in (d.get("loc"), d.get("msg"))]
    message = " ".join(str(part) for part in (body.get("message"), *said) if part).lower()
    subject = error.param.lower() if isinstance(error.param, str) and error.param else message
    for name in _REFUSABLE_FIELDS:
        if name in request and re.search(rf"\b{name}\b", subject):
            return name
    if "response_format" in request and any(word in subject for word in _FORMAT_WORDS):
        kind = request["response_format"]["type"]
        return "pattern" if kind == "json_schema" and "'pattern'" in message else kind
    return None


@contextmanager
def _event_loop(client: "AsyncOpenAI", running: Iterable[Future[Any]]) -> Iterator[asyncio.AbstractEventLoop]:
    """An event loop in a thread of its own; leaving the context cancels `running` and ends the thread."""
    started: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def run() -> None:
        stop = asyncio.Event()
        async with client:
            started.set_result((asyncio.get_running_loop(), stop))
            await stop.wait()
            await asyncio.gather(*(asyncio.all_tasks() - {asyncio.current_task()}), return_exceptions=True)

    # A daemon, so that a hanging name look-up cannot keep the interpreter alive.
    thread = threading.Thread(target=asyncio.run, args=(run(),), name=_THREAD, daemon=True)
    thread.start()
    loop, stop = started.result()
    try:
        yield loop
    finally:
        for future in running:
            future.cancel()
        loop.call_soon_threadsafe(stop.set)
        if threading.current_thread() is not thread:  # it is if the garbage collector closes a forgotten generator
            thread.join()


class _WarningsOnly(logging.Filter):
    """Drops messages below WARNING of the HTTP packages in a run's thread.

    At DEBUG, some versions log whole requests and thereby reports. Filtering by thread leaves the caller's own use of
    these packages alone, and nothing has to be restored after a run.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        return record.levelno >= logging.WARNING or record.threadName != _THREAD


_WARNINGS_ONLY = _WarningsOnly()


def _keep_reports_out_of_logs() -> None:
    for name in list(logging.root.manager.loggerDict):
        if name.partition(".")[0] in _HTTP_LOGGERS:
            logging.getLogger(name).addFilter(_WARNINGS_ONLY)  # on each logger: a parent's filter spares its children

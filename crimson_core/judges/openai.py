"""The API judges: models behind OpenAI's chat completions, on Azure, or on any OpenAI-compatible server.

The request is the reference implementation's (same messages, seed 42, temperature 0), with structured output where the
server has it. What a server refuses of that (the JSON schema, the seed, a GPT-5 model's temperature) is left out from
then on, and the signature says so.
"""

import asyncio
import logging
import os
import re
import threading
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager
from types import ModuleType
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pydantic import BaseModel, Field, SecretStr, ValidationError

from crimson_core.errors import InputError, JudgeError
from crimson_core.evaluation import evaluation_schema
from crimson_core.judges.base import Judgement
from crimson_core.prompt import Message, prompt_for
from crimson_core.report import ReportPair

if TYPE_CHECKING:
    from openai import APIConnectionError, APIStatusError, AsyncOpenAI

_OPENAI_HOST = "api.openai.com"
_SEED = 42  # the reference implementation's
_CONNECT_TIMEOUT = 10.0  # seconds; a host that is not there is found out sooner than a slow answer

# What a server may refuse of a request. Besides the fields: the keyword `pattern` of the JSON schema, which Azure and
# OpenAI's fine-tuned models do not take although they take the rest of it, and the forms of response_format.
_REFUSABLE_FIELDS = ("temperature", "seed", "max_tokens")
_FORMAT_WORDS = ("response_format", "json_schema", "json_object", "json schema", "json mode", "structured output")

_THREAD = "crimson-openai"
_HTTP_LOGGERS = ("openai", "httpx", "httpx2", "httpcore", "httpcore2", "h11", "h2", "hpack")


class _Message(BaseModel):
    content: str | None = None
    refusal: str | None = None


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None = None


class _Usage(BaseModel):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class _Completion(BaseModel):
    """The part of a chat completion that is used; servers differ in the rest."""

    choices: list[_Choice] = Field(min_length=1)
    usage: _Usage | None = None
    model: str | None = None


class OpenAIJudge:
    """Asks a model of OpenAI, or of any OpenAI-compatible server.

    A request that fails with 408, 409, 429 or 5xx, times out or loses its connection is sent again by the `openai`
    client, with exponential backoff (0.5 to 8 s), or after as long as the server's Retry-After says (up to two minutes;
    a longer one fails the pair). What still fails then, like a refusal or an output cut at its token limit, is a failed
    judgement. 401, 403, 404 and an empty account mean that nothing will work, and stop the run; so does a server that cannot be
    connected to for any of the first `concurrency` pairs.

    Args:
        model: The model's name on the server.
        base_url: Where the API is, usually ending in /v1; by default OPENAI_BASE_URL, else OpenAI's own.
        api_key: By default OPENAI_API_KEY. A server other than OpenAI's may go without one.
        concurrency: Most requests in flight at a time.
        max_retries: How often a failed request is sent again.
        timeout: Seconds to wait for an answer.
        guidelines: Whether the prompt holds the guidelines; None is the default for this model.
        max_output_tokens: Longest answer; None leaves it to the server. A longer answer is a failed judgement.

    Attributes:
        prompt: How report pairs are put to the model.

    Raises:
        InputError: An argument is out of range.
        JudgeError: The `openai` package, the prompt's package or the key is missing.
    """

    _name = "openai"
    _key_variable = "OPENAI_API_KEY"
    _url_name = "base_url (or OPENAI_BASE_URL)"
    _keyless_hosts = True
    _where_wrong = "the model's name and base_url (or OPENAI_BASE_URL), which usually ends in /v1"

    def __init__(
        self,
        model: str,
        *,
        base_url: str | None = None,
        api_key: str | None = None,
        concurrency: int = 8,
        max_retries: int = 6,
        timeout: float = 120.0,
        guidelines: bool | None = None,
        max_output_tokens: int | None = None,
    ) -> None:
        _openai()
        self.model = model
        self.concurrency = _at_least(1, "concurrency", concurrency)
        self.max_retries = _at_least(0, "max_retries", max_retries)
        self.max_output_tokens = (
            None if max_output_tokens is None else _at_least(1, "max_output_tokens", max_output_tokens)
        )
        if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not timeout > 0:
            raise InputError(f"timeout is {timeout!r}. Give a number of seconds above 0.")
        self.timeout = timeout
        self._base_url = base_url or os.environ.get("OPENAI_BASE_URL") or f"https://{_OPENAI_HOST}/v1"
        self._host = _host(self._base_url, self._url_name)
        self._key = self._find_key(api_key)
        self.prompt = prompt_for(model, guidelines)
        self.prompt.messages(ReportPair("", ""))  # raises now, not in the middle of a run, if the prompt cannot be had
        # What the server has refused, and what answers have come back with: for as long as this judge lives, and for
        # the signature. Written by the thread of a run only, read at any time.
        self._refused: frozenset[str] = frozenset()
        self._outputs: set[str] = set()
        self._revisions: set[str] = set()

    def judge(self, pairs: Sequence[ReportPair]) -> Generator[tuple[int, Judgement], None, None]:
        """Yield (position in `pairs`, judgement) as answers come in; see `crimson_core.judges.Judge`.

        The requests run in a thread of their own, so that this works where an event loop runs already (Jupyter). A new
        request starts only when the caller takes a judgement, so nothing goes on behind a caller who has stopped.
        """
        client = self._client()
        _keep_reports_out_of_logs()
        waiting = iter(enumerate(pairs))
        running: dict[Future[Judgement | JudgeError], int] = {}
        reached, unreachable = False, 0
        with _event_loop(client, running) as loop:
            while True:
                for index, pair in waiting:
                    asking = self._ask(client, self.prompt.messages(pair))
                    running[asyncio.run_coroutine_threadsafe(asking, loop)] = index
                    if len(running) >= self.concurrency:
                        break
                if not running:
                    return
                done = next(iter(wait(running, return_when=FIRST_COMPLETED).done))
                index, outcome = running.pop(done), done.result()
                if isinstance(outcome, JudgeError):
                    raise outcome
                reached = reached or outcome.failure != self._unreachable
                unreachable += not reached
                if unreachable >= min(self.concurrency, len(pairs)):
                    raise JudgeError(f"{self._host} cannot be reached. Check {self._where_wrong}, and the network.")
                yield index, outcome

    def signature(self) -> dict[str, str]:
        """Model, host, prompt and decoding as they are sent.

        `output` says how the JSON is asked for: `json_schema` (or `json_schema-without-pattern`), `json_object` or
        `text`, joined by + if answers came with several; `revision` is the model that the server says has answered,
        where its name differs. Both, like a refused temperature or seed, are known only after a run.
        """
        fields = {
            "judge": self._name,
            "model": self.model,
            "revision": "+".join(sorted(self._revisions - {self.model})),
            "host": self._host,
            "prompt": str(self.prompt),
            "output": "+".join(sorted(self._outputs | {_output(self._refused)})),
            "temperature": "default" if "temperature" in self._refused else "0",
            "seed": "none" if "seed" in self._refused else str(_SEED),
            "max_output_tokens": str(self.max_output_tokens or ""),
            "openai": _openai().__version__,
        }
        return {key: value for key, value in fields.items() if value}

    def _client(self) -> "AsyncOpenAI":
        """A client for one run: its connections belong to that run's event loop."""
        return _openai().AsyncOpenAI(
            api_key=self._key.get_secret_value(), base_url=self._base_url, **self._client_options()
        )

    def _client_options(self) -> dict[str, Any]:
        timeout = _openai().Timeout(self.timeout, connect=min(self.timeout, _CONNECT_TIMEOUT))
        return {"max_retries": self.max_retries, "timeout": timeout}

    def _find_key(self, given: str | None) -> SecretStr:
        """The key, wrapped so that no repr or traceback with local variables shows it."""
        key = (given or os.environ.get(self._key_variable) or "").strip()
        if not key:
            if self._keyless_hosts and self._host != _OPENAI_HOST:
                return SecretStr("none")  # the client insists on one
            raise JudgeError(
                f"There is no API key. Set the environment variable {self._key_variable}, or pass api_key."
            )
        if not re.fullmatch(r"[!-~]+", key):  # the HTTP client would print it in its complaint
            raise JudgeError(
                f"The API key holds a blank or a character outside ASCII. Check {self._key_variable} or api_key."
            )
        return SecretStr(key)

    def _request(self, refused: frozenset[str]) -> dict[str, Any]:
        """The fields of a request besides its messages, without what has been refused."""
        fields: dict[str, Any] = {"model": self.model, "temperature": 0.0, "seed": _SEED}
        fields = {name: value for name, value in fields.items() if name not in refused}
        if self.max_output_tokens is not None:
            # OpenAI's newer models know the second name only, many servers the first
            name = "max_completion_tokens" if "max_tokens" in refused else "max_tokens"
            fields[name] = self.max_output_tokens
        if "json_schema" not in refused:
            schema = evaluation_schema()
            schema = _without_pattern(schema) if "pattern" in refused else schema
            fields["response_format"] = {
                "type": "json_schema",
                "json_schema": {"name": "evaluation", "strict": True, "schema": schema},
            }
        elif "json_object" not in refused:
            fields["response_format"] = {"type": "json_object"}
        return fields

    async def _ask(self, client: "AsyncOpenAI", messages: list[Message]) -> Judgement | JudgeError:
        """One report pair: ask, without what the server refuses, until it answers or fails.

        An error is returned, not raised, so that it carries no chain of exceptions that hold the request.
        """
        openai = _openai()
        refused = self._refused
        while True:
            request = self._request(refused)
            try:
                response = await client.chat.completions.with_raw_response.create(messages=messages, **request)
            except openai.APIStatusError as error:
                part = _refused_part(error, request)
                if part is None or part in refused:
                    return self._status_failure(error)
                refused |= {part}
                continue
            except openai.APIConnectionError as error:
                return Judgement(failure=self._connection_failure(error))
            except openai.OpenAIError as error:
                return Judgement(failure=f"the request failed ({type(error).__name__})")
            # Only now is it proven that the refusal was about that part and not about this pair's reports.
            self._refused |= refused
            self._outputs.add(_output(refused))
            return self._read(response.content)

    def _read(self, body: bytes) -> Judgement:
        try:
            completion = _Completion.model_validate_json(body)
        except ValidationError:
            return Judgement(failure="the server's answer is no chat completion")
        if completion.model and self._is_word(completion.model, r"[\w./:@-]{1,100}"):
            self._revisions.add(completion.model)
        usage = completion.usage.model_dump(exclude_none=True) if completion.usage else {}
        choice = completion.choices[0]
        text, finish = choice.message.content, choice.finish_reason
        failure = None
        if choice.message.refusal:
            failure, text = "the model refused to answer", text or choice.message.refusal
        elif finish == "length":
            failure = "the output was cut at the token limit (finish_reason length)"
        elif finish not in ("stop", None):
            word = finish if self._is_word(finish) else "unknown"
            failure = f"the output was not finished (finish_reason {word})"
        elif not (text and text.strip()):
            failure = "the output is empty"
        if failure:
            return Judgement(failure=failure, raw_output=text, usage=usage)
        judgement = Judgement.from_output(text, usage)
        if finish is None and judgement.repairs:  # without a finish_reason, broken JSON may be JSON that was cut
            return Judgement(failure="the output is no valid JSON and may be cut", raw_output=text, usage=usage)
        return judgement

    def _status_failure(self, error: "APIStatusError") -> Judgement | JudgeError:
        """A failed pair, or the error that stops the run where the set-up is wrong.

        A server's message may repeat the key or the reports, so it is never shown; its error code is, if it is one.
        """
        word = next((w for w in (error.code, error.type) if isinstance(w, str) and self._is_word(w)), None)
        reason = f"HTTP {error.status_code}" + (f", {word}" if word else "")
        key = f"{self._key_variable} (or api_key)"
        if error.status_code == 401:
            return JudgeError(f"{self._host} does not accept the API key ({reason}). Set {key} to a valid one.")
        if error.status_code == 403:
            return JudgeError(
                f"{self._host} does not let this API key use {self.model!r} ({reason}). "
                f"Set {key} to one that may, or choose another model."
            )
        if error.status_code == 404:
            return JudgeError(f"{self._host} has no {self.model!r} there ({reason}). Check {self._where_wrong}.")
        if error.code == "insufficient_quota":
            return JudgeError(f"The account behind {key} has no credit left ({reason}). Top it up, or use another key.")
        return Judgement(failure=f"the server answered {reason}")

    def _connection_failure(self, error: "APIConnectionError") -> str:
        # Told apart by name: the client stands on httpx or httpx2, depending on its version.
        cause = type(error.__cause__).__name__
        if cause in ("ConnectError", "ConnectTimeout"):
            return self._unreachable
        if isinstance(error, _openai().APITimeoutError):
            return f"no answer within {self.timeout:g} s, asked {self.max_retries + 1} times"
        return f"the connection broke, asked {self.max_retries + 1} times"

    @property
    def _unreachable(self) -> str:
        return f"{self._host} cannot be reached, tried {self.max_retries + 1} times"

    def _is_word(self, text: str, form: str = "[A-Za-z_]{2,40}") -> bool:
        """Whether a server's word is short and plain enough to be shown, and has nothing of the key in it."""
        key = self._key.get_secret_value()
        return bool(re.fullmatch(form, text)) and key not in text and text not in key


class AzureJudge(OpenAIJudge):
    """Asks a deployment on Azure OpenAI; everything else is as with `OpenAIJudge`.

    Args:
        model: The deployment's name.
        endpoint: For example https://my-resource.openai.azure.com; by default AZURE_OPENAI_ENDPOINT.
        api_key: By default AZURE_OPENAI_API_KEY.
        api_version: For example 2024-10-21; by default OPENAI_API_VERSION.
        concurrency, max_retries, timeout, guidelines, max_output_tokens: As with `OpenAIJudge`.

    Raises:
        InputError: An argument is out of range.
        JudgeError: The `openai` package, the prompt's package, the key, the endpoint or the version is missing.
    """

    _name = "azure"
    _key_variable = "AZURE_OPENAI_API_KEY"
    _url_name = "endpoint (or AZURE_OPENAI_ENDPOINT)"
    _keyless_hosts = False
    _where_wrong = "the deployment's name, AZURE_OPENAI_ENDPOINT (or endpoint) and OPENAI_API_VERSION (or api_version)"

    def __init__(
        self,
        model: str,
        *,
        endpoint: str | None = None,
        api_key: str | None = None,
        api_version: str | None = None,
        concurrency: int = 8,
        max_retries: int = 6,
        timeout: float = 120.0,
        guidelines: bool | None = None,
        max_output_tokens: int | None = None,
    ) -> None:
        self._api_version = api_version or os.environ.get("OPENAI_API_VERSION")
        endpoint = endpoint or os.environ.get("AZURE_OPENAI_ENDPOINT")
        if not endpoint:
            raise JudgeError(
                "There is no endpoint. Set the environment variable AZURE_OPENAI_ENDPOINT, or pass endpoint."
            )
        if not self._api_version:
            raise JudgeError(
                "There is no API version. Set the environment variable OPENAI_API_VERSION (2024-10-21, say), "
                "or pass api_version."
            )
        super().__init__(
            model,
            base_url=endpoint,
            api_key=api_key,
            concurrency=concurrency,
            max_retries=max_retries,
            timeout=timeout,
            guidelines=guidelines,
            max_output_tokens=max_output_tokens,
        )

    def signature(self) -> dict[str, str]:
        """As with `OpenAIJudge`, and the API version."""
        return super().signature() | {"api_version": self._api_version}

    def _client(self) -> "AsyncOpenAI":
        return _openai().AsyncAzureOpenAI(
            api_key=self._key.get_secret_value(),
            azure_endpoint=self._base_url,
            api_version=self._api_version,
            **self._client_options(),
        )


def _openai() -> ModuleType:
    try:
        import openai
    except ImportError:
        raise JudgeError('The openai package is not installed. Run: pip install "crimson-metric[openai]"') from None
    return openai


def _at_least(least: int, name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise InputError(f"{name} is {value!r}. Give a whole number of at least {least}.")
    return value


def _host(url: str, name: str) -> str:
    """The host of a URL: the URL itself may hold a password or a token, so nothing else of it is ever shown."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port  # a port that is no number raises here
    except ValueError:
        host = None
    if not host or parts.scheme not in ("http", "https"):
        raise InputError(f"{name} is no URL. Give one such as https://host/v1.")
    return host


def _output(refused: frozenset[str]) -> str:
    """How the JSON is asked for, as the signature puts it."""
    if "json_schema" not in refused:
        return "json_schema-without-pattern" if "pattern" in refused else "json_schema"
    return "text" if "json_object" in refused else "json_object"


def _without_pattern(schema: Any) -> Any:
    if isinstance(schema, dict):
        return {key: _without_pattern(value) for key, value in schema.items() if key != "pattern"}
    return schema


def _refused_part(error: "APIStatusError", request: dict[str, Any]) -> str | None:
    """The part of a request that a 400 or 422 is about; None if it is about something else, the reports for example."""
    if error.status_code not in (400, 422):
        return None
    body = error.body if isinstance(error.body, dict) else {"message": error.body}
    # FastAPI's form: {"detail": text} or {"detail": [{"loc": ["body", "seed"], "msg": …, "input": all that was sent}]}
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
    """An event loop in a thread of its own; at the end of the context `running` is cancelled and the thread ends."""
    started: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def run() -> None:
        stop = asyncio.Event()
        async with client:
            started.set_result((asyncio.get_running_loop(), stop))
            await stop.wait()
            await asyncio.gather(*(asyncio.all_tasks() - {asyncio.current_task()}), return_exceptions=True)

    # A daemon, so that a name look-up that hangs cannot keep the interpreter from ending.
    thread = threading.Thread(target=asyncio.run, args=(run(),), name=_THREAD, daemon=True)
    thread.start()
    loop, stop = started.result()
    try:
        yield loop
    finally:
        for future in running:
            future.cancel()
        loop.call_soon_threadsafe(stop.set)
        if threading.current_thread() is not thread:  # it is where the garbage collector closes a forgotten generator
            thread.join()


class _WarningsOnly(logging.Filter):
    """Drops what the HTTP packages log below WARNING in a run's thread.

    At DEBUG some versions of them log whole requests: the reports. Filtering by thread leaves the caller's own use of
    these packages as it is, and there is nothing to put back after a run.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        return record.levelno >= logging.WARNING or record.threadName != _THREAD


_WARNINGS_ONLY = _WarningsOnly()


def _keep_reports_out_of_logs() -> None:
    for name in list(logging.root.manager.loggerDict):
        if name.partition(".")[0] in _HTTP_LOGGERS:
            logging.getLogger(name).addFilter(_WARNINGS_ONLY)  # on each logger: a parent's filter spares its children

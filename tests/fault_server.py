"""A small OpenAI-compatible server on loopback that answers as a script tells it, faults included."""

import contextlib
import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Request:
    """What came in: when (s, monotonic), how often the same messages have come before, and all that it held."""

    time: float
    attempt: int
    path: str
    headers: dict[str, str]
    body: dict[str, Any]

    @property
    def prompt(self) -> str:
        return self.body["messages"][-1]["content"]


@dataclass(frozen=True)
class Answer:
    """What goes out: after `delay` seconds, or not at all (`drop`: before the answer, or in the middle of its body)."""

    status: int = 200
    body: Any = ""
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0
    drop: str | None = None


def completion(content: str | None, *, finish_reason: str | None = "stop", refusal: str | None = None, **answer: Any):
    """A chat completion with this text, 11 prompt tokens and 7 completion tokens."""
    message = {"role": "assistant", "content": content, "refusal": refusal}
    body = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "served-model-2026-01-01",
        "choices": [{"index": 0, "message": message, "finish_reason": finish_reason, "logprobs": None}],
        "usage": {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18},
    }
    return Answer(body=body, **answer)


def error(status: int, code: str | None = None, *, param: str | None = None, message: str = "no", **headers: str):
    """An error in OpenAI's form; `headers` in Python's spelling (retry_after)."""
    body = {"error": {"message": message, "type": "invalid_request_error", "param": param, "code": code}}
    return Answer(status, body, {name.replace("_", "-"): value for name, value in headers.items()})


class FaultServer:
    """Serves `script(request)` until the context ends.

    Attributes:
        requests: All that came in, in order.
        most_at_once: The largest number of requests that were being answered at the same time.
    """

    def __init__(self, script: Callable[[Request], Answer]) -> None:
        self.requests: list[Request] = []
        self.most_at_once = 0
        self.open = 0
        self._script = script
        self._attempts: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._connections: set[socket.socket] = set()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads, self._server.block_on_close = True, False
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}/v1"

    def __enter__(self) -> "FaultServer":
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._over.set()
        self._server.shutdown()
        self._server.server_close()
        for connection in list(self._connections):  # kept alive, they would go on being served
            _cut(connection)

    def _receive(self, path: str, headers: dict[str, str], body: dict[str, Any]) -> Request:
        with self._lock:
            key = json.dumps(body.get("messages"))
            request = Request(time.monotonic(), self._attempts[key], path, headers, body)
            self._attempts[key] += 1
            self.requests.append(request)
            self.open += 1
            self.most_at_once = max(self.most_at_once, self.open)
        return request

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 60

            def setup(self) -> None:
                super().setup()
                outer._connections.add(self.connection)

            def finish(self) -> None:
                outer._connections.discard(self.connection)
                super().finish()

            def do_POST(self) -> None:
                try:
                    body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                except (OSError, ValueError):  # the client has gone in the middle of its request
                    self.close_connection = True
                    return
                request = outer._receive(self.path, {k.lower(): v for k, v in self.headers.items()}, body)
                try:
                    answer = outer._script(request)
                    outer._over.wait(answer.delay)
                finally:
                    with outer._lock:
                        outer.open -= 1
                try:
                    self._send(answer)
                except OSError:  # the client has gone
                    self.close_connection = True

            def _send(self, answer: Answer) -> None:
                body = answer.body if isinstance(answer.body, str) else json.dumps(answer.body)
                data = body.encode()
                if answer.drop != "before":
                    self.send_response(answer.status)
                    self.send_header("Content-Type", "application/json")
                    self.send_header("Content-Length", str(len(data)))
                    for name, value in answer.headers.items():
                        self.send_header(name, value)
                    self.end_headers()
                    self.wfile.write(data[: len(data) // 2] if answer.drop else data)
                    self.wfile.flush()
                if answer.drop:
                    self.close_connection = True
                    _cut(self.connection)

            def log_message(self, *_: Any) -> None:
                pass

        return Handler


def _cut(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)

"""A small server on loopback that speaks the files and batches endpoints of OpenAI, or of Azure."""

import json
import re
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Line = dict[str, Any] | None


class BatchServer:
    """Keeps files, and works on a batch when it is asked for the `looks`-th time.

    Attributes:
        batches: All that were made, by id.
        asked: The bodies of all requests of all batches, in order.
        ends: The status with which a batch ends; may be changed at any time.
        fault: Sees (method, path) of a call, and returns an HTTP status or `drop` to fail it, or None.
        taken: Whether a batch is made though the call that makes it fails.
    """

    def __init__(self, answer: Callable[[dict[str, Any]], Line], looks: int = 2) -> None:
        self.batches: dict[str, dict[str, Any]] = {}
        self.asked: list[dict[str, Any]] = []
        self.ends = "completed"
        self.fault: Callable[[str, str], int | str | None] = lambda method, path: None
        self.taken = False
        self.files: dict[str, bytes] = {}
        self._answer, self._looks = answer, looks
        self._seen: dict[str, int] = {}
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.host = f"http://127.0.0.1:{self._server.server_address[1]}"
        self.url = self.host + "/v1"

    def __enter__(self) -> "BatchServer":
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _file(self, content: bytes) -> str:
        name = f"file-{len(self.files)}"
        self.files[name] = content
        return name

    def _make(self, body: dict[str, Any]) -> dict[str, Any]:
        assert body["completion_window"] == "24h" and body["endpoint"].endswith("/chat/completions")
        batch = {
            **{"id": f"batch-{len(self.batches)}", "object": "batch", "status": "in_progress", "created_at": 1},
            **{"errors": None, "output_file_id": None, "error_file_id": None, **body},
        }
        self.batches[batch["id"]] = batch
        lines = [json.loads(line) for line in self.files[body["input_file_id"]].splitlines()]
        assert len({line["custom_id"] for line in lines}) == len(lines)
        assert all(line["url"] == body["endpoint"] and line["method"] == "POST" for line in lines)
        self.asked += [line["body"] for line in lines]
        return batch

    def _looked_at(self, batch: dict[str, Any]) -> dict[str, Any]:
        self._seen[batch["id"]] = self._seen.get(batch["id"], 0) + 1
        if batch["status"] == "in_progress" and self._seen[batch["id"]] >= self._looks:
            batch["status"] = self.ends
            if self.ends == "failed":
                batch["errors"] = {
                    "object": "list",
                    "data": [{"code": "token_limit_exceeded", "message": "secret report"}],
                }
            else:
                self._work(batch)
        return batch

    def _work(self, batch: dict[str, Any]) -> None:
        good, bad = [], []
        for line in map(json.loads, self.files[batch["input_file_id"]].splitlines()):
            answer = self._answer(line["body"])
            if answer is not None:
                status, body = answer.get("status", 200), answer.get("body")
                response = {"status_code": status, "request_id": "r", "body": body}
                entry = {"id": "x", "custom_id": line["custom_id"], "response": response, "error": None}
                (good if status == 200 else bad).append(json.dumps(entry))
            elif self.ends == "expired":
                error = {"code": "batch_expired", "message": "no"}
                bad.append(json.dumps({"id": "x", "custom_id": line["custom_id"], "response": None, "error": error}))
        for key, lines in (("output_file_id", good), ("error_file_id", bad)):
            if lines:
                batch[key] = self._file("\n".join(reversed(lines)).encode() + b"\n")

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _serve(self) -> None:
                path = self.path.partition("?")[0].removeprefix("/v1").removeprefix("/openai")
                data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                with outer._lock:
                    fault = outer.fault(self.command, path)
                    if fault is None or (outer.taken and (self.command, path) == ("POST", "/batches")):
                        answer = self._answer(path, data)
                if fault == "drop":
                    self.close_connection = True
                    self.connection.close()
                    return
                body = answer if fault is None else {"error": {"message": "secret report", "code": "x"}}
                raw = body if isinstance(body, bytes) else json.dumps(body).encode()
                self.send_response(fault or 200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw)

            do_GET = do_POST = _serve

            def _answer(self, path: str, data: bytes) -> Any:
                if (self.command, path) == ("POST", "/files"):
                    content = re.search(rb'name="file".*?\r\n\r\n(.*?)\r\n--', data, re.DOTALL)[1]
                    assert b"\r\n\r\nbatch\r\n" in data
                    return {"id": outer._file(content), "object": "file"}
                if (self.command, path) == ("POST", "/batches"):
                    return outer._make(json.loads(data))
                if path == "/batches":
                    return {"object": "list", "data": list(reversed(outer.batches.values())), "has_more": False}
                if path.startswith("/batches/"):
                    return outer._looked_at(outer.batches[path.removeprefix("/batches/")])
                return outer.files[re.fullmatch(r"/files/(.*)/content", path)[1]]

            def log_message(self, *_: Any) -> None:
                pass

        return Handler

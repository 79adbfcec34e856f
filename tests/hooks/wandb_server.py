"""A local W&B server with what a run needs: it accepts rows and files, and has no artifacts."""

import gzip
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

STREAM = re.compile(r"/files/\w+/\w+/(?P<run>\w+)/file_stream")


class WandbServer:
    """The received data.

    Attributes:
        lines: the lines of each run's files, by (run, file).
        text: all requests, without headers.
        deaf: while set, nothing more is answered.
    """

    def __init__(self) -> None:
        self.address = ""
        self.lines: dict[tuple[str, str], list[str]] = {}
        self.text = ""
        self.deaf = threading.Event()
        self.released = threading.Event()

    def history(self, run: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines.get((run, "wandb-history.jsonl"), [])]

    def stream(self, run: str, files: dict[str, Any]) -> None:
        for name, part in files.items():
            lines = self.lines.setdefault((run, name), [])
            lines[part["offset"] :] = part["content"]  # a part from the beginning takes the place of what was there

    def answer(self, asked: dict[str, Any]) -> dict[str, Any]:
        query, variables = asked["query"], asked.get("variables", {})
        project = {"id": "p", "name": variables.get("project"), "entity": {"id": "e", "name": "me"}}
        if "query Viewer" in query:
            return {"viewer": {"id": "u", "entity": "me", "username": "me", "flags": "{}", "teams": {"edges": []}}}
        if "query RunResumeStatus" in query:
            return {"model": project | {"bucket": self.bucket(variables["name"])}}
        if "mutation UpsertBucket" in query:
            bucket = {"id": "b", "name": variables.get("name") or variables.get("id"), "project": project}
            return {"upsertBucket": {"bucket": bucket | {"config": "{}", "historyLineCount": 0}, "inserted": True}}
        if "mutation CreateRunFiles" in query:
            files = [{"name": name, "uploadUrl": f"{self.address}/upload/{name}"} for name in variables["files"]]
            return {"createRunFiles": {"runID": "b", "uploadHeaders": [], "files": files}}
        return {}

    def bucket(self, run: str) -> dict[str, Any] | None:
        """Return the known state of a run when it resumes."""
        rows = self.lines.get((run, "wandb-history.jsonl"), [])
        if not rows:
            return None
        counts = {f"{kind}LineCount": len(self.lines.get((run, name), [])) for kind, name in FILES.items()}
        tails = {"historyTail": json.dumps(rows[-1:]), "eventsTail": "[]", "summaryMetrics": rows[-1]}
        return (
            {"id": "b", "name": run, "config": "{}", "tags": [], "notes": None, "wandbConfig": '{"t": 1}'}
            | counts
            | tails
        )


FILES = {"history": "wandb-history.jsonl", "events": "wandb-events.jsonl", "log": "output.log"}


def _handler(server: WandbServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            server.text += f"{self.path}\n{body.decode(errors='replace')}\n"
            if server.deaf.is_set():
                server.released.wait()
                return
            if self.path == "/graphql":
                data = server.answer(json.loads(body))
                self.reply({"data": data} if data else {"errors": [{"message": "not known here"}]})
            elif found := STREAM.fullmatch(self.path):
                server.stream(found["run"], json.loads(body).get("files") or {})
                self.reply({"exitcode": None, "limits": {}})
            else:
                self.reply({})

        do_GET = do_PUT = do_POST  # noqa: N815

        def reply(self, answer: dict[str, Any]) -> None:
            content = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            pass

    return Handler


class QuietServer(ThreadingHTTPServer):
    """Ignore connections that W&B closes."""

    def handle_error(self, *_: Any) -> None:
        pass


@contextmanager
def wandb_server() -> Iterator[WandbServer]:
    """Run the server inside a block."""
    server = WandbServer()
    http = QuietServer(("127.0.0.1", 0), _handler(server))
    server.address = f"http://127.0.0.1:{http.server_port}"
    threading.Thread(target=http.serve_forever, args=[0.01], daemon=True).start()
    try:
        yield server
    finally:
        server.released.set()
        http.shutdown()
        http.server_close()

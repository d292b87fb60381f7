"""A web address that messages are sent to."""

import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Receiver(ThreadingHTTPServer):
    """Answers with the codes it is told, then with 200; remembers what came: path, signature, body."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers, self.came = list[int](), list[tuple[str, str, bytes]]()
        self.url = f"http://127.0.0.1:{self.server_port}/hook"

    def ids(self) -> list[int]:
        return [json.loads(body)["id"] for _, _, body in self.came]


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        receiver: Any = self.server
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        code = receiver.answers.pop(0) if receiver.answers else 200
        receiver.came.append((self.path, self.headers["X-Signature"], body))
        self.send_response(code)
        if code == 302:
            self.send_header("Location", "/elsewhere")
        self.end_headers()

    do_GET = do_POST  # noqa: N815 (as a redirect would be followed)

    def log_message(self, *_: object) -> None:
        pass

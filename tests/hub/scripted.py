"""A scripted server on loopback: answers what a test tells it, for what no real Hub can be made to say."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

from tests.servers import QuietServer

TOKEN = "hf_secretsecretsecret"


@dataclass
class Answer:
    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    cut: int | None = None  # send so many bytes of the body, then drop the connection
    stall: float = 0.0


@dataclass
class Asked:
    method: str
    path: str
    headers: dict[str, str]


class Scripted:
    """`answer(asked)` is called for every request; `asked` lists them."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.answer: Callable[[Asked], Answer | None] = lambda asked: Answer(404)
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True
            wbufsize = 1 << 16  # head and body in one segment

            def handle_any(self) -> None:
                length = int(self.headers.get("content-length") or 0)
                self.rfile.read(length)
                headers = {key.lower(): value for key, value in self.headers.items()}
                asked = Asked(self.command, self.path, headers)
                outer.asked.append(asked)
                outer.reply(self, outer.answer(asked))

            do_GET = do_POST = do_PUT = do_HEAD = handle_any

            def log_message(self, *args: Any) -> None:
                return

        self.server = QuietServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self.thread.start()

    def reply(self, handler: BaseHTTPRequestHandler, answer: Answer | None) -> None:
        if answer is None:  # drop without a word
            handler.close_connection = True
            return
        if answer.stall:
            threading.Event().wait(answer.stall)
        handler.send_response(answer.status)
        length = answer.headers.pop("content-length", str(len(answer.body)))
        for key, value in {**answer.headers, "content-length": length}.items():
            handler.send_header(key, value)
        handler.end_headers()
        try:
            handler.wfile.write(answer.body if answer.cut is None else answer.body[: answer.cut])
        except ConnectionError:
            handler.close_connection = True
        if answer.cut is not None:
            handler.close_connection = True

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

"""uvicorn's HTTP protocol, letting the application see its connection: faults close it without an answer."""

from __future__ import annotations

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


class Protocol(HttpToolsProtocol):
    """Adds the transport to the scope of every request."""

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["extensions"] = {"rehearsal": {"transport": self.transport}}

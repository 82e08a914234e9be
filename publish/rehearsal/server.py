"""The rehearsal Hub itself: a loopback socket, a server in a thread of this process, and its figures."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, Self

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from publish.rehearsal.errors import RehearsalError
from publish.rehearsal.http.faults import Faults, Rule, load_faults
from publish.rehearsal.http.request import Limits, Snapshot, Stats

if TYPE_CHECKING:
    import uvicorn

    from publish.rehearsal.http.routing import App


# uvicorn's HTTP protocol, letting the application see its connection: faults close it without an answer.


class Protocol(HttpToolsProtocol):
    """Adds the transport to the scope of every request."""

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["extensions"] = {"rehearsal": {"transport": self.transport}}


_STOPPING = 5.0  # how long answers under way may take when the server is told to stop


class RehearsalHub:
    """A Hub on loopback that keeps its repos under ``root``. Start it with ``with``, or :meth:`serve`.

    ``port`` 0 takes any free one. ``faults`` is a file, or rules (see docs/rehearsal-hub.md). ``clock`` stands for
    the time in quotas, commits and expiring locations. ``namespaces`` are given to users before anybody asks:
    ``{"EleutherAI": "alice"}``. ``api_quota`` and ``resolver_quota`` are told on every response, and kept only with
    ``enforce_quota``. LFS files above ``multipart_above`` bytes go up in parts of ``part_size``.
    """

    def __init__(
        self,
        root: Path,
        port: int = 0,
        faults: Path | Sequence[Rule | Mapping[str, Any]] | None = None,
        *,
        host: str = "127.0.0.1",
        clock: Callable[[], float] = time.time,
        namespaces: Mapping[str, str] | None = None,
        api_quota: int = 1000,
        resolver_quota: int = 5000,
        enforce_quota: bool = False,
        multipart_above: int = 64 << 20,
        part_size: int = 16 << 20,
    ) -> None:
        self.root = Path(root)
        self.host = _loopback(host)
        self.port = port
        self._faults = Faults(load_faults(faults))
        self._stats = Stats()
        self._clock = clock
        self._namespaces = dict(namespaces or {})
        self._limits = Limits(api_quota, resolver_quota, enforce_quota)
        self._sizes = (multipart_above, part_size)
        self._cleanup = contextlib.ExitStack()

    @property
    def url(self) -> str:
        """Where it listens; the port is known once it has started."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    def stats(self) -> Snapshot:
        """What was counted since the start, or the last reset."""
        return self._stats.snapshot()

    def reset_stats(self) -> None:
        self._stats.reset()

    def inject(self, faults: Path | Sequence[Rule | Mapping[str, Any]] | None) -> None:
        """Other faults from now on, counted from zero; None for none."""
        self._faults.replace(load_faults(faults))

    def __enter__(self) -> Self:
        """Start.

        Raises:
            RehearsalError: the port is taken, the folder cannot be used.
        """
        with contextlib.ExitStack() as undo:
            listener = undo.enter_context(_listen(self.host, self.port))
            server = self._build(undo)
            thread = threading.Thread(target=server.run, args=([listener],), name="rehearsal-hub", daemon=True)
            thread.start()
            undo.callback(_stop, server, thread)
            while not server.started:
                if not thread.is_alive():
                    raise RehearsalError("the server did not start", self.url, "see its log")
                time.sleep(0.002)
            self.port = listener.getsockname()[1]
            self._cleanup = undo.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._cleanup.close()

    def serve(self) -> None:
        """Serve until SIGTERM or SIGINT, after one line on stdout that says where.

        Raises:
            RehearsalError: as for ``with``.
        """
        stop = threading.Event()

        def told(number: int, frame: FrameType | None) -> None:
            stop.set()

        before = {number: signal.signal(number, told) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            with self:
                sys.stdout.write(f"listening on {self.url}\n")
                sys.stdout.flush()
                while not stop.wait(1.0):
                    pass
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _build(self, undo: contextlib.ExitStack) -> uvicorn.Server:
        import uvicorn

        pass

        config = uvicorn.Config(
            self._application(undo),
            http=Protocol,
            ws="none",
            loop="asyncio",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=int(_STOPPING),
        )
        return uvicorn.Server(config)

    def _application(self, undo: contextlib.ExitStack) -> App:
        from publish.rehearsal.app import application
        from publish.rehearsal.http.faults import FaultInjector
        from publish.rehearsal.http.request import Hub, Options, Quota, Signer
        from publish.rehearsal.http.routing import Counted
        from publish.rehearsal.storage.store import Store

        store = Store(self.root, self._clock)
        store.open()
        undo.callback(store.close)
        for namespace, user in self._namespaces.items():
            store.claim_namespace(namespace, user)
        multipart_above, part_size = self._sizes
        options = Options(multipart_above=multipart_above, part_size=part_size)
        hub = Hub(store, self._stats, Signer(store.secret(), self._clock), self._clock, options)
        injector = FaultInjector(application(hub), self._faults, self._clock)
        return Counted(injector, self._stats, Quota(self._limits, self._clock))


def _loopback(host: str) -> str:
    """The host, if it is this machine talking to itself.

    Raises:
        RehearsalError: it is not.
    """
    address = "127.0.0.1" if host == "localhost" else host
    try:
        if ipaddress.ip_address(address).is_loopback:
            return address
    except ValueError:
        pass
    raise RehearsalError(
        "not loopback: the rehearsal Hub listens to this machine only", host, "use 127.0.0.1; any token is let in here"
    )


def _listen(host: str, port: int) -> socket.socket:
    # the protocol is named because asyncio sets TCP_NODELAY only where it is; without, an answer waits 40 ms for an ACK
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(512)
    except OSError as error:
        listener.close()
        fix = "stop what listens there, or take another port (0: any free one)"
        what = "the port is in use" if error.errno == errno.EADDRINUSE else f"cannot listen: {error.strerror}"
        raise RehearsalError(what, f"{host}:{port}", fix) from error
    return listener


def _stop(server: uvicorn.Server, thread: threading.Thread) -> None:
    server.should_exit = True
    thread.join()

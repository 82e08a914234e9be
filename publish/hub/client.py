"""One client of one Hub: every call goes through :meth:`Client.call`, which repeats, waits and explains."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from publish.errors import PublishError
from publish.hub.failures import (
    Endpoint,
    Patience,
    RateLimited,
    Timeouts,
    Transient,
    Unavailable,
    Uncertain,
    Unreachable,
    origin_of,
)
from publish.hub.rate_limits import PER_HOUR, UNLIMITED, CommitQuota, Notify, RequestQuota, Wait
from publish.interrupt import Clock, SystemClock, stop_if

if TYPE_CHECKING:
    import httpx2

    from publish.hub.library import Api


T = TypeVar("T")
FIRST_UNTOLD_WAIT = 5.0  # a 429 that says nothing: 5 s, then twice as long each time
LONGEST_UNTOLD_WAIT = 300.0


class Client:
    """A Hub, a token, and the manners to use them. Safe to share between threads.

    The HTTP client is huggingface_hub's one per process; a second Client of the same endpoint replaces the
    first one's quota, clock and timeouts. ``commits_per_hour`` None: the Hub's 128, and no limit on loopback, where a
    rehearsal Hub has none unless it answers 429.
    """

    def __init__(
        self,
        endpoint: Endpoint | None = None,
        *,
        clock: Clock | None = None,
        interrupt: threading.Event | None = None,
        notify: Notify | None = None,
        timeouts: Timeouts | None = None,
        patience: Patience | None = None,
        quota_dir: Path | None = None,
        commits_per_hour: int | None = None,
    ) -> None:
        from publish.hub import library, transport

        self.endpoint = endpoint or Endpoint.from_environment()
        self.clock = clock or SystemClock()
        self.interrupt = interrupt
        self.notify = notify
        self.patience = patience or Patience()
        self.validated_cards: set[str] = set()  # digests of front matter that the server has accepted
        self.commits = CommitQuota(
            quota_dir or _default_quota_dir(),
            self.endpoint.url,
            self.clock,
            limit=commits_per_hour or (UNLIMITED if self.endpoint.loopback else PER_HOUR),
            notify=notify,
            interrupt=interrupt,
        )
        quota = RequestQuota(self.clock, notify, interrupt)
        self._lane = transport.Lane(self.endpoint.origin, self.clock, quota, timeouts or Timeouts(), interrupt)
        transport.register(self._lane)
        library.install(self.endpoint)
        self._library = library
        self._transport = transport

    @property
    def api(self) -> Api:
        """huggingface_hub's API for this endpoint. Call it only inside :meth:`call`."""
        return self._library.Api(endpoint=self.endpoint.url, token=self.endpoint.token or False)

    @property
    def requests(self) -> Mapping[str, int]:
        """Requests sent so far, by kind: api, resolve, storage."""
        with self._lane.lock:
            return dict(self._lane.counts)

    @property
    def bytes_received(self) -> int:
        """Bytes of all bodies received so far, as they came over the wire."""
        with self._lane.lock:
            return self._lane.received

    @property
    def commits_of_thread(self) -> int:
        """Commits that the calling thread has sent so far, whatever was answered."""
        return self._transport.commits_of_thread()

    def call(self, what: str, function: Callable[[], T], *, idempotent: bool = True) -> T:
        """The result of `function`, tried again for as long as that may help. `what` names it in errors.

        Waits on 429 as told; these waits are no failures. Other passing failures (5xx, timeouts, lost
        connections, HTML bodies) are tried again with jittered exponential backoff, unless the call is not
        idempotent and may have been acted on.

        Raises:
            Refused: the Hub answered 4xx.
            Unreachable: there is no connection to be had.
            Uncertain: not idempotent, and the answer was lost.
            Unavailable: passing failures did not pass.
            Interrupted: the interrupt event was set.
        """
        trouble = _Trouble(self, what)
        while True:
            stop_if(self.interrupt)
            try:
                return function()
            except self._library.OUTSIDE as error:
                diagnosis = self._library.diagnose(error, what, self.endpoint)
                if diagnosis is None:
                    raise
                if isinstance(diagnosis, PublishError):
                    raise diagnosis from error
                trouble.wait_out(diagnosis, idempotent=idempotent)

    def check_repo(self, repo: str) -> None:
        """Whether `repo` is a name that a Hub can have; no request.

        Raises:
            HubError: it is not of the form owner/name.
        """
        self.call(f"naming {repo}", lambda: self._library.check_repo(repo))

    def get(self, path: str, params: Mapping[str, Any] | None = None) -> Any:
        """The JSON at an API path of the endpoint, through :meth:`call`."""

        def once() -> Any:
            response = self._library.session().get(
                self.endpoint.url + path, params=params, headers=self.headers(self.endpoint.url)
            )
            self.check(response)
            return self.document(response)

        return self.call(f"reading {path}", once)

    def document(self, response: httpx2.Response) -> Any:
        """The JSON of an answer. Use it inside :meth:`call`, which asks again for one that is cut or garbled."""
        return self._library.document(response)

    def headers(self, url: str) -> dict[str, str]:
        """Headers for a request to `url`: the token goes to the endpoint's own origin and nowhere else."""
        mine = origin_of(url) == self.endpoint.origin
        return self._library.headers(self.endpoint.token if mine else None)

    def check(self, response: httpx2.Response) -> None:
        """Raise what :meth:`call` understands for a 4xx or 5xx response."""
        self._library.check(response)

    def session(self) -> httpx2.Client:
        """The HTTP client, for requests that huggingface_hub does not make. Use it inside :meth:`call`."""
        return self._library.session()

    @property
    def answered(self) -> bool:
        """Whether the endpoint has answered anything yet."""
        return self._lane.answered


class _Trouble:
    """The failures of one call so far."""

    def __init__(self, client: Client, what: str) -> None:
        self.client = client
        self.what = what
        self.failures = 0
        self.untold = 0
        self.waited = 0.0

    def wait_out(self, failure: Transient, *, idempotent: bool) -> None:
        """Wait until another try makes sense, or raise what the caller shall see."""
        if isinstance(failure, RateLimited):
            self._wait_as_told(failure)
            return
        where = failure.where or self.client.endpoint.url
        if failure.sent and not idempotent:
            raise Uncertain(f"{self.what}: {failure}", where, "look at the Hub, then run again") from failure
        self.failures += 1
        patience = self.client.patience
        unreached = failure.status == 0 and not self.client.answered
        if unreached and self.failures >= patience.unreachable_tries:
            raise Unreachable(
                f"{self.what}: no answer after {self.failures} tries ({failure})",
                where,
                "check the network and HF_ENDPOINT",
            ) from failure
        if self.failures >= patience.tries:
            raise Unavailable(
                f"{self.what}: still failing after {self.failures} tries ({failure})",
                where,
                "wait until the Hub is well (status.huggingface.co), then run the same command again",
            ) from failure
        self.client.clock.sleep(backoff(self.failures, patience), self.client.interrupt)

    def _wait_as_told(self, limited: RateLimited) -> None:
        client = self.client
        if limited.seconds is None:
            seconds = min(LONGEST_UNTOLD_WAIT, FIRST_UNTOLD_WAIT * 2**self.untold)
            self.untold += 1
        else:
            seconds = limited.seconds + 1  # told in whole seconds
        self.waited += seconds
        if self.waited > client.patience.longest_wait:
            raise Unavailable(
                f"{self.what}: the Hub's quota asks to wait too long ({self.waited:.0f} s; {limited})",
                limited.where,
                "run again later; finished steps are kept",
            ) from limited
        until = client.clock.now() + seconds
        if client.notify is not None:
            client.notify(Wait(f"{self.what}: {limited}", until))
        client.clock.sleep_until(until, client.interrupt)


def backoff(failures: int, patience: Patience) -> float:
    """Seconds before the next try: exponential, capped, the upper half of it random."""
    return min(patience.cap, patience.base * float(2 ** (failures - 1))) * random.uniform(0.5, 1.0)


def _default_quota_dir() -> Path:
    from huggingface_hub import constants

    return Path(os.environ.get("HF_HOME", constants.HF_HOME)) / "publish" / "quota"

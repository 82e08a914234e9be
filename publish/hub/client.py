"""The client of one Hub: every call goes through :meth:`Client.call`, which retries, waits and explains failures."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from publish.errors import PublishError
from publish.hub.endpoint import Endpoint, RetryPolicy, Timeouts, cache_folder, origin_of
from publish.hub.failures import RateLimited, Transient, Unavailable, Uncertain, Unreachable
from publish.hub.rate_limits import PER_HOUR, CommitQuota, Notify, RequestQuota, Wait
from publish.interrupt import Clock, SystemClock, stop_if

if TYPE_CHECKING:
    import httpx2

    from publish.hub.transport import Api

T = TypeVar("T")
FIRST_WAIT = 5.0  # after a 429 that does not say how long: 5 s, then twice as long each time
LONGEST_WAIT = 300.0


class Client:
    """A Hub and a token. Threads may share it.

    The HTTP client is huggingface_hub's, one for each process: a second Client of the same endpoint replaces the
    first one's quota, clock and timeouts. `commits_per_hour` is the quota of commits to a repo without a limit of its
    own. None stands for the Hub's 128, or for no limit on loopback: a rehearsal Hub answers 429 if it has one.
    """

    def __init__(
        self,
        endpoint: Endpoint | None = None,
        *,
        clock: Clock | None = None,
        stop: threading.Event | None = None,
        notify: Notify | None = None,
        timeouts: Timeouts | None = None,
        retry_policy: RetryPolicy | None = None,
        quota_dir: Path | None = None,
        commits_per_hour: int | None = None,
    ) -> None:
        from publish.hub import transport

        self.endpoint = endpoint or Endpoint.from_environment()
        self.clock = clock or SystemClock()
        self.stop = stop
        self.notify = notify
        self.retry_policy = retry_policy or RetryPolicy()
        self.validated_cards: set[str] = set()  # digests of front matter that the server has accepted
        self.commits = CommitQuota(
            quota_dir or cache_folder() / "quota",
            self.endpoint.url,
            self.clock,
            limit=commits_per_hour or (None if self.endpoint.loopback else PER_HOUR),
            notify=notify,
            stop=stop,
        )
        self._state = transport.EndpointState(
            self.endpoint.origin,
            self.clock,
            RequestQuota(self.clock, notify, stop),
            timeouts or Timeouts(),
            stop,
        )
        transport.register(self._state)
        transport.install(self.endpoint)
        self._transport = transport

    @property
    def api(self) -> Api:
        """huggingface_hub's API for this endpoint. Use it only inside :meth:`call`."""
        return self._transport.Api(endpoint=self.endpoint.url, token=self.endpoint.token or False)

    @property
    def answered(self) -> bool:
        """Whether the endpoint has answered any request yet."""
        return self._state.answered

    @property
    def requests(self) -> Mapping[str, int]:
        """Requests sent so far, by kind: api, resolve, storage."""
        with self._state.lock:
            return dict(self._state.requests)

    @property
    def bytes_received(self) -> int:
        """Bytes of all bodies received so far, as transferred."""
        with self._state.lock:
            return self._state.received

    @property
    def commits_of_thread(self) -> int:
        """Commits that the calling thread has sent so far, whatever was answered."""
        return self._transport.commits_of_thread()

    def call(self, what: str, function: Callable[[], T], *, idempotent: bool = True) -> T:
        """Call `function` until it succeeds or another try cannot help, and return its result.

        `what` names the call in errors. A 429 is waited for and is not a failure. Other failures that may pass (5xx,
        timeouts, lost connections, HTML pages) are retried with jittered exponential backoff, unless the call is not
        idempotent and the server may have acted on it.

        Raises:
            Refused: the Hub answered 4xx.
            Unreachable: the Hub has not answered any request.
            Uncertain: the call is not idempotent, and the answer was lost.
            Unavailable: the failures did not pass.
            Interrupted: the stop event was set.
        """
        retries = RetryState(self, what)
        while True:
            stop_if(self.stop)
            try:
                return function()
            except self._transport.OUTSIDE as error:
                diagnosis = self._transport.diagnose(error, what, self.endpoint)
                if diagnosis is None:
                    raise
                if isinstance(diagnosis, PublishError):
                    raise diagnosis from error
                retries.wait(diagnosis, idempotent=idempotent)

    def check_repo_id(self, repo: str) -> None:
        """Raise HubError unless `repo` is a name that a repo can have. Sends no request."""
        self.call(f"checking the name {repo}", lambda: self._transport.check_repo_id(repo))

    def get(self, path: str) -> Any:
        """The JSON at an API path of the endpoint, through :meth:`call`."""

        def once() -> Any:
            url = self.endpoint.url + path
            response = self.session().get(url, headers=self.headers(url))
            self.check(response)
            return self.document(response)

        return self.call(f"reading {path}", once)

    # For requests that huggingface_hub does not make. Use these inside `call`.

    def session(self) -> httpx2.Client:
        """The HTTP client of this process."""
        return self._transport.session()

    def headers(self, url: str) -> dict[str, str]:
        """Headers for a request to `url`. The token is sent to the endpoint's own origin and nowhere else."""
        own = origin_of(url) == self.endpoint.origin
        return self._transport.headers(self.endpoint.token if own else None)

    def check(self, response: httpx2.Response) -> None:
        """Raise what :meth:`call` understands for a 4xx or 5xx response."""
        self._transport.check(response)

    def document(self, response: httpx2.Response) -> Any:
        """The JSON of a response. :meth:`call` asks again if it is truncated or malformed."""
        return self._transport.document(response)


class RetryState:
    """The failed tries of one call so far."""

    def __init__(self, client: Client, what: str) -> None:
        self.client = client
        self.what = what
        self.failures = 0
        self.unexplained = 0  # 429s that did not say how long to wait
        self.waited = 0.0  # seconds, for 429s

    def wait(self, failure: Transient, *, idempotent: bool) -> None:
        """Wait until another try makes sense, or raise the error that ends the call."""
        if isinstance(failure, RateLimited):
            self._wait_for_quota(failure)
            return
        where = failure.where or self.client.endpoint.url
        if failure.sent and not idempotent:
            raise Uncertain(f"{self.what}: {failure}", where, "look at the Hub, then run again") from failure
        self.failures += 1
        policy = self.client.retry_policy
        unreached = failure.status == 0 and not self.client.answered
        if unreached and self.failures >= policy.unreachable_tries:
            raise Unreachable(
                f"{self.what}: no answer after {self.failures} tries ({failure})",
                where,
                "check the network and HF_ENDPOINT",
            ) from failure
        if self.failures >= policy.tries:
            raise Unavailable(
                f"{self.what}: still failing after {self.failures} tries ({failure})",
                where,
                "wait until the Hub works again (status.huggingface.co), then run the same command again",
            ) from failure
        self.client.clock.sleep(policy.backoff(self.failures), self.client.stop)

    def _wait_for_quota(self, limited: RateLimited) -> None:
        client = self.client
        if limited.seconds is None:
            seconds = min(LONGEST_WAIT, FIRST_WAIT * 2**self.unexplained)
            self.unexplained += 1
        else:
            seconds = limited.seconds + 1  # the server rounds to whole seconds
        self.waited += seconds
        if self.waited > client.retry_policy.longest_wait:
            raise Unavailable(
                f"{self.what}: the Hub's quota asks to wait too long ({self.waited:.0f} s; {limited})",
                limited.where,
                "run the same command again later: finished steps are kept",
            ) from limited
        until = client.clock.now() + seconds
        if client.notify is not None:
            client.notify(Wait(f"{self.what}: {limited}", until))
        client.clock.sleep_until(until, client.stop)

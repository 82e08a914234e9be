from __future__ import annotations

import json
import logging
import pickle
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from publish.errors import HubError
from publish.hub.client import Client
from publish.hub.endpoint import Endpoint, Timeouts
from publish.hub.failures import Refused, Unavailable, Uncertain, Unreachable, redact
from publish.hub.rate_limits import Wait
from publish.hub.reads import list_branches
from publish.interrupt import Interrupted
from tests.clock import ManualClock
from tests.hub.scripted import TOKEN, Answer, Asked, Scripted

GOOD = Answer(body=json.dumps({"branches": [], "converts": [], "tags": []}).encode())
COMMITS = (
    "You have exceeded the rate limit for repository commits (128 per hour). You can retry this action in about 1 hour."
)


@pytest.fixture
def client(scripted_client: Client) -> Client:
    return scripted_client


def first(*answers: Answer | None) -> Callable[[Asked], Answer | None]:
    """These answers one after another, then good ones."""
    queue = list(answers)
    return lambda asked: queue.pop(0) if queue else Answer(body=GOOD.body)


@pytest.mark.parametrize("status", [408, 500, 502, 503, 504, 522])
def test_server_errors_are_tried_again(status: int, client: Client, scripted: Scripted, clock: ManualClock) -> None:
    scripted.answer = first(Answer(status), Answer(status, b"<html>", {"content-type": "text/html"}))
    assert list_branches(client, "a/b") == {}
    assert len(scripted.asked) == 3
    assert len(clock.slept) == 2
    assert 0.5 <= clock.slept[0] <= 1 <= clock.slept[1] <= 2


@pytest.mark.parametrize(
    "answer",
    [
        None,
        Answer(body=b"<html>oops", headers={"content-type": "text/html; charset=utf-8"}),
        Answer(body=b"not json"),
        Answer(body=GOOD.body, cut=5),
        Answer(body=GOOD.body, stall=1.0),
    ],
    ids=["dropped", "html", "no json", "truncated", "stalled"],
)
def test_lost_answers_are_tried_again(answer: Answer | None, client: Client, scripted: Scripted) -> None:
    scripted.answer = first(answer)
    assert list_branches(client, "a/b") == {}
    assert len(scripted.asked) == 2


def test_what_does_not_pass_ends_with_the_request_id(client: Client, scripted: Scripted) -> None:
    scripted.answer = lambda asked: Answer(503, b"busy", {"x-request-id": "Root=1-abc"})
    with pytest.raises(Unavailable) as caught:
        list_branches(client, "a/b")
    assert len(scripted.asked) == client.retry_policy.tries
    assert "request id Root=1-abc" in caught.value.where
    assert "HTTP 503 busy" in caught.value.what


@pytest.mark.parametrize(
    ("headers", "body", "seconds"),
    [
        ({"retry-after": "30"}, b"", 31),
        ({"ratelimit": '"api";r=0;t=120'}, b"", 121),
        ({"ratelimit": '"api";r=990;t=120'}, COMMITS.encode(), 3601),
        ({}, b"You can retry this action in 5 minutes.", 301),
        ({}, b"", 5),
    ],
)
def test_429_waits_as_asked(
    headers: dict[str, str],
    body: bytes,
    seconds: float,
    scripted: Scripted,
    clock: ManualClock,
    tmp_path: Path,
) -> None:
    waits: list[Wait] = []
    client = Client(Endpoint(scripted.url, TOKEN), clock=clock, quota_dir=tmp_path, notify=waits.append)
    start = clock.now()
    scripted.answer = first(Answer(429, body, headers))
    assert list_branches(client, "a/b") == {}
    assert clock.now() - start == seconds
    assert waits[0].until == start + seconds
    assert "429" in waits[0].reason


def test_429_is_no_failure_however_often(client: Client, scripted: Scripted) -> None:
    scripted.answer = first(*[Answer(429, headers={"retry-after": "60"}) for _ in range(20)])
    assert list_branches(client, "a/b") == {}


def test_429_for_ever_ends(client: Client, scripted: Scripted) -> None:
    scripted.answer = lambda asked: Answer(429, headers={"retry-after": "10000"})
    with pytest.raises(Unavailable, match="too long"):
        list_branches(client, "a/b")


@pytest.mark.parametrize(
    ("status", "fix"),
    [(401, "HF_TOKEN"), (403, "write access"), (404, "name"), (400, "message"), (409, "again")],
)
def test_refusals_end_at_once(status: int, fix: str, client: Client, scripted: Scripted) -> None:
    body = json.dumps({"error": "No, because."}).encode()
    scripted.answer = lambda asked: Answer(status, body, {"content-type": "application/json", "x-request-id": "r1"})
    with pytest.raises(Refused) as caught:
        list_branches(client, "a/b")
    assert len(scripted.asked) == 1
    assert caught.value.status == status
    assert "No, because." in caught.value.what
    assert "request id r1" in caught.value.where
    assert fix in caught.value.fix
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.status) == (str(caught.value), status)


def test_what_changes_something_is_not_repeated(client: Client, scripted: Scripted) -> None:
    scripted.answer = first(Answer(504))
    with pytest.raises(Uncertain):
        client.call("changing", lambda: client.api.list_repo_refs("a/b"), idempotent=False)
    assert len(scripted.asked) == 1
    scripted.answer = first(Answer(429, headers={"retry-after": "1"}))  # not acted on: may be repeated
    client.call("changing", lambda: client.api.list_repo_refs("a/b"), idempotent=False)
    assert len(scripted.asked) == 3


def test_unreachable_ends_soon(clock: ManualClock, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        client = Client(Endpoint(url, TOKEN), clock=clock, quota_dir=tmp_path, timeouts=Timeouts(connect=1))
        with pytest.raises(Unreachable) as caught:
            list_branches(client, "a/b")
    assert len(clock.slept) == 2
    assert url in caught.value.where
    assert "HF_ENDPOINT" in caught.value.fix


def test_an_invalid_name_is_a_hub_error(client: Client) -> None:
    with pytest.raises(HubError, match="owner/name"):
        list_branches(client, "a/b/c")


def test_interrupt_ends_a_wait(scripted: Scripted, tmp_path: Path) -> None:
    event = threading.Event()
    client = Client(Endpoint(scripted.url, TOKEN), stop=event, quota_dir=tmp_path)
    scripted.answer = lambda asked: Answer(429, headers={"retry-after": "1000"})
    threading.Timer(0.2, event.set).start()
    with pytest.raises(Interrupted):
        list_branches(client, "a/b")


def test_the_token_is_nowhere(
    client: Client, scripted: Scripted, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    caplog.set_level(logging.DEBUG)
    echo = f"your token {TOKEN} and Bearer {TOKEN}".encode()
    errors = []
    for status in (401, 403, 500):
        scripted.answer = lambda asked, status=status: Answer(status, echo)
        with pytest.raises(HubError) as caught:
            list_branches(client, "a/b")
        errors.append(f"{caught.value!s} {caught.value!r} {caught.value.__dict__}")
    assert scripted.asked[0].headers["authorization"] == f"Bearer {TOKEN}"
    assert "<token>" in errors[0]
    assert TOKEN not in " ".join([*errors, caplog.text, repr(client.endpoint), repr(client.endpoint.__class__)])
    assert all(TOKEN not in file.read_text() for file in tmp_path.rglob("*") if file.is_file())


def test_no_token_is_sent_without_one(scripted: Scripted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    scripted.answer = first()
    list_branches(Client(Endpoint(scripted.url), quota_dir=tmp_path), "a/b")
    assert "authorization" not in scripted.asked[0].headers


def test_slows_down_before_the_wall(client: Client, scripted: Scripted, clock: ManualClock) -> None:
    left = iter(range(30, -1, -1))

    def answer(asked: Asked) -> Answer:
        headers = {
            "ratelimit": f'"api";r={next(left)};t=100',
            "ratelimit-policy": '"fixed window";"api";q=500;w=300',
        }
        return Answer(body=GOOD.body, headers=headers)

    scripted.answer = answer
    for _ in range(20):
        list_branches(client, "a/b")
    assert len(clock.slept) >= 15


def test_requests_are_counted(client: Client, scripted: Scripted) -> None:
    scripted.answer = first()
    list_branches(client, "a/b")
    assert client.requests == {"api": 1}


def test_a_server_that_never_answers_ends_soon(scripted: Scripted, tmp_path: Path, clock: ManualClock) -> None:
    scripted.answer = lambda asked: None
    client = Client(Endpoint(scripted.url, TOKEN), clock=clock, quota_dir=tmp_path)
    with pytest.raises(Unreachable, match="no answer after 3 tries"):
        list_branches(client, "a/b")
    assert len(scripted.asked) == 3


def test_the_endpoint_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1/")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    endpoint = Endpoint.from_environment()
    assert endpoint == Endpoint("http://127.0.0.1:1", TOKEN)
    assert TOKEN not in repr(endpoint)
    assert not endpoint.official


@pytest.mark.parametrize("url", ["", "localhost:7860", "ftp://x", "https://"])
def test_an_endpoint_that_is_no_address(url: str) -> None:
    with pytest.raises(HubError, match="HF_ENDPOINT"):
        Endpoint(url)


def test_xet_without_a_token_route_goes_on_with_lfs(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", False)
    seen = []

    def upload() -> str:
        seen.append(constants.HF_HUB_DISABLE_XET)
        if not constants.HF_HUB_DISABLE_XET:
            raise ConnectionError("Network error: HTTP 404 Not Found for /xet-write-token/step1")
        return "sent"

    assert client.call("uploading", upload) == "sent"
    assert seen == [False, True]


def test_bugs_keep_their_traceback(client: Client) -> None:
    def wrong() -> None:
        raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug"):
        client.call("anything", wrong)


def test_importing_is_light() -> None:
    import subprocess
    import sys

    code = "import publish.hub, publish.hub.client, publish.hub.transaction, publish.release.state, sys;"
    code += "sys.exit(bool({'huggingface_hub', 'httpx2'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("token hf_" + "a" * 34 + "!", "token <token>!"),
        ("Authorization: Bearer abc.def", "Authorization: <token>"),
        ("repo alice/hf_model at hf_xet", "repo alice/hf_model at hf_xet"),
        ("GET https://cdn/x?X-Amz-Signature=abc failed", "GET https://cdn/x?<query> failed"),
    ],
)
def test_what_is_taken_out_of_messages(text: str, clean: str) -> None:
    assert redact(text) == clean


def test_what_the_library_raises_is_explained(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants
    from huggingface_hub.errors import LocalTokenNotFoundError

    def raising(error: Exception) -> Callable[[], None]:
        def function() -> None:
            raise error

        return function

    with pytest.raises(HubError, match="no token"):
        client.call("asking", raising(LocalTokenNotFoundError("log in")))
    with pytest.raises(Unreachable, match="Xet"):
        client.call("uploading", raising(ConnectionError("reset by peer")))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(HubError, match="HF_HUB_OFFLINE"):
        list_branches(client, "a/b")


@pytest.mark.parametrize(
    "body",
    [b'{"message": "maintenance"}', b"[]", b'"x"', b"\xff\xfe", b"{"],
    ids=["other", "list", "text", "noise", "cut"],
)
def test_an_answer_to_another_question_is_asked_again(client: Client, scripted: Scripted, body: bytes) -> None:
    answers = [Answer(200, body), Answer(200, body), Answer(200, b'{"branches": [], "tags": [], "converts": []}')]
    scripted.answer = lambda asked: answers.pop(0)
    assert client.call("asking", lambda: client.api.list_repo_refs("a/b")).branches == []


def test_our_own_mistakes_keep_their_traceback(client: Client) -> None:
    def wrong() -> None:
        raise KeyError("ours")

    with pytest.raises(KeyError, match="ours"):
        client.call("asking", wrong)

"""What needs huggingface_hub to be imported: its client factory, its API object, its exceptions.

Imported when a Client is made and not before, because it takes 0.2 s.
"""

from __future__ import annotations

import json
import logging
import traceback
from typing import Any

import httpx2
import huggingface_hub
from huggingface_hub import constants
from huggingface_hub.errors import (
    EntryNotFoundError,
    HfHubHTTPError,
    HFValidationError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
)
from huggingface_hub.utils import (  # type: ignore[attr-defined]
    build_hf_headers,
    disable_progress_bars,
    hf_raise_for_status,
    validate_repo_id,
)
from huggingface_hub.utils._http import hf_request_event_hook

from publish.errors import HubError, PublishError
from publish.hub.endpoint import Endpoint
from publish.hub.failures import Refused, Transient, redact, refusal
from publish.hub.transport import Transport, where_of

# what huggingface_hub raises for an answer that is JSON but not the JSON that it expects
MALFORMED = (ValueError, KeyError, IndexError, TypeError, AttributeError)
# what a call into huggingface_hub raises for reasons outside this program
OUTSIDE = (Transient, httpx2.HTTPError, OSError, RuntimeError, EntryNotFoundError, *MALFORMED)

# loggers of headers, bodies and locations at debug level: a server may repeat a token in them
LOUD = (
    "httpx2",
    *(f"httpcore2.{part}" for part in ("connection", "http11", "http2", "proxy", "socks")),
    *(f"huggingface_hub.{part}" for part in ("utils._http", "file_download", "lfs", "_commit_api", "hf_api")),
)

_installed = False


class Api(huggingface_hub.HfApi):
    """HfApi whose commits do not validate the card, because `validate_card` does so once for each front matter.

    If huggingface_hub renames the method, it validates the card at every commit; nothing else changes.
    """

    def _validate_yaml(self, content: str, *, repo_type: str | None = None, token: Any = None) -> None:
        return


def install(endpoint: Endpoint) -> None:
    """Make this process's huggingface_hub use our transport, without progress bars and without secrets in its logs.

    huggingface_hub uploads to Xet storage whenever hf_xet is installed, even if the server has none
    (docs/hub-protocol.md, "Xet or LFS"). Only huggingface.co is known to have it; elsewhere we use LFS.
    """
    global _installed
    if not _installed:
        huggingface_hub.set_client_factory(_client)
        disable_progress_bars()
        for name in LOUD:
            logging.getLogger(name).addFilter(_without_secrets)
        # or it asks huggingface.co for a list for its user agent, even in a rehearsal (utils/_detect_agent.py)
        constants.HF_HUB_DISABLE_TELEMETRY = True
        _installed = True
    if not endpoint.official:
        constants.HF_HUB_DISABLE_XET = True


def session() -> httpx2.Client:
    """The one HTTP client of this process."""
    return huggingface_hub.get_session()


def _without_secrets(record: logging.LogRecord) -> bool:
    """A logging filter that redacts every record and drops none."""
    record.msg, record.args = redact(record.getMessage()), ()
    return True


class _Session(httpx2.Client):
    """Sends file objects as `content`: huggingface_hub uploads them as `data`, which httpx2 deprecates."""

    def build_request(self, method: str, url: Any, **arguments: Any) -> httpx2.Request:
        if hasattr(arguments.get("data"), "read"):
            arguments["content"] = arguments.pop("data")
        return super().build_request(method, url, **arguments)


def _client() -> httpx2.Client:
    limits = httpx2.Limits(max_connections=128, max_keepalive_connections=64)
    return _Session(
        transport=Transport(limits=limits),
        event_hooks={"request": [hf_request_event_hook]},
        follow_redirects=True,
        timeout=None,  # the transport sets those of the endpoint
    )


def headers(token: str | None) -> dict[str, str]:
    """The headers of huggingface_hub's own requests."""
    built: dict[str, str] = build_hf_headers(token=token or False)
    return built


def check_repo_id(repo: str) -> None:
    """Raise huggingface_hub's exception for a name that a repo cannot have."""
    validate_repo_id(repo)


def check(response: httpx2.Response) -> None:
    """Raise huggingface_hub's exception for a 4xx or 5xx."""
    hf_raise_for_status(response)


def document(response: httpx2.Response) -> Any:
    """The JSON of an answer.

    Raises:
        Transient: it is not JSON: truncated, of another encoding, nested too deeply, or with numbers too long to parse.
    """
    try:
        return response.json()
    except (ValueError, RecursionError) as error:
        raise Transient("the answer is not JSON", where=where_of(response.request, response)) from error


def diagnose(error: BaseException, what: str, endpoint: Endpoint) -> Transient | PublishError | None:
    """What an exception out of huggingface_hub means; None for a bug, which is to be raised as it is."""
    while isinstance(error, RuntimeError) and error.__cause__ is not None:
        error = error.__cause__  # "Error while uploading ..." around the reason
    match error:
        case Transient() | PublishError():
            return error
        case json.JSONDecodeError() | UnicodeDecodeError():
            return Transient("the answer is not JSON", where=endpoint.url)
        case HfHubHTTPError():
            return _refused(error, what)
        case EntryNotFoundError():  # a copy's source
            return HubError(f"{what}: {error}", endpoint.url, "run again: the repo is then listed again")
        case HFValidationError():
            return HubError(f"{what}: {error}", endpoint.url, "use a name of the form owner/name")
        case LocalTokenNotFoundError():
            return HubError(f"{what}: no token", endpoint.url, "log in (`hf auth login`) or set HF_TOKEN")
        case OfflineModeIsEnabled():
            return HubError(f"{what}: offline mode is on", endpoint.url, "unset HF_HUB_OFFLINE")
        case httpx2.TimeoutException() | httpx2.NetworkError() | httpx2.RemoteProtocolError():
            return Transient(f"{type(error).__name__}: {error}", where=endpoint.url)
        case httpx2.HTTPError() | httpx2.InvalidURL():
            return HubError(f"{what}: {error}", endpoint.url, "check HF_ENDPOINT")
        case ConnectionError():  # out of hf_xet
            return _xet_failed(error, endpoint)
        case _ if isinstance(error, MALFORMED) and _raised_by_library(error):
            name = type(error).__name__
            return Transient(f"the answer is not what was expected ({name}: {error})", where=endpoint.url)
        case _:
            return None


def _raised_by_library(error: BaseException) -> bool:
    """Whether huggingface_hub's own code raised it; our own code raises such an error only for a bug."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    return bool(frames) and str(frames[-1].f_globals.get("__name__", "")).startswith("huggingface_hub")


def _refused(error: HfHubHTTPError, what: str) -> Refused:
    response = error.response
    code = response.headers.get("x-error-code", "")
    message = error.server_message or response.headers.get("x-error-message") or response.reason_phrase
    return refusal(what, where_of(response.request, response), response.status_code, message, code)


def _xet_failed(error: ConnectionError, endpoint: Endpoint) -> Transient:
    if "404" in str(error):  # on its token route: the server has no Xet
        constants.HF_HUB_DISABLE_XET = True  # the next try uses LFS
    return Transient(f"Xet storage: {error}", where=endpoint.url)

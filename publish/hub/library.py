"""Everything that needs huggingface_hub imported: its client factory, its API object, its exceptions.

Imported when a client makes its first call, not before: it costs 0.2 s.
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
from publish.hub.failures import Endpoint, Refused, Transient, redact, refusal
from publish.hub.transport import Transport, where_of

# what huggingface_hub runs into when an answer is JSON and not the answer to the question
MALFORMED = (ValueError, KeyError, IndexError, TypeError, AttributeError)
# what a call into huggingface_hub may raise for reasons outside this program
OUTSIDE = (Transient, httpx2.HTTPError, OSError, RuntimeError, EntryNotFoundError, *MALFORMED)

# what logs headers, bodies or locations at debug level: a server may repeat a token in them
LOUD = (
    "httpx2",
    *(f"httpcore2.{part}" for part in ("connection", "http11", "http2", "proxy", "socks")),
    *(f"huggingface_hub.{part}" for part in ("utils._http", "file_download", "lfs", "_commit_api", "hf_api")),
)

_installed = False


class Api(huggingface_hub.HfApi):
    """HfApi whose commits do not validate the card again: `validate_card` has, once per front matter.

    Should upstream rename the method, cards are validated at every commit; nothing else changes.
    """

    def _validate_yaml(self, content: str, *, repo_type: str | None = None, token: Any = None) -> None:
        return


def install(endpoint: Endpoint) -> None:
    """Make this process's huggingface_hub use our transport, quietly.

    Xet: huggingface_hub 2.4 takes it whenever hf_xet is installed, whatever the server has, with no way back
    (facts/hub-protocol.md, "Xet vs LFS"). Only huggingface.co is known to have it; elsewhere we use LFS.
    """
    global _installed
    if not _installed:
        huggingface_hub.set_client_factory(_client)
        disable_progress_bars()
        for name in LOUD:
            logging.getLogger(name).addFilter(_without_secrets)
        # else its user agent costs a request to huggingface.co/api/agent-harnesses, even from a rehearsal
        constants.HF_HUB_DISABLE_TELEMETRY = True
        _installed = True
    if not endpoint.official:
        constants.HF_HUB_DISABLE_XET = True


def session() -> httpx2.Client:
    """The one HTTP client of this process."""
    return huggingface_hub.get_session()


def _without_secrets(record: logging.LogRecord) -> bool:
    """A logging filter that lets everything pass, redacted."""
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
        timeout=None,  # the transport sets it per lane
    )


def headers(token: str | None) -> dict[str, str]:
    """The headers of huggingface_hub's own requests."""
    built: dict[str, str] = build_hf_headers(token=token or False)
    return built


def check_repo(repo: str) -> None:
    """Raise huggingface_hub's exception for a name that no repo can have."""
    validate_repo_id(repo)


def check(response: httpx2.Response) -> None:
    """Raise huggingface_hub's exception for a 4xx or 5xx."""
    hf_raise_for_status(response)


def document(response: httpx2.Response) -> Any:
    """The JSON of an answer.

    Raises:
        Transient: it is none: cut short, of another encoding, nested too deep, or with numbers too long to be any.
    """
    try:
        return response.json()
    except (ValueError, RecursionError) as error:
        raise Transient("the answer is not JSON", where=where_of(response.request, response)) from error


def diagnose(error: BaseException, what: str, endpoint: Endpoint) -> Transient | PublishError | None:
    """What an exception out of huggingface_hub means; None: not ours to explain, let it go on."""
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
            return HubError(f"{what}: {error}", endpoint.url, "run again: what the repo holds is then listed anew")
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
        case ConnectionError():  # out of hf_xet; 404 on its token route: the server has no Xet
            return _xet_lost(error, endpoint)
        case _ if isinstance(error, MALFORMED) and _raised_there(error):
            name = type(error).__name__
            return Transient(f"the answer is not what was asked for ({name}: {error})", where=endpoint.url)
        case _:
            return None


def _raised_there(error: BaseException) -> bool:
    """Whether huggingface_hub's own code raised it, and not ours, which would be a bug."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    return bool(frames) and str(frames[-1].f_globals.get("__name__", "")).startswith("huggingface_hub")


def _refused(error: HfHubHTTPError, what: str) -> Refused:
    response = error.response
    code = response.headers.get("x-error-code", "")
    message = error.server_message or response.headers.get("x-error-message") or response.reason_phrase
    return refusal(what, where_of(response.request, response), response.status_code, message, code)


def _xet_lost(error: ConnectionError, endpoint: Endpoint) -> Transient:
    if "404" in str(error):
        constants.HF_HUB_DISABLE_XET = True  # from the next try on, plain LFS
    return Transient(f"Xet storage: {error}", where=endpoint.url)

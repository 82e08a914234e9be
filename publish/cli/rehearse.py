"""The rehearsal Hub as commands use it. It needs the extra ``rehearsal``."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from publish.hub.client import Client
from publish.hub.endpoint import Endpoint
from publish.rehearsal.errors import RehearsalError

if TYPE_CHECKING:
    from publish.rehearsal.server import RehearsalHub

REHEARSAL_TOKEN = "hf_rehearsal"
UNLIMITED = 10**6  # requests in five minutes, or commits in an hour: no rehearsal waits for a quota


def load_rehearsal_hub() -> type[RehearsalHub]:
    """Import the class :class:`RehearsalHub`.

    Raises:
        RehearsalError: a library of the extra ``rehearsal`` is not installed.
    """
    try:
        from publish.rehearsal.server import RehearsalHub
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("publish"):
            raise
        what = f"the rehearsal Hub needs {error.name}, which is not installed"
        raise RehearsalError(what, sys.prefix, "pip install 'publish-neox[rehearsal]'") from error
    return RehearsalHub


@contextmanager
def rehearsal_client(work_dir: Path | None, client: Client, target: str) -> Iterator[Client]:
    """A client of a rehearsal Hub that runs as long as the context; it may write to ``target``, whoever owns that.

    The Hub keeps its repos in ``work_dir``/rehearsal, where ``publish hub --root`` shows them afterwards.

    Raises:
        RehearsalError: the Hub cannot start.
    """
    hub_class = load_rehearsal_hub()
    root = (work_dir or Path(tempfile.mkdtemp(prefix="publish-rehearsal-"))) / "rehearsal"
    owners = {target.partition("/")[0]: REHEARSAL_TOKEN.removeprefix("hf_")}
    with hub_class(root, namespaces=owners, api_quota=UNLIMITED, resolver_quota=UNLIMITED) as hub:
        endpoint = Endpoint(hub.url, REHEARSAL_TOKEN)
        yield Client(endpoint, stop=client.stop, notify=client.notify, quota_dir=root / "quota")

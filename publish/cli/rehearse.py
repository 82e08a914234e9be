"""The Hub a release goes to: the one of the environment, or a rehearsal Hub of its own."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from publish.hub.client import Client
from publish.hub.endpoint import Endpoint

REHEARSAL_TOKEN = "hf_rehearsal"
UNPACED = 10**6  # requests in five minutes: a rehearsal is not slowed down by the quota it announces


@contextmanager
def hub_of(rehearse: bool, work_dir: Path | None, client: Client, target: str) -> Iterator[Client]:
    """``client``, or (``rehearse``) a client of a rehearsal Hub that runs as long as this lasts.

    There it may write to ``target``, whoever owns that on the Hub.

    A rehearsal lies in ``work_dir``/rehearsal and stays there to be looked at with ``publish hub --root``.
    """
    if not rehearse:
        yield client
        return
    from publish.rehearsal.server import RehearsalHub

    root = (work_dir or Path(tempfile.mkdtemp(prefix="publish-rehearsal-"))) / "rehearsal"
    owners = {target.partition("/")[0]: REHEARSAL_TOKEN.removeprefix("hf_")}
    with RehearsalHub(root, namespaces=owners, api_quota=UNPACED, resolver_quota=UNPACED) as hub:
        endpoint = Endpoint(hub.url, REHEARSAL_TOKEN)
        yield Client(endpoint, stop=client.stop, notify=client.notify, quota_dir=root / "quota")

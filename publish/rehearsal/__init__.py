"""A Hub of one's own on loopback: the Hub's protocol over bare git repositories and LFS objects on disk.

Importing this package imports neither uvicorn nor pygit2; :class:`RehearsalHub` does so when it starts.
"""

from publish.rehearsal.errors import RehearsalError
from publish.rehearsal.http.faults import Rule, parse_rules
from publish.rehearsal.http.request import Snapshot
from publish.rehearsal.server import RehearsalHub

__all__ = ["RehearsalError", "RehearsalHub", "Rule", "Snapshot", "parse_rules"]

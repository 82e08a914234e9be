"""A Hub of one's own on loopback: the Hub's protocol over bare git repositories and LFS objects on disk.

Importing this package imports neither uvicorn nor pygit2; :class:`RehearsalHub` does so when it starts.
"""

from publish.rehearsal.faults import Rule, parse_rules
from publish.rehearsal.refusals import RehearsalError
from publish.rehearsal.server import RehearsalHub
from publish.rehearsal.stats import Snapshot

__all__ = ["RehearsalError", "RehearsalHub", "Rule", "Snapshot", "parse_rules"]

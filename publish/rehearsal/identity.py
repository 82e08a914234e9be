"""Who asks. Any token is a user of its own, so that two people can be played with two tokens."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass

from publish.rehearsal.names import RESERVED

_NICE = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]{0,30}[A-Za-z0-9])?")


@dataclass(frozen=True, slots=True)
class User:
    """``role`` is write, or read for tokens that begin with ``hf_read``. ``key`` stands for the token in counters."""

    name: str
    role: str
    key: str


def user_of(authorization: str | None) -> User | None:
    """The user of an ``Authorization`` header (Bearer, or Basic with the token as password); None without one.

    ``hf_alice`` is alice, ``hf_read_alice`` is alice with a token that may only read. A token too long to be a
    name somebody chose gives ``user-`` and a digest: a real token must not end up on a page or in a commit.
    """
    token = _token(authorization)
    if not token:
        return None
    role = "read" if token.startswith("hf_read") else "write"
    digest = hashlib.sha256(token.encode()).hexdigest()
    rest = token.removeprefix("hf_")
    rest = rest.removeprefix("read_")
    nice = _NICE.fullmatch(rest) and "--" not in rest and rest.lower() not in RESERVED
    return User(rest if nice else f"user-{digest[:10]}", role, digest)


def _token(authorization: str | None) -> str | None:
    scheme, _, value = (authorization or "").partition(" ")
    if scheme.lower() == "bearer":
        return value.strip()
    if scheme.lower() != "basic":
        return None
    try:
        return base64.b64decode(value, validate=True).decode().partition(":")[2]
    except (binascii.Error, UnicodeDecodeError):
        return None

"""The SHA-256 of a weight file is taken by another thread: it must be that of the bytes, and the thread must end."""

from __future__ import annotations

import hashlib
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from publish.convert.writer import BackgroundHash


@given(st.lists(st.one_of(st.integers(0, 300), st.integers((1 << 16) - 2, (1 << 16) + 2)), max_size=12))
def test_it_is_the_digest_of_all_pieces_in_order(sizes: list[int]) -> None:
    pieces = [bytes([number + 1]) * size for number, size in enumerate(sizes)]
    with BackgroundHash() as whole:
        for piece in pieces:
            whole.update(piece)
        assert whole.hexdigest() == hashlib.sha256(b"".join(pieces)).hexdigest()


def test_what_hashing_raises_is_raised_here_and_the_thread_ends() -> None:
    before = threading.active_count()
    with BackgroundHash() as whole:
        whole.update(memoryview(bytes(1 << 20))[::2])
        with pytest.raises(BufferError):
            whole.hexdigest()
    assert threading.active_count() == before


def test_a_hashed_buffer_may_change() -> None:
    buffer = bytearray(1 << 20)
    with BackgroundHash() as whole:
        whole.update(memoryview(buffer))
        whole.wait()
        buffer[:] = bytes([1]) * len(buffer)
        assert whole.hexdigest() == hashlib.sha256(bytes(1 << 20)).hexdigest()

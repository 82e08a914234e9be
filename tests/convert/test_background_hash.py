"""A SHA-256 in another thread: it is that of the bytes, errors are raised, and the thread ends."""

from __future__ import annotations

import hashlib
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from publish.convert.writer import BackgroundHash


@given(st.lists(st.one_of(st.integers(0, 300), st.integers((1 << 16) - 2, (1 << 16) + 2)), max_size=12))
def test_the_digest_is_that_of_all_pieces_in_order(sizes: list[int]) -> None:
    pieces = [bytes([number + 1]) * size for number, size in enumerate(sizes)]
    with BackgroundHash() as whole:
        for piece in pieces:
            whole.update(piece)
        assert whole.hexdigest() == hashlib.sha256(b"".join(pieces)).hexdigest()


def test_an_error_of_hashing_is_raised_and_the_thread_ends() -> None:
    before = threading.active_count()
    with BackgroundHash() as whole:
        whole.update(memoryview(bytes(1 << 20))[::2])
        with pytest.raises(BufferError):
            whole.hexdigest()
    assert threading.active_count() == before


def test_a_buffer_may_change_after_wait() -> None:
    buffer = bytearray(1 << 20)
    with BackgroundHash() as whole:
        whole.update(memoryview(buffer))
        whole.wait()
        buffer[:] = bytes([1]) * len(buffer)
        assert whole.hexdigest() == hashlib.sha256(bytes(1 << 20)).hexdigest()

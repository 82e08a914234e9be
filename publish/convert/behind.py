"""A SHA-256 that a second thread computes, a few chunks behind whoever has the bytes."""

from __future__ import annotations

import hashlib
import threading
from queue import SimpleQueue
from types import TracebackType

_WORTH_A_THREAD = 1 << 18  # bytes: less is gathered, since handing over takes both threads some 20 microseconds
_BEHIND = 3  # chunks that hashing may lag behind


class HashBehind:
    """Fed with :meth:`update`, within a ``with`` block, which ends the thread. Chunks must not change once given."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._gathered = bytearray()  # too little to be handed over
        self._given: SimpleQueue[bytes | bytearray | memoryview | None] = SimpleQueue()
        self._hashed: SimpleQueue[Exception | None] = SimpleQueue()  # for each chunk, why it could not be
        self._behind = 0
        self._thread = threading.Thread(target=self._run, name="sha256", daemon=True)

    def __enter__(self) -> HashBehind:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._given.put(None)
        self._thread.join()

    def update(self, data: bytes | memoryview) -> None:
        """The next bytes."""
        small = len(data) < _WORTH_A_THREAD
        if small:
            self._gathered += data
        if not small or len(self._gathered) >= _WORTH_A_THREAD:
            self._hand_over()
        if not small:
            self._give(data)
        self.settle(_BEHIND)

    def settle(self, behind: int = 0) -> None:
        """Wait until no more than ``behind`` chunks are to be hashed: the others' memory can go.

        Raises:
            Exception: what hashing one of them raised.
        """
        while self._behind > behind:
            self._behind -= 1
            if (error := self._hashed.get()) is not None:
                raise error

    def hexdigest(self) -> str:
        """Of all bytes."""
        self._hand_over()
        self.settle()
        return self._hash.hexdigest()

    def _hand_over(self) -> None:
        if self._gathered:
            self._give(self._gathered)
            self._gathered = bytearray()

    def _give(self, data: bytes | bytearray | memoryview) -> None:
        self._given.put(data)
        self._behind += 1

    def _run(self) -> None:
        while (data := self._given.get()) is not None:
            error = None
            try:
                self._hash.update(data)
            except Exception as found:  # noqa: BLE001  raised by `settle`, which would else wait for ever
                error = found
            self._hashed.put(error)

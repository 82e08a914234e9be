"""``python -m publish.verify``: computes what `publish.verify.apart` asks for on standard input. Not for people.

Both ends of that pipe are ours, and so are the pickles on it. The thread that listens ends the process as soon as the
other end is closed, whatever is being computed.
"""

from __future__ import annotations

import os
import pickle
import traceback
from multiprocessing.connection import Connection
from queue import SimpleQueue
from threading import Thread
from typing import Any

from publish.collecting import seldom_collected
from publish.verify.apart import Answer, Asked, answer_of, borrowed


def main() -> None:
    channel, heard = Connection(0), SimpleQueue[bytes]()
    Thread(target=_listen, args=(channel, heard), daemon=True).start()

    def send(said: bytes) -> None:
        try:
            channel.send_bytes(said)
        except BrokenPipeError:
            os._exit(0)

    def ask(asked: Asked) -> Any:
        send(pickle.dumps(asked))
        return pickle.loads(heard.get()).value()  # noqa: S301

    while True:
        said = heard.get()
        try:
            function, arguments = pickle.loads(said)  # noqa: S301
            answer = pickle.dumps(answer_of(function, *(borrowed(each, ask) for each in arguments)))
        except Exception:  # noqa: BLE001 - a bug: the other side raises it, with its traceback
            answer = pickle.dumps(Answer(bug=traceback.format_exc()))
        send(answer)


def _listen(channel: Connection, heard: SimpleQueue[bytes]) -> None:
    while True:
        try:
            heard.put(channel.recv_bytes())
        except (EOFError, OSError):
            os._exit(0)


if __name__ == "__main__":
    with seldom_collected():
        main()

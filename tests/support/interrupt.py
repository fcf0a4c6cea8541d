"""A signal to the main thread, as Ctrl-C is one, while it waits."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Interrupted(BaseException):
    """What the handler raises."""


@contextmanager
def interrupted(after: float) -> Iterator[None]:
    """Raise ``Interrupted`` in the main thread ``after`` so many seconds."""

    def handler(*_: object) -> None:
        raise Interrupted

    before = signal.signal(signal.SIGUSR1, handler)
    main = threading.main_thread().ident or 0
    timer = threading.Timer(after, signal.pthread_kill, (main, signal.SIGUSR1))
    timer.start()
    try:
        yield
    finally:
        timer.join()
        signal.signal(signal.SIGUSR1, before)

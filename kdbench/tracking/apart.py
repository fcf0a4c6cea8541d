"""Calls of the wandb client that no signal can break off and no hang of the client can turn into ours."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import TypeVar

_T = TypeVar("_T")
_last: threading.Thread | None = None
"""The call before; None after one that was given up."""


def apart(action: Callable[[], _T], patience: float) -> _T:
    """What ``action`` gives, done in a thread of its own once the call before is over.

    A signal that raises (Ctrl-C, SIGTERM) ends the wait and lets the call finish: raised inside the client it could
    leave a task behind for which the client's teardown waits for ever.

    Raises:
        TimeoutError: not over within ``patience`` seconds; the thread is left to itself and holds up no later call.
        BaseException: what ``action`` raised.
    """
    global _last
    done: Future[_T] = Future()
    before = _last

    def call() -> None:
        if before is not None:
            with suppress(RuntimeError):  # a signal may have come before it was started
                before.join()
        try:
            done.set_result(action())
        except BaseException as error:  # noqa: BLE001  (raised by the waiting thread)
            done.set_exception(error)

    _last = thread = threading.Thread(target=call, name="kdbench-wandb", daemon=True)
    thread.start()
    try:
        return done.result(patience)
    except TimeoutError:
        if not done.done():
            _last = None
            raise TimeoutError(f"no answer of the W&B client within {patience:.0f} s") from None
        raise

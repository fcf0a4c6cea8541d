"""A call of the W&B client goes on whatever signal ends the wait for it, and holds nobody up for ever."""

from __future__ import annotations

import sys
import threading

import pytest

from kdbench.tracking.apart import apart
from tests.support.interrupt import Interrupted, interrupted


def test_a_signal_ends_the_wait_and_not_the_call() -> None:
    done: list[str] = []
    go = threading.Event()
    with interrupted(0.1), pytest.raises(Interrupted):
        apart(lambda: (go.wait(60), done.append("first")), 60)
    assert done == []
    go.set()
    apart(lambda: done.append("second"), 10)
    assert done == ["first", "second"]


def test_a_call_that_never_returns_is_given_up_and_holds_up_no_other() -> None:
    never = threading.Event()
    with pytest.raises(TimeoutError, match="no answer of the W&B client"):
        apart(never.wait, 0.1)
    assert apart(lambda: "next", 10) == "next"
    never.set()


def test_what_the_call_raises_is_raised() -> None:
    def late() -> None:
        raise TimeoutError("its own")

    with pytest.raises(TimeoutError, match="its own"):
        apart(late, 10)
    with pytest.raises(SystemExit):
        apart(sys.exit, 10)

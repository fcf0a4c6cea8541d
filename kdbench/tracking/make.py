"""Choose a tracker by mode."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Literal

from kdbench.errors import BadInput
from kdbench.tracking.base import NullTracker, Tracker
from kdbench.tracking.service import Notify, check_name

Mode = Literal["offline", "online", "disabled"]
MODES: tuple[Mode, ...] = ("offline", "online", "disabled")


def say(text: str) -> None:
    """The default ``notify``: one line on stderr."""
    print(text, file=sys.stderr, flush=True)


def make_tracker(
    mode: str,
    *,
    root: Path,
    project: str = "kdbench",
    entity: str | None = None,
    base_url: str | None = None,
    notify: Notify = say,
) -> Tracker:
    """A tracker that writes under ``root``/wandb (the sweep's folder).

    ``online`` asks the server first; where that fails (no key, no network) the tracker is offline, and ``notify`` is
    told once. ``base_url`` is another server than the one that wandb is set up for. Every worker process makes its own;
    close it.

    Raises:
        BadInput: unknown mode, or a project or entity that W&B would refuse.
    """
    if mode not in MODES:
        raise BadInput(f"unknown W&B mode '{mode}' (one of {', '.join(MODES)})")
    if mode == "disabled":
        return NullTracker()
    check_name("project", project)
    if entity is not None:
        check_name("entity", entity)
    from kdbench.tracking.wandb_tracker import WandbTracker

    return WandbTracker(root, project=project, entity=entity, online=mode == "online", base_url=base_url, notify=notify)


class Trackers:
    """One tracker for each trial that goes on at a time: taken up again by the next, made where all are in use."""

    def __init__(self, another: Callable[[], Tracker]) -> None:
        self._another = another
        self._idle = [another()]  # a server is asked before anything is trained

    @contextmanager
    def lend(self) -> Iterator[Tracker]:
        """A tracker for one trial. After an exception it is not lent again: its run has not ended."""
        tracker = self._idle.pop() if self._idle else self._another()
        yield tracker
        self._idle.append(tracker)


@contextmanager
def open_trackers(
    mode: str, *, root: Path, project: str, entity: str | None, notify: Notify = say
) -> Iterator[Trackers]:
    """Trackers of one process; all of them are closed in the end."""
    with ExitStack() as opened:
        yield Trackers(
            lambda: opened.enter_context(
                closing(make_tracker(mode, root=root, project=project, entity=entity, notify=notify))
            )
        )

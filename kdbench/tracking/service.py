"""The wandb client's process-wide state: environment, background process, credentials, and what it raises.

The client starts one background process for a Python process and keeps settings in ``os.environ``. This module is
the only one that touches either, so that a tracker can be closed without a trace and a fork never talks to its
parent's process.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

import psutil

from kdbench.errors import BadInput, MachineFault
from kdbench.tracking.apart import apart

Notify = Callable[[str], None]
PREFLIGHT_TIMEOUT = 3
"""Seconds that a server has to answer before anything is sent to it."""
INIT_TIMEOUT = 20
"""Seconds that an online run may take to begin."""
FINISH_TIMEOUT = 60
"""Seconds that an online run may take to upload its rest; what is left stays on disk for ``kdbench sync``."""
INTERRUPTED = 255
"""Exit code of an attempt that was stopped; W&B shows it as killed."""
CALL_PATIENCE = 120
"""Seconds that any call of the client may take: more than its own time-outs allow."""
TEARDOWN_PATIENCE = 30
"""Seconds that the client's background process may take to end, its runs being finished; then it is killed."""
_OURS = (
    *("WANDB_RUN_ID", "WANDB_SWEEP_ID", "WANDB_SWEEP_PARAM_PATH", "WANDB_RUN_GROUP", "WANDB_JOB_TYPE", "WANDB_NAME"),
    *("WANDB_NOTES", "WANDB_TAGS", "WANDB_RESUME", "WANDB_PROJECT"),
)
"""What names runs: the plan does, not the environment of whoever started it (`wandb agent` sets some of them)."""
_VARIABLES = ("WANDB_DATA_DIR", "WANDB_CACHE_DIR", "WANDB_DIR", "WANDB_ERROR_REPORTING", "WANDB_BASE_URL", *_OURS)
_SERVICE = "WANDB_SERVICE"
_FORBIDDEN = set("/\\#?%:")


def wandb_faults(*more: type[Exception]) -> tuple[type[Exception], ...]:
    """What the client raises when recording fails: its own errors, the operating system's, a lost background process.

    With ``more``, those too. A run whose background process was dropped by another tracker raises
    ``AlreadyJoinedError``.

    ``TimeoutError`` and every connection error are ``OSError``; the others below do not derive from ``wandb.Error``.
    """
    import wandb
    from wandb.sdk.lib.asyncio_manager import AlreadyJoinedError, RunCancelledError
    from wandb.sdk.lib.service.service_connection import WandbApiFailedError
    from wandb.sdk.lib.service.service_token import WandbServiceConnectionError
    from wandb.sdk.mailbox.mailbox import MailboxClosedError
    from wandb.sdk.mailbox.mailbox_handle import HandleAbandonedError, ServerResponseError

    own = (wandb.Error, WandbApiFailedError, WandbServiceConnectionError, AlreadyJoinedError, RunCancelledError)
    return (*own, MailboxClosedError, HandleAbandonedError, ServerResponseError, OSError, *more)


def check_name(kind: str, name: str) -> None:
    r"""Refuse what W&B would refuse only after an upload.

    Raises:
        BadInput: empty, longer than 128 characters, or with one of ``/ \ # ? % :``.
    """
    if not name or len(name) > 128 or _FORBIDDEN & set(name):
        raise BadInput(f"W&B {kind} '{name}' is not valid: 1 to 128 characters, none of / \\ # ? % :")


def settings(root: Path, mode: str, **more: Any) -> Any:
    """``wandb.Settings`` for runs under ``root``/wandb: silent, no console capture or machine scan, quickly flushed.

    The client's own interval is 15 s: whatever is killed before its first flush would leave a file without a record.
    """
    import wandb

    return wandb.Settings(
        mode=mode,  # type: ignore[arg-type]
        root_dir=str(root.resolve()),
        silent=True,
        console="off",
        symlink=False,
        reinit="create_new",
        save_code=False,
        disable_code=True,
        disable_git=True,
        init_timeout=INIT_TIMEOUT,
        finish_timeout=FINISH_TIMEOUT,
        finish_timeout_raises=True,
        x_disable_meta=True,
        x_disable_machine_info=True,
        x_disable_stats=True,
        x_save_requirements=False,
        x_transaction_log_flush_interval=1.0,
        **more,
    )


class Service:
    """This process's use of wandb while it is open: environment set, background process owned.

    Opening is counted per process: the last one closed ends the background process, unless somebody else (a notebook
    with runs of its own) had started it before.
    """

    users: ClassVar[int] = 0
    """How many hold it open."""
    generation: ClassVar[int] = 0
    """How often this process dropped its background process."""
    _foreign = False
    _before: ClassVar[dict[str, str | None]] = {}

    def __init__(self, root: Path, *, base_url: str | None = None) -> None:
        cls = type(self)
        if cls.users == 0:
            cls._before = {name: os.environ.get(name) for name in _VARIABLES}
            cls._foreign = _adopted_service()
        cls.users += 1
        self._closed = False
        folder = (root / "wandb").resolve()
        os.environ["WANDB_DATA_DIR"] = str(folder / ".data")
        os.environ["WANDB_CACHE_DIR"] = str(folder / ".cache")
        os.environ["WANDB_DIR"] = str(folder / ".cache" / "api")
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        for name in _OURS:
            os.environ.pop(name, None)
        if base_url is not None:
            os.environ["WANDB_BASE_URL"] = base_url

    def restart(self, since: int | None = None) -> None:
        """Drop a background process that failed; the next run starts another.

        With ``since``, the generation that failed: nothing, where another has begun meanwhile.
        """
        cls = type(self)
        if not cls._foreign and since in (None, cls.generation):
            Service.generation += 1
            teardown()

    def close(self) -> None:
        """End the background process after the last user, and put the environment back."""
        cls = type(self)
        if self._closed:
            return
        self._closed = True
        cls.users -= 1
        if cls.users:
            return
        self.restart()
        for name, value in cls._before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _adopted_service() -> bool:
    """Whether this very process already runs wandb; a parent's service is dropped, it may end before we do."""
    token = os.environ.get(_SERVICE, "")
    if not token:
        return False
    if token.split("-")[1:2] == [str(os.getpid())]:
        return True
    del os.environ[_SERVICE]
    return False


def silence() -> Any:
    """Load the client's process-wide settings with its own messages off; these settings."""
    import wandb

    return wandb.setup(wandb.Settings(silent=True)).settings


def teardown() -> None:
    """``wandb.teardown()``, whatever state the client is in (it raises ``SystemExit`` with its process's bad code).

    Runs that were not finished end as interrupted, not as the successes that the client would make of them.
    Without a network that process was seen to live on for ever, and the client to wait for it: it is killed then.
    """
    import wandb

    def end() -> None:
        with suppress(SystemExit):
            wandb.teardown(INTERRUPTED)

    try:
        apart(end, TEARDOWN_PATIENCE)
    except wandb_faults():
        _kill_background()
    os.environ.pop(_SERVICE, None)


def _kill_background() -> None:
    """End this process's own wandb-core, if it is still there."""
    for child in psutil.Process().children():
        with suppress(psutil.Error):
            if "wandb-core" in child.name():
                child.kill()


def require_key() -> None:
    """Look for credentials where wandb does (environment, netrc, settings); asks nobody, starts nothing.

    Raises:
        BadInput: none, or malformed.
    """
    import wandb
    from wandb.sdk import wandb_setup
    from wandb.sdk.lib import wbauth

    host = wandb_setup.singleton().settings.base_url
    try:
        found = wbauth.authenticate_session(host=host, source="kdbench", prompt=False, update_session=False)
    except wandb.Error as error:
        raise BadInput(f"W&B credentials for {host} are not usable: {error}") from error
    if found is None:
        raise BadInput(f"no W&B key for {host}: run `wandb login`, or set WANDB_API_KEY")


def connect(patience: int | None = None) -> Any:
    """A ``wandb.Api`` whose server answered within 3 s, rather than the client's 100; later calls have ``patience`` s.

    Raises:
        BadInput: no credentials.
        MachineFault: the server was not reached, or refused them.
    """
    import wandb

    require_key()
    host = silence().base_url  # starts the background process
    try:
        api = wandb.Api(timeout=PREFLIGHT_TIMEOUT)
        api.viewer  # noqa: B018  (the request is made by reading it)
        return api if patience is None else wandb.Api(timeout=patience)
    except wandb_faults(ValueError) as error:
        late = "in time" in str(error)
        why = f"no answer within {PREFLIGHT_TIMEOUT} s" if late else str(error)
        raise MachineFault(f"W&B at {host} cannot be used now ({why})") from error

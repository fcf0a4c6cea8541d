"""The wandb client of one process: its environment, its settings, its server."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

import psutil

from kdbench.errors import BadInput, KdbenchError, MachineFault

Notify = Callable[[str], None]
PREFLIGHT_TIMEOUT = 3
"""Seconds that a server has to answer before anything is sent to it."""
INIT_TIMEOUT = 20
"""Seconds that an online run may take to begin."""
FINISH_TIMEOUT = 30
"""Seconds that an online run may take to upload its rest; ``kdbench sync`` sends what is left."""
TEARDOWN_PATIENCE = 30
"""Seconds that the client's background process may take to end, its runs being finished; then it is killed."""
INTERRUPTED = 255
"""Exit code of an attempt that was stopped; W&B shows it as killed."""
_OURS = (
    *("WANDB_RUN_ID", "WANDB_SWEEP_ID", "WANDB_SWEEP_PARAM_PATH", "WANDB_RUN_GROUP", "WANDB_JOB_TYPE", "WANDB_NAME"),
    *("WANDB_NOTES", "WANDB_TAGS", "WANDB_RESUME", "WANDB_PROJECT", "WANDB_MODE", "WANDB_DISABLED"),
)
"""What names runs and how they are recorded: that was decided before, `wandb agent` sets some of them."""
_FORBIDDEN = set("/\\#?%:")


def say(text: str) -> None:
    """The default ``Notify``: one line on stderr."""
    print(text, file=sys.stderr, flush=True)


def check_name(kind: str, name: str | None) -> None:
    r"""Refuse what W&B would refuse only after an upload; None is not checked.

    Raises:
        BadInput: empty, longer than 128 characters, or with one of ``/ \ # ? % :``.
    """
    if name is not None and (not name or len(name) > 128 or _FORBIDDEN & set(name)):
        raise BadInput(f"W&B {kind} '{name}' is not valid: 1 to 128 characters, none of / \\ # ? % :")


def short(error: BaseException) -> str:
    """An error in one line."""
    return " ".join(str(error).split())[:300] or type(error).__name__


@contextmanager
def faults(what: str) -> Iterator[None]:
    """What the client raises becomes a MachineFault, ``what`` being what could not be done.

    Its faults share no base class, but where they come from; ``ValueError`` is one of its ways to say no.
    """
    try:
        yield
    except Exception as error:
        theirs = type(error).__module__.partition(".")[0] == "wandb" or isinstance(error, OSError | ValueError)
        if isinstance(error, KdbenchError) or not theirs:
            raise
        raise MachineFault(f"{what}: {short(error)}") from error


def set_environment(root: Path) -> None:
    """Keep the client's own files below ``root``/wandb, and let nothing that the user's shell holds name a run."""
    folder = (root / "wandb").resolve()
    os.environ |= {"WANDB_DATA_DIR": str(folder / ".data"), "WANDB_CACHE_DIR": str(folder / ".cache")}
    os.environ["WANDB_DIR"] = str(folder / ".cache" / "api")
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    for name in _OURS:
        os.environ.pop(name, None)


def run_settings(root: Path, mode: Literal["offline", "online"], **more: Any) -> Any:
    """``wandb.Settings`` for runs under ``root``/wandb: silent, no console capture or machine scan, quickly flushed.

    The client's own interval is 15 s: whatever is killed before its first flush would leave a file without a record.
    """
    import wandb

    return wandb.Settings(
        mode=mode, root_dir=str(root.resolve()), silent=True, console="off", symlink=False, reinit="create_new",
        save_code=False, disable_code=True, disable_git=True, init_timeout=INIT_TIMEOUT,
        finish_timeout=FINISH_TIMEOUT, finish_timeout_raises=True, x_disable_meta=True, x_disable_machine_info=True,
        x_disable_stats=True, x_save_requirements=False, x_transaction_log_flush_interval=1.0, **more,
    )  # fmt: skip


def silence() -> Any:
    """Load the client's process-wide settings with its own messages off; these settings."""
    import wandb

    return wandb.setup(wandb.Settings(silent=True)).settings


def require_key() -> None:
    """Look for credentials where wandb does (environment, netrc, settings); asks nobody, starts nothing.

    Raises:
        BadInput: none, or malformed.
    """
    import wandb
    from wandb.sdk import wandb_setup
    from wandb.sdk.lib import wbauth  # wandb.login would ask, in a terminal

    host = wandb_setup.singleton().settings.base_url
    try:
        found = wbauth.authenticate_session(host=host, source="kdbench", prompt=False, update_session=False)
    except wandb.Error as error:
        raise BadInput(f"W&B credentials for {host} are not usable: {error}") from error
    if found is None:
        raise BadInput(f"no W&B key for {host}: run `wandb login`, or set WANDB_API_KEY")


def connect(patience: int) -> Any:
    """A ``wandb.Api`` whose server answered within 3 s, rather than the client's 100; later calls have ``patience`` s.

    Raises:
        BadInput: no credentials.
        MachineFault: the server was not reached, or refused them.
    """
    import wandb

    require_key()
    with faults(f"W&B at {silence().base_url} cannot be used now"):
        wandb.Api(timeout=PREFLIGHT_TIMEOUT).viewer  # noqa: B018  (the request is made by reading it)
        return wandb.Api(timeout=patience)


@contextmanager
def client(root: Path, *, base_url: str | None = None, patience: int = 60) -> Iterator[Any]:
    """This process's use of the client: a ``wandb.Api``. In the end its background process and its traces are gone.

    Raises:
        KdbenchError: as ``connect``.
    """
    before = dict(os.environ)
    foreign = f"-{os.getpid()}-" in before.get("WANDB_SERVICE", "")  # a notebook's, with runs of its own
    if not foreign:
        os.environ.pop("WANDB_SERVICE", None)
        _teardown()  # settings that were read from another environment
    set_environment(root)
    if base_url is not None:
        os.environ["WANDB_BASE_URL"] = base_url
    try:
        yield connect(patience)
    finally:
        if not foreign:
            _teardown()
        os.environ.clear()
        os.environ.update(before)


def _teardown() -> None:
    """``wandb.teardown()`` where that ends; without a network the background process was seen to live on for ever."""
    import wandb

    def end() -> None:
        with suppress(SystemExit):
            wandb.teardown()

    ending = threading.Thread(target=end, daemon=True)
    ending.start()
    ending.join(TEARDOWN_PATIENCE)
    if ending.is_alive():
        for process in psutil.Process().children():
            with suppress(psutil.Error):
                if "wandb-core" in process.name():
                    process.kill()

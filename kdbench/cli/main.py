"""Entry point: the verbs, and how every error reaches the user."""

from __future__ import annotations

import errno
import gc
import os
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer
from pydantic import ValidationError

import kdbench
from kdbench.cli import doctor, explain, export, folders, latency, leaderboard, ls, sweep
from kdbench.cli.options import Command
from kdbench.errors import BadInput, KdbenchError, readable

INTERRUPTED = 130
TERMINATED = 143
_MACHINE = {
    errno.ENOSPC: "no space left on the disk",
    errno.EDQUOT: "the disk quota is used up",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
}

app = typer.Typer(
    name="kdbench",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def version() -> None:
    """Print kdbench's version (`kdbench doctor` prints everything's)."""
    sys.stdout.write(f"kdbench {kdbench.__version__}\n")


def _version(asked: bool) -> None:
    if asked:
        version()
        raise typer.Exit


@app.callback()
def about(
    show_version: Annotated[
        bool, typer.Option("--version", metavar="", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Which small student keeps how much of a teacher's accuracy, does distilling it beat training it on hard labels,
    and is the difference bigger than the noise?

    [bold]First run[/bold] (some minutes on two cores, no download):

        kdbench sweep --pair resnet50:mobilenetv3
    """


def bench(ctx: typer.Context) -> None:
    """Measure trials and sweeps beside other distillation loops: `python experiments/bench/run.py` of a clone.

    Examples:
        kdbench bench --help

        kdbench bench --pair resnet50:resnet18 --rounds 3 --no-compile
    """
    program = Path(kdbench.__file__).parent.parent / "experiments" / "bench" / "run.py"
    if not program.is_file():
        raise BadInput("the benchmark is not part of an installed package: run experiments/bench/run.py of a clone")
    code = subprocess.run([sys.executable, str(program), *ctx.args], check=False).returncode
    if code:
        raise typer.Exit(code)


verb: Any
for verb in (sweep.sweep, folders.status, folders.report, sweep.reproduce, folders.record):
    app.command(cls=Command)(verb)
leaderboard.register(app)
for verb in (export.export, latency.latency, latency.pick):
    app.command(cls=Command)(verb)
anything: dict[str, Any] = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
app.command(cls=Command, context_settings=anything)(bench)
app.add_typer(explain.app, name="explain")
for verb in (ls.ls, doctor.doctor, folders.sync, version):
    app.command(cls=Command)(verb)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code.

    0 done, 1 a fault of the machine, 2 bad input, 130 Ctrl-C, 143 SIGTERM.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _terminated)
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # a shell's background jobs ignore it
            signal.signal(signal.SIGINT, _interrupted)
    try:
        code = app(arguments, prog_name="kdbench", standalone_mode=False, obj=arguments)
        sys.stdout.flush()
    except KdbenchError as error:
        return _fail(str(error), error.exit_code)
    except typer.TyperException as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            return error.exit_code
        return _fail(_usage(error), error.exit_code)
    except ValidationError as error:
        return _fail(readable(error), 2)
    except BrokenPipeError:
        return _quiet_pipe()
    except _Terminated:
        code = TERMINATED
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except OSError as error:
        return _machine(error)
    except Exception as error:  # noqa: BLE001  the last line of defence: a fault of ours, said as such
        return _internal(error)
    if code in (INTERRUPTED, TERMINATED):
        for number in (signal.SIGINT, signal.SIGTERM):  # one more would break what Python does at its end
            signal.signal(number, signal.SIG_IGN)
        sys.stderr.write("stopped; the same command goes on where it stopped\n")
    return code if isinstance(code, int) else 0


class _Terminated(BaseException):
    """SIGTERM arrived: runs are given back and records closed on the way out, as after Ctrl-C."""


def _interrupted(number: int, frame: FrameType | None) -> None:
    """Ctrl-C: what follows may take seconds, so it is announced."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.write(2, b"stopping: closing the records of the runs under way ...\n")
    raise KeyboardInterrupt


def _terminated(number: int, frame: FrameType | None) -> None:
    raise _Terminated


def entry() -> None:
    """The ``kdbench`` console script."""
    gc.set_threshold(100_000)  # imports alone make hundreds of thousands of objects that stay
    code = main()
    gc.freeze()  # else the last collections take seconds over torch's and timm's
    sys.exit(code)


def _fail(message: str, code: int) -> int:
    """``error: message`` as one line on stderr."""
    sys.stderr.write(f"error: {' '.join(message.split())}\n")
    if os.environ.get("KDBENCH_DEBUG") == "1":
        traceback.print_exc()
    return code


def _usage(error: typer.TyperException) -> str:
    """A mistake in the command line itself, with where to read how it should be."""
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "kdbench"
    return f"{error.format_message().rstrip('.')} (see `{path} --help`)"


def _machine(error: OSError) -> int:
    """What the operating system refused, with the path."""
    if error.errno == errno.EPIPE:
        return _quiet_pipe()
    reason = _MACHINE.get(error.errno or 0, error.strerror or str(error))
    where = f"{error.filename}: " if error.filename else ""
    return _fail(f"{where}{reason}", 1)


def _quiet_pipe() -> int:
    """Whoever read our output has gone (``kdbench ls | head``): say nothing, at interpreter exit neither."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 1


def _internal(error: Exception) -> int:
    """Anything unforeseen is a fault of kdbench: one line, or the traceback on demand."""
    if type(error).__module__.partition(".")[0] in ("sqlalchemy", "optuna"):
        why = next(iter(str(error).splitlines()), type(error).__name__)
        why = f"no space left on the disk ({why})" if "disk is full" in f"{error} {error.__cause__}" else why
        return _fail(f"the storage failed: {why}", 1)
    kind = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return _fail(f"internal error ({kind}); please report it with the output of KDBENCH_DEBUG=1", 1)

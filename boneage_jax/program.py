"""Ends every command with an exit status and, if it fails or is stopped, one sentence."""

import atexit
import contextlib
import errno
import faulthandler
import logging
import os
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any, NoReturn

from boneage_jax.errors import BoneAgeError
from boneage_jax.terminal import printable

STOPPING = (signal.SIGTERM, signal.SIGINT)
REFUSED = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.EMFILE, errno.ENFILE),
    *(errno.ENAMETOOLONG, errno.ELOOP),
)
"""System errors that are not the program's fault."""

_AGAIN = 0.05  # seconds


class Signalled(KeyboardInterrupt):
    """SIGTERM or SIGINT (Ctrl-C) asks the program to end."""

    def __init__(self, number: int):
        super().__init__(number)
        self.number = number


def exit_status(number: int) -> int:
    """The status that shells report for a program ended by this signal: 130 for SIGINT, 143 for SIGTERM."""
    return 128 + number


def leave(main: Callable[[], int]) -> NoReturn:
    """Ends the process with the status that `main` returns; called in the last line of every program.

    From then on, SIGINT and SIGTERM end the process at once. By default, Python would raise KeyboardInterrupt while it
    waits for its threads, give up waiting, and end them in the middle of native code (jax, array_record, OpenBLAS),
    which aborts the process or never returns. A crash in native code leaves a traceback on stderr.

    Python has no stream for an output that the caller closed (`2>&-`): messages would go to stdout instead. They are
    discarded.

    Python's threads are joined and `atexit` handlers run, but the interpreter is not finalised: native threads of XLA
    or TensorStore that still run would access freed objects, and a successful run would end with a segmentation fault
    (as in https://github.com/google/tensorstore/issues/275).
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 (stays open until the process ends)
    if not faulthandler.is_enabled():
        faulthandler.enable()
    ending = _Ending()
    atexit.register(ending)  # handlers run in reverse order, so this one runs last
    try:
        status = ending.status = main()
    except SystemExit as asked:
        ending.status = asked.code if isinstance(asked.code, int) else int(asked.code is not None)
        raise
    finally:
        if sys.platform != "win32":
            signal.signal(signal.SIGALRM, signal.SIG_IGN)  # `_raise_again` may have set the alarm
        for each in STOPPING:
            signal.signal(each, signal.SIG_DFL)
    sys.exit(status)


class _Ending:
    """An `atexit` handler that ends the process at once with `status`, which is 1 until `main` has ended."""

    status = 1

    def __call__(self) -> None:
        logging.shutdown()  # its own atexit handler was registered earlier, so it would run later
        for stream in (sys.stdout, sys.stderr):
            try:
                if stream is not None:
                    stream.flush()
            except (OSError, ValueError):
                self.status = self.status or 1
        os._exit(self.status)


def run(main: Callable[[], int]) -> int:
    """Runs the body of a command and returns the exit status for `leave`.

    A `BoneAgeError` is printed on stderr. SIGINT and SIGTERM raise `Signalled` in the main thread, which gives 130 and
    143 after one sentence; a second signal ends the program at once. An output that is closed (`| head`) or full, and
    system errors (disk full, no permission), give 1. Other exceptions are bugs and propagate.
    """
    before = {number: signal.signal(number, _stop) for number in STOPPING}
    hook, sys.unraisablehook = sys.unraisablehook, _raise_again
    try:
        status = main()
        sys.stdout.flush()
        return status
    except BoneAgeError as error:
        return _fail(str(error), error.exit_status)
    except KeyboardInterrupt as stop:
        number = stop.number if isinstance(stop, Signalled) else signal.SIGINT
        return _fail(f"stopped by {signal.Signals(number).name}", exit_status(number))
    except BrokenPipeError:
        _discard_output()
        return 1
    except OSError as error:
        if error.errno not in REFUSED:
            raise
        _discard_output()
        return _fail(f"cannot continue: {error.strerror} ({error.filename or 'while writing output'})", 1)
    finally:
        sys.unraisablehook = hook
        for number, handler in before.items():
            if signal.getsignal(number) is _stop:  # after a signal, a second one ends the program
                signal.signal(number, handler)


def _stop(number: int, _: FrameType | None) -> None:
    for each in STOPPING:
        signal.signal(each, signal.SIG_DFL)
    raise Signalled(number)


def _raise_again(unraisable: Any) -> None:
    """Raises a `Signalled` again shortly afterwards if it was raised where Python discards exceptions.

    Python does so in the garbage collector and in destructors. jax calls Python from there, so this is often the first
    place where Python notices a signal that arrived during a long compilation.
    """
    stop = unraisable.exc_value
    if not isinstance(stop, Signalled):
        sys.__unraisablehook__(unraisable)
        return

    def again(*_: object) -> None:
        raise Signalled(stop.number)

    signal.signal(signal.SIGALRM, again)
    signal.setitimer(signal.ITIMER_REAL, _AGAIN)


def _fail(sentence: str, status: int) -> int:
    with contextlib.suppress(OSError, BrokenPipeError):
        print(f"error: {printable(sentence)}", file=sys.stderr, flush=True)
    return status


def _discard_output() -> None:
    """Discards the rest of stdout's buffer if it cannot be written: the interpreter would fail again at exit."""
    with contextlib.suppress(OSError):
        sys.stdout.flush()
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

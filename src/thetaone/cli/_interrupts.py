"""Ends an interrupted command in one line, whichever signal comes and however often."""

import contextlib
import shlex
import signal
import sys
import threading
from collections.abc import Iterator

from thetaone.errors import Interrupted

SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")


def command_line(arguments: list[str] | None = None) -> str:
    """The command as it was typed, without passwords."""
    from thetaone.records import hide_passwords

    return hide_passwords(
        shlex.join(["thetaone", *(sys.argv[1:] if arguments is None else arguments)])
    )


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Raise ``Interrupted`` at the first signal inside, and let later ones pass.

    Raises:
        Interrupted: A signal came.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    signals = [getattr(signal, name) for name in SIGNALS if hasattr(signal, name)]
    before = {number: signal.getsignal(number) for number in signals}

    def end(number: int, frame: object) -> None:
        for one in signals:
            signal.signal(one, signal.SIG_IGN)
        raise Interrupted(signal.Signals(number).name)

    for number in signals:
        if before[number] is not signal.SIG_IGN:  # nohup ignores SIGHUP on purpose
            signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def told(stop: BaseException, arguments: list[str]) -> str:
    """What is kept after an interruption, and the command that goes on."""
    command = command_line(arguments)
    if kept := "; ".join(getattr(stop, "__notes__", [])):
        return f"interrupted; {kept}. Go on with: {command}"
    return f"interrupted; nothing was finished yet. Start again with: {command}"

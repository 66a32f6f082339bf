"""``thetaone``: gathers the commands and turns typed errors into one line and exit code 2."""

import sys
import traceback

import typer

from thetaone.cli._audit import audit
from thetaone.cli._check import check
from thetaone.cli._doctor import doctor
from thetaone.cli._gradients import gradients
from thetaone.cli._init import init
from thetaone.cli._interrupts import interruptible, told
from thetaone.cli._laws import laws
from thetaone.cli._plan import plan
from thetaone.cli._policy import policy
from thetaone.cli._report import redraw
from thetaone.cli._sweep import sweep
from thetaone.cli._train import train
from thetaone.cli._transfer import transfer
from thetaone.errors import STOPS, ThetaOneError, first_line, raised_by_user

UNEXPECTED = 70  # as sysexits.h has it: the program's own fault

app = typer.Typer(
    name="thetaone",
    help="Tune small. Train large. In the memory you have.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


@app.callback(invoke_without_command=True)
def _root(
    debug: bool = typer.Option(False, "--debug", help="Show the traceback of an error."),
    version: bool = typer.Option(False, "--version", help="Print the version and exit."),
) -> None:
    if version:
        from thetaone.version import __version__

        print(__version__)
        raise typer.Exit


app.command()(audit)
app.command()(check)
app.command()(doctor)
app.command()(gradients)
app.command()(init)
app.command()(laws)
app.command()(plan)
app.command()(policy)
app.command("report")(redraw)
app.command()(sweep)
app.command()(train)
app.command()(transfer)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit.

    Exit code 0 on success, 1 when a verdict failed, 2 on bad input or where the user's code raises,
    70 on an error of the program's own, 130 when interrupted; one line, no traceback unless
    ``--debug`` is given anywhere on the line.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in arguments
    try:
        with interruptible():
            app([a for a in arguments if a != "--debug"])
    except ThetaOneError as error:
        if debug:
            traceback.print_exc()
        else:
            print(f"thetaone: {' '.join(str(error).split())}", file=sys.stderr)
        raise SystemExit(2) from None
    except STOPS as stop:
        print(f"thetaone: {told(stop, arguments)}", file=sys.stderr)
        raise SystemExit(130) from None
    except Exception as error:
        if debug:
            raise
        if place := raised_by_user(error):
            words = f"{place}: {type(error).__name__}: {first_line(error)}"
            print(f"thetaone: {words}", file=sys.stderr)
            raise SystemExit(2) from None
        words = f"unexpected {type(error).__name__}: {first_line(error)}; --debug shows where"
        print(f"thetaone: {words}", file=sys.stderr)
        raise SystemExit(UNEXPECTED) from None


if __name__ == "__main__":
    main()

"""The command line; heavy imports wait inside its commands, so that ``--help`` is quick.

Exit codes: 0 done, 1 an error, told in one line, 2 wrong usage, 3 a check found a problem or rows of a
--table could not be answered, 130 interrupted, 143 terminated.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from causalgen.cli.asking import counterfactual, effect, sample
from causalgen.cli.data import data_app
from causalgen.cli.judging import check, evaluate, tune
from causalgen.cli.show import demo, gallery, page, schema, show
from causalgen.cli.training import distil, evaluators, fit
from causalgen.cli.wording import in_command_words, plain_warnings
from graphs.errors import CausalgenError
from graphs.text import printable

__all__ = ["Commands", "app", "main"]


class _Terminated(KeyboardInterrupt):
    """SIGTERM, which may come from a scheduler or a container that stops."""


class Commands(TyperGroup):
    """Commands that may be interrupted; what an interrupt was raised with is told too."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command."""
        with _terminable():
            try:
                return super().invoke(ctx)
            except KeyboardInterrupt as interrupt:
                terminated = isinstance(interrupt, _Terminated)
                typer.echo(
                    " ".join(["Terminated." if terminated else "Interrupted.", *interrupt.args]), err=True
                )
                raise typer.Exit(128 + (signal.SIGTERM if terminated else signal.SIGINT)) from interrupt


@contextmanager
def _terminable() -> Iterator[None]:
    """Raise on SIGTERM, unless somebody else heeds or ignores it."""
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _terminate(*_: object) -> None:
    raise _Terminated


app = typer.Typer(
    cls=Commands,
    help="Structural causal models whose nodes may be images.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """Run the command line; an error of ours, or of the system, is one line on stderr."""
    # Its encoding may lack a character, as on a Windows console: that is spelt out.
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    # Wherever it stands; the callback below only lists it.
    debug = "--debug" in sys.argv[1:]
    try:
        with plain_warnings():
            app([argument for argument in sys.argv[1:] if argument != "--debug"], prog_name="causalgen")
    except (CausalgenError, OSError) as error:
        if debug:
            raise
        typer.echo(f"error: {printable(in_command_words(str(error)))}", err=True)
        sys.exit(1)


def _tell_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(f"causalgen {version('causalgen')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_tell_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show where in the code an error comes from; may stand anywhere.")
    ] = False,
) -> None:
    """Structural causal models whose nodes may be images."""


@app.command(
    "judges", hidden=True, context_settings={"allow_extra_args": True, "ignore_unknown_options": True}
)
def _judges() -> None:
    """The former name of ``evaluators``."""
    raise CausalgenError("causalgen judges is now causalgen evaluators.")


_SHOWING, _FITTING = (demo, gallery, schema, show), (fit, distil, evaluators)
_ASKING, _JUDGING = (tune, sample, counterfactual, effect), (check, evaluate)
for each in (*_SHOWING, *_FITTING, *_ASKING, *_JUDGING):
    app.command()(each)
app.command("app")(page)
app.add_typer(data_app, name="data")

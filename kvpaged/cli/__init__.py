"""The command line: a command in each file. Here they are put together, and what is wrong is told in one line."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.metadata import version
from typing import Annotated

import typer

from kvpaged.cli.compare import compare
from kvpaged.cli.exercise import exercise
from kvpaged.cli.explain import explain
from kvpaged.cli.generate import generate
from kvpaged.cli.plan import plan
from kvpaged.cli.replay import replay
from kvpaged.cli.serve_sim import serve_sim
from kvpaged.cli.workload import workload
from kvpaged.page_pool import OutOfPages

app = typer.Typer(
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help, which any width can show
    help=(
        "Paged KV caching, to try out on a small model that recalls facts from its context.\n\n"
        "K and V of each token live in pages of a fixed number of slots. Begin with 'compare', which shows what that "
        "saves; then watch pages come and go in 'generate', and many requests share them in 'serve-sim'. Both can "
        "write down what happened, for 'replay' to show step by step. 'workload' writes requests down for another "
        "server, 'explain' says why a prefix cache finds what it finds in the requests of a trace, and 'plan' how many "
        "tokens of a model fit into memory. 'exercise' judges what a reader of the book has written."
    ),
)
app.command(short_help="One prompt, four ways to keep K and V: the same tokens in less memory.")(compare)
app.command(short_help="Continue prompts, all at once, from one pool of pages.")(generate)
app.command(short_help="Serve requests as they arrive; how long they wait, what memory they take.")(serve_sim)
app.command(short_help="Show step by step, in a browser, what happened in a run.")(replay)
app.command(short_help="Write requests down, to measure another server with them.")(workload)
app.command(short_help="Say why a prefix cache finds what it finds in a trace.")(explain)
app.command(short_help="Work out what K and V of a token cost, and how many fit.")(plan)
app.command(short_help="Ask and judge the book's exercises.")(exercise)

# typer keeps the base of its usage errors to itself.
UsageError: type[Exception] = next(each for each in typer.BadParameter.__mro__ if each.__name__ == "ClickException")


def _print_version(asked: bool) -> None:
    if asked:
        print(f"kvpaged {version('kvpaged')}")
        raise typer.Exit


@app.callback()
def every_command(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version, and exit.")
    ] = False,
) -> None:
    """What all commands have in common."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command; without one, say which there are. Wrong input is told in one line, with exit code 2."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        code = app(arguments or ["--help"], standalone_mode=False, prog_name="kvpaged")
    except UsageError as error:
        _refuse(error.format_message())  # type: ignore[attr-defined]
    except UnicodeDecodeError as error:
        _refuse(f"byte {error.object[error.start]:#04x} at offset {error.start} is not UTF-8: save the file as UTF-8")
    except OSError as error:
        _refuse(f"{error.filename}: {error.strerror}" if error.filename and error.strerror else str(error))
    except MemoryError as error:
        what = str(error).partition(" for an array")[0].partition(": ask for fewer")[0] or "Not enough memory"
        _refuse(f"{what}: lower --num-pages or --page-size")
    except (ValueError, OverflowError, OutOfPages) as error:
        _refuse(str(error))
    sys.exit(code or 0)  # 130 after an interrupt: typer sees to that


def _refuse(message: str) -> None:
    print("error: " + " ".join(message.split()), file=sys.stderr)
    sys.exit(2)

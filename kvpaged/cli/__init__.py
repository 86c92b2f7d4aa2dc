"""The command line: `python -m kvpaged compare | explain | generate | serve-sim | workload`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import typer

from kvpaged.cli.compare import compare
from kvpaged.cli.explain import explain
from kvpaged.cli.generate import generate
from kvpaged.cli.serve_sim import serve_sim
from kvpaged.cli.workload import workload
from kvpaged.page_pool import OutOfPages

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help=(
        "Paged KV caching, to try out on a small model that recalls facts from its context.\n\n"
        "K and V of each token live in pages of a fixed number of slots. Begin with 'compare', which shows what that "
        "saves; then watch pages come and go in 'generate', and many requests share them in 'serve-sim'. "
        "'workload' writes such requests down for another server, and 'explain' says why a prefix cache finds what it "
        "finds in the requests of a trace."
    ),
)
app.command()(compare)
app.command()(generate)
app.command("serve-sim")(serve_sim)
app.command()(workload)
app.command()(explain)

# typer keeps the base of its usage errors to itself.
UsageError: type[Exception] = next(each for each in typer.BadParameter.__mro__ if each.__name__ == "ClickException")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command. What is wrong with its input is told in one line, with exit code 2."""
    try:
        code = app(arguments, standalone_mode=False, prog_name="python -m kvpaged")
    except UsageError as error:
        _refuse(error.format_message())  # type: ignore[attr-defined]
    except UnicodeDecodeError as error:
        _refuse(f"byte {error.object[error.start]:#04x} at offset {error.start} is not UTF-8: save the file as UTF-8")
    except OSError as error:
        _refuse(f"{error.filename}: {error.strerror}" if error.strerror else str(error))
    except (ValueError, OutOfPages) as error:
        _refuse(str(error))
    sys.exit(code or 0)  # 130 after an interrupt: typer sees to that


def _refuse(message: str) -> None:
    print("error: " + " ".join(message.split()), file=sys.stderr)
    sys.exit(2)

"""Run the book's notebooks in place and store their outputs: `python tools/refresh.py`.

Before that, put `kvpaged/mini.py` together from the cells that make it (see `small_engine.py`).

Name some notebooks to refresh only those. `--check` runs nothing and changes nothing: it says which notebooks are
not stored in normal form (see `notebook_form.py`). Whether the stored outputs are still true is for `pytest` to say.
"""

import asyncio
import os
import sys
from pathlib import Path
from typing import Annotated

import typer
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from tqdm import tqdm

import small_engine
from notebook_form import normalise, read, text, trim_traceback

CHAPTERS = Path(__file__).parents[1] / "chapters"
SECONDS_PER_CELL = 300


def refresh(
    notebooks: Annotated[list[Path] | None, typer.Argument(help="Notebooks to run; all chapters if none.")] = None,
    check: Annotated[bool, typer.Option("--check", help="Only report notebooks not in normal form.")] = False,
    jobs: Annotated[int, typer.Option(min=1, help="Notebooks run at the same time.")] = 2,
) -> None:
    """Run notebooks in place, and store their outputs in normal form."""
    paths = notebooks or sorted(CHAPTERS.glob("*.ipynb"))
    if not check:
        small_engine.FILE.write_text(small_engine.small_engine(), encoding="utf-8")  # the chapters import it
    problems = _check(paths) if check else asyncio.run(_run_all(paths, jobs))
    for problem in problems:
        print(problem, file=sys.stderr)
    raise typer.Exit(code=1 if problems else 0)


def _check(paths: list[Path]) -> list[str]:
    return [
        f"{path} is not in normal form: run python tools/refresh.py {path}"
        for path in paths
        if path.read_text(encoding="utf-8") != text(normalise(read(path)))
    ]


async def _run_all(paths: list[Path], jobs: int) -> list[str]:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # as in the tests and the build: same sums, same last digit
    os.environ["KVPAGED_PROGRESS"] = ""  # solutions that run here are not what a reader has solved
    slots = asyncio.Semaphore(jobs)
    num_cells = sum(cell.cell_type == "code" for path in paths for cell in read(path).cells)
    with tqdm(total=num_cells, unit="cell") as progress:
        problems = await asyncio.gather(*(_run(path, slots, progress) for path in paths))
    return [problem for problem in problems if problem]


async def _run(path: Path, slots: asyncio.Semaphore, progress: "tqdm[None]") -> str | None:
    """Run one notebook and store it; what went wrong, if anything did, and then the file is as it was."""
    async with slots:
        notebook = read(path)
        client = NotebookClient(
            notebook,
            kernel_name="python3",
            timeout=SECONDS_PER_CELL,
            record_timing=False,
            coalesce_streams=True,
            extra_arguments=["--log-level=ERROR"],
            resources={"metadata": {"path": str(path.parent)}},
            on_cell_executed=lambda **_: progress.update(),
        )
        try:
            await client.async_execute()
        except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
            return f"{path} failed and was left as it was:\n{trim_traceback(str(error))}"
    notebook = normalise(notebook)
    for cell in notebook.cells:
        tagged = "raises-exception" in cell.metadata.get("tags", [])
        if tagged and not any(output.output_type == "error" for output in cell.outputs):
            return f"{path} was left as it was: a cell tagged raises-exception raises none:\n{cell.source}"
    if text(notebook) != path.read_text(encoding="utf-8"):
        path.write_text(text(notebook), encoding="utf-8")
        progress.write(f"stored {path}")
    return None


if __name__ == "__main__":
    typer.run(refresh)

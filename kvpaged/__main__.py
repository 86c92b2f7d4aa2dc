"""The command line's door: `python -m kvpaged`, or `kvpaged`. It says what to install, where something is missing."""

import signal
import sys
from types import FrameType

_NEEDED = ("typer", "rich", "torch", "numpy", "safetensors", "tokenizers", "tqdm")  # all in the extra "cli"


def main() -> None:
    """Run the command line. What is interrupted ends with the shell's code for that, whatever came of the interrupt."""
    interrupted = False

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal interrupted
        interrupted = True
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        from kvpaged.cli import main as run

        run()
    except BaseException as error:
        if interrupted:  # an import that is interrupted may fail by any error
            sys.exit(130)
        name = (error.name or "").partition(".")[0] if isinstance(error, ModuleNotFoundError) else None
        if name not in _NEEDED:
            raise
        print(f"error: {name} is not installed: pip install 'kvpaged[cli]'", file=sys.stderr)
        sys.exit(2)
    finally:
        signal.signal(signal.SIGINT, before)


if __name__ == "__main__":
    main()

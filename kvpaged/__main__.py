"""The command line's door: `python -m kvpaged`, or `kvpaged`. It says what to install, where something is missing."""

import sys

_NEEDED = ("typer", "rich", "torch", "numpy", "safetensors", "tokenizers", "tqdm")  # all in the extra "cli"


def main() -> None:
    """Run the command line."""
    try:
        from kvpaged.cli import main as run

        run()
    except ModuleNotFoundError as error:
        name = (error.name or "").partition(".")[0]
        if name not in _NEEDED:
            raise
        print(f"error: {name} is not installed: pip install 'kvpaged[cli]'", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()

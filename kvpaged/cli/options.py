"""Options that several commands have."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from importlib.util import find_spec
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kvpaged.events import EventLog

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from kvpaged.model import LanguageModel


def between(least: float, most: float = inf) -> Callable[[float], float]:
    """What refuses an option's number outside these bounds, before anything is loaded."""

    def checked(value: float) -> float:
        if not least <= value <= most:
            raise typer.BadParameter(f"{value}; it must be at least {least}" + f" and at most {most:,}" * (most < inf))
        return value

    return checked


MOST_REQUESTS = 1_000_000  # of a workload, which is made before the first of them is sent
Model = Annotated[
    str,
    typer.Option(
        help="'recall', or a folder with a checkpoint in Hugging Face's layout. Those that are not of the plain Llama "
        "architecture are run by the transformers library, unmodified, on our pages."
    ),
]
Hub = Annotated[
    bool,
    typer.Option("--hub", help="Fetch the model of this name from the Hugging Face hub, if there is no such folder."),
]
Transformers = Annotated[
    bool, typer.Option("--transformers", help="Let the transformers library run the model, even a plain Llama.")
]
NumPages = Annotated[
    int, typer.Option(callback=between(1), help="Pages in the pool. Few of them make requests wait, or be preempted.")
]
PageSize = Annotated[int, typer.Option(callback=between(1), help="Slots in a page: tokens whose K and V it holds.")]
PrefixCaching = Annotated[
    bool, typer.Option(help="Keep computed pages for later prompts that begin with the same tokens.")
]
Speculate = Annotated[
    int,
    typer.Option(
        callback=between(0), help="Tokens to guess in each step from what the context says elsewhere; 0 guesses none."
    ),
]
Events = Annotated[
    Path | None, typer.Option(help="A file to write down what happens to the pages, for 'kvpaged replay'.")
]
Json = Annotated[bool, typer.Option("--json", help="Print the results as JSON, and nothing else.")]


def say_loading() -> None:
    """Tell a person what they wait for: importing PyTorch takes seconds. Call it before the first such import."""
    if sys.stderr.isatty():
        print("loading PyTorch and the model ...", file=sys.stderr, flush=True)


def note(text: str) -> None:
    """Say what a person should know of their results, beside them."""
    print(f"note: {text}", file=sys.stderr, flush=True)


def note_unknown_words(tokenizer: Tokenizer | None, texts: Iterable[str]) -> None:
    """Say which words of these texts the model does not know."""
    unknown = getattr(tokenizer.model, "unk_token", None) if tokenizer is not None else None
    if tokenizer is None or unknown is None:
        return
    words: dict[str, None] = {}
    for text in texts:
        encoding = tokenizer.encode(text)
        places = (place for token, place in zip(encoding.tokens, encoding.offsets, strict=True) if token == unknown)
        words |= dict.fromkeys(text[start:stop].strip() for start, stop in places)
    words.pop("", None)  # what is between words
    if words:
        some = ", ".join(map(repr, list(words)[:5])) + (f" and {len(words) - 5} more" if len(words) > 5 else "")
        note(f"the model does not know {some}; it reads {unknown} instead")


def open_log(path: Path | None) -> EventLog | None:
    """A log to be written to this file, which is made at once: a wrong path is told before the work, not after it."""
    if path is None:
        return None
    path.write_bytes(b"")
    return EventLog()


def save_log(log: EventLog | None, path: Path | None, tokenizer: Tokenizer | None) -> None:
    """Write a log, with the words of its tokens, if there is one to write."""
    if log is None or path is None:
        return
    tokens = {token for event in log for token in event.tokens}
    if tokenizer is not None:
        log.about["words"] = {
            str(token): tokenizer.decode([token], skip_special_tokens=False) for token in sorted(tokens)
        }
    log.save(path)


def open_model(name: str, hub: bool = False, transformers: bool = False) -> LanguageModel:
    """Load a model, and run it once: what is compiled or loaded at first use should not be measured.

    Our own decoder runs what it can, transformers the rest. One thread for ours: models that are worth running there
    are too small to share between two.
    """
    import torch

    from kvpaged.cache import PagedKVCache
    from kvpaged.model.compute import generate_paged, open_storage
    from kvpaged.model.loading import SHIPPED, load_model

    folder = SHIPPED.get(name, Path(name))
    model: LanguageModel
    if not folder.is_dir() and not hub:
        raise FileNotFoundError(
            f"no folder {name}: give 'recall' or a checkpoint folder on this disk, or say --hub to fetch a model of "
            "this name from the Hugging Face hub"
        )
    if folder.is_dir() and not transformers and _runs_on_our_decoder(folder):
        torch.set_num_threads(1)
        model = load_model(folder)
    elif find_spec("transformers") is None:
        raise ValueError(f"{name} needs the transformers library: pip install 'kvpaged[huggingface]'")
    else:
        from kvpaged.adapters.huggingface import load

        model = load(folder, hub=hub)
    generate_paged(model, PagedKVCache(1, 16, storage=open_storage(model, 1, 16)), [0], 2)
    return model


def _runs_on_our_decoder(folder: Path) -> bool:
    from kvpaged.model import ModelConfig

    if not (folder / "config.json").is_file():
        return True  # it says best what is missing
    try:
        ModelConfig.from_json(folder / "config.json")
    except ValueError:
        return False
    return True

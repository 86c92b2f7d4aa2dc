"""Options that several commands have."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from kvpaged.model import LanguageModel

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
NumPages = Annotated[int, typer.Option(help="Pages in the pool. Few of them make requests wait, or be preempted.")]
PageSize = Annotated[int, typer.Option(help="Slots in a page: tokens whose K and V it holds.")]
PrefixCaching = Annotated[
    bool, typer.Option(help="Keep computed pages for later prompts that begin with the same tokens.")
]
Speculate = Annotated[
    int, typer.Option(help="Tokens to guess in each step from what the context says elsewhere; 0 guesses none.")
]
Json = Annotated[bool, typer.Option("--json", help="Print the results as JSON, and nothing else.")]


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

"""Options that several commands have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from kvpaged.model import Decoder

Model = Annotated[str, typer.Option(help="'recall', or a folder with a Llama checkpoint in Hugging Face's layout.")]
NumPages = Annotated[int, typer.Option(help="Pages in the pool. Few of them make requests wait, or be preempted.")]
PageSize = Annotated[int, typer.Option(help="Slots in a page: tokens whose K and V it holds.")]
PrefixCaching = Annotated[
    bool, typer.Option(help="Keep computed pages for later prompts that begin with the same tokens.")
]
Speculate = Annotated[
    int, typer.Option(help="Tokens to guess in each step from what the context says elsewhere; 0 guesses none.")
]
Json = Annotated[bool, typer.Option("--json", help="Print the results as JSON, and nothing else.")]


def open_model(name: str) -> Decoder:
    """Load a model, and run it once: what is compiled or loaded at first use should not be measured.

    One thread: models that are worth running here are too small to share between two.
    """
    import torch

    from kvpaged.cache import PagedKVCache
    from kvpaged.model import load_model
    from kvpaged.model.compute import generate_paged, open_storage

    torch.set_num_threads(1)
    model = load_model(name)
    generate_paged(model, PagedKVCache(1, 16, storage=open_storage(model, 1, 16)), [0], 2)
    return model

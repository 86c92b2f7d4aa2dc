"""Models from a folder on disk; from the Hugging Face hub only when that is asked for."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from transformers import AutoModelForCausalLM
from transformers.utils import logging

from kvpaged.adapters.huggingface.model import HuggingFaceModel
from kvpaged.wording import count_of

_WANTED = ("*.json", "*.safetensors")
_LEFT = ("*/*", "*.bin.index.json")  # other formats of the same weights


def load(name_or_path: str | Path, *, hub: bool = False, dtype: torch.dtype = torch.float32) -> HuggingFaceModel:
    """The model in a checkpoint folder of any architecture that transformers knows and pages can serve.

    hub: if there is no such folder, fetch the model of that name from the Hugging Face hub, once; without it, nothing
    is ever fetched. Raises FileNotFoundError for a folder that is not there, ConnectionError where the hub cannot be
    reached or has no such model, ValueError for a model that cannot be loaded or served.
    """
    if not sys.stderr.isatty():
        logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    folder = Path(name_or_path)
    if not folder.is_dir():
        if not hub:
            raise FileNotFoundError(f"no folder {folder}: give a checkpoint folder on this disk, or allow the hub")
        folder = _fetch(str(name_or_path))
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype, local_files_only=True, output_loading_info=True
        )
    except Exception as error:  # a damaged file, another shape, a setting of 0: each library says it in its own way
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"transformers cannot load {folder}: {reason}") from None
    model, told = loaded
    if missing := sorted(told["missing_keys"]):  # transformers would make up their numbers
        raise ValueError(f"{folder} lacks {count_of(len(missing), 'weight')}, {missing[0]} for one: fetch it again")
    return HuggingFaceModel(model, folder)


def _fetch(name: str) -> Path:
    """The folder in which the hub's own library keeps a model, with progress bars where somebody watches."""
    try:
        return Path(snapshot_download(name, allow_patterns=list(_WANTED), ignore_patterns=list(_LEFT)))
    except ValueError as error:
        raise ValueError(f"{name!r} is no name on the hub: {error}") from None
    except OSError as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ConnectionError(
            f"cannot fetch {name!r} from the hub, and it was not fetched before ({reason}): check the name and the "
            "network, or give a folder"
        ) from None

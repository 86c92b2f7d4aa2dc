"""A name for the weights that computed a page, and for its kind: a page is of use to nobody else."""

from hashlib import blake2b
from typing import Any

import torch

from kvpaged.model.language_model import LanguageModel
from kvpaged.page import PageStorage


def fingerprint(model: LanguageModel, storage: PageStorage) -> bytes:
    """32 hexadecimal digits over config, kind of page, and every weight with its name, shape and dtype."""
    digest = blake2b(f"{model.config!r} {storage.kind}".encode(), digest_size=16)
    module: Any = getattr(model, "model", model)
    for name, weight in module.state_dict().items():
        digest.update(f"{name} {tuple(weight.shape)} {weight.dtype} ".encode())
        digest.update(weight.contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest().encode()

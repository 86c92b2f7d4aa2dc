"""A name for the weights that computed a page: pages are of use to nobody else."""

from hashlib import blake2b
from typing import Any

import torch

from kvpaged.model.language_model import LanguageModel


def fingerprint(model: LanguageModel) -> bytes:
    """32 hexadecimal digits over the config, and over every weight with its name, shape and dtype."""
    digest = blake2b(repr(model.config).encode(), digest_size=16)
    module: Any = getattr(model, "model", model)
    for name, weight in module.state_dict().items():
        digest.update(f"{name} {tuple(weight.shape)} {weight.dtype} ".encode())
        digest.update(weight.contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest().encode()

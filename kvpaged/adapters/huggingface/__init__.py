"""Hugging Face transformers on pages, through its official extension points: nothing in the library changes.

`load` opens a checkpoint; `HuggingFaceModel` wraps a model for the engine; `PagedCache` goes into
`generate(past_key_values=...)`.
"""

from kvpaged.adapters.huggingface.attention import NAME
from kvpaged.adapters.huggingface.cache import PagedCache
from kvpaged.adapters.huggingface.loading import load
from kvpaged.adapters.huggingface.model import HuggingFaceModel
from kvpaged.adapters.huggingface.shape import Shape

__all__ = ["NAME", "HuggingFaceModel", "PagedCache", "Shape", "load"]

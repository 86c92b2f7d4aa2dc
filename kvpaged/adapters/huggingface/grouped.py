"""The kinds of layers of a transformers model, for `kvpaged.hybrid`: windows then hold what they see, and no more."""

from transformers.cache_utils import get_layer_types_and_kwargs

from kvpaged.adapters.huggingface.model import HuggingFaceModel
from kvpaged.hybrid import FullAttention, Kind, SlidingWindow


def kinds_of(model: HuggingFaceModel) -> list[Kind]:
    """The kind of each layer, in order: full attention or a sliding window."""
    token_bytes = 2 * model.config.num_kv_heads * model.config.head_dim * model.dtype.itemsize
    _, settings = get_layer_types_and_kwargs(model.model.config.get_text_config(decoder=True))
    windows = [each.get("sliding_window") for each in settings]
    return [SlidingWindow(token_bytes, window) if window else FullAttention(token_bytes) for window in windows]

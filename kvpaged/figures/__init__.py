"""The book's pictures, each computed from a run of the real system, all in one visual language.

A sequence has one letter and one colour, a page is one shape, free pages recede, hatching means kept by the prefix
cache alone. What is drawn is also said in words: `repr(picture)` and the alt text are the same.
"""

from kvpaged.figures.attention_on_pages import attention_on_pages
from kvpaged.figures.bar_chart import bar_chart
from kvpaged.figures.batch_chart import batch_chart
from kvpaged.figures.contiguous_map import contiguous_map
from kvpaged.figures.contiguous_player import Arrive, ContiguousPlayer, Grow, Leave
from kvpaged.figures.legend import legend
from kvpaged.figures.line_chart import line_chart
from kvpaged.figures.memory_chart import memory_chart
from kvpaged.figures.name_table import name_table, reading_path
from kvpaged.figures.page_map import page_map
from kvpaged.figures.picture import Picture
from kvpaged.figures.prefix_trie import prefix_trie
from kvpaged.figures.sequence_names import sequence_names
from kvpaged.figures.sharing_map import sharing_map
from kvpaged.figures.source import show_source
from kvpaged.figures.system_map import system_map
from kvpaged.figures.table_arrows import table_arrows
from kvpaged.figures.text_on_pages import text_on_pages
from kvpaged.figures.trace_player import TracePlayer
from kvpaged.figures.two_forms import two_forms

__all__ = [
    "Arrive",
    "ContiguousPlayer",
    "Grow",
    "Leave",
    "Picture",
    "TracePlayer",
    "attention_on_pages",
    "bar_chart",
    "batch_chart",
    "contiguous_map",
    "legend",
    "line_chart",
    "memory_chart",
    "name_table",
    "page_map",
    "prefix_trie",
    "reading_path",
    "sequence_names",
    "sharing_map",
    "show_source",
    "system_map",
    "table_arrows",
    "text_on_pages",
    "two_forms",
]

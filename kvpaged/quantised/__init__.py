"""Pages of fewer bits: K and V in 8, 4 or 2 bits a number, and three answers to when a page's scales are known."""

from kvpaged.quantised.rewriting import RewritingStorage
from kvpaged.quantised.storage import QuantisedStorage
from kvpaged.quantised.tail import TailStorage
from kvpaged.quantised.token import TokenStorage

__all__ = ["QuantisedStorage", "RewritingStorage", "TailStorage", "TokenStorage"]

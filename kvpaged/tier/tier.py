"""A slower memory for pages: which pages of which texts it has, and which of them go when it is full."""

import logging
from collections import OrderedDict
from collections.abc import Hashable

from kvpaged.tier.record_file import DamagedRecord, RecordFile
from kvpaged.tokens import TOKEN_BYTES

_log = logging.getLogger(__name__)


class Tier:
    """Full pages in a `RecordFile`, found by all tokens up to their end. The least recently used page goes first.

    What it has is read from the file when it is opened; so it outlives the process. A page that cannot be read, or
    written, is a line in the log and a miss.

    num_written, num_read: pages so far. num_damaged: pages that were there and could not be read.
    """

    def __init__(self, records: RecordFile, page_size: int, computed_by: bytes = b"") -> None:
        """`computed_by` names the weights, and the kind of the pages (see `kvpaged.tier.fingerprint`).

        Pages of others are never found; if the file has some, the log says so.
        """
        self.records = records
        self.page_size = page_size
        self.computed_by = computed_by
        self._begin = b"%d %b" % (len(computed_by), computed_by)
        self.num_written = self.num_read = self.num_damaged = 0
        self._places = OrderedDict((key, record) for record, key in records)  # least recently used first
        _log.info("the tier in %s begins with %d pages", records.path, len(self._places))
        if others := sum(not key.startswith(self._begin) for key in self._places):
            _log.warning("%d pages in %s are of other weights, or of another kind: misses", others, records.path)
        self._free = sorted(set(range(records.num_records)) - set(self._places.values()), reverse=True)

    def __len__(self) -> int:
        """Pages in it."""
        return len(self._places)

    def key(self, tokens: bytes, cache_salt: Hashable) -> bytes:
        """What a page is found by: weights, salt, and all tokens up to its end, packed. It is no hash."""
        salt = repr(cache_salt).encode()
        return b"%b%d %b%b" % (self._begin, len(salt), salt, tokens)

    def has(self, key: bytes) -> bool:
        """Whether the page is there; it then counts as used now."""
        if key in self._places:
            self._places.move_to_end(key)
        return key in self._places

    def num_pages(self, tokens: bytes, cache_salt: Hashable, start: int) -> int:
        """How many full pages of a text it has without a gap, from logical page `start` on."""
        stop, width = start, self.page_size * TOKEN_BYTES
        while (stop + 1) * width <= len(tokens) and self.has(self.key(tokens[: (stop + 1) * width], cache_salt)):
            stop += 1
        return stop - start

    def put(self, key: bytes, value: bytes) -> None:
        """Keep a page, in the place of the least recently used if there is no other."""
        if self.has(key) or len(key) > self.records.key_bytes:
            return
        record = self._free.pop() if self._free else self._places.popitem(last=False)[1]
        try:
            self.records.write(record, key, value)
            self._places[key] = record
            self.num_written += 1
        except OSError as error:
            _log.warning("a page is not kept in the tier: %s", error)
        finally:
            if key not in self._places:
                self._free.append(record)

    def get(self, key: bytes) -> bytes | None:
        """Return the bytes of a page; None if it is not there, or not what was put there."""
        if not self.has(key):
            return None
        record = self._places[key]
        try:
            found, value = self.records.read(record)
            if found != key:
                raise DamagedRecord(f"record {record} of {self.records.path} holds another page")
        except (DamagedRecord, OSError) as error:
            _log.warning("a page of the tier is a miss: %s", error)
            del self._places[key]
            self._free.append(record)
            self.num_damaged += 1
            return None
        self.num_read += 1
        return value

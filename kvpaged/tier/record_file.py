"""A memory-mapped file of records of one size: a key and a value each, written whole or not at all.

::

    file      head | record 0 | record 1 | record 2 | ...
    record    length of the key, or 0 | CRC-32 of all that follows, and of the length | key, padded | value
"""

import mmap
from collections.abc import Iterator
from pathlib import Path
from struct import Struct
from zlib import crc32

from kvpaged.checks import positive_int

_HEAD = Struct("<8sIQ4x")  # what this is; bytes of a key at most; bytes of a value
_MAGIC = b"kvtier 2"
_RECORD = Struct("<II")  # bytes of the key, 0 in an empty record; checksum


class DamagedRecord(ValueError):
    """A record does not hold what was written to it."""


class RecordFile:
    """`num_records` records, numbered from 0. It knows neither tokens nor tensors.

    A process that ends in the middle of a write leaves an empty record. What a machine leaves that ends there, or a
    disk that forgets, the checksum finds.
    """

    def __init__(self, path: str | Path, num_records: int, key_bytes: int, value_bytes: int) -> None:
        """Open the file, or make it. One that is shorter or longer keeps the records that it has room for.

        key_bytes: of the longest key. value_bytes: of every value; 0 keeps keys only. Raises ValueError for a file of
        another kind, or of records of another size, and leaves it as it is.
        """
        self.path = Path(path)
        self.num_records = positive_int("num_records", num_records)
        self.key_bytes, self.value_bytes = positive_int("key_bytes", key_bytes), value_bytes
        self._stride = -(-(_RECORD.size + key_bytes + value_bytes) // 8) * 8
        head = _HEAD.pack(_MAGIC, key_bytes, value_bytes)
        with open(self.path, "r+b" if self.path.exists() else "w+b") as file:
            if file.read(_HEAD.size) not in (b"", head):
                raise ValueError(
                    f"{self.path} holds no records of {key_bytes:,} bytes of key and {value_bytes:,} of value: "
                    "delete it, or name another file"
                )
            file.truncate(self._start(num_records))  # what is new is zeros, and takes no room on the disk yet
            self._map = mmap.mmap(file.fileno(), 0)
        self._map[: _HEAD.size] = head

    def write(self, record: int, key: bytes, value: bytes) -> None:
        """Put a key and its value in the place of what was there. Raises OSError if the file has no such record."""
        if not 0 < len(key) <= self.key_bytes or len(value) != self.value_bytes:
            raise ValueError(
                f"a key of {len(key):,} bytes and a value of {len(value):,} do not fit: 1 to {self.key_bytes:,} "
                f"and just {self.value_bytes:,} bytes"
            )
        if not self._is_there(record):
            raise OSError(f"{self.path} has no record {record}, or no longer")
        start, body = self._start(record), key.ljust(self.key_bytes, b"\0") + value
        self._put(start, _RECORD.pack(0, 0))
        self._put(start + _RECORD.size, body)
        self._put(start, _RECORD.pack(len(key), crc32(body, len(key))))  # only now is it there

    def read(self, record: int) -> tuple[bytes, bytes]:
        """Return the key and the value of a record. Raises DamagedRecord if they are not those that were written."""
        if not self._is_there(record):  # to touch it would end the process
            raise DamagedRecord(f"{self.path} has no record {record}, or no longer")
        key_bytes, checksum = _RECORD.unpack_from(self._map, self._start(record))
        body_at = self._start(record) + _RECORD.size
        body = self._map[body_at : body_at + self.key_bytes + self.value_bytes]
        if not key_bytes or checksum != crc32(body, key_bytes):
            raise DamagedRecord(f"record {record} of {self.path} is damaged")
        return body[:key_bytes], body[self.key_bytes :]

    def __iter__(self) -> Iterator[tuple[int, bytes]]:
        """Iterate over the records that are there, as (number, key). Reads no value, so checks none."""
        for record in range(self.num_records):
            key_bytes, _ = _RECORD.unpack_from(self._map, self._start(record))
            key_at = self._start(record) + _RECORD.size
            if 0 < key_bytes <= self.key_bytes:
                yield record, self._map[key_at : key_at + key_bytes]

    def close(self) -> None:
        """Close the file; what was written stays."""
        self._map.close()

    def _start(self, record: int) -> int:
        return _HEAD.size + record * self._stride

    def _is_there(self, record: int) -> bool:
        return 0 <= record < self.num_records and self._map.size() >= self._start(record + 1)

    def _put(self, start: int, data: bytes) -> None:
        self._map[start : start + len(data)] = data

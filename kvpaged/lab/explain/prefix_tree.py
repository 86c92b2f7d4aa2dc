"""All prompts of a trace in one tree: each runs from a root down to the node at which it ends.

A node stands for a run of units that no request parts within, so the tree has at most two nodes for each request,
however long the prompts are. It is what a prefix cache without limits would hold.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import NamedTuple

from kvpaged.tokens import TOKEN_BYTES


class TreeNode:
    """A run of units: those of `packed` from `start` to `stop`, counted from the beginning of the prompt."""

    __slots__ = ("children", "last_request", "packed", "parent", "start", "stop")

    def __init__(self, packed: bytes, start: int, stop: int, parent: TreeNode | None, last_request: int) -> None:
        self.packed = packed
        self.start = start
        self.stop = stop
        self.parent = parent
        self.last_request = last_request  # the latest that runs through here
        self.children: dict[bytes, TreeNode] = {}  # by their first unit

    def path(self) -> list[TreeNode]:
        """The nodes from the root's child down to this one."""
        found = []
        node = self
        while node.parent is not None:
            found.append(node)
            node = node.parent
        return found[::-1]


class Added(NamedTuple):
    """Where a request ended, and what it found on its way."""

    end: TreeNode
    parting: TreeNode  # the last node that it shares with an earlier request; a root if there is none
    relative: int | None  # the latest of the requests that begin with the most of the same units

    @property
    def num_shared(self) -> int:
        """Units that it shares with its relative."""
        return self.parting.stop


class PrefixTree:
    """A radix tree, one root for each cache salt."""

    def __init__(self) -> None:
        self._roots: dict[Hashable, TreeNode] = {}

    def add(self, request: int, units: bytes, cache_salt: Hashable = None) -> Added:
        """Add a request, the number of which is larger than those before. The cost grows with the nodes it meets."""
        node = self._roots.setdefault(cache_salt, TreeNode(b"", 0, 0, None, request))
        depth, length, relative = 0, len(units) // TOKEN_BYTES, None
        while depth < length:
            first = units[depth * TOKEN_BYTES : (depth + 1) * TOKEN_BYTES]
            child = node.children.get(first)
            if child is None:
                end = node.children[first] = TreeNode(units, depth, length, node, request)
                return Added(end, node, relative)
            depth = _agree_until(units, child.packed, depth, min(child.stop, length))
            relative = child.last_request
            if depth < child.stop:
                child = _split(child, depth)
            child.last_request = request
            node = child
        return Added(node, node, relative)


def _split(node: TreeNode, depth: int) -> TreeNode:
    """Let a node begin at `depth`, behind a new one, which is returned. Requests that end at the node still do."""
    parent = node.parent
    assert parent is not None
    upper = TreeNode(node.packed, node.start, depth, parent, node.last_request)
    parent.children[node.packed[node.start * TOKEN_BYTES : (node.start + 1) * TOKEN_BYTES]] = upper
    upper.children[node.packed[depth * TOKEN_BYTES : (depth + 1) * TOKEN_BYTES]] = node
    node.start, node.parent = depth, upper
    return upper


def _agree_until(one: bytes, other: bytes, start: int, stop: int) -> int:
    """Return where two prompts that agree up to `start` stop doing so, or `stop`, by halving."""
    if one[start * TOKEN_BYTES : stop * TOKEN_BYTES] == other[start * TOKEN_BYTES : stop * TOKEN_BYTES]:
        return stop
    while stop - start > 1:
        middle = (start + stop) // 2
        if one[start * TOKEN_BYTES : middle * TOKEN_BYTES] == other[start * TOKEN_BYTES : middle * TOKEN_BYTES]:
            start = middle
        else:
            stop = middle
    return start

"""Numbers as whole multiples of a scale: the codes that stand in a page of fewer bits.

A scale is the largest number that shares it, divided by the largest code. So nothing is cut off, and what is read back
is never further from the number than half of it.
"""

import torch
from torch import Tensor

BITS = (8, 4, 2)


def largest_code(bits: int) -> int:
    """127, 7 or 1. As far below zero as above it, so that zero stays zero."""
    return (1 << bits - 1) - 1


def quantise(numbers: Tensor, bits: int, dim: int) -> tuple[Tensor, Tensor]:
    """Codes and scales of `numbers` [..., head_dim]; the numbers along `dim` share a scale.

    Returns the codes as uint8 [..., head_dim * bits / 8], see `pack`, and the scales as float32 in the shape of
    `numbers` without `dim`.
    """
    most = largest_code(bits)
    scales = numbers.float().abs().amax(dim, keepdim=True) / most
    whole = (numbers / torch.where(scales == 0, 1.0, scales)).round().clamp(-most, most)
    return pack(whole.to(torch.int8), bits), scales.squeeze(dim)


def pack(whole: Tensor, bits: int) -> Tensor:
    """Whole numbers, int8 [..., head_dim], 8 / bits of them to a byte: uint8 [..., head_dim * bits / 8].

    The first part of the head lies in the lowest bits, byte after byte, the next in the bits above: what is unpacked
    then stands in its order, with nothing to shuffle. Each is stored as its distance from one below the lowest code.
    """
    parts = (whole.to(torch.int16) + (1 << (bits - 1))).reshape(
        *whole.shape[:-1], 8 // bits, whole.shape[-1] * bits // 8
    )
    shifts = torch.arange(0, 8, bits, dtype=torch.int16)[:, None]
    return (parts << shifts).sum(-2).byte()


def unpack(codes: Tensor, bits: int) -> Tensor:
    """The whole numbers in `codes`: int16 [..., head_dim]."""
    shifts = torch.arange(0, 8, bits, dtype=torch.int16)[:, None]
    parts = (codes.to(torch.int16).unsqueeze(-2) >> shifts) & ((1 << bits) - 1)
    return parts.flatten(-2) - (1 << (bits - 1))

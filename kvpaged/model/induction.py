"""An induction head, laid into the weights before training (Olsson et al. 2022, "In-context learning and induction
heads").

A decoder this small, trained from random weights, sits for thousands of steps at guessing among the facts. It learns
at once when it starts with the circuit it would have to find:

    layer 0   head h looks h + 1 tokens back, by position alone, and notes what it saw
    layer 1   compares notes: "the thing I am asked about" with "the thing that stood before this token",
              and says the token it finds

    ... Ada hid the coin in the attic. ... Cy looks for the coin in the -> attic
                    ^---3 back---'                         ^-2 back-'
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import init
from tokenizers import Tokenizer

from kvpaged.model.config import ModelConfig
from kvpaged.model.decoder import Attention, Decoder

MATCH = 2.0
ANCHOR = 0.25  # component 0 of every embedding: a constant for the heads that go by position alone


@torch.no_grad()
def lay_induction_head(model: Decoder, tokenizer: Tokenizer) -> None:
    """Start a decoder of 2 layers, 4 heads and 2 kv heads with small random weights and the circuit above.

    Draws from torch's global generator: seed it first.
    """
    config = model.config
    size, width = config.head_dim, config.hidden_size
    for parameter in model.parameters():
        if parameter.dim() == 2:
            init.normal_(parameter, std=0.03)
    _start_embeddings(model, tokenizer)

    # Orthonormal directions, none of them the anchor's: one set to read a token, one per head to note it down.
    reading = _directions(width, size)
    notes = list(_directions(width, 4 * ((width - 1) // 4)).chunk(4))  # what stood 1, 2, 3, 4 tokens back
    speaking = _directions(width, size)

    first, second = (layer.self_attn for layer in model.layers)
    query, keys, values, output = _heads(first, config)
    norm = ANCHOR / model.embed_tokens.weight.square().mean(-1).sqrt().mean()  # the anchor, as the layers see it
    rotation = config.rope_theta ** (-torch.arange(5) * 2 / size)  # the five fastest pairs
    strength = (6 * size**0.5 / (1 - rotation.cos()).sum()).sqrt() / norm  # one token off costs 6 in the logits
    fast = torch.arange(5)
    for kv in range(2):
        keys[kv, fast, 0] = strength
        values[kv] = reading
    for head in range(4):
        angle = (head + 1) * rotation
        query[head, fast, 0] = strength * angle.cos()
        query[head, fast + size // 2, 0] = -strength * angle.sin()
        output[:, head, : len(notes[head])] = 0.06 * notes[head].T

    half = size // 2
    own = reading[:half]
    one, two, three, four = (note[:half] for note in notes)
    query, keys, values, output = _heads(second, config)
    slow = torch.arange(size) % half >= half // 2  # content is compared by the slow pairs, at any distance alike
    query[0, slow] = MATCH * two  # "looks for the coin in the": the place
    query[1, slow] = MATCH * three  # "the coin? In the": the place
    query[2, slow] = MATCH * own  # "looks for the coin": the preposition
    query[3, slow] = MATCH * one  # "the coin?": the preposition, or who hid it
    keys[0, slow] = MATCH * three
    keys[1, slow] = MATCH * one
    values[0] = speaking
    values[1] = torch.cat((speaking[:half], four))
    output[:, 0] = output[:, 1] = 0.2 * speaking.T
    output[:, 2, :half] = output[:, 3, :half] = 0.2 * speaking[:half].T
    output[:, 3, half:] = 0.2 * own.T


def _heads(attention: Attention, config: ModelConfig) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Views of query, keys, values [heads, head_dim, width] and output [width, heads, head_dim], one head at a time."""
    size = config.head_dim
    into = (attention.q_proj, attention.k_proj, attention.v_proj)
    query, keys, values = (projection.weight.unflatten(0, (-1, size)) for projection in into)
    return query, keys, values, attention.o_proj.weight.unflatten(1, (-1, size))


def _start_embeddings(model: Decoder, tokenizer: Tokenizer) -> None:
    """Random, but a word is near its own capitalised form and near its form without a space."""
    embeddings = model.embed_tokens.weight
    init.normal_(embeddings, std=0.05)
    vocabulary = tokenizer.get_vocab()
    for token, index in vocabulary.items():
        like = vocabulary.get(f" {token}", vocabulary.get(token.lower(), index))
        if like != index:
            embeddings[index] = embeddings[like] + 0.3 * embeddings[index]
    embeddings[:, 0] = ANCHOR


def _directions(width: int, count: int) -> Tensor:
    """Orthonormal rows [count, width] that leave component 0 alone."""
    rows = torch.zeros(count, width)
    rows[:, 1:] = torch.linalg.qr(torch.randn(width - 1, count)).Q.T
    return rows

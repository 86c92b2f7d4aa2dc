"""The circuit that answers from the context, an induction head, laid into the weights before training.

See Olsson et al. (2022), "In-context learning and induction heads".

A decoder this small, trained from random weights, sits for thousands of steps at guessing among the facts. It learns
at once when it starts with the circuit it would have to find:

    layer 0   head h looks h + 1 tokens back, by position alone, and notes what it saw
    layer 1   compares notes: "the thing I am asked about" with "the thing that stood before this token",
              and says the token it finds

    Ada hid the coin in the attic. ... Cy looks for the coin in the -> attic
                  ^--3 back--^                        ^-2 back-^

To begin with, the hidden vector is parted: component 0 is a constant for the heads that go by position alone, each
note has 16 directions of its own, and the token has the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import init
from torch.nn.functional import normalize

from kvpaged.model.config import ModelConfig
from kvpaged.model.decoder import Attention, Decoder, Layer

LOOK_BACK = 5  # heads of layer 0 that look back: one token, two, ... five
SCALE = 0.05  # root mean square of an embedding's components
ANCHOR = 0.25  # component 0 of every embedding
QUIET = (" Who", "Who", " Where", "Where", " looks", " for", " the", ".", "?")  # leave no note: they tell nothing apart
SHARPNESS = 8.0  # logits by which a head that looks back prefers its token to that token's neighbours
MATCH = 2.5  # scale of the matrices that compare notes


@torch.no_grad()
def lay_induction_head(model: Decoder, tokenizer: Tokenizer) -> None:
    """Start a decoder of 2 layers, 8 heads and 4 kv heads with small random weights and the circuit above.

    Draws from torch's global generator: seed it first.
    """
    config = model.config
    width, half = config.hidden_size, config.head_dim // 2
    for parameter in model.parameters():
        if parameter.dim() == 2:
            init.normal_(parameter, std=0.02)
    directions = torch.zeros(width - 1, width)
    directions[:, 1:] = init.orthogonal_(torch.empty(width - 1, width - 1))
    notes, token = directions[: LOOK_BACK * half].chunk(LOOK_BACK), directions[LOOK_BACK * half :]
    _start_embeddings(model, tokenizer, token)
    first, second = (cast(Layer, layer).self_attn for layer in model.layers)
    _look_back(first, config, token, notes)
    _compare_notes(second, config, token, notes)


def _start_embeddings(model: Decoder, tokenizer: Tokenizer, token: Tensor) -> None:
    """Random, but a word starts near its own form without a capital, and near its form without a space."""
    embeddings = torch.randn(model.config.vocab_size, len(token))
    vocabulary = tokenizer.get_vocab()
    for word, index in vocabulary.items():
        like = vocabulary.get(f" {word}", vocabulary.get(word.lower(), index))
        if like != index:
            embeddings[index] = embeddings[like] + 0.5 * embeddings[index]
    for word in QUIET:
        embeddings[vocabulary[word], : model.config.head_dim // 2] = 0
    length = SCALE * model.config.hidden_size**0.5  # the same for all, so that each token's anchor weighs alike
    model.embed_tokens.weight[:] = length * normalize(embeddings) @ token
    model.embed_tokens.weight[:, 0] = ANCHOR


def _look_back(attention: Attention, config: ModelConfig, token: Tensor, notes: Sequence[Tensor]) -> None:
    """Head h attends h + 1 tokens back, and writes the token it finds into `notes[h]`."""
    query, keys, values, output = _heads(attention, config)
    half = config.head_dim // 2
    pairs = torch.arange(5)  # the fastest pairs tell neighbours apart
    turn = config.rope_theta ** (-pairs / half)  # how far each turns from one token to the next
    anchor = ANCHOR / (SCALE**2 + ANCHOR**2 / config.hidden_size) ** 0.5  # as RMSNorm passes it on
    strength = (SHARPNESS * config.head_dim**0.5 / (1 - turn.cos()).sum()).sqrt() / anchor
    keys.zero_()
    keys[:, pairs, 0] = strength
    values[:, :half] = token[:half]
    output.zero_()
    for head, note in enumerate(notes):
        angle = (head + 1) * turn
        query[head] = 0
        query[head, pairs, 0] = strength * angle.cos()
        query[head, pairs + half, 0] = -strength * angle.sin()
        output[:, head, :half] = SCALE * note.T


def _compare_notes(attention: Attention, config: ModelConfig, token: Tensor, notes: Sequence[Tensor]) -> None:
    """Heads 2k and 2k + 1 share a key: what stood 3, 1, 5 tokens back, or the token itself (to say who hid it)."""
    query, keys, values, output = _heads(attention, config)
    half = config.head_dim // 2
    own, (one, two, three, four, five) = token[:half], notes
    slow = torch.arange(config.head_dim) % half >= half // 2  # slow pairs compare alike at any distance
    keys.zero_()
    output.zero_()
    for kv, note in enumerate((three, one, five, own)):
        keys[kv, slow] = MATCH * note
        values[kv] = token[: config.head_dim]
    for head, note in {
        0: two,  # "looks for the coin in the": the place
        1: three,  # "the coin? In the": the place; "Ada looks for the": what Ada hid
        2: own,  # "looks for the coin": the preposition
        3: one,  # "the coin?": the preposition
        4: four,  # "the coin in the attic.": who comes next in the story
        6: one,  # "the coin?": who hid it
    }.items():
        query[head] = 0
        query[head, slow] = MATCH * note
        output[:, head] = 0.2 * token[: config.head_dim].T
    values[3, :half], values[3, half:] = three, 0  # the name stands 3 back from the thing


def _heads(attention: Attention, config: ModelConfig) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Views of query, keys, values [heads, head_dim, width] and output [width, heads, head_dim], one head at a time."""
    width, size = config.hidden_size, config.head_dim
    into = (attention.q_proj, attention.k_proj, attention.v_proj)
    query, keys, values = (projection.weight.view(-1, size, width) for projection in into)
    return query, keys, values, attention.o_proj.weight.view(width, -1, size)

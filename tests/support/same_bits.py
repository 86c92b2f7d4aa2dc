"""Random engines, and the bits of what they compute: logits, K and V of each request against its text alone.

One seed makes one episode: a model, an engine of random size on one to three threads, and requests that arrive while
others run, share beginnings, repeat themselves (so that guesses come true), sample and fork, and are cancelled. Each
text is then computed once more in one pass, with nobody else there, on a single page: every row of logits that a token
was chosen from must come out the same, bit for bit, and so must all K and V that the prefix cache still holds.
"""

from __future__ import annotations

import functools
import hashlib
import random
from collections import Counter
from collections.abc import Callable

import torch
from torch import Tensor

from kvpaged import PagedKVCache
from kvpaged.attention import attention_on
from kvpaged.engine import BeamSearchParams, Engine, Params, Request, SamplingParams
from kvpaged.model import Decoder, ModelConfig, load_model
from kvpaged.model.compute import open_storage
from kvpaged.model.fast import fast
from kvpaged.page import PageStorage
from kvpaged.page_table import PageTable, pages_for
from kvpaged.reader import PagedKVReader
from support.simulation import SimulationFailed

LONGEST = 12  # tokens that are generated, at most
PAGE_SIZES = (1, 2, 4, 7, 16, 32)
SMALL = ModelConfig(
    vocab_size=97, hidden_size=40, intermediate_size=72, num_layers=2, num_heads=4, num_kv_heads=2, head_dim=16,
    max_position_embeddings=2048,
)  # fmt: skip


@functools.cache
def model_of(name: str) -> Decoder:
    """The recall model, or one of random weights, which do not care about words."""
    if name == "recall":
        return load_model("recall")
    torch.manual_seed(0)
    model = Decoder(SMALL).requires_grad_(False)
    return model.to(torch.bfloat16) if name == "bfloat16" else model


class BitsEpisode:
    """Everything that one seed makes happen. Raises AssertionError when a bit differs."""

    def __init__(self, seed: int, storage: Callable[..., PageStorage] = PageStorage, by_page: bool = False) -> None:
        """by_page: what a token reads depends on where pages end; the oracle has such pages, and no hit ends in one."""
        self.storage, self.by_page = storage, by_page
        self.random = choose = random.Random(seed)
        self.model = model_of(choose.choice(("recall", "random", "bfloat16")))
        self.threads = choose.choice((1, 1, 2, 3))
        self.longest = choose.choice((40, 40, 150, 150, 1100))  # tokens of a prompt
        page_size = choose.choice(PAGE_SIZES)
        least = pages_for(self.longest + LONGEST, page_size)
        self.engine = Engine(
            self.model,
            num_pages=choose.choice((least + 4, least + least // 2, 3 * least)),
            page_size=page_size,
            max_batched_tokens=choose.choice((5, 16, 17, 64, 300, 2048)),
            max_running=choose.randint(3, 12),
            prefix_caching=choose.random() < 0.7 and not by_page,
            num_speculative_tokens=choose.choice((0, 0, 1, 4)),
            storage=storage,
        )
        self.beginnings = [self._tokens(choose.randint(1, self.longest)) for _ in range(3)]
        self.requests: list[Request] = []
        self.counts: Counter[str] = Counter()

    def run(self, num_requests: int) -> Counter[str]:
        """Submit that many requests, step until all are done, compare; return what happened."""
        before = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        try:
            while len(self.requests) < num_requests or self.engine.num_unfinished:
                if len(self.requests) < num_requests and (self.random.random() < 0.4 or not self.engine.num_unfinished):
                    self.requests.append(self.engine.submit(self._prompt(), self._params(), self.random.choice("ab")))
                if self.random.random() < 0.03:
                    self.engine.cancel(self.random.choice(self.requests))
                self.engine.step()
            for request in self.requests:
                self._compare(request)
        finally:
            torch.set_num_threads(before)
        metrics = self.engine.metrics()
        self.counts.update(
            {
                "requests": len(self.requests),
                "preempted": metrics.preemptions,
                "tokens found in the cache": metrics.cached_tokens,
                "guesses that came true": metrics.accepted_tokens,
                "copies": metrics.copies,
            }
        )
        return self.counts

    def _tokens(self, count: int) -> list[int]:
        """A text that repeats itself."""
        some = [self.random.randrange(1, self.model.config.vocab_size) for _ in range(1 + count // 3)]
        return (some * 4)[:count]

    def _prompt(self) -> list[int]:
        beginning = self.random.choice(self.beginnings)
        prompt = beginning[: self.random.randint(0, len(beginning))] + self._tokens(self.random.randint(1, 30))
        return prompt[: self.longest]

    def _params(self) -> Params:
        choose = self.random
        max_tokens, kind = choose.randint(1, LONGEST), choose.random()
        if kind < 0.05:
            return BeamSearchParams(beam_width=3, max_tokens=max_tokens)  # they take part, and are not compared
        sampled = {} if kind < 0.7 else {"temperature": 0.8, "seed": choose.randrange(99), "n": choose.randint(1, 3)}
        return SamplingParams(
            **{"temperature": 0.0, **sampled}, max_tokens=max_tokens, ignore_eos=True, hash_logits=True
        )

    def _compare(self, request: Request) -> None:
        if isinstance(request.params, BeamSearchParams):
            return
        for output in self.engine.output(request).outputs:
            if not output.tokens:
                continue
            text = request.prompt_tokens + output.tokens[:-1]
            page_size = self.engine.cache.page_size if self.by_page else len(text)
            logits, keys, values = alone(self.model, text, len(output.tokens), self.storage, page_size)
            expected = hashlib.blake2b(logits.numpy().tobytes(), digest_size=8).hexdigest()
            assert output.logits_hash == expected, f"other logits behind {output.tokens} after {request.prompt_tokens}"
            self.counts["rows of logits"] += len(logits)
            held = self.engine.cache.prefix.match(text, request.cache_salt)
            if held.num_tokens:
                table = PageTable(self.engine.cache.page_size, list(held.page_ids), held.num_tokens)
                reader = PagedKVReader(self.engine.cache.storage, table)
                for layer in range(self.model.config.num_layers):
                    for found, exact in ((reader.keys(layer), keys[layer]), (reader.values(layer), values[layer])):
                        assert torch.equal(found, exact[: held.num_tokens]), f"other K or V of {text}"
                        self.counts["numbers of K and V"] += found.numel()


def alone(
    model: Decoder, text: list[int], wanted: int, kind: Callable[..., PageStorage], page_size: int
) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """The last `wanted` rows of logits of a text, and its K and V in each layer: one pass, nobody else."""
    num_pages = pages_for(len(text), page_size)
    storage = open_storage(model, num_pages, page_size, kind)
    sequence = PagedKVCache(num_pages, page_size, prefix_caching=False, storage=storage).sequence(text)
    slots = torch.tensor(sequence.slot_mapping(0, len(text)))
    lengths = torch.tensor([len(text)], dtype=torch.int32)
    pages = torch.tensor([sequence.table.page_ids], dtype=torch.int32)
    attention = attention_on(storage)(storage, pages, lengths, lengths)

    def attend(layer: int, query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        storage.write(layer, slots, keys, values)
        return attention(layer, query)

    at = torch.arange(len(text) - wanted, len(text))
    with torch.inference_mode():
        logits = fast(model)(torch.tensor(text), torch.arange(len(text)), attend, at)
    reader = PagedKVReader(storage, sequence.table)
    layers = range(model.config.num_layers)
    return logits, [reader.keys(layer) for layer in layers], [reader.values(layer) for layer in layers]


def compare_bits(seed: int, num_requests: int = 20) -> Counter[str]:
    """Run one episode. Raises SimulationFailed."""
    try:
        return BitsEpisode(seed).run(num_requests)
    except Exception as error:
        what = f"{type(error).__name__}: {' '.join(str(error).split())}"
        line = f"python tools/long_checks.py bits --seed {seed} --requests {num_requests}"
        raise SimulationFailed(f"{line}  # {what}") from error

"""Train the recall model: `python -m kvpaged.model.train_recall`."""

from __future__ import annotations

import argparse
import math
import random
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional

from kvpaged.model.config import ModelConfig
from kvpaged.model.decoder import Decoder
from kvpaged.model.induction import lay_induction_head
from kvpaged.model.loading import SHIPPED
from kvpaged.model.recall_text import Fact, Question, make_story
from kvpaged.model.recall_tokenizer import EOS, build_tokenizer
from kvpaged.model.saving import save_model

IGNORED = -100  # a target that carries no loss


def main() -> None:
    """Train, show progress, and write the checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=14.0, help="how long to train")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=SHIPPED["recall"], help="folder to write")
    options = parser.parse_args()
    tokenizer = build_tokenizer()
    config = ModelConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=128,
        intermediate_size=256,
        num_layers=2,
        num_heads=4,
        num_kv_heads=2,
        head_dim=32,
        max_position_embeddings=2048,
        rope_theta=500_000.0,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.token_to_id(EOS),
    )
    torch.manual_seed(options.seed)
    model = Decoder(config)
    lay_induction_head(model, tokenizer)
    train(model, tokenizer, options.minutes * 60, options.seed)
    save_model(model, tokenizer, options.output)


def train(model, tokenizer, seconds, seed, lr=1e-3, budget=2048, max_facts=120, total=None):
    rng = random.Random(seed)
    opt = torch.optim.AdamW(model.parameters(), lr=lr, betas=(0.9, 0.95), weight_decay=0.01)
    facts, running = 4.0, 0.0
    t0 = time.time()
    step = 0
    kinds = {}
    while (el := time.time() - t0) < seconds:
        frac = el / seconds
        scale = min(1, (step + 1) / 100) * min(1.0, max(0.02, (1 - frac) / 0.4))
        for g in opt.param_groups:
            g["lr"] = lr * scale
        batch = make_batch(tokenizer, int(facts), budget, rng)
        logits = model(batch.tokens.flatten(), positions(batch.tokens), CausalAttention(batch.tokens.shape))
        losses = functional.cross_entropy(logits, batch.targets.flatten(), reduction="none", ignore_index=IGNORED)
        w = batch.weights.flatten()
        loss = (losses * w).sum() / w.sum()
        opt.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        opt.step()
        right = (logits.argmax(-1).view_as(batch.targets) == batch.targets)
        acc = []
        for row, start, stop, kind in batch.answers:
            ok = right[row, start:stop].all().item()
            acc.append(ok)
            k = kinds.setdefault(kind, [0, 0]); k[0] += ok; k[1] += 1
        acc = sum(acc) / len(acc)
        running = 0.95 * running + 0.05 * acc
        if running > 0.95 and facts < max_facts:
            facts = min(max_facts, facts * 1.15 + 1); running = min(running, 0.9)
        if step % 100 == 0:
            print(f"{el:6.0f}s step {step} facts {int(facts)} loss {loss.item():.4f} running {running:.4f} " + " ".join(f"{k} {v[0]/v[1]:.4f}" for k, v in sorted(kinds.items())), flush=True)
            kinds = {}
        step += 1


@dataclass
class Passage:
    """A conversation: tokens, what should follow each (or IGNORED), how much that matters, where the answers are."""

    tokens: list[int]
    targets: list[int]
    weights: list[float]
    answers: list[tuple[int, int, str]]  # first and last + 1 position that predicts the answer, kind


class CausalAttention:
    def __init__(self, shape):
        self.shape = shape

    def __call__(self, layer, q, k, v):
        b, t = self.shape
        q, k, v = (x.view(b, t, *x.shape[1:]).transpose(1, 2) for x in (q, k, v))
        out = functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        return out.transpose(1, 2).reshape(b * t, out.shape[1], out.shape[-1])


def positions(tokens):
    b, t = tokens.shape
    return torch.arange(t).repeat(b)


def make_passage(tokenizer, num_facts, num_questions, rng):
    turns = min(1 if rng.random() < 0.5 else rng.randint(2, 4), num_facts)
    cuts = [0, *sorted(rng.sample(range(1, num_facts), turns - 1)), num_facts]
    p = Passage([], [], [], [])
    eos = tokenizer.token_to_id(EOS)

    def say(text, weight):
        ids = tokenizer.encode(text).ids
        if weight and p.tokens and p.targets[-1] == IGNORED:
            p.targets[-1], p.weights[-1] = ids[0], weight
        p.tokens += ids
        p.targets += (ids[1:] if weight else [IGNORED] * (len(ids) - 1)) + [IGNORED]
        p.weights += [weight] * (len(ids) - 1) + [0.0]

    earlier = []
    for a, b in zip(cuts, cuts[1:]):
        st = make_story(b - a, max(1, num_questions // turns), rng.getrandbits(62), earlier=earlier)
        earlier += st.facts
        say(st.text, 0.0)
        for q in st.questions:
            say(q.prompt, 0.05 if q.kind == "looks" else 0.0)
            start = len(p.tokens) - 1
            say(q.answer, 1.0)
            p.answers.append((start, len(p.tokens) - 1, q.kind))
            if q.kind != "looks":
                p.targets[-1], p.weights[-1] = eos, 1.0
                if rng.random() < 0.2:
                    p.tokens.append(eos); p.targets.append(IGNORED); p.weights.append(0.0)
    return p


@dataclass
class Batch:
    tokens: Tensor
    targets: Tensor
    weights: Tensor
    answers: list


def collate(rows):
    t = max(len(r.tokens) for r in rows)
    pad = lambda x, v: x + [v] * (t - len(x))
    return Batch(
        torch.tensor([pad(r.tokens, 0) for r in rows]),
        torch.tensor([pad(r.targets, IGNORED) for r in rows]),
        torch.tensor([pad(r.weights, 0.0) for r in rows]),
        [(i, *a) for i, r in enumerate(rows) for a in r.answers],
    )


def make_batch(tokenizer, cap, budget, rng):
    n = max(2, round(math.exp(rng.uniform(math.log(2), math.log(cap + 0.5))))) if rng.random() < 0.5 else max(2, cap)
    q = rng.randint(8, 16)
    rows = []
    size = 0
    while size < budget:
        r = make_passage(tokenizer, n, q, rng)
        rows.append(r)
        size += len(r.tokens)
    return collate(rows)


if __name__ == "__main__":
    main()

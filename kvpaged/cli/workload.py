"""`workload`: requests as JSON lines, for other servers to be measured with."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from kvpaged.cli.options import MOST_REQUESTS, between
from kvpaged.lab.workload import WORKLOADS, json_lines

Name = StrEnum("Name", list(WORKLOADS))  # type: ignore[misc]


def workload(
    name: Annotated[Name, typer.Argument(help="What the requests are like.")],
    requests: Annotated[int, typer.Option(callback=between(1, MOST_REQUESTS), help="Requests in all.")] = 500,
    rate: Annotated[
        float, typer.Option(help="Requests that arrive in a second, on average (a Poisson process).")
    ] = 2.0,
    seed: Annotated[int, typer.Option(help="The same seed gives the same requests at the same times.")] = 0,
    output: Annotated[Path | None, typer.Option(help="A file to write, .jsonl for vLLM; the terminal if none.")] = None,
) -> None:
    """Write a workload as the JSON lines that vLLM's serving benchmark reads, to repeat an experiment there.

    sharegpt, alpaca: requests with nothing in common, as long as the data sets' on average. prefix: each begins with
    one of eight long instructions, so that pages can be shared. chats: conversations, each turn sent with all that was
    said before. stories: what serve-sim serves.

    Prompts are made of words that are one token each for most tokenizers, so lengths come out nearly right.

    Example: kvpaged workload chats --output chats.jsonl; then, where vLLM runs,
    vllm bench serve --dataset-name custom --dataset-path chats.jsonl --custom-output-len -1 --disable-shuffle
    --skip-chat-template --ignore-eos --num-prompts 500 --request-rate 2 --model MODEL
    """
    lines = json_lines(WORKLOADS[name.value](requests, rate, seed))
    if output is None:
        for line in lines:
            print(line)
    else:
        output.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        print(f"{requests} requests written to {output}")

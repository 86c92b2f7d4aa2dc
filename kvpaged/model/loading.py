"""Checkpoint folders in Hugging Face's layout, read from disk: nothing is ever fetched."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from tokenizers import Tokenizer
from torch import Tensor

from kvpaged.model.config import ModelConfig
from kvpaged.model.decoder import Decoder
from kvpaged.model.language_model import ModelShape

SHIPPED = {"recall": Path(__file__).parents[1] / "recall" / "weights"}


def load_model(name_or_path: str | Path, dtype: torch.dtype = torch.float32) -> Decoder:
    """The decoder in a checkpoint folder, ready for inference: "recall" is the shipped one, else a path.

    The folder holds config.json and model.safetensors (or its shards with model.safetensors.index.json).
    FileNotFoundError for a file that is not there; ValueError for one that this decoder cannot use as it stands.
    """
    folder = _folder(name_or_path)
    config = ModelConfig.from_json(_file(folder, "config.json"))
    with torch.device("meta"):  # no memory until the checkpoint's own tensors move in
        model = Decoder(config)
    wanted = {stored_name(name): tensor.shape for name, tensor in model.named_parameters()}
    found: dict[str, Tensor] = {}
    tied: Tensor | None = None
    for name, tensor, path in _stored_tensors(folder):
        if name == "lm_head.weight" and config.tie_word_embeddings:
            tied = tensor.to(dtype)  # some checkpoints store the weights twice
            continue
        if name not in wanted:
            raise ValueError(f"{path}: {name} has no place in this decoder: use a Llama checkpoint without extras")
        if tensor.shape != wanted[name]:
            raise ValueError(
                f"{path}: {name} has shape {tuple(tensor.shape)}, expected {tuple(wanted[name])}: "
                "config.json and the weights belong to different models"
            )
        if not tensor.is_floating_point():
            raise ValueError(f"{path}: {name} is {tensor.dtype}, no floating point: fetch the checkpoint again")
        found[name] = tensor.to(dtype)
    missing = sorted(wanted.keys() - found.keys())
    if missing:
        raise ValueError(f"{folder}: {len(missing)} tensors missing, {missing[0]} first: fetch the checkpoint again")
    weights = {name: found[stored_name(name)] for name, _ in model.named_parameters()}
    model.load_state_dict(weights, strict=False, assign=True)
    if config.tie_word_embeddings:
        if tied is not None and not torch.equal(tied, model.embed_tokens.weight):
            raise ValueError(f"{folder}: config.json ties lm_head.weight to the embeddings, but the two differ")
        model.lm_head.weight = model.embed_tokens.weight
    model.checkpoint = folder
    return model.eval().requires_grad_(False)


def load_tokenizer(name_or_path: str | Path) -> Tokenizer:
    """The tokenizer of a checkpoint folder: "recall", or a path; its `encode(text).ids` and `decode(ids)`."""
    path = _file(_folder(name_or_path), "tokenizer.json")
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exception
        raise ValueError(f"{path} is not a tokenizer ({error}): fetch the checkpoint again") from None


def check_tokenizer(tokenizer: Tokenizer, config: ModelShape) -> None:
    """ValueError if this tokenizer cannot be the one that the model was trained with."""
    largest = max(tokenizer.get_vocab().values(), default=-1)
    if largest >= config.vocab_size:
        raise ValueError(
            f"the tokenizer has a token {largest}, and the model a vocabulary of {config.vocab_size}: "
            "they belong to different models"
        )
    for token in config.eos_token_ids:
        if tokenizer.id_to_token(token) is None:
            raise ValueError(
                f"the model ends a text with token {token}, and the tokenizer has none: they belong to different models"
            )


def _folder(name_or_path: str | Path) -> Path:
    folder = SHIPPED.get(str(name_or_path), Path(name_or_path))
    if not folder.is_dir():
        raise FileNotFoundError(
            f"no folder {folder}: give a checkpoint folder on this disk, or one of {', '.join(SHIPPED)} "
            "(nothing is fetched)"
        )
    return folder


def _file(folder: Path, name: str) -> Path:
    path = folder / name
    if not path.is_file():
        raise FileNotFoundError(f"no {name} in {folder}: give a folder in Hugging Face's layout, with safetensors")
    return path


def stored_name(name: str) -> str:
    return name if name.startswith("lm_head.") else f"model.{name}"


def _stored_tensors(folder: Path) -> Iterator[tuple[str, Tensor, Path]]:
    for path in _shards(folder):
        try:
            with safe_open(path, framework="pt") as tensors:
                for name in tensors.keys():  # noqa: SIM118 (the file is no mapping)
                    if not name.endswith("rotary_emb.inv_freq"):  # old checkpoints store what is computed
                        yield name, tensors.get_tensor(name), path
        except SafetensorError as error:
            raise ValueError(f"{path} is damaged ({error}): fetch the checkpoint again") from None


def _shards(folder: Path) -> list[Path]:
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return [_file(folder, "model.safetensors")]
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        return [_file(folder, name) for name in names]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ValueError(f"{index} is no index of shards ({error}): fetch the checkpoint again") from None

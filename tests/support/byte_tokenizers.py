"""Small tokenizers whose tokens are bytes: any of them may end within a character, or make none at all."""

from tokenizers import Tokenizer, decoders, models, pre_tokenizers


def byte_fallback() -> Tokenizer:
    """As Llama 2's: a token for a few words, and one for each byte that no word covers."""
    words = ["▁the", "▁cat", "s", "▁", "é"]
    vocabulary = {token: index for index, token in enumerate([*(f"<0x{byte:02X}>" for byte in range(256)), *words])}
    tokenizer = Tokenizer(models.BPE(vocabulary, [], byte_fallback=True))
    parts = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    tokenizer.decoder = decoders.Sequence(parts)
    return tokenizer


def byte_level() -> Tokenizer:
    """As GPT-2's, but with few merges: almost every byte is a token."""
    merges = [("t", "h"), ("th", "e"), ("Ġ", "the"), ("â", "Ĥ"), ("s", "Ġ")]
    tokens = [*sorted(pre_tokenizers.ByteLevel.alphabet()), *("".join(pair) for pair in merges)]
    tokenizer = Tokenizer(models.BPE({token: index for index, token in enumerate(tokens)}, merges))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    return tokenizer

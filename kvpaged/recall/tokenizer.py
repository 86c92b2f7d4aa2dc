"""The recall model's tokenizer: one token a word, and nothing lost.

A word carries the space before it (" coin"), punctuation has none, so decoding is plain concatenation and texts may
be cut at any word: the tokens of a prompt, an answer and the next prompt are the tokens of the whole conversation.
A word that opens a text has no space, and a token of its own ("Ada" beside " Ada").

There is no <bos>: the word without its space marks the beginning, and facts stay aligned with pages of 8 and 16.
<eos> closes the answer to "Where" and "Who": a request may end by itself. <unk> is any word outside the language.
"""

from tokenizers import AddedToken, Regex, Tokenizer
from tokenizers.decoders import Fuse
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Split

from kvpaged.recall.text import NAMES, PLACES, PREPOSITIONS, THINGS

EOS, UNK = "<eos>", "<unk>"


def build_tokenizer() -> Tokenizer:
    """The tokenizer that training writes to tokenizer.json."""
    openers = [*NAMES, "Where", "Who"]
    inner = ["hid", "looks", "for", "the", "is", *PREPOSITIONS, *(word.capitalize() for word in PREPOSITIONS)]
    inner += [*openers, *THINGS, *PLACES]
    tokens = [EOS, UNK, ".", "?", ",", *(f" {word}" for word in inner), *openers]
    tokenizer = Tokenizer(WordLevel({token: index for index, token in enumerate(tokens)}, unk_token=UNK))
    tokenizer.pre_tokenizer = Split(Regex(r" ?[A-Za-z]+|[^A-Za-z]"), behavior="isolated")
    tokenizer.decoder = Fuse()
    tokenizer.add_special_tokens([AddedToken(EOS, special=True)])
    return tokenizer

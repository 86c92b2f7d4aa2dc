"""Two prompts to type: the trie that they leave in the prefix cache, and what the second finds there."""

from collections.abc import Callable

from ipywidgets import Layout, Text

from kvpaged.cache import PagedKVCache
from kvpaged.figures.language import count_of
from kvpaged.figures.picture import Picture
from kvpaged.figures.playground.base import PAGE_SIZE, Playground
from kvpaged.figures.prefix_trie import prefix_trie
from kvpaged.figures.rows import Decode
from kvpaged.page_table import pages_for


class PrefixPlayground(Playground):
    """Two fields. A computes the first prompt and is released; then B begins with the second."""

    name = "Prefix cache playground"
    does = "you type two prompts, and see the trie and what the second finds in it"

    def __init__(
        self,
        encode: Callable[[str], list[int]],
        decode: Decode,
        first: str = "Ada hid the coin in the attic.",
        second: str = "Ada hid the coin under the bed.",
    ) -> None:
        self._encode, self._decode = encode, decode
        look = {"layout": Layout(width="100%"), "style": {"description_width": "initial"}, "continuous_update": False}
        self.first = Text(first, description="first prompt (A)", **look)
        self.second = Text(second, description="second prompt (B)", **look)
        sentence = self.serve()
        super().__init__([self.first, self.second], sentence)
        for prompt in (self.first, self.second):
            prompt.observe(lambda _: self.act(self.serve), names="value")

    def picture(self) -> Picture:
        """Draw the trie, and which of its pages B owns."""
        return prefix_trie(self.cache, self._decode)

    def serve(self) -> str:
        """Begin anew, and serve the two prompts."""
        prompts = [self._encode(field.value) for field in (self.first, self.second)]
        num_pages = sum(pages_for(len(prompt), PAGE_SIZE) for prompt in prompts)
        cache = PagedKVCache(num_pages + 1, PAGE_SIZE)
        a = cache.sequence(prompts[0])
        a.mark_computed()
        a.release()
        b = cache.sequence(prompts[1])
        b.mark_computed()
        self.cache, hits = cache, b.num_cached_tokens
        words = "".join(map(self._decode, b.tokens[:hits])).strip()
        found = f"finds {hits} of its {count_of(len(b), 'token')} in the cache (“{words}”)" if hits else "finds nothing"
        return f"B {found}, and computes {len(b) - hits}."

"""Two prompts to type: the trie that they leave in the prefix cache, and what the second finds there."""

from kvpaged.cache import PagedKVCache
from kvpaged.figures.picture import Picture
from kvpaged.figures.playground.base import PAGE_SIZE, Control, Playground
from kvpaged.figures.playground.words import Words
from kvpaged.figures.prefix_trie import prefix_trie
from kvpaged.page_table import pages_for
from kvpaged.wording import count_of


class PrefixPlayground(Playground):
    """Two fields. A computes the first prompt and is released; then B begins with the second."""

    name = "Prefix cache playground"
    does = "you can type two prompts, and see the trie and what the second finds in it"

    def __init__(
        self, first: str = "Ada hid the coin in the attic.", second: str = "Ada hid the coin under the bed."
    ) -> None:
        self.words = Words()
        self.first = Control("text", "first prompt (A)", first)
        self.second = Control("text", "second prompt (B)", second)
        super().__init__([self.first, self.second], self.serve())

    def picture(self) -> Picture:
        """Draw the trie, and which of its pages B owns."""
        return prefix_trie(self.cache, self.words.decode)

    def fill(self, label: str, value: int | str) -> None:
        """Change a prompt, and serve both."""
        super().fill(label, value)
        self.act(self.serve)

    def serve(self) -> str:
        """Begin anew, and serve the two prompts."""
        prompts = [self.words.encode(str(field.value)) for field in (self.first, self.second)]
        num_pages = sum(pages_for(len(prompt), PAGE_SIZE) for prompt in prompts)
        cache = PagedKVCache(num_pages + 1, PAGE_SIZE)
        a = cache.sequence(prompts[0])
        a.mark_computed()
        a.release()
        b = cache.sequence(prompts[1])
        b.mark_computed()
        self.cache, hits = cache, b.num_cached_tokens
        words = "".join(map(self.words.decode, b.tokens[:hits])).strip()
        found = f"finds {hits} of its {count_of(len(b), 'token')} in the cache (“{words}”)" if hits else "finds nothing"
        return f"B {found}, and computes {len(b) - hits}."

"""What all players have in common: data, script, and a frame and a sentence that read well without the script."""

import json
from html import escape

from kvpaged.figures.picture import stylesheet


def player_html(name: str, data: dict[str, object], sentence: str, frame: str) -> str:
    """Return a player as HTML that needs nothing else; its script replaces `sentence` and `frame` and adds controls."""
    payload = json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    return (
        f'<section class="kvf kvt" tabindex="0" role="group" aria-label="{escape(name)}">'
        f"<style>{stylesheet('picture.css')}{stylesheet('trace_player.css')}</style>"
        f'<p class="say" aria-live="polite">{escape(sentence)}</p><div class="frame">{frame}</div>'
        "<noscript><p>Without JavaScript, or in a notebook that is not trusted, this shows the end of the trace; "
        "else every step.</p></noscript>"
        f'<script type="application/json">{payload}</script><script>{stylesheet("trace_player.js")}</script></section>'
    )

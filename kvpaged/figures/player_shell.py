"""What all players have in common: data, script, a frame and a sentence that read well without it; and whole pages."""

import json
from html import escape

from kvpaged.figures.picture import stylesheet

# What the book's theme says elsewhere: the page's colours, in the light and in the dark.
_PAGE_STYLE = (
    ":root{color-scheme:light dark}body{max-width:1100px;margin:0 auto;padding:12px;font:16px/1.5 system-ui,sans-serif;"
    "color:var(--pst-color-text-base,#1a1a1a);background:var(--pst-color-background,#fff)}"
    "h1{font-size:1.4rem;overflow-wrap:anywhere}"
    "@media(prefers-color-scheme:dark){:root{--pst-color-text-base:#ced6dd;--pst-color-text-muted:#9ca4af;"
    "--pst-color-border:#5c6b7d;--pst-color-background:#14181e;--pst-color-surface:#29313d;--pst-color-primary:#3fb1c5}}"
)


def page_html(title: str, body: str) -> str:
    """Return a page of its own around a player."""
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_PAGE_STYLE}</style></head>"
        f"<body><main><h1>{escape(title)}</h1>{body}</main></body></html>\n"
    )


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

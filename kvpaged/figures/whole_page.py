"""A page of its own: one HTML file that loads nothing else, in the light and in the dark, on a desk and on a phone."""

from html import escape

from kvpaged.figures.picture import stylesheet


def whole_page(title: str, *parts: str) -> str:
    """Return an HTML page with these parts of its body, pictures and tables among them."""
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{stylesheet('picture.css')}{stylesheet('whole_page.css')}</style></head>"
        f"<body><main>{''.join(parts)}</main></body></html>\n"
    )

"""Where the book lives: all that follows from the address of its repository, and of the site.

The address is `repository: url:` in `_config.yml`, or, where GitHub builds the book, that of the repository which is
built: a fork needs to set nothing. Without one the book has no buttons to open its notebooks elsewhere, no sitemap, no
word for crawlers and no page for addresses that lead nowhere, and is whole otherwise.
"""

import os
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from sphinx.application import Sphinx
from sphinx.config import Config

PDF = "paged-kv-caching.pdf"  # printed by tools/print_book.mjs in the workflow that publishes


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the extension."""
    app.connect("config-inited", set_addresses, priority=100)  # before the theme and the others read them
    app.connect("build-finished", write_robots)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def set_addresses(app: Sphinx, config: Config) -> None:
    """Set what the theme, the sitemap and the social cards are told."""
    options = config.html_theme_options
    address = options.get("repository_url") or github_repository()
    if not address:
        return
    owner, repository = urlsplit(address).path.strip("/").split("/")
    options |= {
        "repository_url": address,
        # The notebooks as they are here, each with a cell that installs the package (`tools/open_alone.py`).
        "repository_branch": "notebooks",
        "use_repository_button": True,
        "use_issues_button": True,
        "launch_buttons": {
            "colab_url": "https://colab.research.google.com",
            "binderhub_url": "https://mybinder.org",
            "notebook_interface": "jupyterlab",
        },
    }
    site = config.html_baseurl or os.environ.get("BOOK_URL") or f"https://{owner.lower()}.github.io/{repository}"
    config.html_baseurl = config.ogp_site_url = site.rstrip("/") + "/"
    options["extra_footer"] = f'<p><a href="{config.html_baseurl}{PDF}">The whole book as a PDF</a></p>'
    for extension in ("notfound.extension", "sphinx_sitemap"):  # neither can do without an address
        app.setup_extension(extension)
    config.notfound_urls_prefix = urlsplit(config.html_baseurl).path
    config.sitemap_url_scheme = "{link}"
    config.sitemap_excludes = ["search.html", "genindex.html", "404.html"]


def write_robots(app: Sphinx, exception: Exception | None) -> None:
    """Tell crawlers where the list of pages is. (They ask the root of a site: it is for a book with its own domain.)"""
    if not exception and app.builder.name == "html" and app.config.html_baseurl:
        said = f"User-agent: *\nAllow: /\nSitemap: {app.config.html_baseurl}sitemap.xml\n"
        Path(app.outdir, "robots.txt").write_text(said, encoding="utf-8")


def github_repository() -> str:
    """The repository that a GitHub workflow runs in, or nothing."""
    name = os.environ.get("GITHUB_REPOSITORY", "")
    return f"{os.environ.get('GITHUB_SERVER_URL', 'https://github.com')}/{name}" if name else ""

"""What `make docs` changes in the pages."""

from __future__ import annotations


def on_page_content(html: str, **_: object) -> str:
    """Show `text::` before an example as `text:`; Markdown knows no double colon, which docstrings have."""
    return html.replace("<p>::</p>", "").replace("::</p>", ":</p>")

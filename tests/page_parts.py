"""The page of audits as a browser's parser takes it apart."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

__all__ = ["Page", "read_page"]


class Page(HTMLParser):
    """What is on a page: `text`, `tags`, and each (tag, attribute, value) in `attributes`."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.source = source
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.styles = ""
        self.text = ""
        self.feed(source)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_data(self, data):
        if self.lasttag == "style":
            self.styles += data
        else:
            self.text += data


def read_page(pool, path: Path | None = None) -> Page:
    """The page in the pool's folder, or at `path`."""
    return Page((path or pool.settings.data_dir / "audits" / "index.html").read_text())

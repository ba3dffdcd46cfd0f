"""Check the links of a built site without a network."""

from collections.abc import Iterator
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

ATTRIBUTES = {"a": "href", "link": "href", "img": "src", "script": "src", "source": "src"}


class _Page(HTMLParser):
    """Collects what a page links to and the anchors it offers."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[tuple[int, str]] = []
        self.anchors: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        for name in ("id", "name"):
            if values.get(name):
                self.anchors.add(values[name] or "")
        target = values.get(ATTRIBUTES.get(tag, ""))
        if target and values.get("rel") not in ("canonical", "preconnect"):
            self.links.append((self.getpos()[0], target))


@cache
def _read(path: Path, changed: int) -> _Page:
    page = _Page()
    page.feed(path.read_text(encoding="utf-8", errors="replace"))
    return page


def _page(path: Path) -> _Page:
    return _read(path, path.stat().st_mtime_ns)


def check(site: Path) -> list[str]:
    """One line for each link inside the site that leads to no file or to no anchor."""
    return [line for path in sorted(site.rglob("*.html")) for line in _broken(site, path)]


def _broken(site: Path, path: Path) -> Iterator[str]:
    if "_static" in path.relative_to(site).parts:
        return
    for line, link in _page(path).links:
        parts = urlsplit(link)
        if parts.scheme or parts.netloc or link == "#":
            continue
        target = path
        if parts.path:
            base = site if parts.path.startswith("/") else path.parent
            target = (base / unquote(parts.path).lstrip("/")).resolve()
            target = target / "index.html" if target.is_dir() else target
        where = f"{path.relative_to(site)}:{line}"
        if not target.exists():
            yield f"{where}: {link} leads to no file"
        elif parts.fragment and target.suffix == ".html" and unquote(parts.fragment) not in _page(target).anchors:
            yield f"{where}: {link}: no such anchor"

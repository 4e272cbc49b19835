"""Links of pages that lead out of docs/, to files of the repository: the site gets a copy and needs no network.

So do scripts that the theme would fetch. Markdown (CONTRIBUTING, CHANGELOG) becomes a page, anything else a file below
``repository/``; the name of a folder stays as text.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
LINK = re.compile(r"\[([^\]]+)\]\((?![a-z]+:)([^)#\s]+)(#[^)\s]*)?\)")


def place(target: Path) -> str | None:
    """Where a file of the repository lies in the site; None for a folder.

    Args:
        target: absolute, resolved.
    """
    if target == ROOT / "README.md":
        return "README.md"  # the home page is the site's own
    if target.is_relative_to(DOCS) or not target.is_file():
        return None
    inside = target.relative_to(ROOT).as_posix()
    return inside.lower() if target.suffix == ".md" and target.parent == ROOT else f"repository/{inside}"


def outside(text: str, folder: Path) -> set[Path]:
    """Files out of docs/ that a text links to, seen from its folder."""
    targets = {Path(os.path.normpath(folder / link)) for _, link, _ in LINK.findall(text)}
    return {target for target in targets if target.is_relative_to(ROOT) and not target.is_relative_to(DOCS)}


def on_files(files: Any, config: Any) -> Any:
    """Called by mkdocs: adds what any page links to, and what that links to."""
    from mkdocs.structure.files import File, InclusionLevel

    waiting = [
        target
        for file in files.documentation_pages()
        for target in outside(file.content_string, (DOCS / file.src_uri).parent)
    ]
    done: set[str] = set()
    while waiting:
        target = waiting.pop()
        name = place(target)
        if name is None or name in done or name == "README.md":
            continue
        done.add(name)
        files.append(File.generated(config, name, abs_src_path=str(target), inclusion=InclusionLevel.NOT_IN_NAV))
        if name.endswith(".md"):
            waiting += outside(target.read_text(encoding="utf8"), target.parent)
    return files


def on_page_markdown(text: str, page: Any, config: Any, files: Any) -> str:
    """Called by mkdocs with a page's text: its links, as the site has them."""
    here = page.file.src_uri
    written = next((root for root in ROOT.glob("*.md") if root.name.lower() == here), DOCS / here)

    def moved(found: re.Match[str]) -> str:
        name, link, anchor = found[1], found[2], found[3] or ""
        target = Path(os.path.normpath(written.parent / link))
        if not target.is_relative_to(ROOT):
            return found[0]
        if target.is_dir():
            return name
        inside = target.relative_to(DOCS).as_posix() if target.is_relative_to(DOCS) else place(target)
        if inside is None:
            return found[0]  # mkdocs names it
        return f"[{name}]({os.path.relpath(inside, Path(here).parent)}{anchor})"

    return LINK.sub(moved, text)


SHIM = re.compile(r"https://[\w.]+/iframe-worker/shim")
"""What the theme fetches to search pages that were opened from a folder; _site/iframe-worker.js is the same."""


def on_post_page(output: str, page: Any, config: Any) -> str:
    """Called by mkdocs with a finished page."""
    return SHIM.sub(os.path.relpath("_site/iframe-worker.js", Path(page.url).parent), output)


def on_post_template(output: str, template_name: str, config: Any) -> str:
    """Called by mkdocs with a page that is no page of ours: 404.html."""
    return SHIM.sub("/_site/iframe-worker.js", output)

"""Navigation from docs/README.md: each second heading is a group, the first link of each row of its tables a page.

So a new page needs one line, there. mkdocs.yml has ``omitted_files: warn``: a page without a line stops the build.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from generated import PAGES  # beside this file; mkdocs puts the folder of a hook on the path


def navigation(text: str) -> list[dict[str, Any]]:
    """Groups of pages in the order of the text of docs/README.md.

    The name of a group is its heading up to a colon. Links that lead to a place within a page, or to a page that came
    before, are no entries. Pages beside README.md in the repository have a place of their own (outside.py).
    """
    groups: list[dict[str, Any]] = []
    seen: set[str] = set()
    for part in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        entries = []
        for title, page in re.findall(r"^\| \[([^\]]+)\]\(([^)#]+\.md)\)", part, flags=re.MULTILINE):
            page = page.lower().removeprefix("../") if page.startswith("../") else page
            if page not in seen:
                seen.add(page)
                entries.append({title.replace("`", ""): page})
        if entries:
            groups.append({part.splitlines()[0].split(":")[0]: entries})
    return groups


def on_config(config: Any) -> Any:
    """Called by mkdocs before anything is read."""
    text = (Path(config["docs_dir"]) / "README.md").read_text(encoding="utf8")
    groups = navigation(text)
    for page in PAGES:
        group = next((entries for group in groups for name, entries in group.items() if name == page.group), None)
        if group is None:
            raise SystemExit(f"docs/README.md: no heading '## {page.group}', where {page.path} belongs")
        group.append({page.title: page.path})
    config["nav"] = [{"Home": "README.md"}, *groups]
    return config

"""What strangers read is true: every link leads somewhere, marked commands run, generated parts are current.

``<!-- runnable -->`` before a block of Python or shell says that it is run here, ``<!-- runnable: slow -->`` among the
slow tests. Marked blocks of one page run one after the other in one folder, which has ``photos/``, a rendered capture.
"""

import json
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import pytest

from reliev3r.synthetic.capture import SynthConfig, write_capture

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
README = ROOT / "README.md"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md"), *(ROOT / "src").rglob("*.md")])
BLOCK = re.compile(r"^<!-- runnable(: slow)? -->\n```(bash|python)\n(.*?)^```", flags=re.MULTILINE | re.DOTALL)
MARK = "<!-- runnable"
BOUND = 1800.0
"""Seconds that a block may take, at most."""

sys.path.insert(0, str(DOCS / "_site"))
sys.path.insert(0, str(ROOT / "benchmarks"))


def named(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def prose(page: Path) -> str:
    """A page without its blocks of code and without code in its lines."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf8"), flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"`[^`\n]*`", "`code`", text)


@cache
def headings(page: Path) -> set[str]:
    """The places within a page that can be linked to, as GitHub and the site name them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf8"), flags=re.MULTILINE | re.DOTALL)
    titles = re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


def broken(page: Path) -> list[str]:
    """Relative links of a page whose file or heading is not there."""
    wrong = []
    for link in re.findall(r"\]\((?![a-z]+:)([^)\s]+)\)", prose(page)):
        target, _, anchor = link.partition("#")
        file = page.parent / target if target else page
        if not file.exists() or (anchor and anchor not in headings(file.resolve())):
            wrong.append(link)
    return wrong


def blocks(page: Path, *, slow: bool) -> list[tuple[str, str]]:
    """(language, code) of a page's marked blocks."""
    found = BLOCK.findall(page.read_text(encoding="utf8"))
    return [(language, code) for mark, language, code in found if bool(mark) == slow]


# links ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_link_leads_to_a_file_and_a_heading(page) -> None:
    assert broken(page) == []


def test_a_link_to_nowhere_is_found(tmp_path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# One two\n[a](#one-two) [b](#one) [c](page.md#one-two) [d](gone.md) `[e](f.md)` [g](https://h)\n")
    assert broken(page) == ["#one", "gone.md"]


# blocks that run -----------------------------------------------------------------------------------------------------


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """A folder to run in, with the command line of this checkout on the path."""
    folder, programs = tmp_path / "place", tmp_path / "bin"
    folder.mkdir()
    programs.mkdir()
    program = programs / "reliev3r"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m reliev3r.cli "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "src"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.chdir(folder)
    return folder


def photograph(folder: Path, views: int, width: int) -> None:
    """Render photos/ into a folder."""
    settings = SynthConfig(seed=3, views=views, width=width, height=width * 3 // 4, span=6.0 * views, supersample=1)
    write_capture(folder / "photos", settings)


def run(language: str, code: str) -> None:
    """A block, in the folder at hand."""
    if language == "python":
        exec(compile(code, "block", "exec"), {"__name__": "block"})
        return
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", code], capture_output=True, text=True, timeout=BOUND, check=False
    )
    assert done.returncode == 0, f"{code}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"


def pages_with(*, slow: bool) -> list[Path]:
    return [page for page in PAGES if blocks(page, slow=slow)]


def test_no_mark_is_overlooked() -> None:
    for page in PAGES:
        marks = page.read_text(encoding="utf8").count(f"\n{MARK}")
        assert marks == len(blocks(page, slow=False)) + len(blocks(page, slow=True)), named(page)
    assert README in pages_with(slow=False)


@pytest.mark.parametrize("page", pages_with(slow=False), ids=named)
def test_what_is_marked_runs(page, place) -> None:
    photograph(place, views=3, width=128)
    for language, code in blocks(page, slow=False):
        run(language, code)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("page", pages_with(slow=True), ids=named)
def test_what_is_marked_as_slow_runs(page, place) -> None:
    photograph(place, views=8, width=320)
    for language, code in blocks(page, slow=True):
        run(language, code)


def test_a_block_that_fails_is_told(place) -> None:
    with pytest.raises(AssertionError, match="gone"):
        run("bash", "cat gone\necho went on")


# README --------------------------------------------------------------------------------------------------------------


def test_the_results_of_the_readme_are_those_of_the_measurement() -> None:
    import readme_table

    text = README.read_text(encoding="utf8")
    found = json.loads(readme_table.SOURCE.read_text(encoding="utf8"))
    made = readme_table.with_table(text, readme_table.table(found))
    assert made == text, "run `python benchmarks/readme_table.py`"
    found["runs"]["box_rgbd/reconstruct"]["auc30"] += 1
    assert readme_table.with_table(text, readme_table.table(found)) != text


def test_the_first_picture_is_small() -> None:
    picture = re.search(r"!\[[^\]]+\]\(([^)]+)\)", README.read_text(encoding="utf8"))
    assert (ROOT / picture[1]).stat().st_size <= 150_000


# the site ------------------------------------------------------------------------------------------------------------


def test_every_page_of_docs_has_its_line() -> None:
    """As the strict build asks, but at once."""
    import pages

    groups = pages.navigation((DOCS / "README.md").read_text(encoding="utf8"))
    listed = {page for group in groups for entries in group.values() for entry in entries for page in entry.values()}
    there = {page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md")} - {"README.md"}
    assert there - listed == set(), "give it a line in a table of docs/README.md"
    assert {page for page in listed - there if not (ROOT / page.upper().replace(".MD", ".md")).is_file()} == set()


def test_navigation_takes_a_heading_and_the_first_link_of_each_row() -> None:
    import pages

    rows = ["| [`x`](x.md) | [y](y.md) |", "| [part](x.md#part) | |", "| [R](../README.md) | |"]
    text = "\n".join(["# T", "## A: b", *rows, "## C", "no table"])
    assert pages.navigation(text) == [{"A": [{"x": "x.md"}, {"R": "readme.md"}]}]


def test_links_out_of_docs_lead_to_copies_in_the_site() -> None:
    import outside

    def moved(text: str, page: str) -> str:
        return outside.on_page_markdown(text, SimpleNamespace(file=SimpleNamespace(src_uri=page)), None, None)

    assert moved("[a](../CHANGELOG.md#x) [b](method.md)", "labels.md") == "[a](changelog.md#x) [b](method.md)"
    assert moved("[a](../../README.md)", "results/fit.md") == "[a](../README.md)"
    assert moved("[a](../examples/new_loss.py)", "python.md") == "[a](repository/examples/new_loss.py)"
    assert moved("see [examples](../examples), [h](https://x.y/z)", "python.md") == "see examples, [h](https://x.y/z)"
    assert moved("[a](docs/method.md)", "contributing.md") == "[a](method.md)"
    assert moved("[a](../gone.md)", "labels.md") == "[a](../gone.md)"  # mkdocs names it


@pytest.mark.slow
def test_the_site_is_built_and_has_what_is_generated(tmp_path) -> None:
    pytest.importorskip("material", reason="the extra docs is not installed")
    pytest.importorskip("mkdocstrings", reason="the extra docs is not installed")
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(build, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    site = tmp_path / "site"
    command_line = (site / "reference" / "cli.html").read_text(encoding="utf8")
    assert all(f'id="{verb}"' in command_line for verb in ("fit", "reconstruct", "evaluate"))
    api = (site / "reference" / "api.html").read_text(encoding="utf8")
    assert all(name in api for name in ("load_capture", "world_from_cam", "Raises"))
    fetched = re.compile(r"""<(?:script|link|img)[^>]*?(?:src|href)=["'](?:https?:)?//[^"']+""")
    for page in site.rglob("*.html"):
        assert fetched.findall(page.read_text(encoding="utf8")) == [], page.name

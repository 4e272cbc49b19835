"""What every page of a report is made in: one HTML file with its style sheet, light and dark, from phone to desk."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

from reliev3r.core.files import atomic_path

_CSS = """
:root { color-scheme: light dark; --paper: #ffffff; --ink: #1c2330; --faint: #667085; --line: #e3e7ee;
  --card: #f6f8fb; --good: #1a7f4b; --good-back: #e7f6ee; --bad: #b42318; --bad-back: #fdecea; --accent: #3b6fd4; }
@media (prefers-color-scheme: dark) { :root { --paper: #12161d; --ink: #e6e9ef; --faint: #98a2b3; --line: #2a313c;
  --card: #1a202a; --good: #5fd39a; --good-back: #13291f; --bad: #ff9a8f; --bad-back: #33191a; --accent: #86aef7; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); line-height: 1.5;
  font-family: system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { max-width: 1180px; margin: 0 auto; padding: 1.5rem 1rem 4rem; }
h1 { font-size: 1.6rem; margin: 0 0 .2rem; letter-spacing: -.01em; }
h2 { font-size: 1.15rem; margin: 2.6rem 0 .8rem; padding-bottom: .3rem; border-bottom: 1px solid var(--line); }
p { margin: .4rem 0; } .faint { color: var(--faint); font-size: .88rem; font-weight: 400; }
ul { margin: .4rem 0; padding-left: 1.2rem; }
.alarm, .fine { border-radius: 10px; padding: .7rem 1rem; margin: .8rem 0; border-left: 4px solid; }
.alarm { background: var(--bad-back); color: var(--bad); border-color: var(--bad); }
.fine { background: var(--good-back); color: var(--good); border-color: var(--good); }
.cards { display: grid; gap: .7rem; grid-template-columns: repeat(auto-fit, minmax(165px, 1fr)); margin: 1rem 0; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 12px; padding: .8rem 1rem; }
.card b { display: block; font-size: 1.5rem; font-weight: 650; font-variant-numeric: tabular-nums; }
.card span { color: var(--faint); font-size: .82rem; display: block; line-height: 1.35; }
.plots { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 340px), 1fr)); }
.plots figure { background: var(--card); border: 1px solid var(--line); border-radius: 12px; padding: .6rem; }
figure { margin: 0; } figcaption { font-size: .85rem; color: var(--faint); padding: .1rem .2rem .3rem; }
svg { width: 100%; height: auto; display: block; color: var(--ink); }
.legend { display: grid; gap: .4rem 1.6rem; margin: .6rem 0 1.2rem; font-size: .85rem;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 250px), 1fr)); }
.ramp { display: block; height: .55rem; border-radius: 4px; margin: .2rem 0 .1rem; }
.ends { display: flex; justify-content: space-between; color: var(--faint); font-size: .78rem; }
.view { border-top: 1px solid var(--line); padding: .9rem 0; }
.view h3 { font-size: .95rem; margin: 0 0 .4rem; font-weight: 600; overflow-wrap: anywhere; }
.dot { display: inline-block; width: .75em; height: .75em; border-radius: 50%; margin-right: .5em; }
.row { display: grid; gap: .5rem; grid-template-columns: repeat(var(--columns), minmax(0, 1fr)); }
.row img { width: 100%; display: block; border-radius: 8px; }
.scroll { overflow-x: auto; }
pre { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: .8rem; font-size: .8rem;
  overflow-x: auto; }
table { border-collapse: collapse; font-size: .85rem; width: 100%; }
td { border-top: 1px solid var(--line); padding: .25rem .6rem .25rem 0; vertical-align: top; overflow-wrap: anywhere; }
td:first-child { color: var(--faint); width: 40%; }
a { color: var(--accent); }
summary { cursor: pointer; color: var(--accent); }
@media (max-width: 640px) { .row { grid-template-columns: repeat(2, minmax(0, 1fr)); } h1 { font-size: 1.3rem; } }
@media print { .view { break-inside: avoid; } }
"""


def write_page(path: Path | str, *, title: str, body: Sequence[str], style: str = "") -> None:
    """Write the file, atomically. ``body`` is HTML, ``style`` what its own parts need beside the common style sheet."""
    document = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_CSS}{style}</style></head><body><main>{''.join(body)}</main></body>"
        "</html>\n"
    )
    with atomic_path(path) as temporary:
        temporary.write_text(document, encoding="utf8")

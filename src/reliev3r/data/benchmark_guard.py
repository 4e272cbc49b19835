"""What training never sees: the scenes of the DL3DV benchmark. Weak training imports this, so it reads no truth."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from reliev3r.core.cameras_json import CAMERAS_JSON, read_about
from reliev3r.core.errors import UserError

_HASH = re.compile(r"[0-9a-f]{64}")


def is_hash(name: str) -> bool:
    """Whether DL3DV could have named a scene so."""
    return bool(_HASH.fullmatch(name))


def refuse_benchmark(names: Iterable[str], benchmark: Path | str) -> None:
    """Stop unless none of the captures ``names`` that training would see is a scene of the DL3DV benchmark.

    Every source of training samples that takes real captures calls it. Names are paths whose parts are searched for
    DL3DV's hashes, as is the ``source`` that ``reliev3r convert`` wrote into a capture folder. ``benchmark`` is
    ``benchmark-meta.csv`` or the benchmark's folder; it may be "" where there are no scenes of DL3DV.

    Raises:
        UserError: a benchmark scene among the names, DL3DV scenes but no list to hold against them, or an empty list.
    """
    ours = {part for name in names for part in re.split(r"[/\\]", f"{name}/{_source(Path(name))}") if is_hash(part)}
    if not ours:
        return
    if not str(benchmark):
        raise UserError(
            f"{len(ours)} scenes of DL3DV, but nothing says which of them are its benchmark; "
            "give --dl3dv-benchmark benchmark-meta.csv (or the benchmark's folder)"
        )
    shared = sorted(ours & benchmark_hashes(Path(benchmark)))
    if shared:
        raise UserError(
            f"{len(shared)} scenes of the DL3DV benchmark ({shared[0][:12]}... first) are among the training scenes; "
            "remove them, or no number on the benchmark is worth anything"
        )


def _source(folder: Path) -> str:
    """The scene that a capture folder was converted from, "" where it does not say."""
    file = folder / CAMERAS_JSON
    return read_about(file).source if file.is_file() else ""


def benchmark_hashes(path: Path) -> set[str]:
    """The hashes in ``benchmark-meta.csv`` (or any text), or in a folder that holds it or is the benchmark.

    Raises:
        UserError: missing, unreadable, or without any hash.
    """
    if path.is_dir():
        listed = path / "benchmark-meta.csv"
        found = benchmark_hashes(listed) if listed.is_file() else set()
        found |= {child.name for child in path.iterdir() if is_hash(child.name)}
    else:
        try:
            found = set(re.findall(r"\b[0-9a-f]{64}\b", path.read_text(encoding="utf8")))
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{path}: not readable; give the benchmark-meta.csv of DL3DV-Benchmark") from error
    if not found:
        raise UserError(f"{path}: has no hash of a scene in it; give the benchmark-meta.csv of DL3DV-Benchmark")
    return found

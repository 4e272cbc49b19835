"""Verbs that score systems against ground truth, rank them without, and list the other ones."""

# No postponed annotations here: tyro reads the fields' types where the verbs define them.
import os
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from tyro.conf import Positional

from reliev3r.cli.terminal import parse, progress_bars
from reliev3r.core.errors import UserError


def evaluate(argv: list[str]) -> int:
    """``reliev3r evaluate fit:RUN colmap --capture CAPTURE --out DIR``."""

    @dataclass(frozen=True)
    class Evaluate:
        """Score systems against ground truth, side by side; predictions are kept in --out and not made twice."""

        system: Positional[tuple[str, ...]]
        """fit:RUN, fit:RUN@refined, colmap, colmap-global, model:MODEL[@SIZE], or names of --systems."""
        capture: Path | None = None
        """Capture folder with ground truth (cameras.json with poses; depth where there is any)."""
        benchmark: str | None = None
        """synthetic[:rooms=4,span=75,...], captures:FOLDER, FORMAT:FOLDER of a dataset, or a JSON file."""
        depth_truth: str | None = None
        """Depth from elsewhere as the truth: wai:, cut3r:, omega: or colmap:PATH, {scene} for a scene's name."""
        out: Path | None = None
        """Folder for predictions, scores.json, scores.md and comparison.html."""
        protocol: Literal["strict", "mapanything", "pi3"] | None = None
        """By default the benchmark's, and strict for a capture."""
        views: str | None = None
        """Views a scene, evenly spaced; 2,4,8 gives a table each and curves. A fit: brings its own frames."""
        systems: Path | None = None
        """TOML file with a table for each baseline: weights, python, repo, ... (docs/evaluation.md)."""
        device: str = "auto"
        """Of model: systems; auto (the accelerator where there is one), cpu, cuda, ... Others have one in --systems."""

    given = parse(Evaluate, "evaluate", argv)
    if (given.capture is None) == (given.benchmark is None):
        raise UserError("give either --capture FOLDER or --benchmark NAME")
    from reliev3r.evaluation.systems import read_settings

    settings = None if given.systems is None else read_settings(given.systems)
    if given.out is not None:
        return _evaluate(given, settings, given.out, keep=True)
    with tempfile.TemporaryDirectory(prefix="reliev3r-evaluate-") as folder:
        return _evaluate(given, settings, Path(folder), keep=False)


def _evaluate(given: Any, settings: Any, out: Path, *, keep: bool) -> int:
    from reliev3r.evaluation.benchmarks import capture_benchmark, open_benchmark, with_depth_truth
    from reliev3r.evaluation.pages import write_results
    from reliev3r.evaluation.run import evaluate_benchmark
    from reliev3r.evaluation.systems import fitted_frames, systems_from_specs

    systems = systems_from_specs(given.system, settings, device=given.device)
    counts = _counts(given.views)
    names = fitted_frames(systems)
    if names is not None and len(counts) > 1:
        raise UserError("a fit: has frames of its own; leave it out, or give one number of --views")
    if given.capture is not None:
        benchmark = capture_benchmark(given.capture, names)
    else:
        benchmark = open_benchmark(given.benchmark, cache=out / "scenes")
    if given.depth_truth is not None:
        benchmark = with_depth_truth(benchmark, given.depth_truth)
    results = []
    with progress_bars() as report:
        for views in counts:
            stage = "evaluate" if views is None or len(counts) == 1 else f"{views} views"
            results.append(
                evaluate_benchmark(
                    systems, benchmark, out=out, protocol=given.protocol, views=views,
                    progress=lambda done, total, what, stage=stage: report(stage, done, total, what),
                )
            )  # fmt: skip
    for views, result in zip(counts, results):
        print(f"{views} views\n" if len(counts) > 1 else "", result.table().to_text(), sep="")
    if keep:
        print(*write_results(out, results, benchmark, systems), sep="\n")
    failures = sum(result.failures for result in results)
    if failures:
        print(f"{failures} cell(s) failed; the same command tries them again", file=sys.stderr)
    return 3 if failures else 0


def _counts(views: str | None) -> list[int | None]:
    if views is None:
        return [None]
    try:
        counts = sorted({int(part) for part in views.split(",")})
    except ValueError as error:
        raise UserError(f"--views {views}: give a number, or several as 2,4,8") from error
    if min(counts) < 2:
        raise UserError(f"--views {views}: a reconstruction needs at least 2 views")
    return list(counts)


def rank(argv: list[str]) -> int:
    """``reliev3r rank SYSTEM ... --footage FOOTAGE``."""

    @dataclass(frozen=True)
    class Rank:
        """Rank systems on footage without ground truth, by matches found anew in its images."""

        system: Positional[tuple[str, ...]]
        """As of evaluate: reconstruct[:MODEL], model:MODEL[@SIZE], colmap, colmap-global, fit:RUN, fit:RUN@refined, or
        a name of the TOML file of systems."""
        footage: Path
        """A folder of images, a video, or a folder of captures."""
        out: Path | None = None
        """Folder for ranking.html, ranking.json and the predictions, which are not made twice."""
        views: int | None = None
        """This many images of each capture, evenly spaced; of a video at most that many frames. A fit: brings its own
        frames."""
        intrinsics: str | None = None
        """FILE, fov:DEG (horizontal) or exif; by default the footage's own, else estimated from the matches."""
        tracks: str | None = None
        """What finds the matches, where SIFT finds too little: aliked, network, ... (`reliev3r experts`)."""
        systems: Path | None = None
        """TOML file with a table for each baseline: weights, python, repo, ... (docs/evaluation.md)."""
        device: str = "auto"
        """auto (the accelerator where there is one), cpu, cuda, ... Others have one in --systems."""
        with_truth: bool = False
        """Afterwards, of footage with ground truth: does it agree with the ranking?"""

    given = parse(Rank, "rank", argv)
    if given.out is not None:
        return _rank(given, given.out, keep=True)
    with tempfile.TemporaryDirectory(prefix="reliev3r-rank-") as folder:
        return _rank(given, Path(folder), keep=False)


def _rank(given: Any, out: Path, *, keep: bool) -> int:
    from reliev3r.evaluation.systems import read_settings, systems_from_specs
    from reliev3r.evaluation.tables import aligned_text
    from reliev3r.labels.registry import track_expert
    from reliev3r.report.ranking import HEAD, headline, ranking_cells
    from reliev3r.runs.rank import rank as run

    settings = None if given.systems is None else read_settings(given.systems)
    systems = systems_from_specs(given.system, settings, device=given.device)
    expert = None if given.tracks is None else track_expert(given.tracks, device=given.device)
    with progress_bars() as report:
        result = run(
            systems, given.footage, out, views=given.views, intrinsics=given.intrinsics, expert=expert, report=report
        )
    standings = result.ranking.standings
    print(aligned_text([list(HEAD), *ranking_cells(standings)]), "", headline(standings), sep="\n")
    for standing in standings:
        for remark in standing.remarks:
            print(f"{standing.system}: {remark}")
    print(*(f"note: {note}" for note in result.notes), sep="\n", end="\n" if result.notes else "")
    if keep:
        print(f"\nopen {out / 'ranking.html'}; ranking.json")
    if given.with_truth:
        _print_agreement(result)
    return 3 if result.failures else 0


def _print_agreement(result: Any) -> None:
    """The ranking is made; what the truth says of it."""
    from reliev3r.evaluation.rank_agreement import QUANTITIES, rank_agreement, true_scores
    from reliev3r.evaluation.run import evaluate_reconstruction

    standings = result.ranking.standings
    scores = [
        {name: evaluate_reconstruction(one, each.capture.root) for name, one in each.reconstructions.items()}
        for each in result.captures
    ]
    true = true_scores(scores, [each.system for each in standings])
    print("\nagainst the ground truth (protocol strict):")
    for quantity, score in QUANTITIES.items():
        own = {each.system: getattr(each, quantity) for each in standings}
        found = rank_agreement(
            quantity, {name: each.mean for name, each in own.items()},
            {name: each.behind for name, each in own.items()}, true[quantity],
        )  # fmt: skip
        tau = "undefined" if found.tau is None else f"{found.tau:.2f}"
        print(f"  {quantity} and {score}: Kendall's tau {tau}; of {found.pairs} pairs of systems {found.told_apart} "
              f"are told apart, {found.reversed} of them the other way round than by the truth")  # fmt: skip


def baselines(argv: list[str]) -> int:
    """``reliev3r baselines``."""

    @dataclass(frozen=True)
    class Baselines:
        """List the systems that ``evaluate`` compares with: licences, what they predict, found or how to install."""

        python: Path | None = None
        """Interpreter to look for their packages in; by default this one."""
        checkouts: Path | None = field(default_factory=_checkouts)
        """Folder of checkouts, each named as its repository; by default what RELIEV3R_UPSTREAM names."""

    given = parse(Baselines, "baselines", argv)
    from reliev3r.baselines.registry import baseline_table

    print(baseline_table(python=given.python, checkouts=given.checkouts))
    return 0


def _checkouts() -> Path | None:
    named = os.environ.get("RELIEV3R_UPSTREAM")
    return Path(named) if named else None

"""Verbs about labels: make them, check them, list the experts."""

# No postponed annotations here: tyro reads the fields' types where the verbs define them.
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tyro.conf import Positional

from reliev3r.cli.terminal import parse, parse_with_settings, progress_bars
from reliev3r.core.errors import UserError
from reliev3r.core.progress import staged


def label(argv: list[str]) -> int:
    """``reliev3r label ROOT --out LABELS``."""

    @dataclass(frozen=True)
    class Label:
        """Make pseudo-labels of one capture or of many; what is there and valid is reused (docs/labels.md)."""

        root: Positional[Path]
        """A capture (folder of images or video), a folder of captures, or a .txt file that lists captures."""
        out: Path
        """Folder of the labels; of many captures a store with one folder for each."""
        depth: str = "depth-anything-v2-small"
        """As `reliev3r experts` lists them; {capture} stands for each capture's path (folder:{capture}/depth), {name}
        for its name in the store (folder:MAPS/{name})."""
        tracks: str = "sift"
        intrinsics: str | None = None
        """FILE, fov:DEG (horizontal), exif, expert, expert:EXPERT, or estimate."""
        views: int | None = None
        """Of each capture."""
        device: str = "auto"
        """Of the experts: auto (the accelerator where there is one), cpu, cuda, ..."""
        judge: bool = True
        """Measure the labels of each capture and give a verdict; seconds a capture."""
        workers: int | None = None
        """Of many captures: processes on this machine (default 1), or Ray's actors (default: all that fit)."""
        ray: str | None = None
        """Of many captures: address of a Ray cluster (auto, HOST:PORT, ray://HOST:PORT), or local."""
        gpus_per_worker: float = 0.0
        """Of Ray's actors; 0.5 lets two share a GPU."""

    given = parse(Label, "label", argv)
    from reliev3r.data.find_captures import CaptureTask, find_captures
    from reliev3r.labels.many.worker import LabelJob

    if given.workers is not None and given.workers < 1:
        raise UserError(f"--workers {given.workers}: at least one is needed")
    if given.intrinsics is None:
        _refuse_datasets(given.root)
    job = LabelJob(
        depth=given.depth, tracks=given.tracks, intrinsics=given.intrinsics, views=given.views, device=given.device,
        judge=given.judge,
    )  # fmt: skip
    tasks = find_captures(given.root, given.out)
    if tasks is None:
        return _label_one(CaptureTask(name=given.root.name, path=given.root, out=given.out), job)
    return _label_many(tasks, job, given)


def _refuse_datasets(root: Path) -> None:
    """A dataset in its own layout knows lenses, K and the order in time, which its folders of images do not tell.

    Raises:
        UserError: ``root`` is one, with the command that keeps them.
    """
    from reliev3r.data.readers import READERS, recognised

    kinds = recognised(root) if root.is_dir() else []
    if kinds and "capture" not in kinds:
        raise UserError(
            f"{root}: is {READERS[kinds[0]].title}, whose intrinsics would not be used; run `reliev3r convert "
            f"{kinds[0]}:{root} --out CAPTURES` and label CAPTURES, or say --intrinsics exif, estimate, ... to go on "
            "without them"
        )


def _label_one(task: Any, job: Any) -> int:
    from reliev3r.labels.many.worker import label_path
    from reliev3r.labels.quality.assess import quality_of

    with progress_bars() as report:
        capture, labels = label_path(task, job, job.experts(task), staged(report, "labels"))
    seen = (labels.tracks.weight > 0).sum(0)
    counts = f"{len(capture.frames)} frames, {len(seen)} tracks ({int((seen >= 3).sum())} of three views or more)"
    quality = quality_of(task.out, capture) if job.judge else None
    for sentence in quality.sentences if quality else ():
        print(f"note: {sentence}")
    print(f"{counts}: {quality.verdict}" if quality else counts)
    return 0


def _label_many(tasks: Any, job: Any, given: Any) -> int:
    """All captures into a store; exit code 3 if some could not be labelled."""
    from reliev3r.core.many.run import open_pool
    from reliev3r.labels.many.run import label_store

    def pool() -> Any:
        return open_pool(
            job, len(tasks), workers=given.workers, ray=given.ray, gpus_per_worker=given.gpus_per_worker
        )  # fmt: skip

    with progress_bars() as report:
        index = label_store(tasks, given.out, job, pool, report=report)
    entries = {task.name: index[task.name] for task in tasks}
    failed = {name: entry for name, entry in entries.items() if entry["state"] != "done"}
    for name, entry in failed.items():
        print(f"failed: {name}: {entry.get('reason', 'unfinished')}")
    print(f"{len(entries) - len(failed)} of {len(entries)} captures labelled; index: {given.out / 'store.json'}")
    return 3 if failed else 0


def report_labels(argv: list[str]) -> int:
    """``reliev3r report-labels ROOT``."""

    @dataclass(frozen=True)
    class Report:
        """Gather the verdicts of a folder of labels or of a store in labels.json and labels.html."""

        root: Positional[Path]
        """A folder of labels, or a store of many."""
        out: Path | None = None
        """Folder of labels.json and labels.html: ROOT itself unless given."""

    given = parse(Report, "report-labels", argv)
    from reliev3r.core.files import write_json
    from reliev3r.labels.many.index import gather_quality
    from reliev3r.report.labels import summary, write_label_report

    out = given.out or given.root
    with progress_bars() as report:
        captures = gather_quality(given.root, progress=staged(report, "report"))
    write_json(out / "labels.json", summary(captures))
    write_label_report(out / "labels.html", captures)
    for capture in captures:
        if capture.verdict != "good":
            print(f"{capture.verdict}: {capture.name}: {capture.reasons[0]}")
    counts = ", ".join(f"{count} {verdict}" for verdict, count in summary(captures)["verdicts"].items() if count)
    print(f"{len(captures)} captures: {counts}; {out / 'labels.html'}")
    return 0


def verify_labels(argv: list[str]) -> int:
    """``reliev3r verify-labels ROOT``."""

    @dataclass(frozen=True)
    class Verify:
        """Find every damaged file: truncated, changed, missing, foreign, of another version. Exit code 2 if any."""

        root: Positional[Path]
        """A folder of labels, or a store of many."""
        json: bool = False
        """Print the result as JSON."""

    given = parse(Verify, "verify-labels", argv)
    import json

    from reliev3r.labels.verify_store import verify

    with progress_bars() as report:
        found = verify(given.root, progress=staged(report, "verify"))
    if given.json:
        print(json.dumps(found.to_json(), indent=1))
        return 2 if found.damaged else 0
    for damage in found.damaged:
        print(f"{damage.path}: {damage.problem}")
    failed = f" ({found.failed} failed when labelled)" if found.failed else ""
    print(
        f"{found.captures} captures{failed}, {found.files} files, {found.size / 1e6:.1f} MB: "
        + (f"{len(found.damaged)} damaged" if found.damaged else "all intact")
    )
    return 2 if found.damaged else 0


def export_labels(argv: list[str]) -> int:
    """``reliev3r export-labels STORE --captures CAPTURES --format wai --out DIR``."""
    from reliev3r.runs.export_labels.run import USUAL

    @dataclass(frozen=True)
    class Export:
        """Write labels as scenes that supervised trainers of other repositories read (docs/foundry.md).

        They stay pseudo-labels: every scene says so, with the licences of the experts. What cannot be trained on is
        left out by name. Further settings are written NAME=VALUE (sweep=true); --help-all lists them.
        """

        store: Positional[Path]
        """A store of labels, or the labels of one capture."""
        captures: Path
        """The images, as `reliev3r label` was given them: labels do not say where these are."""
        format: Literal["wai", "omega", "dust3r"]
        """wai: MapAnything; omega: VGGT-Omega; dust3r: CUT3R and others that load its processed folders."""
        out: Path
        """A new folder, or one that an earlier run began: it goes on."""
        image_size: int | None = None
        """Long side of the exported images and maps in pixels: 640 unless given."""
        keep_unusable: bool = False
        """Also captures whose labels are judged unusable."""
        workers: int | None = None
        """Processes on this machine (default 1), or Ray's actors (default: all that fit)."""
        ray: str | None = None
        """Address of a Ray cluster (auto, HOST:PORT, ray://HOST:PORT), or local."""

    given, config = parse_with_settings(Export, "export-labels", argv, USUAL, {"image_size": "image_size"})
    from reliev3r.core.many.run import open_pool
    from reliev3r.runs.export_labels.run import FILE, capture_tasks, export_job
    from reliev3r.runs.export_labels.run import export_labels as export

    if given.workers is not None and given.workers < 1:
        raise UserError(f"--workers {given.workers}: at least one is needed")
    tasks = capture_tasks(given.store, given.captures)
    job = export_job(tasks, given.format, given.out, config=config, keep_unusable=given.keep_unusable)
    with progress_bars() as report:
        made = export(
            job, tasks, lambda: open_pool(job, len(tasks), workers=given.workers, ray=given.ray), report=report
        )  # fmt: skip
    for name, reason in made.left_out.items():
        print(f"left out: {name}: {reason}")
    for name, reason in made.failed.items():
        print(f"failed: {name}: {reason}")
    print(f"{len(made.scenes)} of {len(tasks)} captures exported: {given.out}; {FILE} says how, and what is left out")
    return 3 if made.failed or not made.scenes else 0


def experts(argv: list[str]) -> int:
    """``reliev3r experts``."""

    @dataclass(frozen=True)
    class Experts:
        """What --depth, --tracks and --intrinsics may name; nothing is loaded or downloaded."""

        kind: Literal["depth", "tracks", "fov", "all"] = "all"

    given = parse(Experts, "experts", argv)
    from reliev3r.labels.catalogue import expert_table

    print(expert_table(given.kind))
    return 0

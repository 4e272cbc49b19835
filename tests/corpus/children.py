# ruff: noqa: E501 - tables: a case a line
"""Runs the corpus: a process that loads the program once and forks for each case and verb.

    python children.py SOUND RESULTS.jsonl KIND|all VERB,...|all PART/PARTS SECONDS

What RESULTS.jsonl has already is not run again.

A child has limits of time and memory, no rights beyond its user's, and a folder of its own beside which lies a secret.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from contextlib import suppress
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))  # json_places, which other tests use too

from bad_files import Case
from every_case import all_cases
from sound_files import photograph, write_files

_SLEEP = time.sleep
MEMORY = 2 * 2**30
"""That a child may take beyond what it begins with."""
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]")
LEFTOVER = re.compile(r"\.(.+)\.[a-z0-9_]{8}(\.[^.]+)?|.*\.tmp")
INPUTS = {"refine": ("run",), "fit --resume": ("run",), "prepare": ("captures", "store", "labels"), "report-labels": ()}


def main(sound: Path, results: Path, kinds: str, verbs: str, share: str, seconds: float) -> None:
    part, parts = map(int, share.split("/"))
    if not sound.exists():
        write_files(sound, run=verbs == "all")
    jobs = [
        (case, verb) for case in all_cases(sound) for verb in case.verbs
        if kinds in ("all", case.kind) and (verbs == "all" or verb.split()[0] in verbs.split(","))
    ]  # fmt: skip
    random.Random(0).shuffle(jobs)  # any share of them has all kinds
    lines = map(json.loads, results.read_text().splitlines() if results.exists() else ())
    done = {(row["kind"], row["name"], row["verb"]) for row in lines}  # of a run that was interrupted
    jobs = [job for job in jobs[part::parts] if (job[0].kind, job[0].name, job[1]) not in done]
    _load()
    with results.open("a") as file:
        for case, verb in jobs:
            begun = time.monotonic()
            answer = run_case(sound, case, verb, seconds)
            line = {"kind": case.kind, "name": case.name, "verb": verb, "seconds": time.monotonic() - begun, **answer}
            print(json.dumps(line), file=file, flush=True)


def _load() -> None:
    """What every child would import once more."""
    for name in ("cli.captures", "cli.labelling", "cli.training", "cli.evaluation", "cli.datasets", "cli.viewing", "runs.fit",
                 "runs.reconstruct", "runs.show", "runs.export", "runs.refine", "runs.adapt.run", "runs.train", "runs.view.scene",
                 "evaluation.run", "evaluation.pages", "data.readers.colmap", "data.readers.tum", "data.readers.nerfstudio",
                 "data.readers.capture", "data.convert", "labels.verify_store", "labels.many.run", "labels.many.worker",
                 "labels.quality.assess", "report.labels", "labels.registry"):  # fmt: skip
        importlib.import_module(f"reliev3r.{name}")
    import matplotlib.pyplot  # noqa: F401
    import pycolmap  # noqa: F401
    import torch

    torch.set_num_threads(1)
    importlib.import_module("reliev3r.labels.tracks.sift")


def run_case(sound: Path, case: Case, verb: str, seconds: float) -> dict:
    """{"rc", "cpu", "wrong": what is outside of the three outcomes, "heard"}."""
    base = Path(tempfile.mkdtemp(prefix="corpus-"))
    root = base / "in" / "deep"
    root.mkdir(parents=True)
    try:
        for part in case.parts:
            copy = shutil.copytree if (sound / part).is_dir() else shutil.copy
            copy(sound / part, root / part)
        for place in (base / "in" / "secret.png", base / "secret.png"):
            photograph((64, 48), seed=77).save(place)
        (base / "in" / "elsewhere").mkdir()
        case.damage(root)
        _point_at(root)
        before = _snapshot(base)
        rc, hung, cpu = _forked(case, verb, base, root, seconds)
        heard = {name: _text(base / name) for name in ("stdout", "stderr")}
        wrong = _wrong(case, verb, base, root, before, rc, hung, heard)
        return {"rc": rc, "cpu": cpu, "wrong": wrong, "heard": (heard["stderr"] + heard["stdout"])[-600:]}
    finally:
        for folder, _, _ in os.walk(base):
            os.chmod(folder, 0o755)
        shutil.rmtree(base, ignore_errors=True)


def _point_at(root: Path) -> None:
    """A run keeps the absolute path of its capture."""
    file = root / "run" / "config.json"
    try:
        run = json.loads(file.read_text())
        if isinstance(run["capture"], str) and run["capture"].endswith("/capture"):
            file.write_text(json.dumps({**run, "capture": str(root / "capture")}))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        pass


def _forked(case: Case, verb: str, base: Path, root: Path, seconds: float) -> tuple[int, bool, float]:
    child = os.fork()
    if child == 0:
        _be_the_child(case, verb, base, root, seconds)
    deadline, hung = time.monotonic() + 4 * seconds, False
    while True:
        pid, status, usage = os.wait4(child, os.WNOHANG)
        if pid:
            break
        if time.monotonic() > deadline:
            hung = True
            os.killpg(child, signal.SIGKILL)
        time.sleep(0.01)
    rc = os.waitstatus_to_exitcode(status)
    return rc, hung or rc == -signal.SIGXCPU, round(usage.ru_utime + usage.ru_stime, 2)


def _be_the_child(case: Case, verb: str, base: Path, root: Path, seconds: float) -> None:
    code, listener = 1, None
    try:
        os.setsid()
        signal.alarm(0)
        words = verb.split(" ") if "  " not in verb else [word for word in verb.split(" ")]
        _redirect(case, base)
        os.chdir(root)
        os.environ |= {
            "XDG_CACHE_HOME": str(root / "cache"),
            "HOME": str(root),
            "HF_HUB_OFFLINE": "1",
            "TMPDIR": str(root / "tmp"),
        }
        tempfile.tempdir = None
        listener = _limit(case, base, seconds)
        from reliev3r.cli import main as reliev3r
        from reliev3r.cli import viewing

        viewing.time.sleep = _interrupted  # `view` serves until Ctrl-C
        sys.argv = ["reliev3r", *words]
        code = reliev3r(words)
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        try:
            if sys.stdout is not None:
                sys.stdout.flush()
        except OSError:
            print("Exception ignored on flushing sys.stdout", file=sys.stderr)
        with suppress(OSError):
            sys.stderr.flush()
        if listener is not None:
            listener.stdin.close()
            os.close(2)
            time.sleep = _SLEEP
            with suppress(subprocess.TimeoutExpired):
                listener.wait(2)  # a helper process that outlives this one may hold the other end
        os._exit(code)


def _interrupted(seconds: float) -> None:
    raise KeyboardInterrupt


def _redirect(case: Case, base: Path) -> None:
    out = os.open(base / "stdout", os.O_WRONLY | os.O_CREAT)
    if "full-stdout" in case.faults:
        out = os.open("/dev/full", os.O_WRONLY)
    if "pipe" in case.faults:
        read, out = os.pipe()
        os.close(read)
    os.dup2(out, 1)
    os.dup2(os.open(base / "stderr", os.O_WRONLY | os.O_CREAT), 2)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.stdin, sys.stdout, sys.stderr = (
        os.fdopen(0),
        os.fdopen(1, "w", encoding="utf8"),
        os.fdopen(2, "w", encoding="utf8"),
    )
    if "no-stdout" in case.faults:
        os.close(1)
        sys.stdout = None  # as Python has it then


def _limit(case: Case, base: Path, seconds: float) -> subprocess.Popen | None:
    """Returns what writes down errors where this process may write no more files."""
    listener = None
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, size + MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (int(seconds), int(seconds) + 2))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for fault in case.faults:
        if fault.startswith("full "):
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            bytes_ = int(fault.split()[1])
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what is said does not count
            listener = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=os.open(base / "stderr", os.O_WRONLY))
            os.dup2(listener.stdin.fileno(), 2)
            resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_, bytes_))
    _as_anybody()
    return listener


def _as_anybody() -> None:
    """Root reads and writes all files; without these two rights it is asked for permission like everybody."""
    libc = ctypes.CDLL(None, use_errno=True)
    header, data = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    libc.capget(header, data)
    for index in (0, 1):
        data[index] &= ~0b110
    libc.capset(header, data)


def _snapshot(base: Path) -> dict[str, tuple]:
    found = {}
    for folder, below, files in os.walk(base):
        for name in (*below, *files):
            path = os.path.join(folder, name)
            stat = os.lstat(path)
            found[os.path.relpath(path, base)] = (
                stat.st_mode,
                0 if os.path.isdir(path) else stat.st_size,
                stat.st_mtime_ns * (not os.path.isdir(path)),
            )
    return found


def _text(file: Path) -> str:
    return file.read_bytes().decode("utf8", "replace") if file.exists() else ""


def _wrong(
    case: Case, verb: str, base: Path, root: Path, before: dict, rc: int, hung: bool, heard: dict[str, str]
) -> list[str]:
    wrong = []
    said = heard["stderr"] + heard["stdout"]
    errors = [line for line in heard["stderr"].splitlines() if line.startswith("error:")]
    if hung:
        wrong.append("hangs")
    if "Traceback" in said or "Exception ignored" in said:
        wrong.append("traceback: " + said.strip().splitlines()[-1][:200])
    if (
        rc not in (0, 2, 3, 4)
        and not (rc == 130 and verb.startswith("view"))
        and not any("traceback" in each for each in wrong)
    ):
        wrong.append(f"exit code {rc}")
    wrapped = re.search(r"\b\w*(Error|Exception): .*", said)  # a traceback's last line, in other words
    if wrapped and "Traceback" not in said:
        wrong.append(f"wrapped: {wrapped[0][:150]}")
    if CONTROL.search(said):
        wrong.append(f"control character {CONTROL.search(said)[0]!r}")
    usage = "usage: reliev3r" in said or "For full helptext" in said
    if rc == 2 and len(errors) != 1 and not usage and not verb.startswith("verify-labels"):
        wrong.append(f"{len(errors)} error lines")
    if any("out of memory" in line for line in errors):
        wrong.append("out of memory")
    if rc == 2 and errors and case.kind not in ("word",) and not _names_something(errors[0], verb, base):
        wrong.append("names no file")
    words = ("WARNING", "note:", "failed", "not judged", "unfinished", "damaged")
    told = bool(errors) or rc in (3, 4) or any(word in said for word in words)
    lists_only = verb.split()[0] == "datasets"  # names of scenes; nothing is opened
    if case.answer == "refused" and rc not in (2, 3) and not lists_only:
        wrong.append("accepted")
    if case.answer == "told" and rc == 0 and not told and not lists_only:
        wrong.append("accepted without a word")
    if case.answer == "right" and rc != 0:
        wrong.append("refused")
    wrong += _changes(case, verb, base, before, rc)
    return wrong


def _names_something(line: str, verb: str, base: Path) -> bool:
    words = [word for word in re.split(r"[\s=:]", verb) if len(word) > 2]
    return (
        any(word.rstrip("/") in line for word in words)
        or str(base) in line
        or "/" in line
        or "this network" in line
        or "standard output" in line
    )


def _changes(case: Case, verb: str, base: Path, before: dict, rc: int) -> list[str]:
    after = _snapshot(base)
    name = verb.split()[0]
    own = {"refine": ("run",), "prepare": ("store", "labels"), "fit": ("run",) if "--resume" in verb else ("labels",), "adapt": ("labels",),
           "train": ("labels",), "view": ("labels", "run")}.get(name, ())  # fmt: skip
    allowed = tuple(f"in/deep/{part}" for part in ("out", "cache", "tmp", "demo", ".prepared", *own))
    wrong = []
    for path in sorted({*before, *after}):
        if path in ("stdout", "stderr") or before.get(path) == after.get(path) or path in ("in/deep", "in"):
            continue
        added = case.kind == "upon itself" and path not in before  # results lie where they were sent
        if not path.startswith(allowed) and not added:
            wrong.append(f"changed {path}")
        if path not in before and LEFTOVER.fullmatch(os.path.basename(path)) and "in/deep/cache" not in path:
            wrong.append(f"left {path}")
        if rc == 2 and path not in before and path.endswith(".json") and os.path.isfile(base / path):
            try:
                json.loads((base / path).read_bytes())
            except ValueError:
                wrong.append(f"half-written {path}")
    for path in after:
        if path not in before and path.endswith(".html") and b"<img src=x" in (base / path).read_bytes():
            wrong.append(f"markup in {path}")
        if os.path.basename(path) in ("EXECUTED", "ESCAPED"):
            wrong.append(f"made {path}")
    return wrong


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], sys.argv[4], sys.argv[5], float(sys.argv[6]))

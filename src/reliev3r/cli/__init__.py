"""The command line: verbs to functions, progress bars, and errors as one line with exit code 2."""

import contextlib
import difflib
import errno
import importlib
import importlib.metadata
import os
import sys
from collections.abc import Iterator

from reliev3r.core.errors import UserError

VERBS = {
    "demo": ("captures", "render a synthetic capture, fit it, show table, picture and exports"),
    "fit": ("captures", "label one capture and train a network on it, without annotation"),
    "refine": ("captures", "bundle-adjust the cameras of a finished fit"),
    "reconstruct": ("captures", "images to cameras, depth and points, without training or download"),
    "show": ("captures", "one figure of a scene: input, depth, confidence, correspondences, monocular depth"),
    "view": ("viewing", "look at a run, labels or a scene.glb in the browser"),
    "export": ("captures", "write a run's reconstruction in another format"),
    "train": ("training", "train a network across scenes, weakly or fully supervised"),
    "prepare": ("training", "bring labelled captures to a network's size before a training, with many workers"),
    "adapt": ("training", "fine-tune a pretrained network on footage from frames alone, and judge whether it helped"),
    "export-weights": ("training", "write a trained network in pi^3's layout, for tools that read it"),
    "label": ("labelling", "make the pseudo-labels of a capture, or of thousands"),
    "verify-labels": ("labelling", "find every damaged file of a folder of labels or a store"),
    "report-labels": ("labelling", "say which captures are good, weak or unusable, as JSON and HTML"),
    "export-labels": ("labelling", "write a store's labels as scenes for supervised trainers of other repositories"),
    "experts": ("labelling", "list the experts: licence, weights, installed or not, how to install"),
    "evaluate": ("evaluation", "score systems against ground truth, on a capture or a benchmark"),
    "rank": ("evaluation", "rank systems on footage without ground truth, by matches found anew in its images"),
    "baselines": ("evaluation", "list other systems: licences, what each predicts, found or how to install"),
    "datasets": ("datasets", "list the dataset formats that are read, or the scenes found in a folder"),
    "convert": ("datasets", "write a scene of any dataset as a capture folder, for every other verb"),
    "synth": ("datasets", "render a synthetic capture with exact ground truth"),
}
"""By the name that is typed: the module of this package that has a function of that name, and what it does."""

_TOLD = {
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO, errno.ENAMETOOLONG,
    errno.ELOOP, errno.EMFILE, errno.ENFILE, errno.ESTALE, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENOENT,
    errno.ENXIO, errno.ENODEV,
}  # fmt: skip
"""What the machine refuses wherever it is met: no fault of the program's, and told in one line."""


def main(argv: list[str] | None = None) -> int:
    """Run one verb; 0 is success, 2 bad input, 3 some captures of many failed, 4 worse once adapted, 130 interrupt."""
    arguments = sys.argv[1:] if argv is None else argv
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by whoever started this: nobody reads
            setattr(sys, name, open(os.devnull, "w", encoding="utf8"))  # noqa: SIM115
    if arguments[:1] == ["--version"]:
        print(f"reliev3r {importlib.metadata.version('reliev3r')}")
        return 0
    if not arguments or arguments[0] not in VERBS:
        known = "\n".join(f"  {name:<14} {text}" for name, (_, text) in VERBS.items())
        asked_for_help = bool(arguments) and arguments[0] in ("-h", "--help")
        stream = sys.stdout if asked_for_help else sys.stderr
        if arguments and not asked_for_help:
            near = difflib.get_close_matches(arguments[0], VERBS, n=1)
            print(f"error: no verb {arguments[0]!r}{f'; did you mean {near[0]}?' if near else ''}\n", file=stream)
        hint = "`reliev3r VERB --help` lists the options of a verb; `reliev3r --version` says which one this is."
        print(f"usage: reliev3r VERB ...\n\n{known}\n\n{hint}", file=stream)
        return 0 if asked_for_help else 2
    verb = arguments[0]
    try:
        with _readers_may_leave():
            from reliev3r.cli.terminal import configure_logging

            configure_logging()
            module = importlib.import_module(f"reliev3r.cli.{VERBS[verb][0]}")
            return int(getattr(module, verb.replace("-", "_"))(arguments[1:]))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except MemoryError:
        print("error: out of memory; use fewer --views or smaller images", file=sys.stderr)
        return 2
    except RuntimeError as error:
        if not str(error).startswith("Symlink loop"):  # as Path.resolve says it before Python 3.13
            raise
        print(f"error: {UserError(error)}; remove it", file=sys.stderr)
        return 2
    except OSError as error:
        if error.errno not in _TOLD:
            raise
        print(f"error: {error.filename or 'a file'}: cannot be read or written ({error.strerror})", file=sys.stderr)
        return 2


@contextlib.contextmanager
def _readers_may_leave() -> Iterator[None]:
    """``reliev3r fit --help | head`` ends quietly: what nobody reads any more is not written.

    Raises:
        UserError: what is said goes to a file that cannot be written.
    """
    try:
        try:
            yield
        finally:
            if sys.stdout is not None:  # closed by whoever started this
                sys.stdout.flush()
    except BrokenPipeError:
        _say_no_more()
        raise SystemExit(0) from None
    except OSError as error:
        if error.filename is not None or error.errno != errno.ENOSPC:
            raise
        _say_no_more()
        raise UserError(f"standard output: cannot be written ({error.strerror}); send it elsewhere") from error


def _say_no_more() -> None:
    """Or Python flushes once more at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

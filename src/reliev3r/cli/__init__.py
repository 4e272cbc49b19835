"""The command line: verbs to functions, progress bars, and errors as one line with exit code 2."""

import contextlib
import os
import sys
from collections.abc import Iterator

from reliev3r.cli.adaptation import adapt
from reliev3r.cli.baselines import baselines
from reliev3r.cli.captures import demo, export, fit, reconstruct, synth
from reliev3r.cli.datasets import convert, datasets
from reliev3r.cli.evaluation import evaluate
from reliev3r.cli.labelling import experts, label, labels
from reliev3r.cli.terminal import configure_logging
from reliev3r.cli.training import train
from reliev3r.cli.weights import export_weights
from reliev3r.core.errors import UserError


def main(argv: list[str] | None = None) -> int:
    """Run one verb; 0 is success, 2 bad input, 3 some captures of many failed, 4 worse once adapted, 130 interrupt."""
    arguments = sys.argv[1:] if argv is None else argv
    verbs = {
        "demo": (demo, "render a synthetic capture, fit it, show table, picture and exports"),
        "fit": (fit, "label one capture and train a network on it, without annotation"),
        "train": (train, "train a network across scenes, weakly or fully supervised"),
        "adapt": (adapt, "fine-tune a pretrained network on footage from frames alone, and judge whether it helped"),
        "reconstruct": (reconstruct, "a forward pass: images and a checkpoint to cameras, depth and points"),
        "evaluate": (evaluate, "score systems against ground truth, on a capture or a benchmark"),
        "baselines": (baselines, "list other systems: licences, what each predicts, found or how to install"),
        "export": (export, "write a run's reconstruction in another format"),
        "export-weights": (export_weights, "write a trained network in pi^3's layout, for tools that read it"),
        "label": (label, "make the pseudo-labels of a capture, or of thousands"),
        "labels": (labels, "check existing labels: verify files, report quality"),
        "experts": (experts, "list the experts: licence, weights, installed or not, how to install"),
        "datasets": (datasets, "list the dataset formats that are read, or the scenes found in a folder"),
        "convert": (convert, "write a scene of any dataset as a capture folder, for every other verb"),
        "synth": (synth, "render a synthetic capture with exact ground truth"),
    }
    if not arguments or arguments[0] not in verbs:
        known = "\n".join(f"  {name:<14} {text}" for name, (_, text) in verbs.items())
        asked_for_help = bool(arguments) and arguments[0] in ("-h", "--help")
        stream = sys.stdout if asked_for_help else sys.stderr
        hint = "`reliev3r VERB --help` lists the options of a verb."
        print(f"usage: reliev3r VERB ...\n\n{known}\n\n{hint}", file=stream)
        return 0 if asked_for_help else 2
    configure_logging()
    try:
        with _readers_may_leave():
            return verbs[arguments[0]][0](arguments[1:])
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


@contextlib.contextmanager
def _readers_may_leave() -> Iterator[None]:
    """``reliev3r fit --help | head`` ends quietly: what nobody reads any more is not written."""
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python flushes once more at its end
        raise SystemExit(0) from None

"""The drawing of docs/architecture.md, held against the source: arrows point down, and weak training sees no truth."""

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

import reliev3r

SOURCE = Path(reliev3r.__file__).parent
ROOT = Path(__file__).parents[1]
ALLOWED: dict[str, set[str]] = {
    "core": set(),
    "geometry": {"core"},
    "sfm": {"core", "geometry"},
    "losses": {"core", "geometry"},
    "synthetic": {"core", "geometry"},
    "data": {"core", "geometry"},
    "export": {"core", "geometry", "data", "sfm"},
    "baselines": {"core", "geometry", "data"},
    "model": {"core", "geometry", "data", "sfm"},
    "labels": {"core", "geometry", "data", "sfm", "synthetic", "model"},
    "solve": {"core", "geometry", "data", "sfm", "model", "labels"},
    "report": {"core", "geometry", "export"},
    "training": {"core", "geometry", "sfm", "losses", "synthetic", "data", "model", "labels"},
    "evaluation": {"core", "geometry", "losses", "synthetic", "data", "baselines", "model", "solve", "report"},
    "verdict": {"core", "geometry", "sfm", "losses", "data", "model", "labels", "report", "training"},
    "runs": {"core", "geometry", "sfm", "losses", "synthetic", "data", "export", "model", "labels", "solve",
             "report", "training", "evaluation", "verdict"},
    "cli": {"core", "synthetic", "data", "export", "baselines", "model", "labels", "report", "training",
            "evaluation", "runs"},
}  # fmt: skip
"""Which rooms each room may import; a room stands above all that it imports."""
UPWARD = {("reliev3r.core.reconstruction", "reliev3r.export.write")}
"""The one arrow that points up: ``Reconstruction.export`` is a method for users, and imports when it is called."""
MOST_NAMES, MOST_MODULES, MOST_LINES = 20, 330, 400

OPEN = {"reliev3r.cli", "reliev3r.data.readers", "reliev3r.baselines.adapters"}
"""Packages whose ``__init__`` does something: it dispatches verbs, lists formats, gives adapters their private name."""

TRUTH = {"reliev3r.data.truth"}
"""Reads ground truth from disk."""
ANNOTATED = ("reliev3r.runs.train", "reliev3r.training.annotated")
"""The one edge to it, inside a function that full supervision alone calls."""
WEAK = (
    "labels", "losses", "sfm", "solve", "training", "verdict", "runs.fit", "runs.train", "runs.adapt", "runs.rank",
    "runs.export_labels", "export.trainers", "model",
)  # fmt: skip
"""What labels, trains weakly, adapts, judges or ranks; all that these load, and what that loads, is followed."""

OPTIONAL = {
    "anycalib", "av", "cotracker", "depth_anything_3", "dinov3", "kornia", "loma", "matplotlib", "moge", "onnxruntime",
    "peft", "pillow_heif", "pycolmap", "ray", "rich", "romav2", "scipy", "tapnet", "tensorboard", "transformers",
    "trimesh", "tyro", "vggt", "vggt_omega", "viser", "wandb",
}  # fmt: skip
"""Packages that are imported where they are used: not everybody has them, and they are slow to import."""


def name_of(path: Path) -> str:
    parts = path.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in sorted(SOURCE.rglob("*.py"))}


def imports(path: Path, *, top_level_only: bool = False) -> set[str]:
    """Every module that a file names in an import; of our own the module that defines what is imported."""
    tree = ast.parse(path.read_text(encoding="utf8"))
    found: set[str] = set()
    for node in ast.iter_child_nodes(tree) if top_level_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert node.module is not None
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in MODULES else node.module for name in inner}
    return found


IMPORTS = {name: imports(path) for name, path in MODULES.items()}


def room_of(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def own(module: str) -> set[str]:
    """Modules of ours that a module imports, anywhere in it, and the packages that this loads on the way."""
    direct = {name for name in IMPORTS[module] if name in MODULES and (module, name) not in UPWARD}
    return {part for name in direct for part in _with_packages(name)} - {module}


def _with_packages(name: str) -> set[str]:
    parts = name.split(".")
    return {".".join(parts[:k]) for k in range(2, len(parts) + 1)} & MODULES.keys()


@pytest.mark.parametrize("module", [name for name in MODULES if room_of(name)])
def test_imports_point_down(module) -> None:
    room = room_of(module)
    assert room in ALLOWED, f"{module}: a new room; give it its arrows here and in docs/architecture.md"
    used = {room_of(name) for name in own(module)} - {room}
    assert used <= ALLOWED[room], f"{module} imports {sorted(used - ALLOWED[room])}"


def test_the_rooms_have_no_cycle() -> None:
    done: set[str] = set()
    waiting = dict(ALLOWED)
    while waiting:
        ready = {room for room, below in waiting.items() if below <= done}
        assert ready, f"cycle among {sorted(waiting)}"
        done |= ready
        waiting = {room: below for room, below in waiting.items() if room not in ready}


def test_the_files_have_no_cycle() -> None:
    """Imports inside functions count too."""
    waiting = {name: own(name) for name in MODULES}
    while waiting:
        ready = {name for name, below in waiting.items() if not below & waiting.keys()}
        assert ready, f"cycle among {sorted(waiting)}"
        waiting = {name: below for name, below in waiting.items() if name not in ready}


@pytest.mark.parametrize("module", [name for name in MODULES if room_of(name) != "cli"])
def test_optional_packages_are_imported_where_they_are_used(module) -> None:
    used = {name.split(".")[0] for name in imports(MODULES[module], top_level_only=True)}
    assert not used & OPTIONAL, f"{module} imports {sorted(used & OPTIONAL)} at module level"


def test_the_house_stays_small() -> None:
    names = [path.name for path in SOURCE.iterdir() if path.name != "__pycache__"]
    assert len(names) <= MOST_NAMES, sorted(names)
    assert len(MODULES) <= MOST_MODULES
    long = {name: lines for name, path in MODULES.items() if (lines := len(path.read_text().splitlines())) > MOST_LINES}
    assert not long


SCRIPTS = [path for folder in ("benchmarks", "studies", "examples") for path in (ROOT / folder).rglob("*.py")]


@pytest.mark.skipif(not SCRIPTS, reason="an installed package has no scripts beside it")
def test_scripts_import_what_is_there() -> None:
    """Nothing else runs most of them, so a name that moved would be found years later."""
    missing = [
        f"{path.relative_to(ROOT)}: {node.module}.{alias.name}"
        for path in SCRIPTS
        for node in ast.walk(ast.parse(path.read_text(encoding="utf8")))
        if isinstance(node, ast.ImportFrom) and node.module is not None and node.module.split(".")[0] == "reliev3r"
        for alias in node.names
        if f"{node.module}.{alias.name}" not in MODULES and alias.name not in names_in(node.module)
    ]
    assert not missing


@cache
def names_in(module: str) -> set[str]:
    """All that a module of ours defines or imports; nothing of a module that is not there."""
    nodes = list(ast.walk(ast.parse(MODULES[module].read_text(encoding="utf8")))) if module in MODULES else []
    defined = {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    stored = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    return defined | stored | {node.asname or node.name for node in nodes if isinstance(node, ast.alias)}


def test_packages_are_a_docstring_and_no_second_door() -> None:
    """Names are imported from the module that defines them; ``import reliev3r`` is the one door."""
    for name, path in MODULES.items():
        if path.name == "__init__.py" and room_of(name) and name not in OPEN:
            (only,) = ast.parse(path.read_text(encoding="utf8")).body
            assert isinstance(only, ast.Expr), f"{path}: more than a docstring"


def is_weak(module: str) -> bool:
    below = module.removeprefix("reliev3r.")
    return any(below == part or below.startswith(f"{part}.") for part in WEAK)


def reached_from(module: str) -> dict[str, str]:
    """All modules that loading a module can load, each with the one that imports it."""
    found, waiting = {module: ""}, [module]
    while waiting:
        here = waiting.pop()
        for name in own(here):
            if name not in found and (here, name) != ANNOTATED:
                found[name] = here
                waiting.append(name)
    return found


@pytest.mark.parametrize("module", [name for name in MODULES if is_weak(name) and name != ANNOTATED[1]])
def test_weak_training_cannot_reach_ground_truth(module) -> None:
    found = reached_from(module)
    for truth in TRUTH & found.keys():
        chain = [truth]
        while found[chain[-1]]:
            chain.append(found[chain[-1]])
        raise AssertionError(" <- ".join(chain))


def test_full_supervision_opens_the_truth_inside_a_function() -> None:
    module, annotated = ANNOTATED
    assert annotated in imports(MODULES[module])
    assert annotated not in imports(MODULES[module], top_level_only=True)
    assert reached_from(annotated).keys() >= TRUTH  # the test above would see it


def test_a_weak_run_loads_no_reader_of_truth(tmp_path) -> None:
    """Not only the source says so: what is in memory after a run does."""
    code = (
        "import sys; from reliev3r.cli import main; "
        f"code = main(['train', 'tiny-cpu', '--out', {str(tmp_path / 'run')!r}, '--steps', '1', 'heldout_scenes=1', "
        "'stream.height=32', 'stream.width=48', 'batch.images=4', 'network.dim=32', 'network.decoder_depth=2']); "
        "assert 'reliev3r.training.loop' in sys.modules; "
        "print(code, [name for name in sys.modules if name in ('reliev3r.data.truth', 'reliev3r.training.annotated')])"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.splitlines()[-1] == "0 []"

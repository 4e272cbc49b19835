"""The import arrows of docs/architecture.md, read from the source with ast: rooms import only what lies below them."""

import ast
from pathlib import Path

import pytest

import reliev3r

SOURCE = Path(reliev3r.__file__).parent

BASE = {"errors", "files", "settings", "types"}
GROUND = BASE | {"geometry", "reconstruction"}
ALLOWED = {
    "errors": set(),
    "files": {"errors"},
    "settings": {"errors"},
    "types": set(),
    "geometry": {"types"},
    "reconstruction": {"errors", "files", "types"},
    "model": GROUND,
    "losses": GROUND,
    "synthetic": GROUND,
    "data": GROUND,
    "export": GROUND,
    "report": GROUND | {"export"},
    "refine": GROUND | {"adjust"},
    "adjust": GROUND | {"export"},
    "labels": GROUND | {"data", "synthetic"},
    "baselines": GROUND | {"data"},
    "reconstruct": GROUND | {"data", "labels", "model"},
    "evaluate": GROUND | {"data", "baselines", "synthetic", "model", "reconstruct", "report"},
    "train": GROUND | {"model", "losses", "data", "labels", "synthetic"},
    "acceptance": GROUND | {"data", "labels", "losses", "reconstruct", "report", "train"},
    "estimate": GROUND | {"model", "train"},
    "annotated": GROUND | {"data", "labels", "synthetic", "train"},
}
TOP = {"fit", "scenes", "adapt", "outputs", "demo", "cli"}
OPTIONAL = {
    "cotracker",
    "peft",
    "vggt",
    "moge",
    "onnxruntime",
    "transformers",
    "kornia",
    "pycolmap",
    "trimesh",
    "av",
    "matplotlib",
    "viser",
    "ray",
    "tyro",
    "rich",
    "tensorboard",
    "scipy",
    "wandb",
}


def modules() -> list[Path]:
    return sorted(SOURCE.rglob("*.py"))


def room_of(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imports(path: Path, *, top_level_only: bool = False) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf8"))
    names: set[str] = set()
    for node in ast.iter_child_nodes(tree) if top_level_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.add(node.module or "")
    return names


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_point_down(path: Path) -> None:
    room = room_of(path)
    if room in TOP or room == "__init__":
        return
    assert room in ALLOWED, f"{path}: a new room; give it its arrows here and in docs/architecture.md"
    used = {name.split(".")[1] for name in imports(path) if name.startswith("reliev3r.")}
    assert used - {room} <= ALLOWED[room], f"{path} imports {sorted(used - {room} - ALLOWED[room])}"


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(SOURCE)))
def test_optional_packages_are_imported_where_they_are_used(path: Path) -> None:
    if room_of(path) == "cli":
        return
    used = {name.split(".")[0] for name in imports(path, top_level_only=True)}
    assert not used & OPTIONAL, f"{path} imports {sorted(used & OPTIONAL)} at module level"


def test_weak_training_cannot_see_ground_truth() -> None:
    for path in modules():
        if room_of(path) in {"acceptance", "adapt", "labels", "train", "losses", "fit"}:
            names = imports(path)
            assert "reliev3r.data.truth" not in names, f"{path} reads ground truth"
            if room_of(path) != "labels":  # labels.depth.simulated makes simulated experts of it, and says so
                source = path.read_text(encoding="utf8")
                assert "Truth" not in {n.id for n in ast.walk(ast.parse(source)) if isinstance(n, ast.Name)}, path


def test_the_arrows_have_no_cycle() -> None:
    done: set[str] = set()
    waiting = dict(ALLOWED)
    while waiting:
        ready = {room for room, below in waiting.items() if below <= done}
        assert ready, f"cycle among {sorted(waiting)}"
        done |= ready
        waiting = {room: below for room, below in waiting.items() if room not in ready}

"""The wheel installs into a fresh environment and runs the demonstration outside of the repository."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

ROOT = Path(__file__).resolve().parents[1]
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf8"))["project"]["version"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built without a network from a copy of the sources, so that nothing is left behind beside them."""
    source, dist = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "src", source / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(dist)]
    subprocess.run([sys.executable, "-m", "pip", "wheel", *options, str(source)], check=True, capture_output=True)
    (file,) = dist.glob("*.whl")
    return file


@pytest.fixture(scope="module")
def fresh(wheel, tmp_path_factory) -> Path:
    """The folder of programs of an environment that has the wheel, and borrows its dependencies from this one."""
    folder = tmp_path_factory.mktemp("fresh")
    venv.create(folder, with_pip=False)
    programs = folder / "bin"
    install = ["install", "--no-deps", "--no-index", str(wheel)]
    subprocess.run(
        [sys.executable, "-m", "pip", "--python", str(programs / "python"), *install], check=True, capture_output=True
    )
    (own,) = folder.glob("lib/python*/site-packages")
    # A folder on the path is searched, its own .pth files are not read: an editable reliev3r there stays unseen.
    (own / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf8")
    return programs


def run(program: Path, *arguments: str, cwd: Path) -> subprocess.CompletedProcess:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return subprocess.run([str(program), *arguments], cwd=cwd, env=environment, capture_output=True, text=True)


def test_every_file_of_the_package_is_in_the_wheel(wheel) -> None:
    files = (path for path in (ROOT / "src").rglob("*") if path.is_file() and path.suffix != ".pyc")
    wanted = {path.relative_to(ROOT / "src").as_posix() for path in files if ".egg-info" not in str(path)}
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
        metadata = archive.read(f"reliev3r-{VERSION}.dist-info/METADATA").decode()
    assert "reliev3r/py.typed" in packed
    assert packed == wanted
    assert re.search(rf"^Version: {re.escape(VERSION)}$", metadata, flags=re.MULTILINE)


def test_what_runs_is_the_wheel(fresh, tmp_path) -> None:
    code = "import importlib.metadata, reliev3r; print(reliev3r.__file__, importlib.metadata.version('reliev3r'))"
    done = run(fresh / "python", "-c", code, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    file, version = done.stdout.split()
    assert Path(file).is_relative_to(fresh.parent)
    assert version == VERSION


def test_the_command_says_what_it_can(fresh, tmp_path) -> None:
    done = run(fresh / "reliev3r", "--help", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "demo" in done.stdout
    if "--version" in done.stdout:
        assert VERSION in run(fresh / "reliev3r", "--version", cwd=tmp_path).stdout


def test_adapters_are_found_as_files(fresh, tmp_path) -> None:
    done = run(fresh / "reliev3r", "baselines", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    adapters = ROOT / "src" / "reliev3r" / "baselines" / "adapters"
    names = {path.stem for path in adapters.glob("*.py")} - {"__init__", "shared"}
    assert {block.split(":")[0] for block in done.stdout.split("\n\n")} == {"colmap", *names}


def test_the_demonstration_runs_outside_of_the_repository(fresh, tmp_path) -> None:
    done = run(fresh / "reliev3r", "demo", "--out", "demo", "--steps", "20", cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    found = tmp_path / "demo" / "run"
    for name in (
        "report.html", "overview.png", "cameras.json", "transforms.json", "scene.ply", "scene.glb",
        "sparse/0/cameras.bin", "checkpoint/config.json", "checkpoint/model.safetensors", "checkpoint/README.md",
    ):  # fmt: skip
        assert (found / name).stat().st_size > 0
    assert "AUC" in done.stdout

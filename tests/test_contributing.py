"""What is written for those who carry on is true: paths exist, examples run, workflows call what there is."""

import importlib
import importlib.util
import inspect
import re
import sys
import tomllib
from pathlib import Path

import pytest

from reliev3r.baselines.host import run_baseline

ROOT = Path(__file__).resolve().parents[1]
GUIDES = sorted((ROOT / "docs" / "contributing").glob("*.md"))
PAGES = [ROOT / "CONTRIBUTING.md", ROOT / "docs" / "README.md", *GUIDES]
YAML = sorted([*(ROOT / ".github").rglob("*.yml"), ROOT / ".pre-commit-config.yaml", ROOT / "CITATION.cff"])
FOLDERS = "src|tests|docs|benchmarks|studies|examples|.github"


def named(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path) -> list[str]:
    """The Python examples of a page."""
    return re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf8"), flags=re.DOTALL | re.MULTILINE)


def header(block: str) -> str | None:
    """The file that an example says it is."""
    found = re.match(r"# (\S+\.py)\n", block)
    return found and found[1]


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_path_exists(page: Path) -> None:
    text = page.read_text(encoding="utf8")
    examples = {name for name in map(header, blocks(page)) if name}
    paths = set(re.findall(rf"(?<![\w/.-])(?:{FOLDERS})/[\w./-]*\w/?", text)) - examples
    paths = {path for path in paths if "NAME" not in path}
    assert paths
    assert {path for path in paths if not (ROOT / path).exists()} == set()


@pytest.mark.parametrize("page", sorted((ROOT / "docs").rglob("*.md")), ids=named)
def test_lines_of_prose_are_at_most_120_wide(page: Path) -> None:
    lines = page.read_text(encoding="utf8").splitlines()
    assert [line for line in lines if len(line) > 120 and not line.lstrip().startswith("|") and line[:4].strip()] == []


@pytest.mark.parametrize("page", [*PAGES, ROOT / "README.md"], ids=named)
def test_python_examples_compile(page: Path) -> None:
    for block in blocks(page):
        compile(block, str(page), "exec")


def run_example(page: Path, folder: Path, monkeypatch) -> tuple[Path, int]:
    """Put the module of a page where its path says (in memory), run its tests: (the module's file, tests run)."""
    modules = {name: block for block in blocks(page) if (name := header(block))}
    source, test = (next(name for name in modules if name.startswith(root)) for root in ("src/", "tests/"))
    assert not (ROOT / source).exists(), f"{source} exists by now: choose another example"
    loaded = []
    for name in (source, test):
        file = folder / Path(name).name
        file.write_text(modules[name], encoding="utf8")
        dotted = name.removeprefix("src/").removesuffix(".py").replace("/", ".")
        package, _, attribute = dotted.rpartition(".")
        if name == source:
            importlib.import_module(package)  # as any import of the module would
        spec = importlib.util.spec_from_file_location(dotted, file)
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, dotted, module)
        spec.loader.exec_module(module)
        if name == source:
            monkeypatch.setattr(sys.modules[package], attribute, module, raising=False)
        loaded.append(module)
    for block in blocks(page):
        if header(block) is None:  # lines of a registry, which now can import the example
            exec(compile(block, str(page), "exec"), {"__name__": "example"})
    tests = [function for name, function in vars(loaded[1]).items() if name.startswith("test_")]
    for index, function in enumerate(tests):
        wants = inspect.signature(function).parameters
        assert set(wants) <= {"tmp_path"}
        scratch = folder / str(index)
        scratch.mkdir()
        function(**({"tmp_path": scratch} if wants else {}))
    return folder / Path(source).name, len(tests)


@pytest.mark.parametrize("page", GUIDES, ids=named)
def test_the_example_of_a_guide_passes_its_own_tests(page: Path, tmp_path, monkeypatch) -> None:
    _, count = run_example(page, tmp_path, monkeypatch)
    assert count >= 1


def test_the_adapter_of_the_guide_answers_from_a_worker(tmp_path, monkeypatch) -> None:
    from PIL import Image

    from reliev3r.data.capture import load_capture

    adapter, _ = run_example(ROOT / "docs" / "contributing" / "baseline.md", tmp_path, monkeypatch)
    images = tmp_path / "images"
    images.mkdir()
    for name in ("a", "b"):
        Image.new("RGB", (64, 48)).save(images / f"{name}.png")
    found = run_baseline(adapter.stem, load_capture(images), adapters=adapter.parent, timeout_s=60)
    assert found.prediction.depth.shape == (2, 24, 32)
    assert found.meta["intrinsics"] == "predicted"


def read_yaml(file: Path):
    return pytest.importorskip("yaml").safe_load(file.read_text(encoding="utf8"))


@pytest.mark.parametrize("file", YAML, ids=named)
def test_yaml_is_readable(file: Path) -> None:
    assert isinstance(read_yaml(file), dict)


def test_workflows_call_targets_and_scripts_that_exist() -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf8"), flags=re.MULTILINE))
    for file in (ROOT / ".github" / "workflows").glob("*.yml"):
        workflow = read_yaml(file)
        assert True in workflow, f"{file.name}: no trigger"  # YAML 1.1 reads the key `on` as a boolean
        for job in workflow["jobs"].values():
            assert job["runs-on"]
            assert all(("run" in step) != ("uses" in step) for step in job["steps"])
        called = set(re.findall(r"\bmake ([\w-]+)", file.read_text(encoding="utf8")))
        assert called <= targets, f"{file.name}: {called - targets}"


def test_the_hooks_need_no_repository() -> None:
    repositories = read_yaml(ROOT / ".pre-commit-config.yaml")["repos"]
    assert {entry["repo"] for entry in repositories} == {"local"}
    assert {hook["language"] for entry in repositories for hook in entry["hooks"]} == {"system"}


def test_one_version_everywhere() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf8"))["project"]["version"]
    assert str(read_yaml(ROOT / "CITATION.cff")["version"]) == version
    assert f"## [{version}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf8")

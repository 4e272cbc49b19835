import importlib.util
import subprocess
import sys

import pytest

from reliev3r.cli import main
from reliev3r.labels import catalogue as experts
from reliev3r.labels.catalogue import all_experts, expert_table, is_installed

HEAVY = (
    "transformers",
    "onnxruntime",
    "kornia",
    "romatch",
    "romav2",
    "dinov3",
    "loma",
    "moge",
    "flex_gemm",
    "cotracker",
    "tapnet",
    "anycalib",
    "depth_anything_3",
    "ray",
)


def test_every_expert_says_what_a_user_must_know():
    names = [(info.kind, info.name) for info in all_experts()]
    assert len(names) == len(set(names))
    for info in all_experts():
        assert info.licence
        assert info.weights
        assert bool(info.install) or info.package in ("", "cv2")


def test_the_table_tells_what_is_there_and_what_to_do(monkeypatch, capsys):
    real = importlib.util.find_spec
    monkeypatch.setattr(experts.importlib.util, "find_spec", lambda name: None if name in HEAVY else real(name))
    assert main(["experts"]) == 0
    text = capsys.readouterr().out
    for info in all_experts():
        assert f"  {info.name}\n" in text
        assert is_installed(info) == (info.package not in HEAVY)
        if info.package in HEAVY:
            assert f"not installed: {info.install}" in text
    assert main(["experts", "--kind", "fov"]) == 0
    assert "cotracker" not in capsys.readouterr().out


def test_a_broken_package_is_not_installed(monkeypatch):
    def broken(name):
        raise ValueError("__spec__ is None")

    monkeypatch.setattr(experts.importlib.util, "find_spec", broken)
    assert not any(is_installed(info) for info in all_experts() if info.package)
    assert "not installed" in expert_table("depth")


@pytest.mark.parametrize("package", HEAVY)
def test_listing_imports_nothing_heavy(listed, package):
    assert package not in listed


@pytest.fixture(scope="module")
def listed():
    """Packages that are imported after ``reliev3r experts`` in a process of its own."""
    code = "import sys, reliev3r.cli as c; c.main(['experts']); print(*{n.split('.')[0] for n in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()[-1].split()

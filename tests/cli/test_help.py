"""What a person sees: help that fits a screen, every other setting by name, and the nearest name for a wrong one."""

import importlib.metadata
import re

import pytest

from reliev3r.cli import VERBS, main
from reliev3r.cli.terminal import all_settings, descriptions, split_changes
from reliev3r.core.errors import UserError
from reliev3r.core.settings import flatten, to_plain, with_changes
from reliev3r.runs.adapt.settings import AdaptConfig
from reliev3r.runs.fit import FitConfig
from reliev3r.training.recipes import RECIPES

MOST_FLAGS = 30


def help_of(verb: list[str], capsys) -> str:
    with pytest.raises(SystemExit) as ended:
        main([*verb, "--help"])
    assert ended.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_every_verb_fits_a_screen(verb, capsys) -> None:
    text = help_of([verb, "tiny-cpu"] if verb == "train" else [verb], capsys)
    flags = set(re.findall(r"^\W*(?:-h, )?(--[\w.-]+)", text, flags=re.MULTILINE))
    assert "--help" in flags
    assert len(flags) <= MOST_FLAGS
    assert not any("." in flag for flag in flags)


def test_every_verb_is_listed_with_what_it_does(capsys) -> None:
    assert main(["--help"]) == 0
    printed = capsys.readouterr().out
    assert all(f"  {verb} " in printed and text in printed for verb, (_, text) in VERBS.items())


def test_a_misspelt_verb_is_told_which_one_was_meant(capsys) -> None:
    assert main(["fits"]) == 2
    assert "no verb 'fits'; did you mean fit?" in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["fit", "adapt", "reconstruct"])
def test_a_verb_alone_says_what_it_needs(verb, capsys) -> None:
    with pytest.raises(SystemExit) as left:
        main([verb])
    assert left.value.code == 2
    assert "--out" in capsys.readouterr().err


def test_the_version_is_the_package_s(capsys) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"reliev3r {importlib.metadata.version('reliev3r')}\n"


@pytest.mark.parametrize(("verb", "settings"), [("fit", FitConfig()), ("adapt", AdaptConfig())])
def test_help_all_lists_every_setting_once(verb, settings, capsys) -> None:
    with pytest.raises(SystemExit):
        main([verb, "--help-all"])
    listed = re.findall(r"^([\w.]+)=", capsys.readouterr().out, flags=re.MULTILINE)
    assert listed == list(flatten(to_plain(settings)))


def test_help_all_of_a_recipe_has_the_recipe_s_values(capsys) -> None:
    with pytest.raises(SystemExit):
        main(["train", "paper", "--help-all"])
    printed = capsys.readouterr().out
    assert "batch.views=8,8\n" in printed
    assert "objective.depth.alpha=1.0\n" in printed


def test_settings_are_described_by_the_text_below_their_fields() -> None:
    told = descriptions(FitConfig)
    assert told["weight_decay"] == "On matrices only."  # of the training loop's own settings
    assert told["prepare.heldout"].startswith("Share of the tracks that training never sees")
    assert "prepare.image_size=96\n    Long side" in all_settings(FitConfig(), "fit")


def test_settings_of_several_types_are_read_from_text() -> None:
    changed = with_changes(
        RECIPES["tiny-cpu"](),
        {"batch.views": "2,8", "ema": "0.9", "steps": "none", "compile": "true", "objective.depth.alpha": "0.5",
         "network.fov": "shared", "captures.data": "A=B", "seed": "3"},
        source="here",
    )  # fmt: skip
    assert (changed.batch.views, changed.ema, changed.steps, changed.compile) == ((2, 8), 0.9, None, True)
    assert (changed.objective.depth.alpha, changed.network.fov, changed.seed) == (0.5, "shared", 3)
    assert changed.captures.data == ("A=B",)


def test_settings_that_only_fit_together_are_changed_together() -> None:
    changed = with_changes(RECIPES["tiny-cpu"](), {"network.dim": "24", "network.heads": "2"}, source="here")
    assert (changed.network.dim, changed.network.heads) == (24, 2)  # 24 over the recipe's 4 heads is refused


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("objectiv.depth.alpha", "1", "no setting 'objectiv.depth.alpha'; did you mean objective.depth.alpha"),
        ("image_size", "64", "did you mean prepare.image_size"),
        ("prepare", "3", "no setting 'prepare'"),
        ("lrr", "3", "did you mean lr"),
        ("lr", "fast", "lr=fast: give a number"),
        ("log_every", "1.5", "log_every=1.5: give a whole number"),
        ("preset", "huge", "preset=huge: choose one of tiny, small, base, large"),
        ("compile", "maybe", "give true or false"),
        ("steps", "-3", "steps must be at least 1, got -3"),
    ],
)
def test_wrong_settings_are_one_line_that_helps(name, value, told, tmp_path, capsys) -> None:
    assert main(["fit", "photos", "--out", str(tmp_path / "run"), f"{name}={value}"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert error.startswith("error: reliev3r fit: ")
    assert told in error
    assert not (tmp_path / "run").exists()


def test_a_nested_value_that_cannot_be_is_one_line(tmp_path, capsys) -> None:
    arguments = ["adapt", "footage", "--model", "m", "--out", str(tmp_path / "run"), "lora.rank=0"]
    assert main(arguments) == 2
    assert capsys.readouterr().err == "error: reliev3r adapt: rank must be at least 1, got 0\n"


def test_settings_stand_anywhere_and_pairs_stay_pairs() -> None:
    known = {"lr", "batch.views"}
    flags = {"--data", "--out", "--model"}
    words = ["paper", "--data", "A=B", "/c/d=e", "lr=1", "--out", "run", "batch.views=2,8", "--model", "x=y", "other=2"]
    rest, changes = split_changes(words, "train", known, flags)
    assert rest == ["paper", "--data", "A=B", "/c/d=e", "--out", "run", "--model", "x=y"]
    assert changes == {"lr": "1", "batch.views": "2,8", "other": "2"}


def test_a_setting_that_is_written_like_a_flag_is_told_how() -> None:
    with pytest.raises(UserError, match=r"--prepare.image-size is no flag; write prepare.image_size=VALUE"):
        split_changes(["cap", "--prepare.image-size", "48"], "fit", set(), set())
    with pytest.raises(UserError, match=r"--weight-decay is no flag; write weight_decay=VALUE"):
        split_changes(["cap", "--weight-decay", "48"], "fit", {"weight_decay"}, {"--out"})


def test_former_spellings_still_work_and_are_named(tmp_path, capsys) -> None:
    arguments = ["reconstruct", str(tmp_path), "--checkpoint", str(tmp_path / "x"), "--out", str(tmp_path / "s.glb")]
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert "note: --checkpoint is --model now" in error
    assert "error: " in error

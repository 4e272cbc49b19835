"""Nothing half-written: files and folders appear whole or not at all."""

import errno
import os
import stat

import pytest
from safetensors import SafetensorError

from reliev3r.core.errors import UserError
from reliev3r.core.files import (
    atomic_directory,
    atomic_path,
    file_hash,
    read_json,
    refuse_links_out,
    remove_leftovers,
    write_json,
)


class Crash(BaseException):
    """Stands for Ctrl-C: not even an Exception."""


def crash_after(function, *arguments):
    function(*arguments)
    raise Crash


def test_a_file_appears_only_when_it_is_complete(tmp_path):
    target = tmp_path / "new" / "model.bin"
    with atomic_path(target) as temporary:
        assert temporary.parent == target.parent
        assert temporary.suffix == ".bin"
        temporary.write_text("whole")
        assert not target.exists()
    assert target.read_text() == "whole"
    assert os.listdir(target.parent) == ["model.bin"]


def test_a_crash_keeps_the_old_file_and_leaves_no_litter(tmp_path):
    target = tmp_path / "model.bin"
    target.write_text("old")
    with pytest.raises(Crash), atomic_path(target) as temporary:
        crash_after(temporary.write_text, "ha")
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["model.bin"]


def test_files_get_the_permissions_of_the_users_mask(tmp_path):
    mask = os.umask(0o027)
    try:
        write_json(tmp_path / "a.json", 1)
        with atomic_directory(tmp_path / "d"):
            pass
    finally:
        os.umask(mask)
    assert stat.S_IMODE((tmp_path / "a.json").stat().st_mode) == 0o640
    assert stat.S_IMODE((tmp_path / "d").stat().st_mode) == 0o750


def test_a_folder_replaces_the_old_one_whole(tmp_path):
    target = tmp_path / "run"
    for content in ("first", "second"):
        with atomic_directory(target) as temporary:
            assert os.listdir(temporary) == []
            (temporary / content).write_text(content)
    assert os.listdir(target) == ["second"]
    assert os.listdir(tmp_path) == ["run"]


def test_a_crash_keeps_the_old_folder(tmp_path):
    target = tmp_path / "run"
    target.mkdir()
    (target / "old").touch()
    with pytest.raises(Crash), atomic_directory(target) as temporary:
        crash_after((temporary / "half").touch)
    assert os.listdir(target) == ["old"]
    assert os.listdir(tmp_path) == ["run"]


@pytest.mark.parametrize("manager", [atomic_path, atomic_directory])
def test_an_unwritable_place_is_named(tmp_path, manager):
    (tmp_path / "file").touch()
    with (
        pytest.raises(UserError, match=r"file/inside.*cannot be written.*another folder"),
        manager(tmp_path / "file" / "inside"),
    ):
        pass


def test_json_round_trip_and_damage(tmp_path):
    write_json(tmp_path / "a.json", {"x": [1, 2.5, None, "é"]})
    assert read_json(tmp_path / "a.json") == {"x": [1, 2.5, None, "é"]}
    with pytest.raises(UserError, match=r"missing\.json: not found"):
        read_json(tmp_path / "missing.json")
    (tmp_path / "half.json").write_text('{"x": [1,')
    with pytest.raises(UserError, match=r"half\.json: not readable as JSON"):
        read_json(tmp_path / "half.json")
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="not readable"):
        read_json(tmp_path / "binary.json")


def test_unserialisable_content_does_not_destroy_the_old_file(tmp_path):
    write_json(tmp_path / "a.json", 1)
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", object())
    assert read_json(tmp_path / "a.json") == 1


def test_hash_is_sha256(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")
    assert file_hash(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_only_leftovers_of_the_named_files_are_removed(tmp_path):
    gone = [".a.abc_1234.json", ".b c.abcdefgh.npz"]
    stay = [".a.json.x", ".a.short.json", ".other.abc_1234.json", ".git", "a.json", ".a.ABCDEFGH.json"]
    for name in {*gone, *stay}:
        (tmp_path / name).write_text("")
    (tmp_path / ".frames.abc_1234").mkdir()
    (tmp_path / ".frames.old.abc_1234").mkdir()
    remove_leftovers(tmp_path, {"a.json", "b c.npz", "frames"})
    assert {path.name for path in tmp_path.iterdir()} == set(stay)


NO_ROOM = [
    OSError(errno.ENOSPC, "No space left on device"),
    OSError(errno.EDQUOT, "Disk quota exceeded"),
    OSError(errno.EFBIG, "File too large"),
    SafetensorError('I/O error: IoError(Os { code: 28, message: "No space left on device" }) (os error 28)'),
    RuntimeError("[enforce fail at inline_container.cc:664] . unexpected pos 64 vs 0"),
]
"""As Python, safetensors and torch.save tell of a full disk."""


@pytest.mark.parametrize("error", NO_ROOM)
@pytest.mark.parametrize("write", [atomic_path, atomic_directory])
def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path, error, write):
    with pytest.raises(UserError, match=r"new: cannot be written .*; make room"), write(tmp_path / "new"):
        raise error
    assert os.listdir(tmp_path) == []


def test_other_errors_stay_what_they_are(tmp_path):
    with pytest.raises(RuntimeError, match="a bug"), atomic_path(tmp_path / "new"):
        raise RuntimeError("a bug")


def test_a_file_in_a_folder_that_is_not_whole_is_named_by_its_final_place(tmp_path):
    with pytest.raises(UserError) as told, atomic_directory(tmp_path / "best") as folder, atomic_path(folder / "a"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert str(told.value).startswith(f"{tmp_path / 'best' / 'a'}: cannot be written")


def test_names_in_messages_neither_break_the_line_nor_command_the_terminal():
    told = str(UserError("a\nb\x1b[31m\ud800\u2028 é写😀 c: not found"))
    assert told == "a\\nb\\x1b[31m\\ud800\\u2028 é写😀 c: not found"
    told.encode("utf8")


def test_a_link_out_of_a_folder_of_results_is_refused(tmp_path):
    """A run from elsewhere may bring one: what is written into ``images/`` would fall upon somebody's files."""
    run, private = tmp_path / "run", tmp_path / "private"
    (run / "inner").mkdir(parents=True)
    private.mkdir()
    (run / "beside").symlink_to("inner")
    (tmp_path / "short").symlink_to(run)
    refuse_links_out(run)
    refuse_links_out(tmp_path / "short")
    refuse_links_out(tmp_path / "missing")
    (run / "images").symlink_to(private)
    for folder in (run, tmp_path / "short"):
        with pytest.raises(UserError, match="images: is a link out of"):
            refuse_links_out(folder)

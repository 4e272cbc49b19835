"""Which folders of a store hold labels."""

import pytest

from reliev3r.core.errors import UserError
from reliev3r.labels.many.index import gather_quality, label_folders


def test_the_true_depth_of_captures_is_no_label(tmp_path) -> None:
    for name in ("captures/one/depth", "captures/one/images", "store/one/depth"):
        (tmp_path / name).mkdir(parents=True)
    assert label_folders(tmp_path / "captures") == {}
    with pytest.raises(UserError, match="holds no labels"):
        gather_quality(tmp_path / "captures")
    assert list(label_folders(tmp_path / "store")) == ["one"]  # begun, and to be gone on with

"""What a worker's arrays must look like before anything of ours touches them."""

from __future__ import annotations

import numpy as np

from reliev3r.core.errors import UserError

_SHAPES = {
    "world_from_cam": "v44",
    "regions": "v4",
    "found": "v",
    "depth": "vhw",
    "rays": "vhw3",
    "conf": "vhw",
    "K": "v33",
    "size": "2",
}
_TOLERANCE = 1e-3


def check_result(name: str, arrays: dict[str, np.ndarray], *, views: int) -> dict[str, np.ndarray]:
    """The arrays of a result, known names only, with ``found`` filled in and cameras not found set to the identity.

    Required are world_from_cam [v, 4, 4] and regions [v, 4], and rays [v, h, w, 3] or K [v, 3, 3]. depth and conf
    [v, h, w] may be missing; without depth and rays, ``size`` (h, w) says what K refers to. All float64, ``found``
    boolean.

    Raises:
        UserError: missing, of a wrong shape or type, not finite, or geometric nonsense; names system and quantity.
    """
    arrays = {key: value for key, value in arrays.items() if key in _SHAPES}
    for key, value in arrays.items():
        if value.dtype.kind not in "fiub":
            raise UserError(f"{name}: its {key} is of type {value.dtype}, not numbers")
    arrays.setdefault("found", np.ones(views, bool))
    _check_shapes(name, arrays, views)
    checked = {key: np.ascontiguousarray(value, np.float64) for key, value in arrays.items()}
    found = checked["found"] = arrays["found"].astype(bool)
    checked["world_from_cam"][~found] = np.eye(4)
    for key, value in checked.items():
        bad = int(np.count_nonzero(~np.isfinite(value)))
        if bad:
            raise UserError(f"{name}: its {key} has {bad} of {value.size} values that are not finite")
    _check_geometry(name, checked)
    if "rays" in checked and "depth" not in checked:
        checked["size"] = np.array(checked["rays"].shape[1:3], np.float64)
    return checked


def _check_shapes(name: str, arrays: dict[str, np.ndarray], views: int) -> None:
    for key in ("world_from_cam", "regions"):
        if key not in arrays:
            raise UserError(f"{name}: its result lacks {key}")
    if "rays" not in arrays and not ("K" in arrays and ("depth" in arrays or "size" in arrays)):
        raise UserError(f"{name}: its result has neither rays nor K with the size of its images")
    maps = arrays.get("depth", arrays.get("rays"))
    sides = {"v": views}
    if maps is not None and maps.ndim >= 3:
        sides.update(h=maps.shape[1], w=maps.shape[2])
    for key, value in arrays.items():
        wanted = tuple(sides.get(letter, -1) if letter.isalpha() else int(letter) for letter in _SHAPES[key])
        if value.shape != wanted or 0 in value.shape:
            raise UserError(f"{name}: its {key} has the shape {value.shape}, which does not fit {views} views")


def _check_geometry(name: str, arrays: dict[str, np.ndarray]) -> None:
    rotation, last_row = arrays["world_from_cam"][:, :3, :3], arrays["world_from_cam"][:, 3]
    squared = rotation @ rotation.swapaxes(1, 2)
    rigid = np.abs(squared - np.eye(3)).max() < _TOLERANCE and (np.linalg.det(rotation) > 0).all()
    if not rigid or np.abs(last_row - [0, 0, 0, 1]).max() > _TOLERANCE:
        raise UserError(f"{name}: its world_from_cam are not rigid transforms")
    if "depth" in arrays and not (arrays["depth"] > 0).all():
        raise UserError(f"{name}: its depth has values that are not positive")
    if "rays" in arrays and np.abs(arrays["rays"][..., 2] - 1).max() > _TOLERANCE:
        raise UserError(f"{name}: its rays do not have z = 1")
    if "K" in arrays and not (arrays["K"][:, [0, 1], [0, 1]] > 0).all():
        raise UserError(f"{name}: its K has a focal length that is not positive")
    if "size" in arrays and (arrays["size"] < 1).any():
        raise UserError(f"{name}: its size is not a height and a width")
    if not (arrays["regions"][:, 2:] > 0).all():
        raise UserError(f"{name}: its regions are empty")

"""Sound JSON with something else in one place: what anybody may have written."""

import copy
from typing import Any

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reliev3r.core.errors import UserError

EYE = np.eye(4).tolist()
ANYTHING = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8),
    st.sampled_from(["../0.png", "/etc/passwd", "images/0.png", "a\0b", "\ud800", "1e400", "-0", 10**400, 2**63, -1, 0,
                     1e308, [], {}, [[]], [[1]], EYE, [EYE], float("nan"), float("inf"), "x" * 5000]),
    st.lists(st.one_of(st.floats(), st.text(max_size=3), st.none()), max_size=4),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)  # fmt: skip
bounded = settings(max_examples=150, deadline=None, derandomize=True, database=None,
                   suppress_health_check=[HealthCheck.function_scoped_fixture])  # fmt: skip


def places(value: Any, path: tuple = ()):
    """Every place in a JSON value."""
    yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in inner:
        yield from places(part, (*path, key))


def changed(value: Any, path: tuple, new: Any) -> Any:
    """The value with ``new`` in one place."""
    result = copy.deepcopy(value)
    if not path:
        return new
    target = result
    for key in path[:-1]:
        target = target[key]
    target[path[-1]] = new
    return result


def case(sound: Any):
    """A place of the sound value and what is put there."""
    return given(path=st.sampled_from(list(places(sound))), new=ANYTHING)


def one_line(read) -> None:
    """It is read, or told in one line that any terminal shows."""
    try:
        read()
    except UserError as error:
        assert "\n" not in str(error)  # noqa: PT017
        str(error).encode("utf8")

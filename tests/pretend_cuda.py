"""A GPU that is not there: CPU tensors that say they lie on ``cuda:0``, and a list of what a real GPU would not take.

Everything is computed, with real values, on the CPU. What is noted while :class:`PretendCuda` is on:

- ``mixed``: an operation on tensors of both devices (a GPU raises);
- ``generators``: random numbers for one device by a generator of the other (raises);
- ``arrays``: a tensor of the GPU handed to numpy (raises);
- ``waits``: values asked of the GPU (``item``, ``bool``, ``nonzero``, a mask as an index, a copy to the CPU). They are
  right, and cost time.

Only what goes through torch's Python functions is seen: not what a backward pass does inside.
"""

from __future__ import annotations

import collections
import contextlib
import traceback
from collections.abc import Iterator
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten, tree_map_only

CUDA, CPU = torch.device("cuda", 0), torch.device("cpu")
WAITS = {
    "item", "__bool__", "__float__", "__int__", "__index__", "tolist", "nonzero", "argwhere", "masked_select", "unique",
    "equal", "allclose", "__contains__",
}  # fmt: skip
ARRAYS = {"numpy", "__array__", "__dlpack__"}
ABOUT = {
    "shape", "ndim", "dtype", "size", "dim", "numel", "is_floating_point", "is_complex", "requires_grad", "grad_fn",
    "layout", "is_leaf", "element_size", "stride", "is_contiguous", "__len__", "storage_offset", "itemsize", "nbytes",
    "requires_grad_", "register_hook", "_has_compatible_shallow_copy_type",
    "untyped_storage", "data_ptr", "is_set_to", "backward", "is_pinned",
}  # fmt: skip
"""Questions about a tensor that no device is asked."""
LIKE = {"new_zeros", "new_ones", "new_empty", "new_full", "new_tensor"} | {
    f"{name}_like" for name in ("zeros", "ones", "empty", "full", "rand", "randn")
}
STRICT = {"cat", "concat", "stack", "gather", "index_select", "scatter", "matmul", "__matmul__", "einsum", "bmm"}
"""Of these, numbers (tensors without dimensions) must lie there too."""


def pretend(tensor: Tensor) -> Tensor:
    """The same tensor, from now on on the GPU."""
    with torch._C.DisableTorchFunction():
        tensor._pretends = True
    return tensor


def pretends(tensor: Any) -> bool:
    """Whether it says so."""
    return getattr(tensor, "_pretends", False)


def _real(tensor: Tensor) -> Tensor:
    with torch._C.DisableTorchFunction():
        tensor._pretends = False
    return tensor


def _place(value: Any) -> torch.device | None:
    """The device that an argument names, if it does."""
    if isinstance(value, Tensor):
        return CUDA if pretends(value) else CPU
    return torch.device(value) if isinstance(value, str | torch.device) else None


class PretendCuda(TorchFunctionMode):
    """See the module; ``faults`` has all that raises, ``waits`` the rest, each by kind and place and how often."""

    def __init__(self) -> None:
        super().__init__()
        self.faults: collections.Counter[str] = collections.Counter()
        self.waits: collections.Counter[str] = collections.Counter()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = dict(kwargs or {}), getattr(func, "__name__", str(func))
        if name in ("__get__", "__set__"):
            return self._attribute(func, name, args)
        if name in ABOUT:
            return func(*args, **kwargs)
        if name in ("to", "cuda", "cpu", "type_as") and isinstance(args[0], Tensor):
            return self._moved(func, name, args, kwargs)
        tensors = [x for x in tree_flatten((args, kwargs))[0] if isinstance(x, Tensor)]
        there = [x for x in tensors if pretends(x)]
        asked = _place(kwargs["device"]) if kwargs.get("device") is not None else None
        if asked is not None:
            kwargs["device"] = "cpu"
        if name in LIKE:
            made_there = pretends(args[0]) if asked is None else asked.type == "cuda"
        else:
            made_there = bool(there) if asked is None else asked.type == "cuda"
        self._look(name, args, kwargs, tensors, there, made_there)
        result = func(*args, **kwargs)
        mark = pretend if made_there else _real if name in LIKE or asked is not None else None
        return result if mark is None else tree_map_only(Tensor, mark, result)

    def _attribute(self, func: Any, name: str, args: Any) -> Any:
        what = getattr(func.__self__, "__name__", "")
        if name == "__set__":
            result = func(*args)
            if what == "data":
                (pretend if pretends(args[1]) else _real)(args[0])
            return result
        if what == "device":
            return CUDA if pretends(args[0]) else func(*args)
        if what == "is_cuda":
            return pretends(args[0])
        result = func(*args)
        return pretend(result) if isinstance(result, Tensor) and pretends(args[0]) else result

    def _moved(self, func: Any, name: str, args: Any, kwargs: Any) -> Tensor:
        places = [_place(value) for value in (*args[1:], kwargs.get("device"), kwargs.get("other"))]
        target = next((place for place in places if place is not None), None)
        target = {"cpu": CPU, "cuda": CUDA}.get(name, target)
        here = pretends(args[0])
        there = here if target is None else target.type == "cuda"
        if here and not there:
            self.waits[f"{name} {self._where()}"] += 1
        named = [*args[1:], kwargs.get("dtype"), kwargs.get("other")]
        types = [getattr(value, "dtype", value) for value in named if isinstance(value, torch.dtype | Tensor)]
        with torch._C.DisableTorchFunction():
            result = args[0].to(types[0]) if types else args[0]
            result = result.clone() if result is args[0] and there != here else result
        return (pretend if there else _real)(result)

    def _look(self, name: str, args: Any, kwargs: Any, tensors: Any, there: Any, made_there: bool) -> None:
        generator = kwargs.get("generator")
        if generator is not None and made_there != getattr(generator, "there", False):
            self.faults[f"generators {name} {self._where()}"] += 1
        if not there:
            return
        index = args[1] if name in ("__getitem__", "__setitem__") and pretends(args[0]) else None
        parts = index if isinstance(index, tuple) else (index,)
        if name in ARRAYS:
            self.faults[f"arrays {name} {self._where()}"] += 1
        elif (
            name in WAITS
            or (name == "where" and len(args) == 1)
            or (name == "repeat_interleave" and isinstance(args[-1], Tensor))
        ):
            self.waits[f"{name} {self._where()}"] += 1
        elif any(isinstance(part, Tensor) and part.dtype == torch.bool for part in parts) and name == "__getitem__":
            self.waits[f"mask {self._where()}"] += 1
        if name in ("copy_", "__setitem__", "load_state_dict") or (index is not None and name == "__getitem__"):
            return  # torch copies from the other device, and takes an index from the CPU
        strangers = [x for x in tensors if not pretends(x) and (x.dim() > 0 or name in STRICT)]
        if strangers:
            self.faults[f"mixed {name} {[tuple(x.shape) for x in strangers]} {self._where()}"] += 1

    def _where(self) -> str:
        frames = [frame for frame in traceback.extract_stack()[:-2] if "pretend_cuda" not in frame.filename]
        own = [frame for frame in frames if "/reliev3r/" in frame.filename or "/tests/" in frame.filename]
        return " < ".join(f"{frame.filename.rsplit('/', 1)[-1]}:{frame.name}" for frame in reversed(own[-3:]))


class _Autocast(torch.autocast):
    """Autocast of the GPU is that of the CPU."""

    def __init__(self, device_type: str, *args: Any, **kwargs: Any) -> None:
        super().__init__("cpu" if device_type == "cuda" else device_type, *args, **kwargs)


class _Generator(torch.Generator):
    """Of either device."""

    def __new__(cls, device: Any = "cpu") -> Any:
        return super().__new__(cls, "cpu")

    def __init__(self, device: Any = "cpu") -> None:
        self.there = torch.device(device).type == "cuda"


def _by_place(lists: Any) -> Any:
    """Torch's own asks C++, which knows better where the tensors lie."""
    groups: dict[Any, Any] = {}
    for index, tensor in enumerate(lists[0]):
        found, indices = groups.setdefault((tensor.device, tensor.dtype), ([[]], []))
        found[0].append(tensor)
        indices.append(index)
    return groups


@contextlib.contextmanager
def cuda() -> Iterator[PretendCuda]:
    """A machine with one GPU, whose arithmetic is float32 unless told otherwise."""
    from accelerate import Accelerator

    def prepared(self: Accelerator, model: torch.nn.Module, **_: Any) -> torch.nn.Module:
        return model.to(CUDA)

    with contextlib.ExitStack() as stack:
        for target, value in {
            "torch.autocast": _Autocast, "torch.amp.autocast": _Autocast,
            "torch.Generator": _Generator,
            "torch.accelerator.is_available": lambda: True,
            "torch.accelerator.current_accelerator": lambda *_, **__: CUDA,
            "torch.cuda.get_device_name": lambda *_: "a GPU that nobody knows",
            "torch.cuda.max_memory_allocated": lambda *_: 0,
            "torch.cuda.memory_allocated": lambda *_: 0, "torch.cuda.mem_get_info": lambda *_: (2**34, 2**34),
            "torch.cuda.synchronize": lambda *_: None,
            "torch.cuda.get_rng_state": lambda *_: torch.get_rng_state(),
            "torch.cuda.is_bf16_supported": lambda *_, **__: False,
            "torch.optim.Optimizer._accelerator_graph_capture_health_check": lambda *_: None,
        }.items():  # fmt: skip
            stack.enter_context(mock.patch(target, value))
        stack.enter_context(mock.patch.object(Accelerator, "device", CUDA))
        stack.enter_context(mock.patch.object(Accelerator, "prepare_model", prepared))
        stack.enter_context(mock.patch("torch.nn.utils.clip_grad._group_tensors_by_device_and_dtype", _by_place))
        yield stack.enter_context(PretendCuda())

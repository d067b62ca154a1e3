"""What goes wrong in calls: other types, dtypes, shapes, ranges, containers. `spoiled` draws one for a valid value.

Everything is drawn from the generator that is passed in, and made anew at each draw, so that a call can be repeated.
"""

from __future__ import annotations

import array
import math
from collections.abc import Callable, Mapping
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import torch

__all__ = ["SCALARS", "pick", "spoiled"]

#: Instead of anything: numbers at and past every limit, and things that are no numbers.
SCALARS: tuple[Callable[[], Any], ...] = tuple(
    (lambda value=value: value)
    for value in (
        None, True, False, 0, 1, -1, 2, 3, 7, 100, -100, 0.0, -0.0, 0.5, 0.9, 1.0, 1.5, 2.0, -0.1, math.nan, math.inf,
        -math.inf, 1e308, -1e308, 1e-320, 1e-12, 1e16, 2**31 - 1, 2**31, 2**32, 2**40, 2**53, 2**53 + 1, 2**63 - 1,
        2**63, 2**64, -(2**31), -(2**63), 10**400, "1", "", "0.5", "nan", "epoch", "never", "ä", "\0", "a" * 5000, b"1",
        1j, 0.5 + 0j, np.int8(1), np.uint8(2), np.uint64(3), np.int64(-1), np.float16(0.5), np.float32(0.25),
        np.float64("nan"), np.longdouble(0.5), np.complex64(1), np.bool_(True), np.bool_(False), np.str_("never"),
        np.datetime64("2020-01-01"), Fraction(1, 3), Decimal("0.5"), Ellipsis, NotImplemented, int, math.sqrt,
        range(2), (), frozenset({1}), "cuda", "symmetric",
    )
) + (
    lambda: np.array(1), lambda: np.array(0.5), lambda: np.array([1]), lambda: np.array([0.5, 0.5]),
    lambda: np.array(None), lambda: np.array("1"), list, lambda: [1], lambda: [0.5], lambda: [[1]], dict,
    lambda: {"a": 1}, lambda: {1}, lambda: object(), lambda: torch.tensor(1), lambda: torch.tensor(0.5),
    lambda: torch.tensor(2.0), lambda: torch.tensor(math.nan), lambda: torch.tensor(0.5, requires_grad=True),
    lambda: torch.tensor([0.5]), lambda: torch.tensor(True), lambda: torch.tensor(1j), lambda: np.ma.masked,
    lambda: np.ma.array(1, mask=False), lambda: iter([1]), lambda: (x for x in (0.5,)), lambda: bytearray(b"\1\2"),
)  # fmt: skip

_DTYPES = (
    "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", ">i8", ">u2", ">f8", "float16", "float32",
    "float64", "longdouble", "complex64", "complex128", "bool", "object", "U8", "S8", "datetime64[s]",
)  # fmt: skip
_TENSOR_DTYPES = (
    "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "bfloat16", "float32",
    "float64", "complex64", "bool",
)  # fmt: skip
_ENTRIES = (
    -1, -100, 0, 1, 2, 1.5, -0.0, -0.5, 0.5, math.nan, math.inf, -math.inf, 255, 2**31, 2**53, 2**63 - 1, -(2**63),
    1e30,
    1e200, 1e308, 1e-30, 1e-320,
)  # fmt: skip


def spoiled(draw: np.random.Generator, value: Any) -> Any:
    """Another value in the place of a valid one; now and then one that is as good."""
    if isinstance(value, Mapping) and draw.random() < 0.85:
        return _mapping(draw, value)
    if isinstance(value, np.ndarray | torch.Tensor | list | tuple) and draw.random() < 0.75:
        return _array(draw, value)
    if isinstance(value, int | float) and math.isfinite(value) and draw.random() < 0.5:
        return _near(draw, value)
    if isinstance(value, str) and draw.random() < 0.3:
        return _pick(draw, (value.upper(), value + " ", np.str_(value), value.encode(), [value], value[:-1]))
    return _pick(draw, SCALARS)()


def _near(draw: np.random.Generator, value: float) -> Any:
    """The number in another type, or another one close by."""
    kind = _pick(draw, ("int8", "int64", "uint8", "uint64", "float16", "float32", "float64", "bool_"))
    return _pick(draw, (
        lambda: value + 1, lambda: value - 1, lambda: -value, lambda: 2 * value, lambda: value / 2, lambda: int(value),
        lambda: float(value), lambda: bool(value), lambda: str(value), lambda: [value], lambda: complex(value),
        lambda: np.array(value), lambda: np.array([value]), lambda: torch.tensor(value), lambda: Fraction(value),
        lambda: _cast(np.array(value), kind)[()], lambda: _cast(np.array(value), kind)[()], lambda: np.ma.array(value),
        lambda: np.nextafter(value, -math.inf), lambda: np.nextafter(value, math.inf),
    ))()  # fmt: skip


def pick(draw: np.random.Generator, *values: Any) -> Any:
    """One of the values."""
    return values[int(draw.integers(len(values)))]


def _pick(draw: np.random.Generator, values: Any) -> Any:
    return pick(draw, *values)


def _mapping(draw: np.random.Generator, value: Mapping) -> Any:
    """One entry spoiled, missing, added, or the container changed."""
    key = _pick(draw, list(value)) if value else "a"
    what = draw.random()
    if what < 0.7 and value:
        return {**value, key: spoiled(draw, value[key])}
    if what < 0.8:
        return {name: entry for name, entry in value.items() if name != key}
    if what < 0.9:
        return {**value, _pick(draw, ("extra", 1, None, "ä", (1, 2))): _pick(draw, SCALARS)()}
    return _pick(draw, (list(value.items()), list(value), str(dict(value)), tuple(value.values())))


def _array(draw: np.random.Generator, value: Any) -> Any:
    """An array, tensor or sequence of another dtype, shape, content or kind."""
    is_tensor = isinstance(value, torch.Tensor)
    if isinstance(value, list | tuple) and value and draw.random() < 0.3 or _is_ragged(value):
        at = int(draw.integers(len(value)))
        return type(value)([*value[:at], spoiled(draw, value[at]), *value[at + 1 :]])
    plain = value.detach().numpy() if is_tensor else np.asarray(value)
    if plain.dtype.kind not in "iufb":
        return _pick(draw, (_shape, _mask, _container))(draw, plain.copy())
    change = _pick(draw, (_dtype, _shape, _entry, _entry, _layout, _mask, _container, _container))
    changed = change(draw, plain.copy())
    if is_tensor and isinstance(changed, np.ndarray) and not isinstance(changed, np.ma.MaskedArray):
        return _as_tensor(draw, changed) if draw.random() < 0.85 else changed
    if isinstance(value, list | tuple) and type(changed) is np.ndarray and draw.random() < 0.7:
        return changed.tolist()
    return changed


def _is_ragged(value: Any) -> bool:
    if isinstance(value, np.ndarray | torch.Tensor):
        return False
    try:
        return np.asarray(value).dtype == object
    except ValueError:
        return True


def _cast(values: np.ndarray, dtype: str) -> np.ndarray:
    with np.errstate(all="ignore"):
        if "datetime" in dtype:
            return np.zeros(values.shape, dtype=dtype)
        return values.real.astype(dtype) if values.dtype.kind == "c" else values.astype(dtype)


def _dtype(draw: np.random.Generator, values: np.ndarray) -> Any:
    if draw.random() < 0.1:
        return np.zeros(values.shape, dtype=[("a", "i4"), ("b", "f4")])
    return _cast(values, _pick(draw, _DTYPES))


def _shape(draw: np.random.Generator, values: np.ndarray) -> Any:
    if not values.ndim:
        return _pick(draw, (values[None], values.reshape(1, 1), values[None][:0]))
    first = values.reshape(-1)[:1]
    return _pick(draw, (
        lambda: values[None], lambda: values[..., None], lambda: values.T, lambda: values.reshape(-1),
        lambda: values[:0], lambda: values[..., :0], lambda: values[:1],
        lambda: values[:-1], lambda: values[..., :-1], lambda: np.concatenate([values, values]),
        lambda: first.reshape(()) if first.size else 0,
        lambda: np.broadcast_to(values, (2, *values.shape)), lambda: np.empty((0, 3, 0), values.dtype),
        lambda: values.reshape(values.shape + (1,) * 30),
    ))()  # fmt: skip


def _entry(draw: np.random.Generator, values: np.ndarray) -> Any:
    """One number replaced, in a dtype that holds it."""
    entry = _pick(draw, _ENTRIES)
    if not values.size or values.dtype.kind not in "iufb":
        return values
    if isinstance(entry, float) and values.dtype.kind in "iub":
        values = values.astype(np.float64)
    elif values.dtype.kind in "iub":
        values = values.astype(np.int64)
    with np.errstate(over="ignore"):
        values.reshape(-1)[int(draw.integers(values.size))] = entry
    return values


class _Subclass(np.ndarray):
    """An array of another class."""


def _layout(draw: np.random.Generator, values: np.ndarray) -> Any:
    def read_only() -> np.ndarray:
        values.setflags(write=False)
        return values

    return _pick(draw, (
        lambda: np.asfortranarray(values), lambda: values[::-1] if values.ndim else values, read_only,
        lambda: np.repeat(values, 2, axis=0)[::2] if values.ndim else values, lambda: values.view(_Subclass),
        lambda: values[..., ::-1] if values.ndim else values, lambda: np.matrix(values) if values.ndim == 2 else values,
        lambda: memoryview(np.ascontiguousarray(values)),
    ))()  # fmt: skip


def _mask(draw: np.random.Generator, values: np.ndarray) -> Any:
    mask = np.zeros(values.shape, dtype=bool)
    kind = draw.random()
    if kind < 0.6 and mask.size:
        mask.reshape(-1)[int(draw.integers(mask.size))] = True
    elif kind < 0.8:
        mask[...] = True
    return np.ma.array(values, mask=mask)


def _container(draw: np.random.Generator, values: np.ndarray) -> Any:
    listed = values.tolist()
    rows = listed if isinstance(listed, list) else [listed]
    return _pick(draw, (
        lambda: listed, lambda: tuple(rows), lambda: [*rows, [rows]], lambda: [*rows, None], lambda: [*rows, "1"],
        lambda: [*rows, 2**64], lambda: [*rows, 1j], lambda: [rows, values], lambda: dict(enumerate(rows)),
        lambda: (row for row in rows), lambda: str(listed), lambda: _as_tensor(draw, values),
        lambda: _as_tensor(draw, values), lambda: torch.ones(values.shape).requires_grad_(),
        lambda: array.array("d", range(values.size)), lambda: np.array(rows + [None], dtype=object)[:-1],
    ))()  # fmt: skip


def _as_tensor(draw: np.random.Generator, values: np.ndarray) -> Any:
    """As a tensor of some dtype and layout, if torch has it."""
    if values.dtype.kind not in "iufbc":
        return values
    plain = np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("=")).reshape(values.shape)
    if plain.dtype == np.longdouble:
        plain = plain.astype(np.float64)
    tensor = torch.from_numpy(plain.copy())
    what = draw.random()
    if what < 0.3:
        return tensor
    if what < 0.7:
        return tensor.to(getattr(torch, _pick(draw, _TENSOR_DTYPES)))
    return _pick(draw, (
        lambda: tensor.float().requires_grad_(), lambda: tensor.mT if tensor.ndim > 1 else tensor,
        lambda: tensor.float().to_sparse() if tensor.ndim else tensor, lambda: tensor.expand(2, *tensor.shape),
        lambda: torch.complex(tensor.float(), tensor.float()).conj(), lambda: torch.nn.Parameter(tensor.float()),
        lambda: tensor.flip(0) if tensor.ndim else tensor, lambda: tensor[..., None],
    ))()  # fmt: skip

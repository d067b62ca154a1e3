"""Inner products of the gradients of any parameters, by `torch.func` or one example after the other.

Of a group of parameters only so many examples are held as memory allows; the rest is made anew for each pair of tiles.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from textwrap import shorten
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.batchnorm import _BatchNorm
from torch.overrides import TorchFunctionMode, resolve_name

from hf_noise.analysis.example_rows import Rows, check_logits, losses_of
from hf_noise.analysis.gram_pieces import add_products

__all__ = [
    "CannotBatch", "buffers_put_back", "bytes_kept", "check_functional", "draws_so_far", "gram_of_parameters",
    "logits_of", "run",
]  # fmt: skip


def gram_of_parameters(
    model: nn.Module, chosen: Mapping[str, nn.Parameter], rows: Rows, memory: int, *, is_batched: bool
) -> Tensor:
    """Inner products of all rows' gradients of some parameters, float64 [n, n].

    Args:
        memory: bytes of gradients that may be held at a time; those of one example are, whatever it is.
        is_batched: by `vmap`, else one example after the other.

    Raises CannotBatch: under `vmap` the model's forward does what cannot be done for examples apart.
    """
    n = len(rows)
    total = torch.zeros(n, n, dtype=torch.float64, device=rows.weight.device)
    make = partial(_batched, kept=_kept(model, chosen, rows)) if is_batched else _one_by_one
    for names in _groups(chosen, n, memory):
        group = {name: chosen[name].detach() for name in names}
        size = sum(value.numel() * value.element_size() for value in group.values())
        tile = n if n * size <= memory else max(1, memory // (2 * size))
        spans = [slice(start, min(start + tile, n)) for start in range(0, n, tile)]
        for number, span in enumerate(spans):
            ours = make(model, group, rows, span, memory)
            add_products(total[span, span], ours)
            for other in spans[number + 1 :]:
                theirs = make(model, group, rows, other, memory)
                add_products(total[span, other], ours, theirs)
                total[other, span] = total[span, other].T
    return total


def _kept(model: nn.Module, chosen: Mapping[str, nn.Parameter], rows: Rows) -> int:
    """Bytes that one example's forward keeps for its backward pass."""
    leaves = {name: value.detach().requires_grad_() for name, value in chosen.items()}
    columns = {name: value[:1] for name, value in rows.inputs.items()}
    with sdpa_kernel(SDPBackend.MATH):
        return bytes_kept(model, lambda: functional_call(model, leaves, (), {**columns, **rows.constants}))[0]


def _groups(chosen: Mapping[str, nn.Parameter], n: int, memory: int) -> Iterator[list[str]]:
    """Names in groups whose gradients of n rows fit into memory, where those of one parameter do."""
    group, held = [], 0
    for name, parameter in chosen.items():
        size = n * parameter.numel() * parameter.element_size()
        if group and held + size > memory:
            yield group
            group, held = [], 0
        group, held = [*group, name], held + size
    yield group


def _batched(
    model: nn.Module, group: Mapping[str, Tensor], rows: Rows, span: slice, memory: int, kept: int
) -> Tensor:
    """Gradients [m, P] of some rows, by `vmap`, of as many at a time as memory allows with what each keeps."""
    example = rows.example[span]
    columns = {name: value[example] for name, value in rows.inputs.items()}

    def loss(values: Mapping[str, Tensor], columns: Mapping[str, Tensor], targets: Tensor, weight: Tensor) -> Tensor:
        one = {name: value[None] for name, value in columns.items()}
        told = functional_call(model, dict(values), (), {**one, **rows.constants})
        return losses_of(logits_of(told), targets[None], weight[None])[0]

    size = sum(value.numel() * value.element_size() for value in group.values())
    chunk = max(1, min(len(example), memory // (2 * size + kept)))
    # Of the kernels of attention only the plain one can be batched.
    with _Watch() as watch, sdpa_kernel(SDPBackend.MATH):
        try:
            found = vmap(grad(loss), in_dims=(None, 0, 0, 0), randomness="error", chunk_size=chunk)(
                dict(group), columns, rows.targets[example], rows.weight[span]
            )
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, NotImplementedError) as error:
            why = f"vmap says: {shorten(str(error), 200, placeholder=' ...')}"
            raise CannotBatch(_refusal(model, watch.failed, why, "method='loop' takes examples one by one")) from error
    return torch.cat([found[name].reshape(len(example), -1) for name in group], 1)


def _one_by_one(
    model: nn.Module, group: Mapping[str, Tensor], rows: Rows, span: slice, memory: int
) -> Tensor:
    """Gradients [m, P] of some rows, each by a backward pass of its own."""
    leaves = {name: value.clone().requires_grad_() for name, value in group.items()}
    example = rows.example[span]
    made = rows.weight.new_empty(len(example), sum(value.numel() for value in group.values()))
    for row, (one, weight) in enumerate(zip(example, rows.weight[span])):
        columns = {name: value[one][None] for name, value in rows.inputs.items()}
        told = functional_call(model, leaves, (), {**columns, **rows.constants})
        loss = losses_of(logits_of(told), rows.targets[one][None], weight[None])[0]
        if not loss.requires_grad:
            made[row] = 0
            continue
        found = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True, materialize_grads=True)
        torch.cat([value.reshape(-1) for value in found], out=made[row])
    return made


def check_functional(model: nn.Module, rows: Rows) -> None:
    """Run one example forward twice, which may change no tensor of the model's and draw no random numbers.

    Raises ValueError: it does, or says another thing the second time, or the logits are not those of a classifier or
    language model, or do not fit the labels.
    """
    for name, module in model.named_modules():
        if isinstance(module, _BatchNorm) and module.running_mean is None:
            why = f"{name} is {type(module).__name__} without running statistics, which norms an example by itself"
            raise ValueError(_refusal(model, None, why, "use track_running_stats=True"))
    one = {name: value[:1] for name, value in rows.inputs.items()}
    own = [*model.named_parameters(), *model.named_buffers()]
    with torch.no_grad(), _Watch(own) as watch, buffers_put_back(model) as replaced:
        logits = logits_of(run(model, one, rows.constants))
        again = logits_of(run(model, one, rows.constants))
    changed = watch.changed
    if changed is None and replaced:
        changed = f"puts another tensor in the place of {replaced[0]}", None
    if changed is None and not torch.allclose(logits, again, rtol=1e-3, atol=1e-4, equal_nan=True):
        changed = "says another thing of the same example when it is asked again", None
    if changed:
        what, operation = changed
        raise ValueError(_refusal(model, operation, f"it {what}", "the gradient of an example has to be its own"))
    check_logits(list(logits.shape), rows)


@contextmanager
def buffers_put_back(model: nn.Module) -> Iterator[list[str]]:
    """Puts back the buffers that a forward replaces by others, whose names the list has at the end."""
    held = [(module, dict(module._buffers)) for module in model.modules()]
    names = {id(module): name for name, module in model.named_modules()}
    replaced: list[str] = []
    try:
        yield replaced
    finally:
        for module, buffers in held:
            for name, buffer in buffers.items():
                if module._buffers.get(name) is not buffer:
                    replaced.append(".".join(filter(None, [names[id(module)], name])))
                    module._buffers[name] = buffer


def bytes_kept(model: nn.Module, forward: Callable[[], Any]) -> tuple[int, Any]:
    """Bytes that a forward keeps for the backward pass, without the model's own tensors; and what it returns."""
    own = {one.untyped_storage().data_ptr() for one in [*model.parameters(), *model.buffers()]}
    sizes: dict[int, int] = {}

    def pack(kept: Tensor) -> Tensor:
        storage = kept.untyped_storage()
        if storage.data_ptr() not in own:
            sizes[storage.data_ptr()] = storage.nbytes()
        return kept

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda kept: kept):
        made = forward()
    return sum(sizes.values()), made


def run(model: nn.Module, inputs: Mapping[str, Tensor], constants: Mapping[str, Any]) -> Any:
    """What the model says to these inputs; ValueError with their shapes if it cannot."""
    try:
        return model(**inputs, **constants)
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, IndexError, TypeError, ValueError) as error:
        told = ", ".join(f"{name} {list(value.shape)} {value.dtype}" for name, value in inputs.items())
        raise ValueError(f"{type(model).__name__} cannot be run on {told}: {str(error).strip():.300}") from error


def logits_of(told: Any) -> Tensor:
    """The logits of what a model returns: that itself, its attribute or entry `logits`, or the first of a tuple."""
    if isinstance(told, Tensor):
        return told
    found = told.get("logits") if isinstance(told, Mapping) else getattr(told, "logits", None)
    if found is None and isinstance(told, Sequence) and told:
        found = told[0]
    if not isinstance(found, Tensor):
        raise ValueError(f"a model must return logits, got {type(told).__name__} without")
    return found


class CannotBatch(ValueError):
    """`vmap` has no way to do for many examples what a forward does for one."""


def draws_so_far(device: torch.device) -> bytes:
    """Changes with every random number that torch draws."""
    state = torch.get_rng_state() if device.type != "cuda" else torch.cuda.get_rng_state(device)
    return state.numpy().tobytes()


class _Watch(TorchFunctionMode):
    """Which operation was the first to fail, or to change one of some tensors in place or draw random numbers."""

    def __init__(self, own: Sequence[tuple[str, Tensor]] = ()) -> None:
        super().__init__()
        self.own = [(name, value, value._version) for name, value in own]
        self.device = own[0][1].device if own else None
        self.drawn = draws_so_far(self.device) if own else None
        self.failed: Any = None
        self.changed: tuple[str, Any] | None = None

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        try:
            made = func(*args, **(kwargs or {}))
        except Exception:
            self.failed = self.failed or func
            raise
        if self.own and self.changed is None:
            names = [name for name, value, before in self.own if value._version != before]
            if names or self.drawn != draws_so_far(self.device):
                self.changed = f"changes {names[0]} in place" if names else "draws random numbers", func
        return made


def _refusal(model: nn.Module, operation: Any, why: str, remedy: str) -> str:
    name = (resolve_name(operation) or getattr(operation, "__name__", None)) if operation is not None else None
    return (
        f"the forward of {type(model).__name__} is not functional: {name or 'an operation'} cannot be done for each "
        f"example apart ({why}); {remedy}"
    )

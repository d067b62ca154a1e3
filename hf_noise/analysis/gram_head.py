"""Inner products of the gradients of an embedding, tied or not, without one gradient in memory.

The gradient of a row is P^T H + scatter(x, dE): P, [T, V], is softmax minus target, H the head's input, dE the gradient
at what the embedding gave. Only H, dE and the log-sum-exp are kept of a row. dE takes one backward pass through the
activations; the first part is formed for some vocabulary rows at a time, of all examples, multiplied and forgotten.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from hf_noise.analysis.example_rows import Rows, check_logits
from hf_noise.analysis.gram_functional import bytes_kept, logits_of, run
from hf_noise.analysis.gram_pieces import add_products

__all__ = ["Embedding", "NotThisWay", "embeddings", "embedding_of", "gram_of_embedding"]

#: Vocabulary rows that are formed at a time, at most and at least.
_MOST, _FEWEST = 512, 16


class NotThisWay(Exception):
    """The model's logits are not just those of its head, or its embedding is not just looked up once."""


@dataclass(frozen=True, eq=False)
class Embedding:
    """The modules of a language model whose weights are wanted.

    Attributes:
        looked_up: the input embedding, where its weight is wanted.
        head: the output layer.
        of_head: whether its weight is wanted; else the gradient only runs through it.
        is_tied: whether both weights are one.
    """

    looked_up: nn.Embedding | None
    head: nn.Linear
    of_head: bool
    is_tied: bool


def embedding_of(model: nn.Module, chosen: Mapping[str, nn.Parameter]) -> Embedding | None:
    """The modules if nothing but the weights of embedding and head is wanted, and these are plain; else None."""
    told = [embeddings(model, side) for side in ("input", "output")]
    looked_up, head = told
    if type(head) is not nn.Linear or getattr(getattr(model, "config", None), "is_encoder_decoder", False):
        return None
    wanted = {id(parameter) for parameter in chosen.values()}
    plain = type(looked_up) is nn.Embedding and looked_up.max_norm is None and not looked_up.scale_grad_by_freq
    of_embedding, of_head = id(getattr(looked_up, "weight", None)) in wanted, id(head.weight) in wanted
    if wanted - {id(one.weight) for one in told if one is not None} or (of_embedding and not plain):
        return None
    # A third module with this weight would have a part in its gradient.
    holders = {id(one) for one in model.modules() for own in one.parameters(recurse=False) if id(own) in wanted}
    if holders - {id(looked_up), id(head)}:
        return None
    is_tied = of_embedding and looked_up.weight is head.weight
    return Embedding(looked_up if of_embedding else None, head, of_head, is_tied)


def embeddings(model: nn.Module, side: Literal["input", "output"]) -> nn.Module | None:
    """The module that transformers calls the input or output embeddings, None if there is none."""
    try:
        return getattr(model, f"get_{side}_embeddings", lambda: None)()
    except NotImplementedError:  # of models of images
        return None


def gram_of_embedding(model: nn.Module, parts: Embedding, rows: Rows, memory: int) -> Tensor:
    """Inner products of all rows' gradients, float64 [n, n].

    Args:
        memory: bytes of logits and activations, and of vocabulary blocks, that may be held at a time.

    Raises NotThisWay: the model's forward does more with embedding or head than is asked here.
    """
    vocab, n = parts.head.weight.shape[0], len(rows)
    kept, first = bytes_kept(model, lambda: _look(model, parts, rows, slice(0, 1)))
    of_logits = 4 * rows.targets.shape[1] * vocab * parts.head.weight.element_size()
    at_once = max(1, memory // (of_logits + kept))
    seen = [first, *(_look(model, parts, rows, slice(start, start + at_once)) for start in range(1, n, at_once))]
    hidden, lse, ids, slopes = (None if one[0] is None else torch.cat(one) for one in zip(*seen))
    total = torch.zeros(n, n, dtype=torch.float64, device=hidden.device)
    if parts.is_tied:
        _add_blocks(total, parts, rows, hidden, lse, [(ids, slopes)], memory)
        return total
    if parts.of_head:
        _add_blocks(total, parts, rows, hidden, lse, [], memory)
    if parts.looked_up is not None:
        _add_blocks(total, parts, rows, None, None, [(ids, slopes)], memory)
    return total


def _look(model: nn.Module, parts: Embedding, rows: Rows, which: slice) -> tuple[Tensor | None, ...]:
    """Of some rows the head's input [m, T, d], its log-sum-exp [m, T], token ids [m, L] and dE [m, L, d]."""
    example, weight = rows.example[which], rows.weight[which]
    targets = rows.targets[example]
    inputs = {name: value[example] for name, value in rows.inputs.items()}
    with _caught(parts) as caught, torch.set_grad_enabled(parts.looked_up is not None):
        told = run(model, inputs, rows.constants)
    full, ids, leaf = _checked(caught, told, parts, rows)
    length, width = targets.shape[1], full.shape[-1]
    hidden = full.detach()[:, :length]
    # In place, as [m T, V] is the largest there is: exp(z - max), whose sum is the partition function.
    with torch.no_grad():
        p = nn.functional.linear(hidden.reshape(-1, width), parts.head.weight, parts.head.bias)
        largest = p.amax(1, keepdim=True)
        partition = p.sub_(largest).exp_().sum(1, keepdim=True)
        lse = (largest + partition.log()).view(len(example), length)
        if leaf is None:
            return hidden.clone(), lse, None, None
        flat = weight.reshape(-1, 1)
        slope = (p @ parts.head.weight).mul_(flat / partition)
        slope -= flat * parts.head.weight[targets.clamp(min=0).reshape(-1)]
        del p
    at_embedding = torch.autograd.grad(full[:, :length], leaf, slope.view(len(example), length, width))[0]
    if (padding := parts.looked_up.padding_idx) is not None:
        at_embedding = at_embedding.masked_fill((ids == padding)[..., None], 0)
    return hidden.clone(), lse, ids, at_embedding


@contextmanager
def _caught(parts: Embedding) -> Iterator[dict[str, list]]:
    """What goes into the head, which then computes the first position alone, and what the embedding gives."""
    seen: dict[str, list] = {"hidden": [], "logits": [], "ids": [], "leaf": []}

    def before_head(_: nn.Module, given: tuple[Any, ...]) -> tuple[Tensor]:
        seen["hidden"].append(given[0])
        return (given[0][:, :1],)

    def after_head(_: nn.Module, given: tuple[Any, ...], made: Tensor) -> None:
        seen["logits"].append(made)

    def after_embedding(_: nn.Module, given: tuple[Any, ...], made: Tensor) -> Tensor:
        leaf = made.detach().requires_grad_()
        seen["ids"].append(given[0])
        seen["leaf"].append(leaf)
        return leaf

    hooks = [parts.head.register_forward_pre_hook(before_head), parts.head.register_forward_hook(after_head)]
    if parts.looked_up is not None:
        hooks.append(parts.looked_up.register_forward_hook(after_embedding))
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def _checked(
    seen: Mapping[str, list], told: Any, parts: Embedding, rows: Rows
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Head's input, ids and the embedding's output, if the model does nothing else with either."""
    times = (len(seen["hidden"]), len(seen["leaf"]))
    if times != (1, int(parts.looked_up is not None)):
        raise NotThisWay(f"its head ran {times[0]} times, its embedding {times[1]} times")
    full, first = seen["hidden"][0], seen["logits"][0]
    if full.ndim != 3 or not torch.equal(logits_of(told), first):
        raise NotThisWay("its logits are not those of its head")
    check_logits([*full.shape[:-1], parts.head.weight.shape[0]], rows)
    return (full, *(seen[name][0] if seen[name] else None for name in ("ids", "leaf")))


def _add_blocks(
    total: Tensor, parts: Embedding, rows: Rows, hidden: Tensor | None, lse: Tensor | None,
    added: list[tuple[Tensor, Tensor]], memory: int,
) -> None:  # fmt: skip
    """Add the inner products of a weight's gradients, some vocabulary rows at a time.

    Args:
        hidden, lse: of the head's part; None where the weight is the embedding's alone.
        added: rows [n, L] of the weight that get something more, and what [n, L, d].
    """
    n, (vocab, width) = len(rows), (parts.head if hidden is not None else parts.looked_up).weight.shape
    added = list(added)
    if hidden is not None:
        weighted = hidden * rows.weight[..., None]  # [n, T, d]
        flat, less = hidden.reshape(-1, width), -lse.reshape(-1, 1)
        added.append((rows.targets[rows.example].clamp(min=0), -weighted))
    places = [ids.reshape(n, -1) for ids, _ in added]
    owner = [torch.arange(n, device=total.device)[:, None].expand_as(ids) for ids in places]
    order, at = _sorted(places)
    owner = torch.cat([one.reshape(-1) for one in owner])[order]
    values = torch.cat([value.reshape(-1, width) for _, value in added])
    length = 0 if hidden is None else hidden.shape[1]
    size = max(_FEWEST, min(_MOST, memory // (8 * n * (width + length))))
    for start in range(0, vocab, size):
        stop = min(start + size, vocab)
        if hidden is None:
            made = values.new_zeros(n, stop - start, width)
        else:
            p = torch.addmm(less, flat, parts.head.weight[start:stop].T)
            p = (p if parts.head.bias is None else p.add_(parts.head.bias[start:stop])).exp_()
            made = torch.bmm(p.view(n, -1, stop - start).transpose(1, 2), weighted)
        first, last = torch.searchsorted(at, torch.tensor([start, stop], device=at.device)).tolist()
        here = owner[first:last] * (stop - start) + at[first:last] - start
        made.view(-1, width).index_add_(0, here, values[order[first:last]])
        add_products(total, made.view(n, -1))


def _sorted(places: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Order of all places by the row of the weight, and these rows."""
    at, order = torch.cat([one.reshape(-1) for one in places]).sort()
    return order, at.contiguous()

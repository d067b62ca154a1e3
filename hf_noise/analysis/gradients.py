"""How far the gradients of examples agree, clean ones and corrupt ones (paper A, equation 3, table 4).

A batch's gradient is the sum of what its examples say. Clean ones point one way, so that their sum grows like their
number n; corrupt ones of uniform noise do not, and their sum grows like sqrt(n). A larger batch thus has the better
ratio of signal to noise. All is computed from the inner products of the examples' gradients, which are never all in
memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from scipy.special import stdtrit

from hf_noise.noise.checks import check_choice, check_count, check_flag, check_real

if TYPE_CHECKING:
    from torch import nn

    from hf_noise.analysis.example_rows import Rows

__all__ = ["Coherence", "Estimate", "coherence"]

_COSINES = ("clean_cosine", "corrupt_cosine", "cross_cosine")
_METHODS = ("auto", "blocks", "vmap", "loop")


@dataclass(frozen=True)
class Estimate:
    """A figure over batches.

    Attributes:
        value: of a cosine the mean over all pairs of all batches, of the SNR the ratio of mean norms, else the mean.
        low, high: interval by Student's t over batches, which are independent where pairs of one batch are not; None of
            a single batch, and where all batches say the same.
        n: pairs of a cosine, else batches.
        smallest, largest: over pairs of a cosine, else over batches; the SNR of a batch without corrupt ones is left
            out.
    """

    value: float
    low: float | None
    high: float | None
    n: int
    smallest: float
    largest: float


@dataclass(frozen=True, eq=False)
class Coherence:
    """What was found in N batches; arrays are float64 [N], a value for each batch, NaN where there is none.

    Attributes:
        clean_cosine, corrupt_cosine, cross_cosine: mean cosine of the pairs of two clean gradients, of two corrupt
            ones, of one each.
        clean_norm, corrupt_norm: length of the sum of clean gradients, and of corrupt ones; 0 of none.
        snr: the first over the second, infinite where the second is 0.
        batch_size: examples, int64 [N].
        corrupt: rows that are corrupt, int64 [N]: examples, or of `unit="token"` those with a corrupt target.
        example_square: mean over examples of the squared length of a gradient.
        batch_square: squared length of the mean gradient. Both are what a gradient noise scale is made of (McCandlish
            et al. 2018): their difference is the variance's trace times 1 - 1/B, for examples that are drawn apart.
        estimates: over batches, by the name of each of the above that is a float; without those of which no batch has a
            value, such as the SNR where no example was corrupt.
        parameters: names of what the gradients are of.
        unit: "example" or "token".
        method: "blocks", "vmap" or "loop", by which it was computed.
        confidence: of all intervals.
    """

    clean_cosine: np.ndarray = field(repr=False)
    corrupt_cosine: np.ndarray = field(repr=False)
    cross_cosine: np.ndarray = field(repr=False)
    clean_norm: np.ndarray = field(repr=False)
    corrupt_norm: np.ndarray = field(repr=False)
    snr: np.ndarray = field(repr=False)
    batch_size: np.ndarray = field(repr=False)
    corrupt: np.ndarray = field(repr=False)
    example_square: np.ndarray = field(repr=False)
    batch_square: np.ndarray = field(repr=False)
    estimates: Mapping[str, Estimate]
    parameters: tuple[str, ...]
    unit: str
    method: str
    confidence: float

    def __len__(self) -> int:
        return len(self.batch_size)


def coherence(
    model: nn.Module, batches: Iterable[Mapping[str, Any]], *, parameters: str | Sequence[str] | None = None,
    unit: Literal["example", "token"] = "example", one_sided: Literal["refuse", "zero"] = "refuse",
    method: Literal["auto", "blocks", "vmap", "loop"] = "auto", is_causal: bool | None = None, memory_mib: int = 256,
    confidence: float = 0.95,
) -> Coherence:  # fmt: skip
    """Compare the gradients of clean and corrupt examples within batches, as the model is (in evaluation mode).

    Args:
        model: a causal language model or a classifier that returns logits [B, T, V] or [B, C], weights in float32 or
            float64; it is left as it was.
        batches: mappings with what the model reads (of an encoder and decoder, `decoder_input_ids` too), `labels` [B]
            or [B, T] as it is trained on them (-100 does not count), and `is_noisy` bool; columns that the model does
            not read are passed over. An iterator is read once.
        parameters: names as in `model.named_parameters()`; by default the weight of the output layer of a language
            model, which is that of the token embedding where both are one, and of a classifier all that are trained,
            or all where none is.
        unit: what `is_noisy` marks. "example" [B]: the gradient of an example is clean or corrupt (paper A). "token"
            [B, T]: each example has a clean and a corrupt part, by targets, and these are compared.
        one_sided: "refuse" a batch without clean or without corrupt ones, or let the sum that it lacks be "zero", which
            is right where corruption is drawn (paper A counts such batches).
        method: "blocks" for the weights of embedding and output layer, where a gradient of one example is larger than
            all else; "vmap" of `torch.func` for any; "loop" for what `vmap` cannot batch, such as the masks of padded
            rows in many models of transformers. "auto" is the first of them that fits.
        is_causal: whether the logits at position t are for the label at t + 1; by default unless the model is known to
            be none (of masked language modelling, tokens, or with an encoder).
        memory_mib: of gradients, logits and activations that are held at a time, in [1, 2^20]; those of one example
            always are.
        confidence: of the intervals, in (0, 1).

    Returns:
        Figures of each batch and over batches. The loss of an example is the mean over its targets.

    Raises:
        TypeError: of another kind.
        ValueError: no parameter has this name; a batch has no clean or no corrupt example; the model's forward is not
            functional (it changes tensors of the model or replaces them, draws random numbers, says another thing when
            it is asked again, or with "vmap" cannot be batched), and the message names the operation where one can be
            told; weights or labels of another type or range; gradients that are not finite, or all zero.
    """
    from torch import nn

    from hf_noise.analysis.chosen_parameters import chosen_parameters, measured

    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch module, got {type(model).__name__}")
    check_choice("unit", unit, ("example", "token"))
    check_choice("one_sided", one_sided, ("refuse", "zero"))
    check_choice("method", method, _METHODS)
    confidence, memory = check_real("confidence", confidence), check_count("memory_mib", memory_mib, 1, 20) << 20
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie in (0, 1), got {confidence!r}; 0.95 is usual")
    if isinstance(batches, Mapping) or not isinstance(batches, Iterable):
        raise TypeError(f"batches must be an iterable of mappings, got {type(batches).__name__}; [batch] of one")
    chosen = chosen_parameters(model, parameters)
    gram = _Gram(model, chosen, method, memory)
    found = []
    with measured(model):
        for number, batch in enumerate(batches):
            found.append(_look(gram, batch, unit, one_sided, is_causal, f"batch {number}"))
    if not found:
        raise ValueError("batches is empty; give one at least")
    return Coherence(
        **{name: np.array([one.values[name] for one in found]) for name in found[0].values},
        estimates=_estimates(found, confidence), parameters=tuple(chosen), unit=unit, method=gram.method,
        confidence=confidence,
    )  # fmt: skip


@dataclass(frozen=True)
class _Batch:
    """What a batch says: its values, and the cosines of its pairs by kind."""

    values: Mapping[str, float]
    cosines: Mapping[str, np.ndarray]


class _Gram:
    """How inner products are computed: by the first batch the way is settled that `auto` takes."""

    def __init__(self, model: nn.Module, chosen: Mapping[str, nn.Parameter], method: str, memory: int) -> None:
        from hf_noise.analysis.gram_head import embedding_of

        self.model, self.chosen, self.memory = model, chosen, memory
        self.embedding = embedding_of(model, chosen) if method in ("auto", "blocks") else None
        if method == "blocks" and self.embedding is None:
            raise ValueError(f"method='blocks' is for the weights of embedding and output layer alone, got "
                             f"{', '.join(chosen)}; leave method out")  # fmt: skip
        self.asked, self.is_checked = method, False
        self.method = "blocks" if self.embedding is not None else "vmap" if method == "auto" else method

    def __call__(self, rows: Rows) -> np.ndarray:
        from hf_noise.analysis.gram_functional import (
            CannotBatch,
            buffers_put_back,
            check_functional,
            gram_of_parameters,
        )
        from hf_noise.analysis.gram_head import NotThisWay, gram_of_embedding

        if not self.is_checked:
            check_functional(self.model, rows)
            self.is_checked = True
        if self.method == "blocks":
            before = self._state()
            try:
                with buffers_put_back(self.model) as replaced:
                    made = gram_of_embedding(self.model, self.embedding, rows, self.memory)
                if replaced or self._state() != before:
                    check_functional(self.model, rows)
                return made.cpu().numpy()
            except NotThisWay as error:
                if self.asked == "blocks":
                    raise ValueError(f"method='blocks' does not fit {type(self.model).__name__}: {error}; leave method "
                                     "out") from None  # fmt: skip
                self.method = "vmap"
        if self.method == "vmap":
            try:
                return gram_of_parameters(self.model, self.chosen, rows, self.memory, is_batched=True).cpu().numpy()
            except CannotBatch:
                if self.asked == "vmap":
                    raise
                self.method = "loop"
        return gram_of_parameters(self.model, self.chosen, rows, self.memory, is_batched=False).cpu().numpy()

    def _state(self) -> tuple[list[int], bytes]:
        """Differs where a forward has changed a tensor of the model's, or drawn random numbers."""
        from hf_noise.analysis.gram_functional import draws_so_far

        own = [*self.model.parameters(), *self.model.buffers()]
        return [one._version for one in own], draws_so_far(own[0].device)


def _look(
    gram: _Gram, batch: Any, unit: str, one_sided: str, is_causal: bool | None, where: str
) -> _Batch:
    """Measure one batch."""
    from hf_noise.analysis.example_rows import predicts_next, rows_of

    causal = predicts_next(gram.model) if is_causal is None else check_flag("is_causal", is_causal)
    rows = rows_of(gram.model, batch, unit, causal, where)
    for kind, count in (("corrupt", rows.is_corrupt.sum()), ("clean", (~rows.is_corrupt).sum())):
        if not count and one_sided == "refuse":
            raise ValueError(
                f"{where} has no {kind} {unit}: there is nothing to compare; draw batches with both, or count such a "
                "sum as zero: one_sided='zero'"
            )
    products = gram(rows)
    if not np.isfinite(products).all():
        raise ValueError(f"gradients of {where} are not finite; look at its inputs and at the model's weights")
    if not products.diagonal().any():
        names = ", ".join([*gram.chosen][:3]) + f" and {len(gram.chosen) - 3} more" * (len(gram.chosen) > 3)
        raise ValueError(f"gradients of {names} are all zero in {where}: no loss depends on them")
    return _measure(products, rows.is_corrupt, rows.example.cpu().numpy(), rows.batch_size)


def _measure(products: np.ndarray, is_corrupt: np.ndarray, example: np.ndarray, size: int) -> _Batch:
    """Figures of a batch from the inner products of its rows, [n, n]."""
    lengths = np.sqrt(products.diagonal())
    with np.errstate(invalid="ignore", divide="ignore"):
        cosine = products / np.outer(lengths, lengths)
    one, other = np.triu_indices(len(lengths), 1)
    pairs, wrong = cosine[one, other], is_corrupt[one].astype(int) + is_corrupt[other]
    has_both = (lengths[one] > 0) & (lengths[other] > 0)
    kinds = zip(_COSINES, (0, 2, 1))
    cosines = {name: np.clip(pairs[has_both & (wrong == n)], -1, 1) for name, n in kinds}
    clean, corrupt = (
        float(np.sqrt(max(products[np.ix_(which, which)].sum(), 0.0))) for which in (~is_corrupt, is_corrupt)
    )
    same = example[:, None] == example
    return _Batch(
        {name: float(values.mean()) if values.size else np.nan for name, values in cosines.items()}
        | {
            "clean_norm": clean, "corrupt_norm": corrupt,
            "snr": clean / corrupt if corrupt else np.inf if clean else np.nan,
            "batch_size": size, "corrupt": int(is_corrupt.sum()),
            "example_square": float(products[same].sum()) / size,
            "batch_square": max(float(products.sum()), 0.0) / size**2,
        },
        cosines,
    )  # fmt: skip


def _estimates(found: Sequence[_Batch], confidence: float) -> dict[str, Estimate]:
    """All figures over batches; those of which no batch has a value are left out."""
    made = {}
    for name in _COSINES:
        pairs = [one.cosines[name] for one in found]
        if any(values.size for values in pairs):
            sums, counts = (np.array([how(values) for values in pairs], dtype=float) for how in (np.sum, np.size))
            made[name] = _ratio(sums, counts, int(counts.sum()), np.concatenate(pairs), confidence)
    for name in ("clean_norm", "corrupt_norm", "example_square", "batch_square"):
        values = np.array([one.values[name] for one in found])
        made[name] = _ratio(values, np.ones(len(values)), len(values), values, confidence)
    over, under, snr = (np.array([one.values[name] for one in found]) for name in ("clean_norm", "corrupt_norm", "snr"))
    if under.any() and np.isfinite(snr).any():
        made["snr"] = _ratio(over, under, len(snr), snr[np.isfinite(snr)], confidence)
    return made


def _ratio(over: np.ndarray, under: np.ndarray, n: int, values: np.ndarray, confidence: float) -> Estimate:
    """Sum over sum, with the interval of a ratio of means (the delta method)."""
    ratio = float(over.sum() / under.sum())
    smallest, largest = float(values.min()), float(values.max())
    batches = len(over)
    if batches < 2:
        return Estimate(ratio, None, None, n, smallest, largest)
    rest = over - ratio * under
    error = float(np.sqrt(batches / (batches - 1) * (rest**2).sum()) / under.sum())
    if error <= 1e-12 * abs(ratio):
        return Estimate(ratio, None, None, n, smallest, largest)
    half = -float(stdtrit(batches - 1, (1 - confidence) / 2)) * error
    return Estimate(ratio, ratio - half, ratio + half, n, smallest, largest)

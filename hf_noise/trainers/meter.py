"""Sums over units that stay on the device until they are logged, so that counting costs no synchronisation."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor

__all__ = ["LabelMeter", "LossMeter", "Meter", "PairMeter", "TokenMeter"]


class Meter(ABC):
    """Named sums since the last `pop` and since the start of training, exact over processes and resumes.

    A subclass names its sums, among them the numbers of clean and of corrupted units, and has a method that hands
    the sums of a batch to `book`.
    """

    sums: ClassVar[tuple[str, ...]]

    def __init__(self) -> None:
        self.recent: Tensor | None = None
        self.total: Tensor | None = None

    def book(self, sums: Tensor) -> None:
        """Add the sums of a batch, float64 in the order of their names (float32 where a device has no other)."""
        self.recent = sums if self.recent is None else self.recent + sums

    @abstractmethod
    def means(self, sums: dict[str, float]) -> dict[str, float]:
        """What to log of the sums of a window; no key for a kind of unit that did not occur."""

    def pop(self, accelerator: Any) -> dict[str, float]:
        """Means since the last call, over all processes (a collective call)."""
        if self.recent is None:
            return {}
        sums = accelerator.reduce(self.recent, reduction="sum")
        self.recent = None
        named = dict(zip(self.sums, sums.tolist(), strict=True))
        corrupted, n = self.counted(named)
        if not n:  # a run that was resumed at its last step has nothing new, and few short rows may have no target
            return {}
        self.total = sums if self.total is None else self.total + sums
        return self.means(named) | {"noise_rate": corrupted / n}

    def counted(self, sums: dict[str, float]) -> tuple[float, float]:
        """Number of corrupted units, and of all, that rates are made of."""
        return sums["corrupted"], sums["clean"] + sums["corrupted"]

    def of_unknown_rows(self, means: dict[str, float]) -> dict[str, float]:
        """Of what would be logged, what holds where nobody knows which units are wrong: none is called clean."""
        told = {name.replace("nll_clean_targets", "nll_targets"): value for name, value in means.items()}
        return {name: value for name, value in told.items() if name != "noise_rate" and "clean" not in name}

    def realised(self) -> dict[str, float | int]:
        """Share of corrupted units in all that were popped so far and their number, `{"rate", "n"}`."""
        if self.total is None:
            raise RuntimeError("no training step was made, or none had a target, so no noise was realised")
        corrupted, n = self.counted(dict(zip(self.sums, self.total.tolist(), strict=True)))
        return {"rate": corrupted / n, "n": int(n)}

    def state(self, accelerator: Any) -> dict[str, Tensor]:
        """What a checkpoint needs (a collective call): the totals of all processes, and what is not logged yet."""
        zeros = torch.zeros(len(self.sums), dtype=torch.float64)
        recent = zeros if self.recent is None else accelerator.reduce(self.recent, reduction="sum").cpu()
        return {"recent": recent, "total": zeros if self.total is None else self.total.cpu()}

    def load(self, state: dict[str, Tensor], accelerator: Any) -> None:
        """Take up a state; the sums that were not logged yet are booked on the main process, once."""
        device = accelerator.device
        if accelerator.is_main_process and state["recent"].any():
            self.recent = state["recent"].to(device)
        else:
            self.recent = torch.zeros_like(state["recent"]).to(device)
        self.total = state["total"].to(device) if state["total"].any() else None


class TokenMeter(Meter):
    """NLL of clean and of corrupted tokens."""

    sums = ("nll_clean", "clean", "nll_corrupted", "corrupted")

    @torch.no_grad()
    def add(self, nll: Tensor, valid: Tensor, is_noisy: Tensor | None) -> None:
        """Add a batch: `nll` float [B, L], `valid` bool [B, L] marks targets, `is_noisy` bool [B, L] corrupted ones.

        `is_noisy` is None where none are.
        """
        if is_noisy is None:
            dtype = sum_dtype(nll)
            clean = torch.stack([(valid * nll).sum(dtype=dtype), valid.sum(dtype=dtype)])
            return self.book(torch.cat([clean, torch.zeros_like(clean)]))
        noisy = is_noisy & valid
        counted = torch.stack([valid ^ noisy, noisy]).flatten(1)
        dtype = sum_dtype(nll)
        nlls, n = (counted * nll.flatten()).sum(-1, dtype=dtype), counted.sum(-1, dtype=dtype)
        return self.book(torch.stack([nlls, n], -1).flatten())

    def means(self, sums: dict[str, float]) -> dict[str, float]:
        kinds = {"nll_clean_targets": "clean", "nll_corrupted_targets": "corrupted"}
        return {key: sums[f"nll_{kind}"] / sums[kind] for key, kind in kinds.items() if sums[kind]}


class PairMeter(TokenMeter):
    """The same of targets of pairs; rows of noise, and what is padding in source and target.

    Args:
        by_row: rates are those of whole rows, of which each is clean or noisy; else of targets.
    """

    sums = (*TokenMeter.sums, "rows", "noisy_rows", "tokens", "places")

    def __init__(self, *, by_row: bool = False) -> None:
        super().__init__()
        self.by_row = by_row

    def book(self, sums: Tensor) -> None:
        super().book(torch.cat([sums, sums.new_zeros(len(self.sums) - len(sums))]) if len(sums) == 4 else sums)

    @torch.no_grad()
    def add_rows(self, mask: Tensor, valid: Tensor, is_noisy: Tensor | None) -> None:
        """Add a batch: `mask` [B, S] of source tokens, `valid` and `is_noisy` bool [B, L] of targets."""
        noisy = valid.new_zeros(()) if is_noisy is None else (is_noisy & valid).any(-1)
        dtype = sum_dtype(mask)
        tokens = mask.sum(dtype=dtype) + valid.sum(dtype=dtype)
        counts = [valid.any(-1).sum(dtype=dtype), noisy.sum(dtype=dtype), tokens]
        places = torch.full_like(counts[0], mask.numel() + valid.numel())
        self.book(torch.cat([counts[0].new_zeros(4), torch.stack([*counts, places])]))

    def counted(self, sums: dict[str, float]) -> tuple[float, float]:
        return (sums["noisy_rows"], sums["rows"]) if self.by_row else super().counted(sums)

    def means(self, sums: dict[str, float]) -> dict[str, float]:
        padding = {"padding_share": 1 - sums["tokens"] / sums["places"]} if sums["places"] else {}
        return super().means(sums) | padding

    def padding(self) -> dict[str, float | int]:
        """Share of padding in all source and target places of training so far and their number, `{"share", "n"}`."""
        if self.total is None:
            raise RuntimeError("no training step was made, so nothing was padded")
        named = dict(zip(self.sums, self.total.tolist(), strict=True))
        return {"share": 1 - named["tokens"] / named["places"], "n": int(named["places"])}


class LabelMeter(Meter):
    """NLL of clean and of wrong labels, and what a classifier's predictions agree with."""

    sums = ("nll_clean", "clean", "nll_corrupted", "corrupted", "as_trained", "as_clean", "memorised")

    @torch.no_grad()
    def add(self, nll: Tensor, predicted: Tensor, labels: Tensor, clean: Tensor, is_noisy: Tensor) -> None:
        """Add a batch, all [B]: `nll` float, predictions, labels as trained on, clean labels, where these differ."""
        as_trained = predicted == labels
        counted = torch.stack([~is_noisy, is_noisy, as_trained, predicted == clean, as_trained & is_noisy])
        dtype = sum_dtype(nll)
        n_clean, n_noisy, *hits = counted.sum(-1, dtype=dtype).unbind()
        nll_clean, nll_noisy = (counted[:2] * nll).sum(-1, dtype=dtype).unbind()
        self.book(torch.stack([nll_clean, n_clean, nll_noisy, n_noisy, *hits]))

    def means(self, sums: dict[str, float]) -> dict[str, float]:
        n = sums["clean"] + sums["corrupted"]
        logs = {"accuracy_trained_labels": sums["as_trained"] / n, "accuracy_clean_labels": sums["as_clean"] / n}
        if sums["clean"]:
            logs["nll_clean_targets"] = sums["nll_clean"] / sums["clean"]
        if sums["corrupted"]:
            logs["nll_corrupted_targets"] = sums["nll_corrupted"] / sums["corrupted"]
            logs["memorised"] = sums["memorised"] / sums["corrupted"]
        return logs


class LossMeter(Meter):
    """Any loss, on images with clean labels and on those with wrong ones."""

    sums = ("loss_clean", "clean", "loss_corrupted", "corrupted")

    @torch.no_grad()
    def add(self, losses: Tensor, is_noisy: Tensor) -> None:
        """Add a batch, both [B]: losses float, and where the label is wrong, bool."""
        counted = torch.stack([~is_noisy, is_noisy])
        dtype = sum_dtype(losses)
        n_clean, n_noisy = counted.sum(-1, dtype=dtype).unbind()
        # Not a product: a loss that is not finite must not spoil the sum that it is no part of.
        clean, noisy = losses.where(counted, 0).sum(-1, dtype=dtype).unbind()
        self.book(torch.stack([clean, n_clean, noisy, n_noisy]))

    def means(self, sums: dict[str, float]) -> dict[str, float]:
        kinds = {"loss_clean_labels": "clean", "loss_wrong_labels": "corrupted"}
        return {key: sums[f"loss_{kind}"] / sums[kind] for key, kind in kinds.items() if sums[kind]}


def sum_dtype(values: Tensor) -> torch.dtype:
    """float64, but float32 on Apple's GPUs, which have no other."""
    return torch.float32 if values.device.type == "mps" else torch.float64

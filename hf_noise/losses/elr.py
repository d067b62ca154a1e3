"""Early-learning regularisation: what a model predicted of a row before it memorised its label holds it back."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from hf_noise.losses.checks import check_count, check_floats, check_integers, check_real

__all__ = ["EarlyTargets", "early_learning_penalty"]

#: The authors keep probabilities this far from 0 and 1, so that 1 - <p, t> stays above 0.
_EDGE = 1e-4


def early_learning_penalty(logits: Tensor, targets: Tensor) -> Tensor:
    """log(1 - <p, t>) of each row, which is added lam times to its loss: low where prediction and targets agree.

    Args:
        logits: float [B, C], whose softmax is p, kept in [1e-4, 1 - 1e-4].
        targets: float [B, C], t, without gradient: >= 0, of sum 1 or less, see `EarlyTargets`.

    Returns:
        float [B], in [log 1e-4, 0].

    Raises:
        TypeError: logits or targets are not floating-point.
        ValueError: their shapes differ.

    Source: Liu et al., "Early-learning regularization prevents memorization of noisy labels", NeurIPS 2020, equation 6.

    >>> early_learning_penalty(torch.zeros(1, 2), torch.tensor([[1.0, 0.0]]))  # log 1/2
    tensor([-0.6931])
    """
    check_floats("logits", logits)
    check_floats("targets", targets)
    if logits.ndim != 2 or logits.shape != targets.shape:
        raise ValueError(f"logits and targets must both be [B, C], got {list(logits.shape)} and {list(targets.shape)}")
    return torch.log1p(-(_probabilities(logits) * targets.detach()).sum(-1))


def _probabilities(logits: Tensor) -> Tensor:
    return torch.softmax(logits.float(), -1).clamp(_EDGE, 1 - _EDGE)


class EarlyTargets(nn.Module):
    """What a model predicted of each row, averaged over its visits: t <- beta t + (1 - beta) p, from t = 0 on.

    It takes in a step's predictions when the step is over, of all processes at once, and within a step all rows are
    held against what was known before it. So it does not matter how a step is cut into micro-batches and processes, nor
    in which order rows come. It is kept by sample id and saved with checkpoints.

    Its tensors are no buffers: DDP would send them from the main process to all others before each forward pass.

    Args:
        sample_ids: integers [N], of all rows that may come; one that repeats is one row.
        num_classes: C >= 2.
        beta: in [0, 1).
        device: where the table of N x C float32 lies; by default that of the ids.

    Raises:
        TypeError: ids are no integers, or a value is no number.
        ValueError: a value is out of its range.
    """

    def __init__(self, sample_ids: Tensor, num_classes: int, beta: float, device: Any = None):
        super().__init__()
        ids = check_integers("sample_ids", sample_ids)
        if ids.ndim != 1 or not len(ids):
            raise ValueError(f"sample_ids must be [N], one of each of N >= 1 rows, got {list(ids.shape)}")
        num_classes, device = check_count("num_classes", num_classes, 2), ids.device if device is None else device
        self.beta = check_real("beta", beta, "[0, 1)", "0 is the last prediction alone")
        self.ids = torch.unique(ids).to(device)
        # The last row belongs to none: what other processes are padded with goes there.
        self.targets = torch.zeros(len(self.ids) + 1, num_classes, device=device)
        self._recent: list[tuple[Tensor, Tensor]] = []

    def begin(self) -> None:
        """Forget what was seen in a step that was not finished."""
        self._recent = []

    def forward(self, logits: Tensor, sample: Tensor) -> Tensor:
        """Targets float32 [B, C] of rows, this prediction of theirs included, without gradient.

        Args:
            logits: float [B, C].
            sample: int64 [B], ids.

        Raises:
            ValueError: on a CPU, a row has another id than those that are known; on a GPU its targets are NaN.
        """
        check_floats("logits", logits)
        sample = check_integers("sample_ids", sample)
        place = torch.searchsorted(self.ids, sample).clamp_max(len(self.ids) - 1)
        is_known = self.ids[place] == sample
        if sample.device.type == "cpu" and not bool(is_known.all()):
            other = int(sample[int((~is_known).int().argmax())])
            raise ValueError(f"sample_id {other} is of no training row that was known when the trainer was made; a "
                             "transform or a collator may not change sample_id")  # fmt: skip
        with torch.no_grad():
            p = _probabilities(logits.detach())
            p = (p / p.sum(-1, keepdim=True)).masked_fill(~is_known[:, None], float("nan"))
            if self.training:
                self._recent.append((place, p))
            return self.beta * self.targets[place] + (1 - self.beta) * p

    @torch.no_grad()
    def settle(self, accelerator: Any) -> None:
        """Take in what was predicted in a step, by all processes (a collective call)."""
        if not self._recent:
            return
        places, p = (torch.cat(parts) for parts in zip(*self._recent))
        self._recent = []
        if accelerator.num_processes > 1:
            nowhere = len(self.ids)
            places = accelerator.gather(accelerator.pad_across_processes(places, pad_index=nowhere))
            p = accelerator.gather(accelerator.pad_across_processes(p))
        # A row that came twice in a step counts once, with the mean of both; no host has to wait for this.
        places, order = torch.sort(places, stable=True)
        group = torch.cat([places.new_zeros(1), (places[1:] != places[:-1]).long().cumsum(0)])
        sums = torch.zeros_like(p).index_add_(0, group, p[order])
        count = torch.zeros_like(p[:, :1]).index_add_(0, group, torch.ones_like(p[:, :1]))
        self.targets[places] = self.beta * self.targets[places] + (1 - self.beta) * (sums / count)[group]

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        destination[prefix + "ids"], destination[prefix + "targets"] = self.ids, self.targets[:-1]

    def _load_from_state_dict(self, state, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs):
        keys = [prefix + "ids", prefix + "targets"]
        if missing := [key for key in keys if key not in state]:
            missing_keys.extend(missing)
            return
        ids, targets = (state[key] for key in keys)
        if not torch.equal(ids.to(self.ids), self.ids) or targets.shape != self.targets[:-1].shape:
            raise ValueError(f"the checkpoint remembers targets [{len(ids)}, {targets.shape[-1]}] of its rows, this "
                             f"run has {list(self.targets[:-1].shape)}, or the same number of other rows; go on with "
                             "the rows that it began with")  # fmt: skip
        self.targets[:-1] = targets.to(self.targets)

"""Bad calls to the coherence of gradients: of a linear classifier, whose gradients are known."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from bad_calls import Target
from bad_readers import close, confirm, number, text, whole
from bad_values import pick
from torch import nn

from hf_noise.analysis.gradients import coherence


class Linear(nn.Module):
    """Logits x W^T + b of three classes."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 3).double()
        with torch.no_grad():
            self.layer.weight.copy_(torch.tensor([[0.5, -1.0], [0.0, 0.25], [1.0, 1.0]]))
            self.layer.bias.copy_(torch.tensor([0.0, 0.5, -0.5]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)


MODEL = Linear()
NORMS = ("clean_norm", "corrupt_norm", "example_square", "batch_square")
COSINES = ("clean_cosine", "corrupt_cosine", "cross_cosine")
NAMES = ("layer.weight", "layer.bias")


def make(draw: np.random.Generator) -> dict[str, Any]:
    kinds = (torch.from_numpy, np.asarray)
    x, labels = draw.normal(size=(5, 2)), draw.integers(0, 3, 5)
    return {
        "x": pick(draw, *kinds)(x), "labels": pick(draw, *kinds)(labels),
        "is_noisy": pick(draw, *kinds)(np.arange(5) % 2 == 1), "parameters": pick(draw, None, "layer.weight", [*NAMES]),
        "method": pick(draw, "auto", "vmap", "loop"), "one_sided": pick(draw, "refuse", "zero"), "confidence": 0.9,
        "memory_mib": pick(draw, 1, 256),
    }  # fmt: skip


def call(**given: Any) -> Any:
    batch = {name: given.pop(name) for name in ("x", "labels", "is_noisy")}
    found = coherence(MODEL, [batch], **given)
    return {name: getattr(found, name) for name in NORMS + COSINES + ("snr",)}


def plain(value: Any) -> np.ndarray:
    confirm(isinstance(value, torch.Tensor | np.ndarray | list | tuple), "no array")
    return np.asarray(value)


def check(given: dict[str, Any], found: Any) -> None:
    x, labels, noisy = (plain(given[name]) for name in ("x", "labels", "is_noisy"))
    confirm(noisy.dtype == bool and noisy.ndim == 1 and labels.shape == noisy.shape and len(x) == len(noisy), "shapes")
    confirm(x.ndim == 2 and x.shape[1] == 2 and labels.dtype.kind in "iu" and (labels < 3).all(), "kinds")
    confirm(((labels >= 0)).all(), "labels")
    whole(given["memory_mib"], 1, 2**20)
    confirm(0 < number(given["confidence"]) < 1, "confidence")
    text(given["method"], "auto", "vmap", "loop")
    if text(given["one_sided"], "refuse", "zero") == "refuse":
        confirm(noisy.any() and not noisy.all(), "one side")
    wanted = NAMES if given["parameters"] is None else given["parameters"]
    wanted = [wanted] if isinstance(wanted, str) else list(wanted)
    confirm(wanted and all(name in NAMES for name in wanted), "names")
    weight, bias = (one.detach().numpy() for one in MODEL.parameters())
    logits = x.astype(float) @ weight.T + bias
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    p[np.arange(len(x)), labels.astype(int)] -= 1
    parts = {"layer.weight": (p[:, :, None] * x[:, None]).reshape(len(x), -1), "layer.bias": p}
    rows = np.concatenate([parts[name] for name in dict.fromkeys(wanted)], axis=1)
    gram = rows @ rows.T
    clean, corrupt = (np.linalg.norm(rows[which].sum(0)) for which in (~noisy, noisy))
    expected = {
        "clean_norm": clean, "corrupt_norm": corrupt, "example_square": gram.diagonal().mean(),
        "batch_square": gram.sum() / len(x) ** 2,
    }  # fmt: skip
    lengths = np.sqrt(gram.diagonal())
    if noisy.any() and not noisy.all() and lengths.min() > 1e-9 * lengths.max():
        cosine = gram / np.outer(lengths, lengths)
        upper = np.triu(np.ones(gram.shape, dtype=bool), 1)
        count = noisy[:, None].astype(int) + noisy
        kinds = {"clean_cosine": 0, "corrupt_cosine": 2, "cross_cosine": 1}
        which = {name: upper & (count == kind) for name, kind in kinds.items()}
        expected |= {name: cosine[mask].mean() if mask.any() else np.nan for name, mask in which.items()}
        if corrupt > 1e-6 * lengths.max():
            expected["snr"] = clean / corrupt
    for name, value in expected.items():
        close(found[name], [value], 1e-5)


WORDS = {
    "x": ("rows", "finite", "input"), "labels": ("rows", "is_noisy", "targets"), "is_noisy": ("batch 0",),
}  # fmt: skip

TARGETS = [Target("analysis.coherence", call, make, check, WORDS, weight=2)]

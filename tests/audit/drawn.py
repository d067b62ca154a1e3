"""Labels with drawn noise beside the probabilities of a classifier whose quality is known."""

from __future__ import annotations

import numpy as np

from hf_noise.noise import LabelFlips


def drawn(
    rows: int = 3000,
    classes: int = 4,
    rate: float = 0.2,
    seed: int = 0,
    protocol: str = "symmetric",
    spread: float = 0.15,
):
    """Noisy labels, clean ones [N] and the calibrated clean posterior [N, C], out of which the clean ones are drawn.

    The first class of the posterior is the true one for 80% of the rows; with a spread of 0.02 for 97%.
    """
    draw = np.random.default_rng(seed)
    posterior = draw.dirichlet(np.full(classes, spread), rows)
    clean = (posterior.cumsum(axis=1) < draw.random(rows)[:, None]).sum(axis=1).clip(0, classes - 1)
    noise = LabelFlips.named(protocol, error_rate=rate, num_classes=classes, seed=seed)
    return noise(clean, sample=np.arange(rows), epoch=0)[0], clean, posterior


def joint(clean, noisy, classes):
    counted = np.zeros((classes, classes))
    np.add.at(counted, (clean, noisy), 1 / len(clean))
    return counted


def harder_are_noisier(rows: int = 6000, spread: float = 0.06):
    """Noisy labels, clean ones and the clean posterior, where labels are wrong in half of the unsure rows."""
    draw = np.random.default_rng(0)
    posterior = draw.dirichlet(np.full(4, spread), rows)
    clean = (posterior.cumsum(axis=1) < draw.random(rows)[:, None]).sum(axis=1).clip(0, 3)
    rate = np.where(posterior.max(axis=1) > 0.999, 0.05, 0.5)
    return np.where(draw.random(rows) < rate, (clean + draw.integers(1, 4, rows)) % 4, clean), clean, posterior

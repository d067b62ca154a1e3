"""How far the mean of bounded rows may lie from the one that was seen: likelihood of values that include unseen ones.

Rows of a sample may all be alike although one in a hundred of the data is not. Their spread says nothing of it, so an
interval of that spread would be too short. Here some weight may also go to a value that no drawn row had.
"""

from __future__ import annotations

import numpy as np
from scipy.stats import t as student

__all__ = ["farthest"]

#: Member of Cressie and Read's family of power divergences. Where nothing of a kind was seen in n rows, 1.92 (1 + this)
#: / n of it may be there: 0, the likelihood ratio, leaves that out too often (a kind of which 2 were expected is not
#: seen one time in seven), and 1, Pearson's statistic (Wilson's score), is far too wide.
DIVERGENCE = 0.5
_STEPS = 40  # halvings of a range
_NEWTON = 8  # quadratic, from the side where it cannot overshoot
_TINY = 1e-9


def farthest(
    values: np.ndarray,
    counts: np.ndarray,
    extreme: np.ndarray,
    stratum: np.ndarray,
    n: np.ndarray,
    sizes: np.ndarray,
    total: int,
    confidence: float,
) -> np.ndarray:
    """Largest sum_h N_h / total m_h, over distributions near the drawn rows, with means m_h of the values.

    A stratum's distribution gives the drawn values the weights q_i, and what they leave to the extreme. Those of
    largest likelihood at each sum are counts_i / (g_h + pull N_h (extreme_h - value_i)), where g_h makes the weights
    sum to 1, or is 0 and the rest is the extreme's. Of these the farthest whose power divergence is below Student's t
    squared with n - H degrees of freedom is taken.

    Args:
        values: float [..., R].
        counts: float [..., R], >= 0, how many drawn rows have each value; in each stratum they sum to n.
        extreme: float [..., H], largest value that a row of each stratum can have, none of `values` above it.
        stratum: integers [R] in [0, H).
        n, sizes: integers [H], rows drawn and there are. Strata of which all rows or none were drawn add nothing; n
            counts for more where it is much of its stratum.
        total: of the weights.
        confidence: in (0, 1).

    Source: Owen, "Empirical likelihood" (2001), chapter 2, for a mean; Cressie and Read, "Multinomial goodness-of-fit
    tests" (JRSS B 1984).
    """
    is_open = (n > 0) & (n < sizes)
    shape = np.broadcast_shapes(values.shape[:-1], counts.shape[:-1], extreme.shape[:-1])
    if not is_open.any():
        return np.zeros(shape)
    kept = is_open[stratum]
    stratum = (np.cumsum(is_open) - 1)[stratum[kept]]
    n, sizes, extreme = n[is_open], sizes[is_open], extreme[..., is_open]
    values, weight = values[..., kept], sizes / total
    member = (stratum[:, None] == np.arange(len(n))).astype(np.float64)
    bound = student.ppf((1 + confidence) / 2, max(n.sum() - len(n), 1)) ** 2
    rows = n * (sizes - 1) / (sizes - n)
    counts = counts[..., kept] * (rows / n)[stratum]
    gap = np.maximum(extreme[..., stratum] - values, 0)
    widest = np.stack([gap[..., stratum == h].max(-1) for h in range(len(n))], -1)
    at_extreme = (counts * (gap <= 0)) @ member
    scale = (rows / weight).max()

    def tilted(where: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Divergence and sum [...] at a pull from 0 to infinity, as where runs from 0 to 1."""
        pull = (scale * where / (1 - where))[..., None] * weight
        part, floor = pull[..., stratum] * gap, _TINY * rows
        g = np.maximum(np.maximum(rows - pull * widest, at_extreme), floor)
        for _ in range(_NEWTON):
            each = 1 / (g[..., stratum] + part)
            one, two = (counts * each) @ member, (counts * each**2) @ member
            # Of 1 / sum, which is concave. Where all of it is less than 1 at g = 0, the rest is the extreme's.
            g = np.maximum(g + one * (one - 1) / two, floor)
        below = g[..., stratum] + part
        ratio = below / rows[stratum]
        divergence = 2 / (DIVERGENCE * (DIVERGENCE + 1)) * (counts * (ratio**DIVERGENCE - 1)).sum(-1)
        share = counts / below
        rest = np.maximum(1 - share @ member, 0)
        return divergence, (((share * values) @ member + rest * extreme) * weight).sum(-1)

    inside, outside = np.zeros(shape), np.ones(shape)
    for _ in range(_STEPS):
        middle = (inside + outside) / 2
        is_near = tilted(middle)[0] < bound
        inside, outside = np.where(is_near, middle, inside), np.where(is_near, outside, middle)
    return tilted(inside)[1]

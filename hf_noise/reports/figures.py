"""How every figure of a study is set up and written."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hf_noise.atomic import replaced_whole

__all__ = ["save_figure", "start_figure", "wrapped"]


def start_figure() -> Any:
    """matplotlib's pyplot in the style of this project, drawing into files; imported on use, as it takes a second."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    plt.rcParams.update({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False})
    return plt


def wrapped(plt: Any, panels: int, *, columns: int = 2, height: float = 3.8) -> tuple[Any, list[Any]]:
    """A figure of so many panels, at most `columns` side by side, and its axes; legible at 900 pixels' width."""
    columns = min(columns, panels)
    rows = -(-panels // columns)
    fig, axes = plt.subplots(rows, columns, figsize=(5.6 * columns, height * rows), layout="constrained", squeeze=False)
    for unused in axes.flat[panels:]:
        unused.remove()
    return fig, list(axes.flat[:panels])


def save_figure(fig: Any, path: str | Path, told: Mapping[str, str] | None = None) -> Path:
    """Write a figure as a PNG, whole or not at all, with texts inside if `told`; closes it, and returns its path."""
    path = Path(path)
    with replaced_whole(path) as unfinished:
        fig.savefig(unfinished, dpi=150, format="png", metadata=told)
    start_figure().close(fig)
    return path

"""How every figure of a study is set up and written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hf_noise.atomic import replaced_whole

__all__ = ["save_figure", "start_figure"]


def start_figure() -> Any:
    """matplotlib's pyplot in the style of this project, drawing into files; imported on use, as it takes a second."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    plt.rcParams.update({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False})
    return plt


def save_figure(fig: Any, path: str | Path) -> Path:
    """Write a figure as a PNG, whole or not at all, close it, and return its path."""
    path = Path(path)
    with replaced_whole(path) as unfinished:
        fig.savefig(unfinished, dpi=150, format="png")
    start_figure().close(fig)
    return path

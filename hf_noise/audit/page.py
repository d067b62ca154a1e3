"""An audit as one HTML page that one can look at, keep and send: it needs nothing from outside."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import ndtri

from hf_noise import __version__
from hf_noise.atomic import write_atomic
from hf_noise.audit import page_parts as parts
from hf_noise.audit.label_audit import LabelAudit
from hf_noise.audit.measured import parts_of
from hf_noise.audit.page_plan import planned
from hf_noise.audit.shown import picture, readable, template
from hf_noise.metrics.checks import check_path
from hf_noise.metrics.labels import class_indices
from hf_noise.noise.checks import check_count

__all__ = ["write_page"]

_ROWS = 14  # bits: more than 2^14 rows are no page but a table
_TEXT, _NAME, _TITLE = 400, 60, 200  # characters
_SIDE, _SMALL = 96, 40  # pixels of a thumbnail, and up to which a picture keeps every pixel
_VERIFY = 200
_FILTERS = (parts.cell, parts.percent, parts.probability)


def write_page(
    file: str | os.PathLike,
    audit: LabelAudit,
    *,
    title: str,
    source: str | None = None,
    texts: Sequence[str | None] | None = None,
    images: Sequence[Any] | None = None,
    rows: int = 200,
    plan: Any = None,
    clean: Any = None,
) -> Path:
    """Write what an audit found as one HTML file: the rate, who is taken for whom, the rows to look at, what to do.

    It loads nothing, follows the light or dark setting of the reader and the width of the screen, and can be read
    without JavaScript, which but filters the rows. The same audit makes the same bytes.

    Args:
        file: is replaced if it is there; its folder is made.
        audit: of N rows and C classes.
        title: of the page.
        source: where the data come from, in words.
        texts, images: of the N rows, in their order, also columns of a data set: only those that are shown are read.
            Texts are str or None and cut at 400 characters; images are PIL images, uint8 arrays [H, W] or [H, W, 3] or
            None, and are put in as thumbnails of at most 96 pixels.
        rows: at most so many rows of the default list are shown, those likeliest wrong, in [0, 2^14]; rows that were
            verified are left out. 200 with pictures make a file of less than 2 MB.
        plan: what may be done: a plan with `options`, or a list of dicts with the name of each and, if known, what it
            `does`, its value with low and high, and how that is known (`hf_noise.audit.page_plan.planned`).
        clean: true labels, integers [N] in [0, C), if they are known: the page then says how right the audit is.

    Returns:
        The path.

    Raises:
        TypeError: an argument is of another kind.
        ValueError: texts, images or clean are not N, a picture has another shape, the title is empty, or rows lie
            outside their range.
        OSError: the file cannot be written; IsADirectoryError if it is a folder.
    """
    file = check_path("file", file)
    if file.is_dir():
        raise IsADirectoryError(f"file {str(file)!r:.200} is a folder; name a file in it, such as audit.html")
    if not isinstance(audit, LabelAudit):
        raise TypeError(f"audit must be a LabelAudit, as audit_labels makes it, got {type(audit).__name__}")
    for name, text in (("title", title), ("source", source)):
        if not isinstance(text, str) and not (name == "source" and text is None):
            raise TypeError(f"{name} must be a text, got {text!r:.80}")
    if not title.strip():
        raise ValueError(f"title must say what the page is about, got {title!r:.80}")
    rows = check_count("rows", rows, 0, _ROWS, "it is how many rows the page shows at most")
    texts, images = _column("texts", texts, len(audit)), _column("images", images, len(audit))
    if clean is not None:
        clean = class_indices("clean", clean, len(audit.class_names))
        if len(clean) != len(audit):
            raise ValueError(f"clean must be the true labels of all {len(audit)} rows, got {len(clean)}")
    to_do = None if plan is None else planned(plan)
    listed = audit.flagged()
    left = listed.copy()
    if audit.verified_by is not None:
        left[audit.verified_by.rows] = False
    order = np.argsort(-audit.p_wrong, kind="stable")
    names = [readable(name, _NAME) for name in audit.class_names]
    page = template("page.html", **{of.__name__: of for of in _FILTERS}).render(
        title=readable(title, _TITLE), source=None if source is None else readable(source, _TITLE), names=names,
        items=[_item(int(row), audit, names, texts, images, clean) for row in order[left[order]][:rows]],
        n=len(audit), listed=int(listed.sum()), left=int(left.sum()), seen=int((listed & ~left).sum()),
        tenth=int(audit.flagged(0.1).sum()), answer=parts.answer(audit),
        warnings=audit.warnings, matrix=parts.heat_map(audit, names), confusions=parts.confusions(audit),
        histogram=parts.histogram(audit.p_wrong, listed), classes=parts.by_class(audit, listed),
        estimators=parts.estimators(audit), how=parts_of(audit.error_rate.how, audit.warnings), plan=to_do,
        step=None if to_do is None else to_do["step"],
        truth=None if clean is None else parts.kept_word(audit, listed, clean), verify=_verify(audit),
        verified=None if audit.verified_by is None else audit.verified_by.answered, seed=audit.seed,
        version=__version__, has_images=images is not None,
    )  # fmt: skip
    return write_atomic(file, page)


def _column(name: str, values: Any, rows: int) -> Any:
    """What has the value of row i at i, or None."""
    if values is None:
        return None
    if isinstance(values, str | bytes | bytearray | memoryview | dict) or not hasattr(values, "__getitem__"):
        raise TypeError(f"{name} must be a sequence, one for each row, got {type(values).__name__}")
    try:
        count = len(values)
    except TypeError as error:
        raise TypeError(f"{name} must be a sequence of a known length, got {type(values).__name__}") from error
    if count != rows:
        raise ValueError(f"{name} must be as many as the audit's {rows} rows, in their order, got {count}")
    return getattr(values, "iloc", values)  # a Series of pandas counts by its own index otherwise


def _item(row: int, audit: LabelAudit, names: list[str], texts: Any, images: Any, clean: Any) -> dict[str, Any]:
    """One row as it is shown."""
    text, image = None if texts is None else texts[row], None if images is None else images[row]
    if not isinstance(text, str | None):
        raise TypeError(f"texts[{row}] must be a str, or None where there is none, got {type(text).__name__}")
    given, suggested, true = (None if of is None else int(of[row]) for of in (audit.labels, audit.suggested, clean))
    shown = {"image": None, "is_small": False}
    if image is not None:
        shown = picture(image, f"images[{row}]", side=_SIDE, small=_SMALL, on_white=True)
    return shown | {
        "row": row, "given": given, "suggested": suggested, "true": None if true is None else names[true],
        "is_wrong": None if true is None else true != given, "p": float(audit.p_wrong[row]),
        "has_text": texts is not None, "text": readable(text or "", _TEXT),
    }  # fmt: skip


def _verify(audit: LabelAudit) -> dict[str, Any]:
    """Rows to verify, and how well as many random ones would make the rate known at most, in shares."""
    count, rate = min(_VERIFY, len(audit)), audit.error_rate
    at_worst = float(np.clip(0.5, rate.low, rate.high))
    normal = float(ndtri((1 + rate.confidence) / 2))
    return {"rows": count, "half": normal * float(np.sqrt(at_worst * (1 - at_worst) / count)), "now": rate.half_width}

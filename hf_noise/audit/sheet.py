"""Rows to verify as files for a person: a CSV, and one HTML page that needs nothing from outside."""

from __future__ import annotations

import csv
import hashlib
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hf_noise.atomic import write_atomic
from hf_noise.audit.class_names import UNSURE, check_class_names, listed
from hf_noise.audit.powered import UNANSWERED
from hf_noise.audit.sampling import Sample
from hf_noise.audit.shown import picture, readable, template
from hf_noise.metrics.checks import check_path
from hf_noise.metrics.labels import class_indices
from hf_noise.noise.checks import check_flag

__all__ = ["fingerprint", "fingerprints", "is_filled", "read_sheet", "write_sheet"]

COLUMNS, _SEEN = ("row", "given_label", "suggested_label", "true_label", "audit"), ("given_label", "suggested_label")
_BUTTONS = 12  # classes that a page has a button for; of more it has a list
_TEXT, _SIDE, _SMALL = 4000, 320, 96  # characters; pixels of a thumbnail, and up to which a picture keeps every pixel
_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what a spreadsheet would run at the beginning of a cell


def write_sheet(
    folder: str | os.PathLike,
    sample: Sample,
    *,
    given: Any,
    suggested: Any,
    class_names: Sequence[str],
    texts: Sequence[str] | None = None,
    images: Sequence[Any] | None = None,
    title: str = "Which class is true?",
    blind: bool = True,
) -> tuple[Path, Path]:
    """Write `to_verify.csv` and `to_verify.html` into a folder; either is enough to fill in.

    The page holds everything that it shows, loads nothing, keeps what was filled in in the browser, and saves a CSV of
    the same columns. Both carry the audit's fingerprint, by which `read_sheet` knows them.

    Args:
        folder: made if it is not there; files of these names are replaced.
        sample: rows to verify.
        given, suggested: integers [N] in [0, C), of all rows.
        class_names: C texts, all different; none may be "unsure", which is what the sheet calls a row left open.
        texts: as many as rows in the sample, in their order; each is cut at 4,000 characters.
        images: as many as rows in the sample, in their order: PIL images, or uint8 arrays [H, W] or [H, W, 3]. They are
            put in as thumbnails of at most 320 pixels.
        title: of the page.
        blind: leave given and suggested labels out of the CSV, and show them on the page only once a row was answered:
            who sees them first tends to agree. Else both stand above the buttons, which name them.

    Returns:
        Paths of the CSV and of the page.

    Raises:
        TypeError: an argument is of another kind.
        ValueError: lengths or class names do not fit.
    """
    names = check_class_names(class_names)
    given, suggested = _of_rows("given", given, sample, names), _of_rows("suggested", suggested, sample, names)
    if not isinstance(title, str):
        raise TypeError(f"title must be a text, got {title!r:.80}")
    for name, parts in (("texts", texts), ("images", images)):
        if parts is not None and len(parts) != len(sample):
            raise ValueError(f"{name} must be as many as the {len(sample)} rows of the sample, got {len(parts)}")
    if texts is not None and not all(isinstance(text, str) for text in texts):
        raise TypeError("texts must all be str")
    blind, audit = check_flag("blind", blind), fingerprint(sample, given, names)
    items = [
        {"row": int(row), "given": names[given[row]], "suggested": names[suggested[row]],
         "text": None if texts is None else readable(texts[i], _TEXT)}
        | ({"image": None} if images is None else picture(images[i], f"images[{i}]", side=_SIDE, small=_SMALL))
        for i, row in enumerate(sample.rows)
    ]  # fmt: skip
    columns = [name for name in COLUMNS if not blind or name not in _SEEN]
    table = io.StringIO()
    writer = csv.DictWriter(table, columns + ["text"] * (texts is not None), extrasaction="ignore")
    writer.writeheader()
    for item in items:
        seen = {name: _guarded(item[name.removesuffix("_label")]) for name in _SEEN}
        text = {} if texts is None else {"text": _guarded(item["text"])}
        writer.writerow({"row": item["row"], "true_label": "", "audit": audit} | seen | text)
    page = template("sheet.html").render(
        title=title, items=items, class_names=names, unsure=UNSURE, audit=audit, columns=columns, blind=blind,
        has_buttons=len(names) <= _BUTTONS, has_images=images is not None,
    )  # fmt: skip
    folder = Path(folder)
    return write_atomic(folder / "to_verify.csv", table.getvalue()), write_atomic(folder / "to_verify.html", page)


def read_sheet(path: str | os.PathLike, sample: Sample, *, given: Any, class_names: Sequence[str]) -> np.ndarray:
    """Read a filled CSV back as the labels that `combine_verified` takes.

    Columns may stand in any order and be separated by commas, semicolons or tabs, as spreadsheets save them. An empty
    field and "unsure" leave a row open, as does a row that is not there.

    Args:
        path: of the CSV, from the page or from `to_verify.csv`.
        sample, given, class_names: as they were written.

    Returns:
        int64 [n], true class of `sample.rows` in their order, -1 where open.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no table of these columns, belongs to another audit, names rows that are not in the sample or
            classes that there are not, says two things of one row, or nothing is filled in.
    """
    names = check_class_names(class_names)
    given = _of_rows("given", given, sample, names)
    numbers = {name: i for i, name in enumerate(names)}
    place = {int(row): i for i, row in enumerate(sample.rows)}
    audit, labels = fingerprint(sample, given, names), np.full(len(sample), UNANSWERED)
    where: dict[int, int] = {}
    file = check_path("path", path)
    for line, fields in _lines(file):
        if fields["audit"] != audit:
            raise ValueError(
                f"{file.name}, line {line}: of the audit {fields['audit']!r:.40}, and this one is {audit!r}; read it "
                "with the audit (data, labels, classes, n, seed) that it was written by"
            )
        number = int(fields["row"]) if fields["row"].isdecimal() and len(fields["row"]) < 19 else -1
        if number not in place:
            raise ValueError(
                f"{file.name}, line {line}: row {fields['row']!r:.40} is not in the sample of {len(sample)} rows; only "
                "rows that were drawn may be filled in, since others were not left to chance"
            )
        label = _unguarded(" ".join(fields["true_label"].split()))
        if not label or label.casefold() == UNSURE:
            continue
        if label not in numbers:  # spreadsheets write true as TRUE
            alike = [name for name in names if name.casefold() == label.casefold()]
            label = alike[0] if len(alike) == 1 else label
        if label not in numbers:
            raise ValueError(
                f"{file.name}, line {line}: unknown class {label!r:.60}; classes are {listed(names)}, or {UNSURE}"
            )
        at = place[number]
        if labels[at] not in (UNANSWERED, numbers[label]):
            raise ValueError(
                f"{file.name}, lines {where[at]} and {line}: row {number} is {names[labels[at]]!r} and {label!r}; keep "
                "one of them"
            )
        labels[at], where[at] = numbers[label], line
    if not where:
        raise ValueError(f"{file.name}: nothing is filled in; say the true class of rows in the column true_label")
    return labels


def is_filled(path: str | os.PathLike) -> bool:
    """Whether a true label stands in any row of a sheet; False of what is none."""
    try:
        return any(fields["true_label"].strip() for _, fields in _lines(Path(path)))
    except (OSError, ValueError):
        return False


def fingerprints(path: str | os.PathLike) -> set[str]:
    """Of all audits that rows of a sheet are of; none of what is no sheet."""
    try:
        return {fields["audit"] for _, fields in _lines(Path(path))}
    except (OSError, ValueError):
        return set()


def _guarded(text: str) -> str:
    """As a spreadsheet shows it, which would run a formula."""
    return "'" + text if text.startswith(_FORMULA) else text


def _unguarded(text: str) -> str:
    return text[1:] if text.startswith("'") and text[1:].startswith(_FORMULA) else text


def fingerprint(sample: Sample, given: np.ndarray, class_names: Sequence[str]) -> str:
    """Of the rows that were drawn, all given labels and the names of classes; a word, which no spreadsheet rounds."""
    digest = hashlib.sha256(repr((len(sample.stratum), list(class_names))).encode("utf-8", "backslashreplace"))
    digest.update(np.sort(sample.rows).astype("<i8").tobytes())
    digest.update(np.asarray(given).astype("<i8").tobytes())
    return f"audit-{digest.hexdigest()[:16]}"


def _lines(file: Path):
    """Line numbers and fields of a table that has the columns of a sheet."""
    if not file.is_file():
        raise FileNotFoundError(f"path {str(file)!r:.200} is no file; pass the CSV that was filled in")
    try:
        text = file.read_text(encoding="utf-8-sig")
        first = text.split("\n", 1)[0]
        rows = csv.reader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=first.count), strict=True)
        head = [name.strip() for name in next(rows, [])]
        lacking = [name for name in ("row", "true_label", "audit") if head.count(name) != 1]
        if lacking:
            raise ValueError(
                f"{file.name}: the columns are {listed(head)}, and {', '.join(lacking)} must be there once; fill in "
                "the CSV that to_verify wrote, or save one from its page"
            )
        table = [(rows.line_num, fields) for fields in rows if any(field.strip() for field in fields)]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{file.name} cannot be read as a CSV in UTF-8: {error}") from error
    for line, fields in table:
        if len(fields) > len(head):
            raise ValueError(
                f"{file.name}, line {line}: {len(fields)} fields for {len(head)} columns; put quotes round commas"
            )
        yield line, dict(zip(head, [field.strip() for field in fields] + [""] * (len(head) - len(fields))))


def _of_rows(name: str, values: Any, sample: Sample, names: list[str]) -> np.ndarray:
    if not isinstance(sample, Sample):
        raise TypeError(f"sample must be a Sample, as draw_sample draws it, got {type(sample).__name__}")
    array = class_indices(name, values, len(names))
    if len(array) != len(sample.stratum):
        raise ValueError(
            f"{name} must be [{len(sample.stratum)}], of all rows that the sample was drawn from, got {len(array)}"
        )
    return array

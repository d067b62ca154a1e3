"""The report as one HTML page, which needs nothing from outside, and as Markdown beside it."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hf_noise import __version__
from hf_noise.atomic import write_atomic
from hf_noise.studies.report import parts
from hf_noise.studies.report.cells import Found, found_in
from hf_noise.studies.report.curves import curves_and_rest
from hf_noise.studies.report.efforts import explained
from hf_noise.studies.report.families import Curve
from hf_noise.studies.report.judged import shared
from hf_noise.studies.report.picture import COLOURS, draw
from hf_noise.studies.report.stored import Stored
from hf_noise.studies.report.text import markdown

__all__ = ["write_report"]

_SIDE = 1400  # pixels of a study's figure at most


def write_report(records: Path, output: Path, scale: str, more: Sequence[str] = ()) -> list[Path]:
    """Write `report.html`, `report.md` and `overview.png` into a folder. The same records make the same page.

    Args:
        records: folder of records.
        output: folder, made if it is not there.
        scale: of the runs that tables are read of.
        more: flags that those runs were told beside the tables' own, as behind `--` of the command that made them.

    Returns:
        The paths of what was written.

    Raises:
        ValueError: there are no records, or one cannot be read.
        OSError: a file cannot be written.
    """
    stored = Stored.read(records)
    (lines, left_out), found = curves_and_rest(stored, scale), found_in(stored, scale, more)
    files = [draw(lines, output / "overview.png", left_out)] if lines else []
    page = write_atomic(output / "report.html", _page(stored, lines, found, scale, left_out))
    text = write_atomic(output / "report.md", markdown(stored, lines, found, scale, left_out))
    return [page, text, *files]


def _page(
    stored: Stored, lines: Sequence[Curve], found: Sequence[Found], scale: str, left_out: Sequence[str]
) -> str:
    of_claims = parts.claims(found)
    return _template().render(
        scale=scale, chart=parts.chart(lines) if lines else None, families=parts.families(lines),
        efforts=[*explained(lines), *left_out],
        classes={name: f"f{i}" for i, name in enumerate(COLOURS)}, tiles=parts.tiles(found), claims=of_claims,
        shared=shared([one.outcome for one in found]), tables=parts.tables(found), studies=parts.studies(stored),
        runs=len(stored.told), pictures=_pictures(stored), version=__version__,
    )  # fmt: skip


def _pictures(stored: Stored) -> list[dict[str, str]]:
    """The figure of each study that has drawn one, inside the page."""
    from PIL import Image

    found = []
    for name in dict.fromkeys(place.rpartition("/")[0] for place, _ in stored.told):
        for file in sorted((stored.folder / name).glob("*.png")):
            with Image.open(file) as image:
                found.append({"study": name, "file": f"{name}/{file.name}", "image": _inside(image)})
    return found


def _inside(image: Any) -> str:
    """A figure on white as a data URI of few colours, so that a page of thirty can still be sent."""
    import io

    from PIL import Image

    image = image.convert("RGBA")
    image.thumbnail((_SIDE, _SIDE))
    flat = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    stream = io.BytesIO()
    flat.quantize(64, dither=Image.Dither.NONE).save(stream, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"


def _template() -> Any:
    from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

    # The look is that of the pages of label audits.
    loader = ChoiceLoader([PackageLoader("hf_noise.studies.report"), PackageLoader("hf_noise.audit")])
    made = Environment(loader=loader, autoescape=True, keep_trailing_newline=True, undefined=StrictUndefined)
    return made.get_template("report.html")

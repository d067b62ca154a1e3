"""Tables in README and docs, between marks such as `<!-- families -->` and `<!-- /families -->`, from records."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from hf_noise.atomic import write_atomic
from hf_noise.hub.card import render_card
from hf_noise.reports.record import RunRecord, read_records
from hf_noise.studies.classifier.report import accuracy_table
from hf_noise.studies.diffusion.report import consistency_table
from hf_noise.studies.documents.compare import compared
from hf_noise.studies.documents.report import settings_table
from hf_noise.studies.language.report import methods_table
from hf_noise.studies.report.audits import audits_table
from hf_noise.studies.report.curves import curves_and_rest
from hf_noise.studies.report.picture import digest, draw
from hf_noise.studies.report.seeds import outcomes_in
from hf_noise.studies.report.stored import Stored
from hf_noise.studies.report.tables import claims_table, families_table, recipes_table

__all__ = ["OF_STUDIES", "PICTURE", "RESULTS", "rendered", "texts", "update"]

#: Of a repository: where its records lie, and the first picture of README.
RESULTS, PICTURE = "benchmarks/results", "benchmarks/results/overview/overview.png"
#: Tables of one study: the folder of its records, and what makes the table.
OF_STUDIES: Mapping[str, tuple[str, Callable[[list[RunRecord]], str]]] = {
    "headline": ("gpt2-peers", methods_table),
    "digits": ("classifier-demo", accuracy_table),
    "edm": ("edm-demo", consistency_table),
    "documents": ("gpt2-documents-h200", lambda records: settings_table(compared(records))),
}
_BETWEEN = re.compile(r"(<!-- ([a-z][a-z ]*) -->\n)(.*?)(<!-- /\2 -->)", re.DOTALL)


def texts(root: Path) -> list[Path]:
    """README and the pages of docs in a repository."""
    return [file for file in (root / "README.md", *sorted(root.glob("docs/*.md"))) if file.is_file()]


def rendered(root: Path, stored: Stored, names: Iterable[str]) -> dict[str, str]:
    """The tables of those names that there is a table of; other marks hold what somebody wrote."""
    found = {}
    for name in sorted({*names}):
        if name in OF_STUDIES:
            study, table = OF_STUDIES[name]
            found[name] = table(stored.of_study(study))
        elif name == "families":
            lines, left_out = curves_and_rest(stored, "demo")
            found[name] = families_table(lines, RESULTS, left_out)
        elif name == "claims":
            found[name] = claims_table(outcomes_in(stored, "demo"))
        elif name == "recipes":
            found[name] = recipes_table(root / "recipes")
        elif name == "audits":
            found[name] = audits_table(root / RESULTS)
    return found


def update(root: Path, *, writes: bool = True) -> list[Path]:
    """Put the tables of a repository's records between the marks of its README and docs; its cards and picture, too.

    Args:
        root: of the repository.
        writes: whether files are changed, or only named.

    Returns:
        The files that were not up to date.

    Raises:
        ValueError: records cannot be read, or there are none.
    """
    files = {file: file.read_text(encoding="utf-8") for file in texts(root)}
    stored = Stored.read(root / RESULTS)
    tables = rendered(root, stored, (match[2] for text in files.values() for match in _BETWEEN.finditer(text)))
    new = {file: _filled(text, tables, "../" * (len(file.relative_to(root).parts) - 1)) for file, text in files.items()}
    for file in sorted(root.glob("hub_cards/*/record.json")):
        (record,) = read_records(file)
        new[file.with_name("README.md")] = str(render_card(record, repo_id=f"user/{record.name}"))
    old = [file for file, text in new.items() if not file.is_file() or file.read_text(encoding="utf-8") != text]
    lines, left_out = curves_and_rest(stored, "demo")
    is_drawn = _digest_of(root / PICTURE) == digest(lines, left_out)
    if writes:
        for file in old:
            write_atomic(file, new[file])
        if not is_drawn:
            draw(lines, root / PICTURE, left_out)
    return old if is_drawn else [*old, root / PICTURE]


def _filled(text: str, tables: Mapping[str, str], up: str) -> str:
    """A text with the tables between its marks; their links are made as from the repository's root."""

    def between(match: re.Match[str]) -> str:
        table = tables.get(match[2])
        linked = None if table is None else re.sub(r"\]\((?=benchmarks/|recipes/)", f"]({up}", table)
        return match[0] if linked is None else f"{match[1]}{linked}\n{match[4]}"

    return _BETWEEN.sub(between, text)


def _digest_of(picture: Path) -> str | None:
    from PIL import Image

    if not picture.is_file():
        return None
    with Image.open(picture) as image:
        return image.info.get("Description")

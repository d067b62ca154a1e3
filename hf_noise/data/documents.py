"""What is a document of a text file: the whole file, each line, or each paragraph between blank lines.

Files are read in pieces, whatever a document is, so that one of many gigabytes takes no more memory than a small one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from hf_noise.data.reading import CorpusError

__all__ = ["DOCUMENTS", "Ending", "Piece", "find_ending", "pieces_of_files", "reading_options"]

#: What `documents=` takes.
DOCUMENTS = ("file", "line", "paragraph")
# Characters of a file that are tokenised at once. A file that is longer is cut between lines, where a token could only
# differ that spans several of them.
_MOST_TEXT = 1 << 19
_SPACE = re.compile(r"\s")


class Piece(str):
    """A part of a document that goes on in the next one, so that no end of text follows it."""


@dataclass(frozen=True)
class Ending:
    """Where a single document is cut in two, of which the second part is for validation.

    Attributes:
        start: the first character of the second part, > 0.
        total: characters of the document.
        between: what lies there: "paragraphs", "lines" or "words".
    """

    start: int
    total: int
    between: str

    def told(self) -> str:
        share = (self.total - self.start) / self.total
        return f"the last {share:.1%} of the one document, from character {self.start} on, cut between {self.between}"


def reading_options(documents: str) -> dict[str, Any]:
    """What the reader of text is told."""
    if documents == "file":  # put together from lines, see `pieces_of_files`
        return {"sample_by": "line", "keep_linebreaks": True}
    return {"sample_by": documents}


def pieces_of_files(
    files: Iterable[tuple[str, pa.Table]], ending: Ending | None = None, held_out: bool | None = None
) -> Iterator[list[str]]:
    """The text of each file as one document, in pieces of lines; of all but the last of a file as `Piece`.

    With an `ending`, only what stands before it, or (`held_out`) from it on.
    """
    before, waiting, size, place = None, [], 0, 0
    for file, table in files:
        if waiting and file != before:
            yield ["".join(waiting)]
            waiting, size = [], 0
        before = file
        for line in table[0].to_pylist():
            length = len(line)
            if ending is not None:
                cut = min(max(ending.start - place, 0), length)
                line = line[cut:] if held_out else line[:cut]
            place += length
            if waiting and size + len(line) > _MOST_TEXT:
                yield [Piece("".join(waiting))]
                waiting, size = [], 0
            if line:
                waiting.append(line)
                size += len(line)
    if waiting:
        yield ["".join(waiting)]


def find_ending(tables: Iterable[pa.Table], total: int, share: float, source: str) -> Ending:
    """Where the last `share` of a document begins: at the first paragraph after that place, else line, else word.

    Args:
        tables: its lines, with their ends.
        total: its characters.
        share: in (0, 1).

    Raises:
        CorpusError: there is no such place.
    """
    wanted = max(1, round((1 - share) * total))
    place, blank, line_start, word_start = 0, False, None, None
    for table in tables:
        for line in table[0].to_pylist():
            if 0 < wanted <= place and line.strip():
                if blank:
                    return Ending(place, total, "paragraphs")
                line_start = place if line_start is None else line_start
            end = place + len(line)
            if word_start is None and wanted < end and (space := _SPACE.search(line.rstrip(), max(0, wanted - place))):
                word_start = place + space.end()
            blank, place = not line.strip(), end
    for start, between in ((line_start, "lines"), (word_start, "words")):
        if start is not None and start < total:
            return Ending(start, total, between)
    raise CorpusError(
        f"the one document of {source!r} has no paragraph, line or word after {1 - share:.1%} of its {total} "
        "characters, where validation could begin; raise validation_fraction=, or give validation_source="
    )

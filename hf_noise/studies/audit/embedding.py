"""Images in a table of rows themselves: a path says nothing on another machine, and where they lay is nobody's matter.
"""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from datasets.table import embed_table_storage

from hf_noise.atomic import replaced_whole

__all__ = ["embed_images"]

#: Rows at once, so that memory holds the images of so many.
_BATCH = 100


def embed_images(path: Path) -> Path:
    """Put the bytes of all images into a Parquet file of a data set that has their paths; of these the names stay."""
    with pq.ParquetFile(path) as file:
        schema = file.schema_arrow
        with replaced_whole(path) as unfinished, pq.ParquetWriter(unfinished, schema) as writer:
            for batch in file.iter_batches(_BATCH):
                table = pa.Table.from_batches([batch]).replace_schema_metadata(schema.metadata)
                writer.write_table(embed_table_storage(table).cast(schema))
    return path

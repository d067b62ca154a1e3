"""The figures of the papers, where they are."""

from pathlib import Path

import pytest
import yaml


@pytest.fixture(scope="session")
def paper_tables(shared_data: Path) -> dict:
    """Tables of the papers by their id, from `papers/tables.yaml` beside the folder with the test corpora."""
    path = shared_data.parent / "papers" / "tables.yaml"
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    return {table["id"]: table for table in yaml.safe_load(path.read_text(encoding="utf-8"))["tables"]}

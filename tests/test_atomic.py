"""Files that are there whole or not at all, whoever writes them."""

import os
from pathlib import Path

import pytest

from hf_noise.atomic import replaced_whole, temporary_beside, write_atomic

PACKAGE = Path(__file__).parents[1] / "hf_noise"


def test_a_file_appears_when_its_block_ends(tmp_path):
    path = tmp_path / "deep" / "a.bin"
    with replaced_whole(path) as unfinished:
        unfinished.write_bytes(b"new")
        assert unfinished == temporary_beside(path) and not path.exists()
    assert path.read_bytes() == b"new" and os.listdir(path.parent) == ["a.bin"]
    (tmp_path / "usual").touch()
    assert path.stat().st_mode == (tmp_path / "usual").stat().st_mode, "others may read it"


@pytest.mark.parametrize("had_begun", [True, False])
def test_a_block_that_breaks_off_leaves_the_old_file_alone(tmp_path, had_begun):
    path = write_atomic(tmp_path / "a.txt", "old")
    with pytest.raises(KeyboardInterrupt), replaced_whole(path) as unfinished:
        if had_begun:
            unfinished.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["a.txt"]


def test_a_block_that_writes_nothing_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError), replaced_whole(tmp_path / "a.txt"):
        pass
    assert os.listdir(tmp_path) == []


def test_files_take_their_name_in_one_place():
    """Beside it, the cache of data and what trains a teacher rename folders, and a trainer the file of weights that
    transformers wrote. Images are drawn by thousands, and one that is lost with the power is drawn again: none waits
    for the disk."""
    renaming = {str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.py") if "os.replace(" in path.read_text()}
    assert renaming == {
        "atomic.py", "data/cache.py", "data/teacher_training.py", "studies/sampling/run.py",
        "trainers/time_classifier.py",
    }  # fmt: skip

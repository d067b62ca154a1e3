"""How studies are taken apart: what is asked of a study to make one cell of it alone."""

from pathlib import Path

import pytest

from hf_noise.studies.reproduce.cells import family
from hf_noise.studies.reproduce.plan import Asked, planned

TINY = ("--tokenizer", "embedded:300", "--block_size", "16")


def cells(name, tmp_path, *more, seeds=1):
    return planned(name, Asked("demo", tmp_path, seeds=seeds, more=more)).every


def make(cell):
    of_study = family(cell.study)
    of_study.make(of_study.settings(cell.argv), cell.name)


@pytest.fixture
def asked_of(monkeypatch):
    """Replaces a function that makes things, and keeps what it was called with."""

    def replaced(place):
        calls = []
        monkeypatch.setattr(place, lambda *told, **named: calls.append(told))
        return calls

    return replaced


def test_a_run_of_the_engine_is_made_alone_and_data_are_read_once(tmp_path, monkeypatch):
    more = ("--epochs", "0.1", "--train_rows", "128")
    read, of_study = [], family("classifier")
    load = of_study.study.work.load
    monkeypatch.setattr(of_study.study.work, "load", lambda *told, **named: read.append(1) or load(*told, **named))
    clean, *_, noisiest = cells("A.table2", tmp_path, *more)
    for cell in (clean, noisiest):
        make(cell)
    made = sorted(path.parent.name for path in (tmp_path / "demo" / "classifier").glob("*/record.json"))
    assert made == [clean.name, noisiest.name] == ["r0-seed0", "r1-symmetric-nll-steps-seed0"]
    assert clean.is_done and noisiest.is_done and len(read) == 1


def test_a_cell_of_gradients_is_the_same_alone(tmp_path):
    """Rows are drawn for the largest batches, of which a cell of smaller ones has the first."""
    from hf_noise.studies.gradient_coherence.run import load, measure

    small, large, *_ = cells("A.table4", tmp_path, *TINY, "--batches", "2", "--batch_size", "2", "3")
    make(small)
    assert small.is_done and not large.is_done
    of_study = family("gradient_coherence")
    settings = of_study.settings((*small.argv, "--output", str(tmp_path / "whole")))
    measure(settings, load(settings))
    (whole,) = [part for name, parts in of_study.cells(settings) if name == small.name for part in parts]
    assert whole.record().metrics == small.parts[0].record().metrics


def test_a_model_is_trained_and_measured_alone(tmp_path, asked_of):
    calls = asked_of("hf_noise.studies.stability.run.measure")
    every = cells("A.table5", tmp_path, seeds=2)
    assert [cell.name for cell in every] == ["r0-seed0", "r1-nll-batch-seed0", "r0-seed1", "r1-nll-batch-seed1"]
    make(every[3])
    assert [(told.ratio, told.seed) for (told,) in calls] == [([1.0], [1])]


def test_heads_of_one_kind_are_fitted_alone(tmp_path, asked_of):
    calls = asked_of("hf_noise.studies.probe.run.work")
    more = ("--ratio", "0", "1", "--corrected")
    linear, *_, wrong = cells("B.table5", tmp_path, *more, seeds=2)
    assert (linear.name, wrong.name) == ("linear-r0-nll", "mlp-r1-symmetric-corrected")
    assert len(linear.parts) == 2 * 5, "two seeds, without a penalty and with four"
    for cell in (linear, wrong):
        make(cell)
    told = [(one.head, one.ratio, one.corrected, one.seed) for (one,) in calls]
    assert told == [(["linear"], [0.0], False, [0, 1]), (["mlp"], [1.0], True, [0, 1])]


def test_a_backbone_and_the_heads_on_it_are_cells_of_their_own(tmp_path, asked_of):
    trained, fitted = asked_of("hf_noise.studies.engine.train"), asked_of("hf_noise.studies.probe.run.work")
    every = cells("B.table1", tmp_path)
    assert [cell.name for cell in every] == [
        "clean-seed0", "random-documents-a0.05-nll-seed0", "gaussian-documents-a0.05-nll-seed0",
        "heads-on-clean-seed0-docs-topics", "heads-on-random-documents-a0.05-nll-seed0-docs-topics",
        "heads-on-gaussian-documents-a0.05-nll-seed0-docs-topics",
    ]  # fmt: skip
    make(every[1])
    ((_, settings, runs, plans),) = trained
    assert [run.name for run in runs] == ["random-documents-a0.05-nll-seed0"] and len(plans) == 1 and not fitted
    make(every[5])
    ((heads,),) = fitted
    assert Path(heads.model) == Path(settings.output) / "gaussian-documents-a0.05-nll-seed0"
    assert {part.file.parents[1] for part in every[5].parts} == {Path(heads.output)}

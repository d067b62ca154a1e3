"""The progress bar carries the figures of the log."""

from __future__ import annotations

import pytest
from transformers import ProgressCallback

from hf_noise.studies.progress import FigureProgress


@pytest.fixture
def trained(make_trainer, random_rows, noise, capsys):
    """The bar after a training of four steps with an evaluation, and what was printed."""
    trainer = make_trainer(
        random_rows(4), eval_rows=random_rows(8), noise=noise, loss="corrected", error_rate="learned", max_steps=4,
        per_device_eval_batch_size=2, eval_strategy="steps", eval_steps=4, disable_tqdm=False,
    )  # fmt: skip
    trainer.remove_callback(ProgressCallback)
    progress = FigureProgress("[1/3] r1")
    trainer.add_callback(progress)
    trainer.train()
    return trainer, progress, capsys.readouterr()


def test_latest_figures_stand_beside_the_bar(trained):
    trainer, progress, printed = trained
    last = [entry for entry in trainer.state.log_history if "loss" in entry][-1]
    assert progress.figures == {
        "loss": f"{last['loss']:.3f}",
        "clean": f"{last['nll_clean_targets']:.3f}",
        "corrupted": f"{last['nll_corrupted_targets']:.3f}",
        "e": f"{last['learned_error_rate']:.3f}",
        "validation": f"{trainer.evaluate()['eval_nll']:.3f}",
    }
    assert "[1/3] r1: 100%" in printed.err
    assert f"corrupted={last['nll_corrupted_targets']:.3f}" in printed.err
    assert "evaluation" in printed.err


def test_no_line_is_printed_for_a_log_entry(trained):
    _, _, printed = trained
    assert "'loss'" not in printed.out + printed.err

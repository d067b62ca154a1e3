"""The callback measures gradients that are computed here by hand, changes nothing, and refuses what it cannot do."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import Trainer

from hf_noise.analysis import gradient_noise_scale
from hf_noise.objectives import ELR, Corrected
from hf_noise.trainers import NoiseScaleCallback

SCRIPT = Path(__file__).with_name("noise_scale_processes.py")
SPEC = importlib.util.spec_from_file_location("noise_scale_processes", SCRIPT)
processes = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(processes)


class Seen(NoiseScaleCallback):
    """Keeps the batches that it is shown."""

    batches: list

    def before_pass(self, trainer, model, inputs):
        self.batches.append({name: one.clone() for name, one in inputs.items()})
        super().before_pass(trainer, model, inputs)


def seen(**settings) -> Seen:
    found = Seen(**settings)
    found.batches = []
    return found


def square(model, compute) -> float:
    """Squared norm of the gradient of a loss, float64 sums."""
    model.zero_grad()
    compute().backward()
    found = sum(float((p.grad.double() ** 2).sum()) for p in model.parameters() if p.grad is not None)
    model.zero_grad()
    return found


def lm_square(model, tokens) -> float:
    """Of the mean NLL over all targets of rows [B, L]."""
    return square(model, lambda: torch.nn.functional.cross_entropy(
        model(input_ids=tokens).logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten()
    ))  # fmt: skip


@pytest.mark.parametrize("clip", [0.0, 0.01])
@pytest.mark.parametrize(("passes", "batch"), [(1, 8), (2, 4), (4, 2)])
def test_norms_are_those_of_gradients_by_hand(make_trainer, random_rows, tiny_gpt2, passes, batch, clip):
    callback = seen(every=1)
    trainer = make_trainer(
        random_rows(32), callbacks=[callback], per_device_train_batch_size=batch, gradient_accumulation_steps=passes,
        learning_rate=0.0, max_grad_norm=clip,
    )  # fmt: skip
    trainer.train()
    model, small = tiny_gpt2(), 4 if passes < 4 else 2
    assert len(callback.measurements) == 2
    for step, found in enumerate(callback.measurements):
        tokens = torch.cat([one["input_ids"] for one in callback.batches[step * passes : (step + 1) * passes]])
        expected = (lm_square(model, tokens[:small]), lm_square(model, tokens), small, 8)
        assert found == pytest.approx(expected, rel=1e-4)


def test_passes_of_several_lengths_are_means_over_their_own_targets(make_trainer, random_rows, tiny_gpt2):
    """Rows of 16, 9 and 3 tokens: the first pass is no even share of the step."""
    rows, callback = random_rows(12, (16, 9, 3)), seen(every=1)
    make_trainer(rows, callbacks=[callback], per_device_train_batch_size=2, gradient_accumulation_steps=2,
                 learning_rate=0.0, max_steps=1).train()  # fmt: skip
    (found,), model = callback.measurements, tiny_gpt2()
    first = callback.batches[0]

    def loss():
        logits = model(input_ids=first["input_ids"], attention_mask=first["attention_mask"]).logits[:, :-1]
        return torch.nn.functional.cross_entropy(logits.flatten(0, 1), first["labels"][:, 1:].flatten())

    assert found[0] == pytest.approx(square(model, loss), rel=1e-4) and found[2:] == (2, 4)


def test_padded_rows_of_several_lengths_in_one_pass(make_trainer, random_rows, tiny_gpt2):
    """Of one batch and of its first half, each a mean over its own targets: from rows one by one, without padding."""
    rows, callback = random_rows(6, (16, 9, 3)), seen(every=1)
    make_trainer(rows, callbacks=[callback], per_device_train_batch_size=6, learning_rate=0.0, max_steps=1).train()
    (found,), (batch,), model = callback.measurements, callback.batches, tiny_gpt2()
    taken = [torch.as_tensor(row["input_ids"]) for i in batch["sample_id"].tolist() for row in rows
             if row["sample_id"] == i]  # fmt: skip
    assert len({len(one) for one in taken[:3]}) > 1, "several lengths in either part"

    def loss(of):
        sums = [torch.nn.functional.cross_entropy(model(input_ids=one[None]).logits[0, :-1], one[1:], reduction="sum")
                for one in of]  # fmt: skip
        return sum(sums) / sum(len(one) - 1 for one in of)

    expected = (square(model, lambda: loss(taken[:3])), square(model, lambda: loss(taken)), 3, 6)
    assert found == pytest.approx(expected, rel=1e-4)


def test_under_autocast_they_are_those_of_autocast(make_trainer, random_rows, tiny_gpt2):
    callback = seen(every=1)
    make_trainer(random_rows(16), callbacks=[callback], per_device_train_batch_size=8, learning_rate=0.0, max_steps=1,
                 bf16=True).train()  # fmt: skip
    tokens, model = callback.batches[0]["input_ids"], tiny_gpt2()
    with torch.autocast("cpu", torch.bfloat16):
        expected = [lm_square(model, tokens[:4]), lm_square(model, tokens)]
    assert callback.measurements[0][:2] == pytest.approx(expected, rel=2e-2)


#: Kinds whose network of `any_trainer` has batch normalisation.
NORMALISED = ("image_classifier",)


@pytest.mark.parametrize("normalised", NORMALISED)
def test_half_of_a_batch_that_is_normalised_is_another_function(any_trainer, normalised):
    trainer = any_trainer(normalised, callbacks=[NoiseScaleCallback()])
    trainer.model.eval()
    with pytest.raises(ValueError, match="another function; use gradient_accumulation_steps >= 2"):
        trainer.train()
    assert not any(module.training for module in trainer.model.modules()), "a look leaves it as it was"
    for module in trainer.model.modules():  # whose statistics are held fixed
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.train = lambda mode=True, module=module: module
    trainer.train()


def test_of_a_network_with_batch_normalisation_it_is_that_of_independent_passes(any_trainer, digit_images):
    """|G|^2 from products of gradients of different micro-batches, which share no noise."""
    rows = digit_images(400)
    rows.columns["labels"] = (torch.arange(400) % 20 == 0).long()  # mostly of one class, so that there is a signal
    callback = NoiseScaleCallback(every=1)
    trainer = any_trainer("image_classifier", rows, callbacks=[callback], learning_rate=0.0, max_steps=75,
                          gradient_accumulation_steps=2, logging_steps=75, dataloader_drop_last=True)  # fmt: skip
    trainer.train()
    model, draw, gradients = trainer.model.train(), torch.Generator().manual_seed(1), []
    for _ in range(150):
        one = trainer.data_collator([rows[int(i)] for i in torch.randperm(400, generator=draw)[:8]])
        model.zero_grad()
        torch.nn.functional.cross_entropy(model(one["pixel_values"]).logits, one["labels"]).backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]).double())
    gradients = torch.stack(gradients)
    squares = (gradients**2).sum(1).mean()
    signal = ((gradients.sum(0) ** 2).sum() - (gradients**2).sum()) / (150 * 149)
    expected, found = float(8 * (squares - signal) / signal), callback.noise_scale()
    assert found.n == 75 and found.low < expected < found.high and found.high < 4 * found.low


def test_passes_of_unequal_numbers_of_rows_are_left_out_of_a_normalised_network(any_trainer, digit_images):
    """19 rows in passes of 8: the second step of each epoch is of 3 rows alone, or beside 8."""
    for rows, measured in ((19, 2), (27, 2), (32, 4)):
        callback = NoiseScaleCallback(every=1)
        any_trainer("image_classifier", digit_images(rows), callbacks=[callback], gradient_accumulation_steps=2,
                    max_steps=4).train()  # fmt: skip
        assert [one[2:] for one in callback.measurements] == [(8, 16)] * measured


@pytest.mark.parametrize("passes", [1, 2])
def test_a_run_is_the_same_with_it_and_without(any_trainer, kind, passes):
    """Weights and running statistics bit by bit, and all else that is logged."""
    if passes == 1 and kind in NORMALISED:
        pytest.skip("refused, see above")
    found = []
    for callbacks in ([], [NoiseScaleCallback(every=1)]):
        trainer = any_trainer(kind, callbacks=callbacks, max_steps=3, gradient_accumulation_steps=passes)
        trainer.train()
        logs = [{name: value for name, value in entry.items() if "noise_scale" not in name and "runtime" not in name
                 and "per_second" not in name} for entry in trainer.state.log_history]  # fmt: skip
        found.append((trainer.model.state_dict(), logs, trainer.realised_noise()))
    (weights, logs, realised), (others, other_logs, other_realised) = found
    assert all(torch.equal(one, others[name]) for name, one in weights.items())
    assert logs == other_logs and realised == other_realised
    (callback,) = callbacks
    assert [one[2:] for one in callback.measurements] == [(8 if passes == 2 else 4, 8 * passes)] * 3
    assert any("noise_scale_low" in entry for entry in trainer.state.log_history)
    json.dumps(trainer.state.log_history, allow_nan=False)


def test_dropout_draws_the_same_numbers(make_trainer, random_rows, tiny_gpt2):
    weights = []
    for callbacks in ([], [NoiseScaleCallback(every=1)]):
        trainer = make_trainer(random_rows(16), model=tiny_gpt2(resid_pdrop=0.3), callbacks=callbacks, max_steps=3)
        torch.manual_seed(0)
        trainer.train()
        weights.append(trainer.model.transformer.wte.weight.detach().clone())
    assert torch.equal(*weights)


def test_it_finds_the_noise_scale_that_all_rows_have(make_trainer, random_rows, tiny_gpt2):
    """Of weights that stand still: tr(Sigma) and |G|^2 over 256 rows, against passes over some of them."""
    rows, model, callback = random_rows(256), tiny_gpt2(), NoiseScaleCallback(every=1, window=1000)
    make_trainer(rows, callbacks=[callback], learning_rate=0.0, max_steps=200, per_device_train_batch_size=8,
                 logging_steps=200).train()  # fmt: skip
    tokens = torch.tensor(np.stack([row["input_ids"] for row in rows]))
    signal, mean_square = lm_square(model, tokens), np.mean([lm_square(model, one[None]) for one in tokens])
    found = callback.noise_scale()
    assert found.n == 200 and found.low < (mean_square - signal) / signal < found.high
    assert found.high < 3 * found.low, "the interval says something"
    assert found == gradient_noise_scale(*np.array(callback.measurements).T[:2], small_batch=4, big_batch=8)


def test_how_often_and_of_which_window(make_trainer, random_rows):
    callback = NoiseScaleCallback(every=3, window=2)
    assert callback.noise_scale() is None and callback.measurements == []
    trainer = make_trainer(random_rows(32), callbacks=[callback], max_steps=8)
    trainer.train()
    logged = [entry["step"] for entry in trainer.state.log_history if "noise_scale_low" in entry]
    assert len(callback.measurements) == 3 and logged == [1, 4, 7]
    last = callback.noise_scale(2)
    entry = next(entry for entry in trainer.state.log_history if entry.get("step") == 7)
    assert entry["noise_scale_low"] == last.low and last.n == 2
    for passes, steps in ((1, 64), (2, 8)):
        default = NoiseScaleCallback()
        make_trainer(random_rows(32), callbacks=[default], gradient_accumulation_steps=passes, max_steps=steps + 1,
                     per_device_train_batch_size=2, logging_steps=100).train()  # fmt: skip
        assert len(default.measurements) == 2


def test_what_is_learned_beside_the_model_is_a_part_of_it(make_trainer, random_rows, noise):
    class Norms(NoiseScaleCallback):
        """Notes squared norms of the gradients that stand after each pass: of all, and without what is learned."""

        def after_pass(self, trainer, model):
            squares = {name: float((p.grad**2).sum()) for name, p in model.named_parameters() if p.grad is not None}
            self.noted.append((sum(squares.values()), sum(v for k, v in squares.items() if "hf_noise_" not in k)))
            super().after_pass(trainer, model)

    callback = Norms(every=1)
    callback.noted = []
    make_trainer(random_rows(16), noise=noise, loss=Corrected("learned"), callbacks=[callback], learning_rate=0.0,
                 gradient_accumulation_steps=2, max_steps=1).train()  # fmt: skip
    (found,), (first, whole) = callback.measurements, callback.noted
    # The first of two even passes counts half.
    assert found[:2] == pytest.approx((4 * first[0], whole[0]), rel=1e-5)
    assert whole[1] < 0.99 * whole[0] and first[1] < 0.99 * first[0], "e has a gradient that shows"


@pytest.mark.parametrize("passes", [1, 2])
def test_a_resumed_run_has_what_was_measured_before(make_trainer, random_rows, tmp_path, passes):
    usual = {"save_strategy": "steps", "save_steps": 3, "per_device_train_batch_size": 4,
             "gradient_accumulation_steps": passes}  # fmt: skip
    whole, first, then, again = (NoiseScaleCallback(every=1) for _ in range(4))
    make_trainer(random_rows(64), callbacks=[whole], output_dir=str(tmp_path / "whole"), max_steps=6, **usual).train()
    for callback, steps in ((first, 3), (then, 6), (again, 6)):
        trainer = make_trainer(random_rows(64), callbacks=[callback], output_dir=str(tmp_path / "parts"),
                               max_steps=steps, **usual)  # fmt: skip
        trainer.train(resume_from_checkpoint="auto")
    assert len(first.measurements) == 3 and len(whole.measurements) == 6
    assert then.measurements == whole.measurements and again.measurements == whole.measurements, "also at its end"
    trainer = make_trainer(random_rows(64), callbacks=[NoiseScaleCallback(every=1)], output_dir=str(tmp_path / "new"),
                           max_steps=3, **usual)  # fmt: skip
    trainer.train()
    assert trainer.callback_handler.callbacks and len(trainer.watching) == 1
    unwatched = make_trainer(random_rows(64), output_dir=str(tmp_path / "new"), max_steps=4, **usual)
    unwatched.train(resume_from_checkpoint="auto")  # without it, what a checkpoint kept is of no use, and no harm


def launched(folder: Path) -> list[dict]:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = subprocess.run([*launch, SCRIPT, folder], env=environment, cwd=folder, capture_output=True, text=True,
                          timeout=240)  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads((folder / f"rank{rank}.json").read_text()) for rank in (0, 1)]


def test_two_processes_measure_their_passes_and_all_say_the_same(tmp_path):
    ranks, model = launched(tmp_path), processes.model()
    rows = torch.tensor(np.stack([row["input_ids"] for row in processes.rows()]))
    for passes in ("1", "2"):
        one, other = (rank[passes] for rank in ranks)
        assert one["measured"] == other["measured"] and len(one["measured"]) == 2
        assert one["log"]["noise_scale_low"] == other["log"]["noise_scale_low"]
        each = 4 // int(passes)
        for step, found in enumerate(one["measured"]):
            first = slice(step * int(passes), (step + 1) * int(passes))
            smalls = [lm_square(model, rows[rank["ids"][first][0]]) for rank in (one, other)]
            of_step = [index for rank in (one, other) for ids in rank["ids"][first] for index in ids]
            expected = (np.mean(smalls), lm_square(model, rows[of_step]), each, 8)
            assert found == pytest.approx(expected, rel=1e-4)


def test_refused(make_trainer, any_trainer, random_rows, tiny_gpt2, arguments):
    for wrong, kind in ((0, ValueError), (1.5, TypeError), (True, TypeError)):
        with pytest.raises(kind, match="every"):
            NoiseScaleCallback(every=wrong)
    with pytest.raises(ValueError, match="window"):
        NoiseScaleCallback(window=1)
    with pytest.raises(ValueError, match="each step has one row"):
        make_trainer(random_rows(8), callbacks=[NoiseScaleCallback], per_device_train_batch_size=1).train()
    with pytest.raises(ValueError, match="bfloat16"):
        make_trainer(random_rows(8), model=tiny_gpt2().bfloat16(), callbacks=[NoiseScaleCallback()]).train()
    with pytest.raises(ValueError, match="ELR keeps what it saw"):
        any_trainer("classifier", loss=ELR(), callbacks=[NoiseScaleCallback()]).train()
    any_trainer("classifier", loss=ELR(), callbacks=[NoiseScaleCallback()], gradient_accumulation_steps=2).train()
    with pytest.raises(ValueError, match="'group_by_length' puts those of one length together; use 'random'"):
        any_trainer("seq2seq", callbacks=[NoiseScaleCallback()], train_sampling_strategy="group_by_length",
                    gradient_accumulation_steps=2).train()  # fmt: skip
    with pytest.raises(ValueError, match="tokens_per_batch=64 puts those .*use per_device_train_batch_size"):
        any_trainer("seq2seq", callbacks=[NoiseScaleCallback()], tokens_per_batch=64).train()
    stock = Trainer(tiny_gpt2(), arguments(), train_dataset=[{"input_ids": torch.arange(9)}] * 8,
                    callbacks=[NoiseScaleCallback()])  # fmt: skip
    with pytest.raises(RuntimeError, match="trainers of hf_noise"):
        stock.train()

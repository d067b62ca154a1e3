"""NaN and infinity stop every trainer in the step that they come up in, and no checkpoint takes them up."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerCallback

ID = "sample_id"


def breaks_at(trainer, step: int, value: float):
    """Multiply the output of the network by `value` in a step, for the rows with an even id."""
    original, seen = trainer.model.forward, {}
    compute = trainer.compute_loss

    def compute_loss(model, inputs, *args, **kwargs):
        seen["ids"] = inputs[ID]
        return compute(model, inputs, *args, **kwargs)

    def forward(*args, **kwargs):
        output = original(*args, **kwargs)
        if trainer.state.global_step != step - 1 or not torch.is_grad_enabled():
            return output
        raw = output[0] if isinstance(output, tuple) else getattr(output, "logits", output)
        factor = torch.where(seen["ids"] % 2 == 0, value, 1.0).view(-1, *[1] * (raw.ndim - 1))
        if isinstance(output, tuple):
            return (raw * factor,)
        if raw is output:
            return raw * factor
        output.logits = raw * factor
        return output

    trainer.compute_loss, trainer.model.forward = compute_loss, forward


def trainer_folder(trainer) -> Path:
    return Path(trainer.args.output_dir)


def checkpoints(trainer) -> list[str]:
    return sorted(path.name for path in trainer_folder(trainer).glob("checkpoint-*"))


def test_a_loss_that_is_not_finite_stops_in_its_step(any_trainer, kind):
    """The network overflows in step 3; log entries come every 8 steps, checkpoints every 2."""
    whole = {"sparse_head": False} if kind == "masked_lm" else {}  # whose logits are broken row by row
    trainer = any_trainer(kind, save_strategy="steps", save_steps=2, logging_steps=8, max_steps=8, **whole)
    breaks_at(trainer, 3, math.inf)
    with pytest.raises(FloatingPointError, match=rf"NaN or infinite in step 3 for \d+ of 8 \w+ \({ID} \d+"):
        trainer.train()
    assert trainer.state.global_step == 2 and checkpoints(trainer) == ["checkpoint-2"]
    failure = json.loads((trainer_folder(trainer) / "non_finite_loss.json").read_text())
    broken = [row[ID] for row in failure["batch"] if not math.isfinite(float(row["loss"]))]
    assert failure["step"] == 3 and len(failure["batch"]) == 8
    assert sorted(broken) == sorted(row[ID] for row in failure["batch"] if row[ID] % 2 == 0) != []
    kept = load_file(trainer_folder(trainer) / "checkpoint-2" / "model.safetensors")
    assert all(torch.isfinite(value).all() for value in kept.values() if value.is_floating_point())
    # The step was not taken: the weights are those of the checkpoint.
    assert all(torch.equal(kept[name], value) for name, value in trainer.model.named_parameters() if name in kept)


@pytest.mark.parametrize("clipped", [0.0, 1.0])
def test_a_gradient_that_is_not_finite_stops_too(any_trainer, clipped):
    trainer = any_trainer("causal_lm", max_steps=4, max_grad_norm=clipped)
    trainer.model.transformer.wpe.weight.register_hook(
        lambda gradient: gradient * (math.nan if trainer.state.global_step == 1 else 1)
    )
    with pytest.raises(FloatingPointError, match="the gradient is NaN or infinite in step 2, while the loss"):
        trainer.train()
    assert all(torch.isfinite(value).all() for value in trainer.model.state_dict().values())


def test_a_step_of_several_passes_names_the_rows_of_all(any_trainer):
    trainer = any_trainer("causal_lm", per_device_train_batch_size=4, gradient_accumulation_steps=3, max_steps=2)
    breaks_at(trainer, 2, math.nan)
    with pytest.raises(FloatingPointError, match=r"in step 2 for \d of 12 rows"):
        trainer.train()


def test_rows_without_ids_are_named_by_their_place(make_trainer, random_rows):
    trainer = make_trainer([{"input_ids": row["input_ids"]} for row in random_rows(4)], max_steps=1)
    trainer.model.transformer.ln_f.register_forward_hook(lambda module, inputs, output: output * math.inf)
    with pytest.raises(FloatingPointError, match=r"for 4 of 4 rows \(row of the batch 0, 1, 2, 3\)"):
        trainer.train()


class Overflow(TrainerCallback):
    """Makes the update of a step infinite while loss and gradients are not."""

    def __init__(self, step: int):
        self.step = step

    def on_optimizer_step(self, args, state, control, model=None, **kwargs):
        if state.global_step == self.step - 1:
            with torch.no_grad():
                next(model.parameters()).fill_(math.inf)


def test_weights_that_are_not_finite_are_never_saved(any_trainer, kind):
    trainer = any_trainer(kind, save_strategy="steps", save_steps=2, max_steps=4)
    trainer.add_callback(Overflow(4))
    with pytest.raises(FloatingPointError, match=r"weights are NaN or infinite after step 4"):
        trainer.train()
    with pytest.raises(FloatingPointError, match="weights are NaN or infinite"):
        trainer.save_model()
    failure = json.loads((trainer_folder(trainer) / "non_finite_loss.json").read_text())
    assert failure["step"] == 4 and next(iter(dict(trainer.model.named_parameters()))) in failure["weights"]
    assert checkpoints(trainer) == ["checkpoint-2"]
    assert not (trainer_folder(trainer) / "config.json").exists()
    assert not (trainer_folder(trainer) / "model_index.json").exists()
    for file in (trainer_folder(trainer) / "checkpoint-2").glob("*.safetensors"):
        assert all(torch.isfinite(value).all() for value in load_file(file).values() if value.is_floating_point())


def test_an_evaluation_that_is_not_finite_is_no_figure(any_trainer, kind):
    trainer = any_trainer(kind)
    with torch.no_grad():
        for parameter in trainer.model.parameters():
            parameter.fill_(math.nan)
    with pytest.raises(FloatingPointError, match=r"the loss of \d+ of \d+ rows is NaN or infinite, the first is row 0"):
        trainer.evaluate()


def test_rows_without_a_target_are_said_to_have_none(any_trainer):
    with pytest.raises(FloatingPointError, match="that of none of 8 rows is: they have no target"):
        any_trainer("causal_lm", [{"input_ids": [1], "sample_id": i} for i in range(8)]).train()

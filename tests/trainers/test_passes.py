"""What callbacks are shown of each pass, what checkpoints keep of them, and of which rows an epoch consists."""

from __future__ import annotations

import pytest
import torch

from hf_noise.trainers.passes import PassCallback


class Diary(PassCallback):
    """Notes what it is called with."""

    def __init__(self, name: str = "a"):
        self.name, self.pages = name, []

    def attach(self, trainer):
        self.pages = ["attach"]

    def before_pass(self, trainer, model, inputs):
        self.pages.append(f"before {len(inputs['input_ids'])}")

    def after_pass(self, trainer, model):
        self.pages.append("after")

    def after_step(self, trainer, norm):
        self.pages.append(f"step {float(norm) > 0}")

    def logged(self):
        return {f"pages_{self.name}": len(self.pages)}

    def kept(self):
        return {"name": torch.tensor([ord(self.name)])}

    def take_up(self, kept):
        self.pages.append(f"took {chr(kept['name'].item()) if kept else 'nothing'}")


def test_a_callback_of_ones_own_is_shown_all(make_trainer, random_rows):
    one = Diary()
    trainer = make_trainer(random_rows(8), callbacks=[one, PassCallback()], per_device_train_batch_size=2,
                           gradient_accumulation_steps=2)  # fmt: skip
    trainer.train()
    assert one.pages == ["attach", *["before 2", "after", "before 2", "after", "step True"] * 2]
    assert [entry["pages_a"] for entry in trainer.state.log_history if "loss" in entry] == [6, 11]


def test_each_of_several_takes_up_its_own(make_trainer, random_rows, tmp_path):
    usual = {"save_strategy": "steps", "save_steps": 1, "output_dir": str(tmp_path)}
    make_trainer(random_rows(16), callbacks=[Diary("x"), Diary("y")], max_steps=1, **usual).train()
    later = [Diary("a"), Diary("b"), Diary("c")]
    make_trainer(random_rows(16), callbacks=later, max_steps=2, **usual).train(resume_from_checkpoint="auto")
    assert [one.pages[:2] for one in later] == [["attach", f"took {name}"] for name in ("x", "y", "nothing")]


class Rows(PassCallback):
    def __init__(self):
        self.seen = []

    def before_pass(self, trainer, model, inputs):
        self.seen.append(inputs["sample_id"].tolist())


@pytest.mark.parametrize(("drop", "sizes"), [(True, [2] * 8), (False, [2, 2, 2, 2, 2, 1] + [2, 2])])
def test_with_drop_last_an_epoch_is_of_whole_steps(make_trainer, random_rows, drop, sizes):
    """11 rows, steps of two passes of two: without what fills no step, else the last step is what is left."""
    rows = Rows()
    make_trainer(random_rows(11), callbacks=[rows], per_device_train_batch_size=2, gradient_accumulation_steps=2,
                 max_steps=4, dataloader_drop_last=drop).train()  # fmt: skip
    assert [len(one) for one in rows.seen] == sizes
    epoch = [i for one in rows.seen[:4] for i in one]
    assert len(set(epoch)) == 8 and set(epoch) != set(range(1000, 1000 + 7 * 8, 7)), "drawn from all rows"

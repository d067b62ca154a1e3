"""Classifiers with what others published for wrong labels: micro-batches, restarts, adapters.

Two processes: test_two_processes.py.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from datasets import Dataset
from safetensors.torch import load_file
from transformers import (
    BartConfig,
    BartForSequenceClassification,
    BertForSequenceClassification,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)

from hf_noise.losses import EarlyTargets, generalised_cross_entropy, label_nll
from hf_noise.noise import LabelFlips
from hf_noise.objectives import ELR, GCE, CoTeaching, objective_from_dict
from hf_noise.objectives.base import RunContext
from hf_noise.trainers import ClassifierTrainer
from hf_noise.trainers.classifier_head import ModelHead

SCRIPT = Path(__file__).with_name("classifier_processes.py")
SPEC = importlib.util.spec_from_file_location("classifier_processes", SCRIPT)
shared = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(shared)
LOSSES = list(shared.LOSSES)


def learned(trainer):
    return shared.learned(trainer)


def losses_of(trainer):
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


@pytest.mark.parametrize("loss", ["gce", "elr", "estimated"])
def test_micro_batches_change_nothing(tmp_path, loss):
    whole, parts = (shared.trainer_of(tmp_path, loss, 10 // n, gradient_accumulation_steps=n) for n in (1, 5))
    for trainer in (whole, parts):
        trainer.train()
    assert losses_of(parts) == pytest.approx(losses_of(whole), rel=1e-5)
    for name, value in learned(parts).items():
        torch.testing.assert_close(value, learned(whole)[name], rtol=0, atol=1e-5)


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("loss", LOSSES)
def test_a_resumed_run_is_the_same_run(tmp_path, loss, wrapped):
    def network():
        model = shared.network(hidden_dropout_prob=0.1)
        if not wrapped:
            return model
        peft = pytest.importorskip("peft")
        torch.manual_seed(3)
        return peft.get_peft_model(model, peft.LoraConfig(task_type="SEQ_CLS", r=2, target_modules=["query"]))

    settings = {"save_strategy": "steps", "save_steps": 1, "optim": "adamw_torch", "learning_rate": 1e-2}
    whole = shared.trainer_of(tmp_path / "whole", loss, model=network(), **settings)
    whole.train()
    again = shared.trainer_of(tmp_path / "again", loss, model=network(), **settings)
    again.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-3"))
    assert losses_of(again)[-2:] == losses_of(whole)[-2:]
    found, expected = learned(again), learned(whole)
    assert found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in expected)
    file = "adapter_model.safetensors" if wrapped else "model.safetensors"
    assert not any("hf_noise" in name for name in load_file(tmp_path / "whole" / "checkpoint-3" / file))
    assert whole.loss_record()["objective"] == shared.LOSSES[loss].to_dict()
    assert objective_from_dict(whole.loss_record()["objective"]) == shared.LOSSES[loss]


def test_the_best_checkpoint_brings_what_is_learned_beside_the_model(tmp_path):
    settings = {"save_strategy": "steps", "save_steps": 1, "eval_strategy": "steps", "eval_steps": 1,
                "load_best_model_at_end": True, "learning_rate": 2.0}  # fmt: skip
    trainer = shared.trainer_of(tmp_path, "co-teaching", **settings)
    trainer.train()
    best = Path(trainer.state.best_model_checkpoint)
    state = load_file(best / "hf_noise_state.safetensors")
    own = {name: value for name, value in learned(trainer).items() if name.startswith("hf_noise_peer")}
    assert own and all(torch.equal(state[name], value) for name, value in own.items())


@pytest.mark.parametrize("loss", ["co-teaching", "estimated"])
def test_weights_with_several_names_are_stored_once_and_come_back(tmp_path, loss):
    """The embeddings of BART are those of its encoder and of its decoder too."""
    config = BartConfig(vocab_size=32, d_model=8, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
                        decoder_attention_heads=2, encoder_ffn_dim=8, decoder_ffn_dim=8, max_position_embeddings=16,
                        dropout=0.0, num_labels=4, bos_token_id=29, pad_token_id=30, eos_token_id=31)  # fmt: skip
    rows = [row | {"input_ids": [*(token % 28 for token in row["input_ids"]), 31]} for row in shared.rows()]

    def trainer_of(folder):
        args = TrainingArguments(str(folder), use_cpu=True, report_to="none", max_steps=2, save_steps=1,
                                 per_device_train_batch_size=8, optim="sgd", learning_rate=0.1)  # fmt: skip
        torch.manual_seed(0)
        model = BartForSequenceClassification(config)
        return ClassifierTrainer(model, args, noise=shared.NOISE, loss=shared.LOSSES[loss], train_dataset=rows)

    whole, again = trainer_of(tmp_path / "whole"), trainer_of(tmp_path / "again")
    whole.train()
    state = load_file(tmp_path / "whole" / "checkpoint-1" / "hf_noise_state.safetensors")
    embeddings = [name for name in state if name.endswith(("shared.weight", "embed_tokens.weight"))]
    assert len(embeddings) == (loss == "co-teaching")
    again.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-1"))
    found, want = learned(again), learned(whole)
    assert found.keys() == want.keys() and all(torch.equal(found[name], want[name]) for name in want)


def test_another_objective_drops_the_transition_that_an_earlier_run_learned(tmp_path):
    first = shared.trainer_of(tmp_path / "first", "estimated")
    first.save_model()
    model = BertForSequenceClassification.from_pretrained(tmp_path / "first")
    assert np.shape(model.config.hf_noise_transition) == (4, 4)
    again = shared.trainer_of(tmp_path / "again", "gce", model=model)
    again.save_model()
    stated = json.loads((tmp_path / "again" / "config.json").read_text())
    assert stated["hf_noise_objective"]["name"] == "gce" and "hf_noise_transition" not in stated
    assert "hf_noise_transition" in json.loads((tmp_path / "first" / "config.json").read_text())


def test_elr_by_hand(tmp_path):
    trainer = shared.trainer_of(tmp_path, "elr", batch_size=20, max_steps=2, lr_scheduler_type="constant",
                                weight_decay=0.0, max_grad_norm=0.0)  # fmt: skip
    trainer.train()
    model, data = shared.network(), shared.rows()
    ids = torch.tensor([row["sample_id"] for row in data])
    tokens, clean = (torch.tensor([row[name] for row in data]) for name in ("input_ids", "labels"))
    targets, found = torch.zeros(20, shared.CLASSES), []
    for epoch in range(2):
        labels = torch.from_numpy(shared.NOISE(clean.numpy(), sample=ids.numpy(), epoch=epoch)[0])
        logits = model(tokens).logits
        p = logits.softmax(-1)
        targets = 0.5 * targets + 0.5 * p.detach()
        loss = F.cross_entropy(logits, labels) + 2.0 * (1 - (p * targets).sum(-1)).log().mean()
        found.append(loss.item())
        model.zero_grad()
        loss.backward()
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.grad is not None:
                    parameter -= 0.1 * parameter.grad
    assert losses_of(trainer) == pytest.approx(found, rel=1e-4)
    order = torch.argsort(ids)
    torch.testing.assert_close(trainer.learned.targets[:-1], targets[order], rtol=1e-3, atol=1e-4)
    assert isinstance(trainer.learned, EarlyTargets)


def test_co_teaching_by_hand(tmp_path):
    trainer = shared.trainer_of(tmp_path, "co-teaching", batch_size=20, max_steps=1)
    peer, model, data = trainer.learned, shared.network(), shared.rows()
    with torch.no_grad():
        tokens, clean = (torch.tensor([row[name] for row in data]) for name in ("input_ids", "labels"))
        ids = np.array([row["sample_id"] for row in data])
        labels = torch.from_numpy(shared.NOISE(clean.numpy(), sample=ids, epoch=0)[0])
        one, other = (label_nll(net(tokens).logits, labels) for net in (model, peer))
    expected = one.mean() + other.mean()  # at the first step nothing is forgotten
    trainer.train()
    assert losses_of(trainer) == pytest.approx([float(expected)], rel=1e-5)
    assert trainer.objective.share == 0 and trainer.loss_record()["forget_rate"] == 0.25


def test_each_network_learns_from_what_the_other_finds_easy():
    """Six rows of class 0 and two classes: a logit of x for it is a loss of log(1 + exp(-x))."""
    first, second = [3.0, 2.0, 1.0, -1.0, -2.0, -3.0], [-3.0, 2.0, 1.0, -1.0, 3.0, -2.0]

    class Fixed(torch.nn.Module):
        def forward(self, values):
            return type("Output", (), {"logits": F.pad(values[:, None], (0, 1))})

    model = shared.network()
    taught = CoTeaching(1 / 3, warmup=0.0).bound(RunContext(model=model, num_classes=4, head=model.classifier))
    taught.module = Fixed()
    taught.before_step(0.5)
    forward = type("F", (), {"inputs": {"values": torch.tensor(second)}})
    logits = F.pad(torch.tensor(first)[:, None], (0, 1))
    found = taught(logits, torch.zeros(6, dtype=torch.int64), forward)
    easy_for_first, easy_for_second = {0, 1, 2, 3}, {4, 1, 2, 3}  # 4 of 6 rows, whose losses count 6/4 times
    for row, (x, y) in enumerate(zip(first, second)):
        want = 1.5 * np.log1p(np.exp(-x)) * (row in easy_for_second) + 1.5 * np.log1p(np.exp(-y)) * (
            row in easy_for_first
        )
        assert found[row].item() == pytest.approx(want, rel=1e-5), row


@pytest.mark.parametrize(("peer", "same"), [("head", True), ("network", False)])
def test_the_peer_begins_elsewhere(tmp_path, peer, same):
    start = {name: value.clone() for name, value in shared.network().state_dict().items()}
    shared.LOSSES["of peer"] = CoTeaching(0.2, peer=peer)
    try:
        trainer = shared.trainer_of(tmp_path, "of peer")
    finally:
        del shared.LOSSES["of peer"]
    begun = {name: value.clone() for name, value in trainer.learned.state_dict().items()}
    assert begun.keys() == start.keys()
    body = "bert.encoder.layer.0.attention.self.query.weight"
    assert torch.equal(begun[body], start[body]) == same
    assert not torch.equal(begun["classifier.weight"], start["classifier.weight"])
    assert begun["classifier.weight"].std() < 0.05, "as BERT draws it"
    torch.testing.assert_close(trainer.model.state_dict()[body], start[body])
    decayed = trainer.get_decay_parameter_names(trainer.model)
    assert {f"hf_noise_peer.{body}", body} <= set(decayed), "the peer learns as the model does"
    trainer.train()
    assert not torch.equal(trainer.learned.state_dict()[body], begun[body])


@pytest.mark.parametrize("wrapped", [False, True], ids=["whole", "lora"])
@pytest.mark.parametrize("seed", [0, 1, 7])
def test_no_seed_gives_the_peer_what_the_model_has(tmp_path, seed, wrapped):
    """As a study does: a seed is set, an encoder is loaded, and the head is the first that is drawn."""
    shared.network().bert.save_pretrained(tmp_path)
    set_seed(seed)
    model = BertForSequenceClassification.from_pretrained(tmp_path, num_labels=4)
    if wrapped:
        peft = pytest.importorskip("peft")
        model = peft.get_peft_model(model, peft.LoraConfig(task_type="SEQ_CLS", r=2, target_modules=["query"]))
    head = ModelHead(model, 4).whole
    peer = CoTeaching(0.2, seed=seed).bound(RunContext(model=model, num_classes=4, head=head)).module
    own, other = (dict(one.named_parameters()) for one in (model, peer))
    apart = {name for name in own if not torch.equal(own[name], other[name])}
    if not wrapped:
        assert apart == {"classifier.weight"}
        return
    drawn = {name for name in own if "lora_A" in name} | {"base_model.model.classifier.modules_to_save.default.weight"}
    assert apart == drawn and len(drawn) == 2
    with torch.no_grad():  # an adapter that has learned stays as it is
        next(value for name, value in own.items() if "lora_B" in name).fill_(1.0)
    again = CoTeaching(0.2, seed=seed).bound(RunContext(model=model, num_classes=4, head=head)).module
    assert all(torch.equal(own[name], one) for name, one in again.named_parameters() if "lora" in name)


def test_a_peer_whose_head_cannot_be_drawn_is_refused():
    class Scaled(torch.nn.Module):  # of a kind that neither BERT nor torch draws
        def __init__(self):
            super().__init__()
            self.by = torch.nn.Parameter(torch.ones(4))

    model = shared.network()
    model.classifier = Scaled()
    with pytest.raises(ValueError, match="the second network would be the first again: Scaled has no weights"):
        CoTeaching(0.2).bound(RunContext(model=model, num_classes=4, head=model.classifier))


def test_an_adapter_and_its_peer_share_what_is_frozen(tmp_path):
    peft = pytest.importorskip("peft")
    model = peft.get_peft_model(shared.network(), peft.LoraConfig(task_type="SEQ_CLS", r=2, target_modules=["query"]))
    trainer = shared.trainer_of(tmp_path, "co-teaching", model=model)
    peer = trainer.learned
    word = "base_model.model.bert.embeddings.word_embeddings.weight"
    assert peer.get_parameter(word) is model.get_parameter(word)
    head = "base_model.model.classifier.modules_to_save.default.weight"
    assert not torch.equal(peer.get_parameter(head), model.get_parameter(head))
    trainer.args.save_strategy, trainer.args.save_steps = "steps", 5
    trainer.train()
    state = load_file(tmp_path / "checkpoint-5" / "hf_noise_state.safetensors")
    assert f"hf_noise_peer.{head}" in state and f"hf_noise_peer.{word}" not in state
    trainer.save_model(str(tmp_path / "saved"))
    assert not any("peer" in name for name in load_file(tmp_path / "saved" / "adapter_model.safetensors"))
    model.save_pretrained(tmp_path / "own")
    assert len(load_file(tmp_path / "own" / "adapter_model.safetensors")) == 4, "two of the adapter, two of the head"
    assert dict(model.named_children()).keys() == {"base_model"}


@pytest.mark.parametrize("is_trained", [False, True], ids=["before", "after"])
def test_the_next_run_of_a_model_begins_without_what_the_last_one_learned_beside_it(tmp_path, is_trained):
    model = shared.network()
    names, size = set(model.state_dict()), sum(p.numel() for p in model.parameters())
    first = shared.trainer_of(tmp_path / "first", "co-teaching", model=model, save_strategy="steps", save_steps=5)
    if is_trained:
        first.train()
    assert set(model.state_dict()) == names
    again = shared.trainer_of(tmp_path / "again", "co-teaching", model=model)
    assert set(again.learned.state_dict()) == names, "a second network, and not its predecessor"
    plain = shared.trainer_of(tmp_path / "plain", "gce", model=model)
    assert (again.num_weights, plain.num_weights) == (2 * size, size)
    plain.train()
    held = {id(p) for group in plain.optimizer.param_groups for p in group["params"]}
    assert held == set(map(id, model.parameters()))
    if not is_trained:  # it is still its own run
        before = first.learned.classifier.weight.clone()
        first.train()
        assert not torch.equal(first.learned.classifier.weight, before)
        state = load_file(tmp_path / "first" / "checkpoint-5" / "hf_noise_state.safetensors")
        assert torch.equal(state["hf_noise_peer.classifier.weight"], first.learned.classifier.weight)


def test_a_run_that_breaks_leaves_the_model_as_it_was(tmp_path):
    trainer = shared.trainer_of(tmp_path, "co-teaching")
    names = set(trainer.model.state_dict())

    class Breaks(TrainerCallback):
        def on_step_end(self, args, state, control, model=None, **kwargs):
            assert "hf_noise_peer.classifier.weight" in model.state_dict()
            raise KeyboardInterrupt

    trainer.add_callback(Breaks())
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    assert set(trainer.model.state_dict()) == names


@pytest.mark.parametrize("stored", [True, False])
def test_ids_that_are_text_are_named_with_a_remedy_that_works(tmp_path, stored):
    rows = Dataset.from_list([row | {"sample_id": f"file {i}"} for i, row in enumerate(shared.rows())])
    args, off = shared.trainer_of(tmp_path, "gce").args, LabelFlips.symmetric(ratio=0.0, num_classes=shared.CLASSES)
    with pytest.raises(ValueError, match="ELR remembers .* of integers.* and holds " + ("Value" if stored else "str")):
        ClassifierTrainer(shared.network(), args, loss="elr", noise=off, train_dataset=rows if stored else list(rows))
    rows = rows.remove_columns("sample_id").add_column("sample_id", range(len(rows)))
    ClassifierTrainer(shared.network(), args, loss="elr", noise=off, train_dataset=rows)


def test_ids_are_read_only_for_an_objective_that_remembers(tmp_path, monkeypatch):
    read = []
    monkeypatch.setattr("hf_noise.trainers.objective.ids_behind", lambda rows: read.append(rows) or np.arange(20))
    shared.trainer_of(tmp_path, "gce")
    assert not read
    shared.trainer_of(tmp_path, "elr")
    assert len(read) == 1


def test_gce_serves_labels_and_tokens():
    logits, labels = torch.randn(5, 3), torch.tensor([0, 1, 2, 0, 1])
    nll = F.cross_entropy(logits, labels, reduction="none")
    expected = generalised_cross_entropy(nll, 0.7)
    torch.testing.assert_close(GCE(0.7).bound(RunContext(unit="labels"))(logits, labels), expected)
    for unit in ("", "tokens"):
        torch.testing.assert_close(GCE(0.7).bound(RunContext(unit=unit))(nll), expected)
    assert objective_from_dict({"unit": "labels", "name": "gce", "q": 0.3}) == GCE(0.3)


def test_the_learned_matrix_is_in_the_config_and_in_the_record(tmp_path):
    trainer = shared.trainer_of(tmp_path, "estimated")
    trainer.train()
    trainer.save_model(str(tmp_path / "saved"))
    config = json.loads((tmp_path / "saved" / "config.json").read_text())
    matrix = trainer.objective.transition
    assert config["hf_noise_transition"] == matrix.tolist() == trainer.loss_record()["transition"]
    assert not np.allclose(matrix[0, 0], 0.6) and matrix.sum(1) == pytest.approx(1)
    rates = [entry["learning_rate"] for entry in trainer.state.log_history if "loss" in entry]
    assert "transition_error" in trainer.state.log_history[0] and len(trainer.optimizer.param_groups) == 3
    assert rates[3] / rates[2] < 0.5, "the second phase halves the rate"


@pytest.mark.parametrize(
    ("loss", "change", "message"),
    [
        (ELR(), {"train_dataset": [{"input_ids": [1], "labels": 0}] * 4, "noise": None},
         "ELR remembers targets of each training row by its sample_id, and the rows have none"),
        (CoTeaching(), {"noise": None}, 'forget_rate="known" takes the error rate of the noise, and none is known'),
        (ELR(), {"label_smoothing_factor": 0.1}, "ELR has no smoothed form"),
    ],
    ids=str,
)  # fmt: skip
def test_what_an_objective_lacks_is_asked_for(tmp_path, loss, change, message):
    shared.LOSSES["lacking"] = loss
    smoothing = {"label_smoothing_factor": change.pop("label_smoothing_factor")} if "label_smoothing_factor" in change \
        else {}  # fmt: skip
    try:
        with pytest.raises(ValueError, match=message):
            made = shared.trainer_of(tmp_path, "lacking", **smoothing)
            options = {"noise": shared.NOISE, "train_dataset": shared.rows()} | change
            ClassifierTrainer(shared.network(), made.args, loss=loss, **options)
    finally:
        del shared.LOSSES["lacking"]


def test_rows_that_share_an_id_are_refused_where_it_is_remembered(tmp_path):
    args = shared.trainer_of(tmp_path, "gce").args
    rows = Dataset.from_list([row | {"sample_id": i // 2} for i, row in enumerate(shared.rows())])
    noise = LabelFlips.symmetric(ratio=0.0, num_classes=shared.CLASSES)
    with pytest.raises(ValueError, match="20 rows have 10 different sample ids .*targets that are remembered belong"):
        ClassifierTrainer(shared.network(), args, loss="elr", noise=noise, train_dataset=rows)


def test_what_was_learned_early_is_not_forgotten(tmp_path):
    """Where cross-entropy comes to know the wrong labels by heart, the regularised model keeps what it saw first.

    The gap of 0.15 is 6 standard errors of the difference of two accuracies on 500 rows.
    """
    noise = LabelFlips.symmetric(error_rate=0.45, num_classes=shared.CLASSES, seed=5, redraw="never")
    args = shared.trainer_of(tmp_path, "gce", max_steps=-1, num_train_epochs=25, batch_size=32, optim="adamw_torch",
                             learning_rate=8e-3, logging_steps=1000).args  # fmt: skip
    found = {}
    for loss in ("nll", ELR(0.7, 3.0)):
        trainer = ClassifierTrainer(shared.network(hidden_size=32, intermediate_size=64), args, noise=noise, loss=loss,
                                    train_dataset=shared.rows(320, 1), eval_dataset=shared.rows(500, 900))  # fmt: skip
        trainer.train()
        found[trainer.loss.name] = trainer.evaluate()["eval_accuracy"]
    assert found["elr"] > found["nll"] + 0.15, found

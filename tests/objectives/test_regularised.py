"""Regularised objectives in a run: against naive twins on a small BERT, in adapters, under DDP, in the trainer."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import (
    AlbertConfig,
    AlbertForSequenceClassification,
    BartConfig,
    BartForSequenceClassification,
    BertConfig,
    BertForSequenceClassification,
    TrainingArguments,
    ViTConfig,
    ViTForImageClassification,
)

from hf_noise.losses import l2_sp, lnsr, smart
from hf_noise.noise import LabelFlips
from hf_noise.noise.normals_torch import normals
from hf_noise.objectives import (
    GCE,
    L2SP,
    LNSR,
    NLL,
    SMART,
    CorrectedLabels,
    CrossEntropy,
    Regularised,
    objective_from_dict,
)
from hf_noise.objectives.base import Forward, RunContext, objective_named
from hf_noise.trainers import ClassifierTrainer

PLANS = {
    "l2_sp": L2SP(alpha=0.3, beta=0.2), "smart": SMART(weight=2.0, epsilon=0.1, step_size=0.05, sigma=0.01, steps=2),
    "lnsr": LNSR(weight=5.0, layer=1, sigma=0.1),
}  # fmt: skip
ALL = Regularised(CorrectedLabels(np.eye(3)), **PLANS, seed=7)
C = 3


def bert(dropout=0.0, **changes):
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=40, hidden_size=16, num_hidden_layers=3, num_attention_heads=2, intermediate_size=24, num_labels=C,
        hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout, initializer_range=0.3, **changes,
    )  # fmt: skip
    return BertForSequenceClassification(config).train()


def lora(model, **changes):
    peft = pytest.importorskip("peft")
    settings = {"task_type": "SEQ_CLS", "r": 2, "lora_alpha": 6, "target_modules": ["query", "value"]}
    return peft.get_peft_model(model, peft.LoraConfig(**settings | changes)).train()


@pytest.fixture
def batch():
    tokens = torch.randint(1, 40, (4, 6), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(tokens)
    mask[0, 4:] = 0
    return {"input_ids": tokens, "attention_mask": mask}


LABELS, IDS = torch.tensor([0, 1, 2, 1]), torch.tensor([5, 2, 9, 40])


def step(objective, model, batch, run=None, epoch=3, called=None):
    """Losses [B] of one training step, and the run."""
    run = run or objective.bound(RunContext(num_classes=C, model=model))
    run.before_step(0.0)
    called = called or model
    head = (model.get_base_model() if hasattr(model, "get_base_model") else model).classifier
    forward = Forward(model=called, inputs=batch, head=head, sample_ids=IDS, epoch=epoch)
    losses = run(called(**batch).logits, LABELS, forward)
    run.after_step(None)
    return losses, run


def test_of_a_network_of_ones_own_the_head_is_what_makes_the_logits():
    model = torch.nn.Sequential(torch.nn.Linear(2, 4), torch.nn.Linear(4, C)).train()
    run = alone("l2_sp").bound(RunContext(num_classes=C, model=model, head=model[1]))
    logits = torch.zeros(4, C)
    added = run(logits, LABELS, Forward(model=model)) - torch.log(torch.tensor(3.0))
    head = sum(one.square().sum() for one in model[1].parameters())
    assert torch.allclose(added, 0.1 * head.expand(4), rtol=1e-5)


def alone(name):
    return Regularised(CrossEntropy(), **{name: PLANS[name]}, seed=7)


EACH = [ALL, Regularised(GCE(0.5), lnsr=LNSR()), *map(alone, PLANS)]


@pytest.mark.parametrize("objective", EACH, ids=lambda one: "-".join([one.base.name, *one.plans]))
def test_it_travels(objective):
    stored = json.loads(json.dumps(objective.to_dict()))
    for again in (objective_from_dict(stored), pickle.loads(pickle.dumps(objective))):
        assert again == objective and hash(again) == hash(objective)
    assert objective.sentence.startswith(objective.base.sentence.rstrip("."))
    assert all(name in objective.sentence for name in ("L2-SP",) if objective.l2_sp)
    assert objective.claims()["objective"]["base"]["name"] == objective.base.name
    assert (objective.smooths, objective.learns) == (objective.base.smooths, objective.base.learns)
    assert not objective.needs_features and objective.needs_forward
    assert Regularised(CrossEntropy(), l2_sp={"alpha": 0.3, "beta": 0.2}, seed=7).l2_sp == PLANS["l2_sp"]


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Regularised(CrossEntropy()), ValueError, "Regularised has no regulariser; give l2_sp=L2SP"),
        (lambda: Regularised(NLL(), l2_sp=L2SP()), TypeError, "base must be an objective on labels.*one on tokens"),
        (lambda: Regularised("nll", l2_sp=L2SP()), TypeError, "base must be an objective on labels"),
        (lambda: Regularised(ALL, l2_sp=L2SP()), TypeError, "base is regularised already"),
        (lambda: Regularised(CrossEntropy(), smart=L2SP()), TypeError, r"smart must be SMART\(...\)"),
        (lambda: Regularised(CrossEntropy(), smart={"eps": 1}), ValueError, "smart has no field 'eps'"),
        (lambda: Regularised(CrossEntropy(), l2_sp=L2SP(), seed=-1), ValueError, "seed must lie in"),
        (lambda: objective_named("regularised", "labels"), TypeError, "needs base: Regularised"),
        (lambda: L2SP(alpha=-1), ValueError, "alpha must lie in"),
        (lambda: SMART(epsilon=0), ValueError, "epsilon must lie in"),
        (lambda: SMART(steps=0), ValueError, r"steps must lie in \[1, 100\], got 0"),
        (lambda: LNSR(layer=-1), ValueError, "layer must lie in"),
        (lambda: LNSR(sigma="a"), TypeError, "sigma must be"),
    ],
)
def test_nonsense_is_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_smart_perturbs_the_embeddings_as_inputs_embeds_would(batch):
    model, plan = bert(), PLANS["smart"]
    losses, _ = step(alone("smart"), model, batch)
    embed = model.get_input_embeddings()(batch["input_ids"])
    noise = normals(7, 90, 3, IDS, embed[0].numel()).view(embed.shape) * batch["attention_mask"][..., None]
    with torch.no_grad():
        logits = model(**batch).logits
    predict = lambda x: model(inputs_embeds=x, attention_mask=batch["attention_mask"]).logits  # noqa: E731
    added = smart(predict, embed, logits, noise, epsilon=0.1, step_size=0.05, sigma=0.01, steps=2)
    plain = torch.nn.functional.cross_entropy(logits, LABELS, reduction="none")
    assert torch.allclose(losses, plain + plan.weight * added, atol=1e-6) and (added > 1e-5).all()


def test_lnsr_is_what_noise_on_a_layer_does_to_those_above(batch):
    model = bert()
    losses, run = step(alone("lnsr"), model, batch)
    told = run.logged()
    states = model(**batch, output_hidden_states=True).hidden_states  # embeddings, then each layer's
    seen = torch.ones(4, 1, 6, 6, dtype=torch.bool) & (batch["attention_mask"][:, None, None] != 0)
    layers = [lambda x, layer=layer: layer(x, attention_mask=seen) for layer in model.bert.encoder.layer[1:]]
    layers = [lambda x, layer=layer: out if isinstance(out := layer(x), torch.Tensor) else out[0] for layer in layers]
    noise = normals(7, 91, 3, IDS, states[1][0].numel()).view(states[1].shape)
    added = lnsr(layers, states[1], noise, sigma=0.1, mask=batch["attention_mask"])
    plain = torch.nn.functional.cross_entropy(model(**batch).logits, LABELS, reduction="none")
    assert torch.allclose(losses, plain + 5 * added, atol=1e-5)
    assert told == {"lnsr": pytest.approx(5 * added.mean().item(), rel=1e-4)} and run.logged() == {}


def test_without_noise_lnsr_is_0_in_spite_of_dropout(batch):
    """What is dropped is dropped again; and the numbers that are drawn later stay what they were."""
    objective = Regularised(CrossEntropy(), lnsr=LNSR(sigma=0.0))
    for model in (bert(dropout=0.5), lora(bert(dropout=0.5), lora_dropout=0.5)):
        torch.manual_seed(0)
        losses, run = step(objective, model, batch)
        after = torch.rand(1)
        assert run.logged() == {"lnsr": 0.0} and losses.requires_grad
        torch.manual_seed(0)
        model(**batch)
        assert torch.equal(torch.rand(1), after)


def test_l2_sp_pulls_weights_back_and_the_head_to_0(batch):
    model = bert()
    then = {name: one.detach().clone() for name, one in model.named_parameters()}
    run = alone("l2_sp").bound(RunContext(num_classes=C, model=model))
    with torch.no_grad():
        for one in model.parameters():
            one.add_(0.1)
    losses, _ = step(alone("l2_sp"), model, batch, run=run)
    base, head = {}, []
    for name, one in model.named_parameters():
        base[name] = one if name.startswith("bert.") else head.append(one)
    kept = [name for name, one in base.items() if one is not None]
    added = l2_sp([base[name] for name in kept], [then[name] for name in kept], head, alpha=0.3, beta=0.2)
    plain = torch.nn.functional.cross_entropy(model(**batch).logits, LABELS, reduction="none")
    assert len(head) == 2 and torch.allclose(losses, plain + added, rtol=1e-5)


def test_of_an_adapter_l2_sp_takes_what_it_adds(batch):
    model = lora(bert())
    with torch.no_grad():
        for name, one in model.named_parameters():
            if "lora_B" in name:
                one.normal_()
    losses, run = step(alone("l2_sp"), model, batch)
    added = 0.0
    for layer in model.get_base_model().bert.encoder.layer:
        for part in (layer.attention.self.query, layer.attention.self.value):
            added += 0.15 * part.get_delta_weight("default").square().sum()
    head = model.get_base_model().classifier.modules_to_save["default"]
    added += 0.1 * (head.weight.square().sum() + head.bias.square().sum())
    plain = torch.nn.functional.cross_entropy(model(**batch).logits, LABELS, reduction="none")
    assert torch.allclose(losses, plain + added, rtol=1e-5)


@pytest.mark.parametrize("adapted", [False, True], ids=["full", "lora"])
def test_gradients_are_those_of_finite_differences(batch, adapted):
    model = (lora(bert()) if adapted else bert()).double()
    to_a_corner = SMART(weight=2.0, epsilon=0.05, step_size=1e9)  # which stays where it is under a small change
    objective = Regularised(CrossEntropy(), **PLANS | {"smart": to_a_corner})
    run = objective.bound(RunContext(num_classes=C, model=model))
    step(objective, model, batch, run=run)[0].sum().backward()
    name = "lora_A" if adapted else "intermediate"
    weight = [one for key, one in model.named_parameters() if name in key and one.requires_grad][2]
    slope, direction, h = weight.grad.clone(), torch.randn_like(weight), 1e-5
    ends = []
    for sign in (1, -1):
        with torch.no_grad():
            weight.add_(sign * h * direction)
        ends.append(step(objective, model, batch, run=run)[0].sum().item())
        with torch.no_grad():
            weight.sub_(sign * h * direction)
    assert (ends[0] - ends[1]) / (2 * h) == pytest.approx((slope * direction).sum().item(), rel=1e-4)


def test_an_evaluation_is_not_regularised(batch):
    model = bert()
    run = ALL.bound(RunContext(num_classes=C, model=model))
    model.eval()
    losses, _ = step(ALL, model, batch, run=run)
    plain = torch.nn.functional.cross_entropy(model(**batch).logits, LABELS, reduction="none")
    assert torch.allclose(losses, plain, atol=1e-6) and run.logged() == {}


def test_under_ddp_gradients_are_reduced_once(batch, tmp_path):
    """A second reduction of a parameter is an error of DDP; with one process the gradients are those of the model."""
    import torch.distributed as dist

    alone_, grads = bert(), []
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    try:
        for find_unused in (None, False, True):
            model = bert()
            called = model if find_unused is None else torch.nn.parallel.DistributedDataParallel(
                model, find_unused_parameters=find_unused
            )  # fmt: skip
            run = ALL.bound(RunContext(num_classes=C, model=model))
            for _ in range(2):
                losses, _ = step(ALL, model, batch, run=run, called=called)
                losses.mean().backward()
            grads.append([one.grad for one in model.parameters()])
    finally:
        dist.destroy_process_group()
    assert len(grads[0]) == len(list(alone_.parameters()))
    for other in grads[1:]:
        assert all(torch.allclose(one, two, atol=1e-6) for one, two in zip(grads[0], other))


@pytest.mark.parametrize(("plan", "message"), [("smart", "embeds two, those of its decoder too"),
                                               ("lnsr", "has an encoder's and a decoder's")])  # fmt: skip
def test_an_encoder_with_a_decoder_is_refused_by_name(plan, message):
    config = BartConfig(vocab_size=9, d_model=8, encoder_layers=1, decoder_layers=2, encoder_attention_heads=2,
                        decoder_attention_heads=2, encoder_ffn_dim=8, decoder_ffn_dim=8, num_labels=C)  # fmt: skip
    with pytest.raises(ValueError, match=f"BartForSequenceClassification {message}"):
        alone(plan).bound(RunContext(num_classes=C, model=BartForSequenceClassification(config)))


def test_smart_refuses_a_network_that_does_not_use_its_embeddings(batch):
    class Own(BertForSequenceClassification):
        def get_input_embeddings(self):
            return self._modules.get("unused") or super().get_input_embeddings()

    torch.manual_seed(0)
    model = Own(bert().config).train()
    model.unused = torch.nn.Embedding(40, 16)
    with pytest.raises(ValueError, match=r"of Own make of input_ids, \[4, 6, 16\], and its forward does not call"):
        step(alone("smart"), model, batch)


def test_smart_under_gradient_checkpointing(batch):
    """The same values where it takes gradients as usual, and a refusal where it takes them in a pass of its own."""
    model = bert()
    want, _ = step(alone("smart"), model, batch)
    model.gradient_checkpointing_enable({"use_reentrant": False})
    found, _ = step(alone("smart"), model, batch)
    torch.testing.assert_close(found, want)
    model.gradient_checkpointing_enable({"use_reentrant": True})
    with pytest.raises(ValueError, match="which reentrant gradient checkpointing does not give; train with"):
        step(alone("smart"), model, batch)


@pytest.mark.parametrize("model", ["vit", "albert"])
def test_models_without_the_parts_are_refused_by_name(model):
    tiny = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 8, "num_labels": C}
    if model == "vit":
        network = ViTForImageClassification(ViTConfig(image_size=4, patch_size=2, **tiny))
        plan, message = "smart", "ViTForImageClassification has none"
    else:
        network = AlbertForSequenceClassification(AlbertConfig(vocab_size=9, embedding_size=4, **tiny))
        plan, message = "lnsr", "AlbertForSequenceClassification has no stack of 2 layers"
    with pytest.raises(ValueError, match=message):
        alone(plan).bound(RunContext(num_classes=C, model=network))


def test_what_cannot_be_regularised_is_refused(batch):
    model = bert()
    context = RunContext(num_classes=C, model=model)
    with pytest.raises(ValueError, match=r"layer must lie in \[0, 2\], got 3"):
        Regularised(CrossEntropy(), lnsr=LNSR(layer=3)).bound(context)
    with pytest.raises(ValueError, match="need the network that is trained"):
        ALL.bound(RunContext(num_classes=C))
    with pytest.raises(ValueError, match="not with DoRA"):
        alone("l2_sp").bound(RunContext(num_classes=C, model=lora(bert(), use_dora=True)))
    with pytest.raises(ValueError, match="cannot tell which weights of Sequential were pre-trained"):
        alone("l2_sp").bound(RunContext(num_classes=C, model=torch.nn.Sequential(torch.nn.Linear(2, C))))
    run = alone("lnsr").bound(context)
    with pytest.raises(RuntimeError, match="LNSR saw 0 of 2 layers in the last pass"):
        run(model(**batch).logits, LABELS, Forward(model=model, inputs=batch, sample_ids=IDS))
    run = alone("smart").bound(context)
    with pytest.raises(ValueError, match="SMART draws from the column `sample_id`"):
        run(model(**batch).logits, LABELS, Forward(model=model, inputs=batch))
    model.gradient_checkpointing_enable()
    with pytest.raises(ValueError, match="gradient checkpointing throws away"):
        alone("lnsr").bound(context).before_step(0.0)


# ---- in the trainer

ROWS = Dataset.from_dict({
    "input_ids": [[1 + (3 * i + j) % 39 for j in range(4 + i % 3)] for i in range(16)],
    "labels": [i % C for i in range(16)], "sample_id": list(range(16)),
})  # fmt: skip
NOISE = LabelFlips.symmetric(ratio=0.5, num_classes=C, seed=1)


def padded(rows):
    longest = max(len(row["input_ids"]) for row in rows)
    made = {name: torch.tensor([row[name] for row in rows]) for name in ("labels", "sample_id")}
    lengths = torch.tensor([len(row["input_ids"]) for row in rows])
    made["input_ids"] = torch.tensor([row["input_ids"] + [0] * (longest - len(row["input_ids"])) for row in rows])
    return made | {"attention_mask": (torch.arange(longest) < lengths[:, None]).long()}


def trained(model, folder, loss=ALL, resume=None, **changes):
    usual = dict(max_steps=3, per_device_train_batch_size=8, learning_rate=1e-2, use_cpu=True, report_to="none",
                 save_strategy="no", logging_steps=1, lr_scheduler_type="constant", optim="sgd")  # fmt: skip
    args = TrainingArguments(str(folder), **usual | changes)
    trainer = ClassifierTrainer(model, args, noise=NOISE, loss=loss, train_dataset=ROWS, data_collator=padded)
    trainer.train(resume_from_checkpoint=resume)
    return trainer


@pytest.mark.parametrize("adapted", [False, True], ids=["full", "lora"])
def test_accumulated_gradients_are_those_of_the_whole_batch(tmp_path, adapted):
    runs = []
    for number, (rows, passes) in enumerate(((8, 1), (2, 4))):
        model = lora(bert()) if adapted else bert()
        sizes = {"per_device_train_batch_size": rows, "gradient_accumulation_steps": passes}
        run = trained(model, tmp_path / str(number), **sizes)
        runs.append({name: one.detach() for name, one in run.model.named_parameters() if one.requires_grad})
        logged = [entry for entry in run.state.log_history if "smart" in entry]
        assert len(logged) == 3 and {"l2_sp", "lnsr"} <= set(logged[0])
    # Though rows of a smaller batch are padded less.
    assert all(torch.allclose(one, runs[1][name], atol=1e-5) for name, one in runs[0].items())


def test_bf16_and_a_learned_transition(tmp_path):
    loss = Regularised(CorrectedLabels("estimated"), **PLANS)
    trainer = trained(bert(dropout=0.1), tmp_path, loss=loss, bf16=True)
    assert trainer.objective.source == "estimated" and trainer.objective.transition.shape == (C, C)
    record = trainer.loss_record()
    assert objective_from_dict(record["objective"]) == loss and record["source"] == "estimated"
    assert all(torch.isfinite(one).all() for one in trainer.model.parameters())


def test_a_resumed_run_is_pulled_to_the_same_weights(tmp_path):
    options = dict(max_steps=4, save_steps=2, save_strategy="steps")
    whole = trained(bert(dropout=0.1), tmp_path / "whole", **options)
    checkpoint = tmp_path / "whole" / "checkpoint-2"
    again = trained(bert(dropout=0.1), tmp_path / "again", resume=str(checkpoint), **options)
    for one, two in zip(whole.model.parameters(), again.model.parameters()):
        assert torch.equal(one, two)
    with pytest.raises(ValueError, match="make the model as that run did, from its pre-trained weights"):
        model = BertForSequenceClassification.from_pretrained(checkpoint)
        trained(model, tmp_path / "other", resume=str(checkpoint), **options)

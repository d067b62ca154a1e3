"""The trainer of the time-dependent classifier: what it minimises, that draws are its rows' own, and what it learns."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file
from transformers import TrainingArguments

from hf_noise.hub.load import load_noise
from hf_noise.losses import VolumeMinimisation, transition_nll
from hf_noise.models.time_classifier import TimeDependentClassifier
from hf_noise.noise import HumanLabels, LabelFlips, UniformTokens
from hf_noise.noise.normals_torch import normals
from hf_noise.trainers import TimeClassifierTrainer
from hf_noise.trainers.images import DeviceImages
from hf_noise.trainers.time_classifier import VolumePlan

SCRIPT = Path(__file__).with_name("time_classifier_processes.py")
SPEC = importlib.util.spec_from_file_location("time_classifier_processes", SCRIPT)
shared = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(shared)
CLASSES, SIZE, network, rows = shared.CLASSES, shared.SIZE, shared.network, shared.rows


@pytest.fixture
def arguments(tmp_path):
    def make(**changes):
        usual = {
            "output_dir": str(tmp_path / "run"), "use_cpu": True, "report_to": "none", "disable_tqdm": True,
            "save_strategy": "no", "logging_steps": 1, "per_device_train_batch_size": 8, "max_steps": 3,
            "learning_rate": 1e-3, "seed": 7,
        }  # fmt: skip
        return TrainingArguments(**(usual | changes))

    return make


def flips(e=0.4, **options):
    return LabelFlips.symmetric(error_rate=e, num_classes=CLASSES, seed=5, **options)


def make(arguments, *, data=None, model=None, **options):
    changes = {name: options.pop(name) for name in list(options) if name in TrainingArguments.__dataclass_fields__}
    data = data or rows()
    return TimeClassifierTrainer(
        model or network(), arguments(**changes), train_dataset=data, eval_dataset=rows(13, 1), **options
    )


def train(arguments, resume=None, **options):
    trainer = make(arguments, **options)
    trainer.train(resume)
    return trainer


@pytest.mark.parametrize("transition", ["known", "estimated"])
def test_the_first_loss_by_hand(arguments, transition):
    data, noise = rows(8), flips()
    images, sample = data.__getitems__(range(8))["pixel_values"], data.columns["sample_id"]
    sigma = torch.exp(-1.2 + 1.2 * normals(7, 84, 0, sample, 1)[:, 0])
    noised = images + sigma.view(-1, 1, 1, 1) * normals(7, 85, 0, sample, SIZE**2).view(images.shape)
    noisy, is_noisy = noise(data.columns["labels"], sample, 0)
    logits = network()(noised, sigma)
    if transition == "known":
        expected = transition_nll(logits, noisy, torch.from_numpy(noise.transition).float()).mean()
    else:
        volume = VolumeMinimisation(CLASSES)
        expected = volume(logits, noisy).mean() + 1e-4 * volume.log_volume()
    trainer = train(arguments, data=rows(8), noise=noise, transition=transition, max_steps=1)
    log = trainer.state.log_history[0]
    assert log["loss"] == pytest.approx(expected.item(), rel=1e-5)
    assert log["noise_rate"] == pytest.approx(is_noisy.float().mean().item())
    assert log["accuracy_clean_labels"] == pytest.approx((logits.argmax(-1) == data.columns["labels"]).float().mean())
    assert ("transition_error" in log) == (transition == "estimated")


def test_evaluation_by_hand_does_not_depend_on_the_batch(arguments):
    found = [
        make(arguments, noise=flips(), per_device_eval_batch_size=n, eval_sigmas=[0.3]).evaluate() for n in (2, 13)
    ]
    for name in ("eval_nll", "eval_accuracy", "eval_nll_sigma0.3", "eval_accuracy_sigma0.3"):
        assert found[0][name] == pytest.approx(found[1][name], rel=1e-6)
    data = rows(13, 1)
    images, sample = data.__getitems__(range(13))["pixel_values"], data.columns["sample_id"]
    noised = images + 0.3 * normals(7, 87, 1, sample, SIZE**2).view(images.shape)
    with torch.no_grad():
        log_p = network().eval().log_posterior(noised, torch.full((13,), 0.3))
    assert found[0]["eval_nll_sigma0.3"] == pytest.approx(
        -log_p[range(13), data.columns["labels"]].mean().item(), rel=1e-5
    )
    assert found[0]["eval_images"] == 13


def test_correction_learns_the_clean_posterior_and_cross_entropy_the_noisy_one(arguments):
    """Cyclic noise of 40%: at a small sigma the class is certain, so the clean NLL is 0 and the noisy one -ln 0.6."""
    noise = LabelFlips.cyclic(error_rate=0.4, num_classes=CLASSES, seed=1)
    options = {"noise": noise, "data": rows(256), "max_steps": 120, "per_device_train_batch_size": 64}
    options |= {"learning_rate": 3e-3, "eval_sigmas": [0.1], "logging_steps": 200}
    nll = {}
    for name, transition in (("corrected", "known"), ("plain", None)):
        trainer = train(arguments, transition=transition, **options)
        nll[name] = trainer.evaluate()["eval_nll_sigma0.1"]
        assert trainer.model.predicts == {"corrected": "clean", "plain": "noisy"}[name]
    assert nll["corrected"] < 0.15
    assert nll["plain"] == pytest.approx(-np.log(0.6), abs=0.1)


def test_volume_minimisation_recovers_a_matrix_that_is_not_symmetric(arguments):
    noise = LabelFlips.pairs({0: 1, 2: 3}, error_rate=0.35, num_classes=CLASSES, seed=1)
    trainer = train(
        arguments, noise=noise, transition="estimated", data=rows(512), max_steps=160, logging_steps=10,
        per_device_train_batch_size=128, learning_rate=3e-3, weight_decay=0.1,
    )  # fmt: skip
    errors = [log["transition_error"] for log in trainer.state.log_history if "transition_error" in log]
    print(f"mean absolute error of T: {errors[0]:.3f} at first, {errors[-1]:.3f} at last")
    assert errors[0] > 0.08 and errors[-1] < 0.03
    after = int(VolumePlan().phases[-1][0] * 160) // 10 + 1
    assert len(set(errors[after:])) == 1 != len(set(errors[:after])), "the matrix stays as it is after the last phase"
    assert trainer.evaluate()["eval_accuracy_sigma0.1"] == 1


@pytest.mark.parametrize(("transition", "channels_last"), [("known", False), ("known", True), ("estimated", True)])
def test_resumed_weights_are_bit_identical(arguments, tmp_path, transition, channels_last):
    settings = {"noise": flips(), "transition": transition, "max_steps": 9, "save_strategy": "steps", "save_steps": 6}
    settings["channels_last"] = channels_last
    whole = train(arguments, **settings)
    resumed = train(arguments, resume=str(tmp_path / "run" / "checkpoint-6"), model=network(1), **settings)
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name
    assert np.array_equal(whole.transition, resumed.transition)
    assert resumed.realised_noise() == whole.realised_noise()


def test_the_best_model_comes_back_with_its_matrix(arguments, tmp_path):
    trainer = make(
        arguments, noise=flips(), transition="estimated", max_steps=6, save_strategy="steps", eval_strategy="steps",
        save_steps=2, eval_steps=2, load_best_model_at_end=True, metric_for_best_model="rank", greater_is_better=False,
        compute_metrics=lambda prediction: {"rank": abs(trainer.state.global_step - 2)},
    )  # fmt: skip
    trainer.train()
    name = "hf_noise_volume.A"
    best, last = (
        load_file(tmp_path / "run" / f"checkpoint-{step}" / "hf_noise_state.safetensors")[name] for step in (2, 6)
    )
    assert torch.equal(trainer.volume.A, best) and not torch.equal(best, last)
    trainer.save_model(str(tmp_path / "saved"))
    saved = json.loads((tmp_path / "saved" / "config.json").read_text())["transition"]
    np.testing.assert_allclose(saved, trainer.transition, rtol=1e-6)
    assert trainer.realised_noise()["n"] == 48


@pytest.mark.parametrize("transition", ["known", "estimated"])
def test_a_saved_classifier_tells_its_noise_and_matrix(arguments, tmp_path, transition):
    trainer = train(arguments, noise=flips(), transition=transition, channels_last=True)
    trainer.save_model(str(tmp_path / "saved"))
    loaded = TimeDependentClassifier.from_pretrained(tmp_path / "saved").eval().to(memory_format=torch.channels_last)
    x, sigma = torch.randn(2, 1, SIZE, SIZE), torch.ones(2)
    assert torch.equal(loaded(x, sigma), trainer.model.eval()(x, sigma))
    assert loaded.config.transition_source == transition and loaded.predicts == "clean"
    np.testing.assert_allclose(loaded.config.transition, trainer.transition, rtol=1e-6)
    assert load_noise(tmp_path / "saved") == flips()


def test_augmentation_is_handed_on_in_training_alone(arguments):
    seen = []

    def augment(images, sample, epoch):
        seen.append((sample.tolist(), epoch))
        return images.flip(-1), torch.ones(len(images), 9)

    torch.manual_seed(0)
    model = TimeDependentClassifier(CLASSES, SIZE, 1, "cnn-digits", augmentation=True)
    told = []
    model.register_forward_pre_hook(lambda module, inputs: told.append(len(inputs) > 2 and inputs[2] is not None))
    trainer = train(arguments, model=model, data=rows(8), noise=flips(), augment=augment, max_steps=2)
    assert [epoch for _, epoch in seen] == [0, 1] and told == [True, True]
    trainer.evaluate()
    assert len(seen) == 2 and not any(told[2:])


def human():
    clean = np.arange(40) % CLASSES
    return HumanLabels.from_columns(clean, np.where(np.arange(40) % 5 == 0, (clean + 1) % CLASSES, clean),
                                    num_classes=CLASSES, name="test")  # fmt: skip


def test_the_matrix_of_human_labels_is_counted(arguments):
    clean = rows().columns["labels"]
    wrong = torch.arange(32) % 4 == 0
    noisy = torch.where(wrong, (clean + 1) % CLASSES, clean)
    noise = HumanLabels.from_columns(clean, noisy, num_classes=CLASSES, name="test")
    trainer = train(arguments, data=rows(labels=noisy, clean_labels=clean, is_noisy=wrong), noise=noise, max_steps=4)
    np.testing.assert_allclose(trainer.transition, noise.transition, rtol=1e-6)
    assert trainer.realised_noise() == {"rate": 0.25, "n": 32}
    with pytest.raises(ValueError, match="HumanLabels cannot be drawn"):
        train(arguments, noise=human())


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"noise": LabelFlips.symmetric(ratio=0.5, num_classes=5)}, ValueError, "the noise has 5 classes, the model 4"),
        ({"noise": UniformTokens(ratio=0.5, vocab_size=4)}, TypeError, "takes noise on labels, got Uniform"),
        ({}, ValueError, "takes T from the noise, and the trainer was given none"),
        ({"transition": np.eye(3)}, ValueError, "transition has 3 classes, the model 4"),
        ({"transition": np.ones((4, 4))}, ValueError, "row 0 of the transition matrix sums to 4, not to 1"),
        ({"transition": "other"}, ValueError, 'transition must be "known", "estimated", a matrix or None'),
        ({"transition": None, "eval_sigmas": [0.1, 0]}, ValueError, "each of eval_sigmas must be finite and > 0"),
    ],
)
def test_what_does_not_fit_is_refused(arguments, options, error, message):
    with pytest.raises(error, match=message):
        train(arguments, **options)


def test_a_scheduler_of_ones_own_cannot_plan_the_matrix(arguments):
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    optimizers = (optimizer, torch.optim.lr_scheduler.StepLR(optimizer, 2))
    with pytest.raises(ValueError, match="adds a parameter to the optimizer"):
        train(arguments, model=model, transition="estimated", optimizers=optimizers)


def test_labels_outside_the_classes_are_counted_before_training(arguments):
    labels = rows().columns["labels"].clone()
    labels[[3, 7]] = torch.tensor([4, -1])
    with pytest.raises(ValueError, match=r"2 of 32 labels are outside \[0, 4\), the first is 4 in row 3"):
        make(arguments, data=rows(labels=labels), noise=flips())


def test_images_that_do_not_fit_are_refused(arguments):
    data = rows()
    with pytest.raises(ValueError, match=r"\[-1, 1\], these do in \[0, 1\]"):
        make(arguments, data=DeviceImages(data.images, data.columns, mean=[0.0], std=[1.0]), noise=flips())
    larger = torch.nn.functional.pad(data.images, [1] * 4)
    with pytest.raises(ValueError, match=r"= \[1, 6, 6\], the data have \[1, 8, 8\]; pad or convert them"):
        make(arguments, data=DeviceImages(larger, data.columns, mean=[0.5], std=[0.5]), noise=flips())


def test_stored_labels_outside_the_classes_are_found_before_training(arguments):
    stored = Dataset.from_dict({"labels": [0, 4, 2], "sample_id": [0, 1, 2]})
    with pytest.raises(ValueError, match=r"1 of 3 labels are outside \[0, 4\), the first is 4 in row 1"):
        make(arguments, data=stored, transition=None)


@pytest.mark.parametrize(
    ("noise", "transition", "predicts"),
    [(None, None, "noisy"), (flips(0.0), None, "clean"), (flips(), None, "noisy"), (None, flips().transition, "clean"),
     (flips(), "estimated", "clean")],
)  # fmt: skip
def test_the_config_says_which_labels_are_predicted(arguments, noise, transition, predicts):
    model = make(arguments, noise=noise, transition=transition).model
    assert model.config.predicts == model.predicts == predicts


def test_rows_without_ids_are_refused(arguments):
    data = rows(8).__getitems__(range(8))
    data = [{"pixel_values": x, "labels": y} for x, y in zip(data["pixel_values"], data["labels"])]
    with pytest.raises(ValueError, match="labels and noise levels are drawn from the column `sample_id`"):
        train(arguments, data=data, transition=None)


def test_the_plan_of_the_matrix():
    plan = VolumePlan(phases=((0.2, 1.0), (0.5, 0.1)))
    assert [plan.factors(done) for done in (0, 0.2, 0.5, 1)] == [(1, 1), (0.1, 0.1), (1, 0), (1, 0)]
    with pytest.raises(ValueError, match=r"must rise within \(0, 1\], got \[0.5, 0.2\]"):
        VolumePlan(phases=((0.5, 1.0), (0.2, 0.1)))
    for options in ({"phases": ((0.5, -1.0),)}, {"weight": float("nan")}):
        with pytest.raises(ValueError, match="must be finite and >= 0, got"):
            VolumePlan(**options)
    for rate in (-1.0, 0.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="matrix_rate must be finite and > 0"):
            VolumePlan(matrix_rate=rate)
    for diagonal in (0.0, 1.0, float("nan")):
        with pytest.raises(ValueError, match=r"initial_diagonal must lie in \(1/C, 1\)"):
            VolumePlan(initial_diagonal=diagonal)


def test_the_plan_says_where_the_matrix_starts(arguments):
    for plan, diagonal in ((VolumePlan(initial_diagonal=0.9), 0.9), (None, 1 / (1 + (CLASSES - 1) * 0.1192))):
        trainer = make(arguments, transition="estimated", volume=plan)
        assert trainer.volume.transition[0, 0].item() == pytest.approx(diagonal, abs=1e-4)

"""The EDM trainer: its loss, its moving average, what it counts and refuses, and that a resumed run is the same run."""

from __future__ import annotations

import json
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from datasets import ClassLabel, DatasetInfo, Features
from safetensors.torch import load_file
from transformers import TrainingArguments

import hf_noise
from hf_noise.diffusion import Denoiser, EDMPipeline
from hf_noise.losses import dsm_loss, tdsm_loss, transition_aware_weights
from hf_noise.models.edm_unet import edm_unet
from hf_noise.models.time_classifier import TimeDependentClassifier
from hf_noise.noise import LabelFlips
from hf_noise.noise.normals_torch import normals
from hf_noise.trainers import EDMTrainer, TimeClassifierTrainer
from hf_noise.trainers.edm_augment import EDMAugment
from hf_noise.trainers.images import DeviceImages
from hf_noise.trainers.labels import check_same_noise

CLASSES, SIZE = 4, 8


def rows(n=32, seed=0, **columns):
    draw = np.random.default_rng(seed)
    images = torch.from_numpy(draw.integers(0, 256, (n, 1, SIZE, SIZE), dtype=np.uint8))
    labels = torch.from_numpy(draw.integers(0, CLASSES, n))
    return DeviceImages(images, {"labels": labels, "sample_id": torch.arange(n) * 3, **columns}, mean=[0.5], std=[0.5])


def network(seed=0):
    torch.manual_seed(seed)
    unet = edm_unet("edm-digits", num_classes=CLASSES, image_size=SIZE, num_channels=1)
    torch.nn.init.normal_(unet.conv_out.weight, std=0.1)
    return unet


def flips(ratio=1.0, **options):
    return LabelFlips.symmetric(ratio=ratio, num_classes=CLASSES, seed=5, **options)


def classifier(noise=None, **changes):
    torch.manual_seed(1)
    told = {} if noise is None else {"transition": noise.transition.tolist(), "transition_source": "known"}
    given = {"num_classes": CLASSES, "image_size": SIZE, "num_channels": 1, "architecture": "cnn-digits", **told}
    return TimeDependentClassifier(**(given | changes))


@pytest.fixture
def arguments(tmp_path):
    def make(**changes):
        usual = {
            "output_dir": str(tmp_path / "run"), "use_cpu": True, "report_to": "none", "disable_tqdm": True,
            "save_strategy": "no", "logging_steps": 1, "per_device_train_batch_size": 8, "max_steps": 3,
            "per_device_eval_batch_size": 8, "lr_scheduler_type": "constant", "optim": "sgd", "learning_rate": 0.05,
            "max_grad_norm": 0.0,
        }  # fmt: skip
        return TrainingArguments(**(usual | changes))

    return make


def build(arguments, data=None, **options):
    changes = {name: options.pop(name) for name in list(options) if name in TrainingArguments.__dataclass_fields__}
    data = rows() if data is None else data
    return EDMTrainer(network(), arguments(**changes), train_dataset=data, eval_dataset=rows(13, 1), **options)


def weights(trainer):
    return {name: value.clone() for name, value in trainer.model.state_dict().items()}


def losses(trainer):
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def first_draws(data, noise):
    images, labels = data.__getitems__(range(len(data)))["pixel_values"], data.columns["labels"]
    sample = data.columns["sample_id"]
    noisy, wrong = noise(labels, sample, 0)
    sigma = torch.exp(-1.2 + 1.2 * normals(42, 80, 0, sample, 1)[:, 0])
    return images, noisy, wrong, sigma, normals(42, 81, 0, sample, SIZE**2).view_as(images)


@pytest.mark.parametrize("kind", ["dsm", "tdsm"])
def test_the_first_loss_by_hand(arguments, kind):
    data, noise = rows(8), flips()
    helper = classifier(noise) if kind == "tdsm" else None
    trainer = build(arguments, data, noise=noise, loss=kind, classifier=helper, max_steps=1)
    images, noisy, wrong, sigma, drawn = first_draws(data, noise)
    with torch.no_grad():
        denoiser = Denoiser(network())
        if kind == "dsm":
            expected = dsm_loss(denoiser, images, sigma, drawn, noisy)
        else:
            posterior = helper(images + sigma[:, None, None, None] * drawn, sigma).softmax(-1)
            weight = transition_aware_weights(noisy, noise.transition, clean_posterior=posterior)
            assert (weight.max(-1).values < 1).all()
            expected = tdsm_loss(denoiser, images, sigma, drawn, noisy, weight)
    trainer.train()
    log = trainer.state.log_history[0]
    assert log["loss"] == pytest.approx(expected.mean().item(), rel=1e-5)
    assert 0 < wrong.sum() < 8
    assert log["loss_wrong_labels"] == pytest.approx(expected[wrong].mean().item(), rel=1e-5)
    assert log["loss_clean_labels"] == pytest.approx(expected[~wrong].mean().item(), rel=1e-5)
    assert trainer.realised_noise() == {"rate": wrong.float().mean().item(), "n": 8}


def test_the_average_of_the_weights_by_hand(arguments):
    """One update for each optimiser step, whatever the number of micro-batches; its decay is min(0.2, k / (k + 9))."""
    trainer, seen = build(arguments, ema_decay=0.2, max_steps=3, gradient_accumulation_steps=2, noise=flips()), []
    average = trainer.ema.step
    trainer.ema.step = lambda parameters: (seen.append([p.detach().clone() for p in parameters]), average(parameters))
    trainer.train()
    assert len(seen) == 3 and not torch.equal(seen[0][0], seen[1][0])
    expected = seen[0]  # the first update takes the weights as they are
    for step, decay in ((1, 2 / 11), (2, 0.2)):
        expected = [decay * old + (1 - decay) * new for old, new in zip(expected, seen[step])]
    for ours, by_hand in zip(trainer.ema.shadow_params, expected, strict=True):
        torch.testing.assert_close(ours, by_hand, rtol=0, atol=1e-6)
    averaged, raw = trainer.pipeline().unet, trainer.pipeline(ema=False).unet
    assert all(torch.equal(a, b) for a, b in zip(averaged.parameters(), trainer.ema.shadow_params, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(raw.parameters(), seen[2], strict=True))


def test_accumulated_batches_equal_one_large_batch(arguments):
    noise, results = flips(), []
    for batch, passes in ((16, 1), (4, 4)):
        trainer = build(
            arguments, noise=noise, loss="tdsm", classifier=classifier(noise), label_dropout=0.3, max_steps=2,
            per_device_train_batch_size=batch, gradient_accumulation_steps=passes,
        )  # fmt: skip
        trainer.train()
        results.append((losses(trainer), weights(trainer)))
    assert results[0][0] == pytest.approx(results[1][0], rel=1e-5)
    for name, value in results[0][1].items():
        torch.testing.assert_close(value, results[1][1][name], rtol=0, atol=1e-5)


def test_without_noise_tdsm_is_dsm(arguments):
    noise = flips(ratio=0.0)
    runs = [build(arguments, noise=noise, loss=kind) for kind in ("dsm", "tdsm")]
    for trainer in runs:
        trainer.train()
    assert losses(runs[0]) == losses(runs[1])
    other = weights(runs[1])
    assert all(torch.equal(value, other[name]) for name, value in weights(runs[0]).items())


@pytest.mark.parametrize("options", [{"label_dropout": 0.2}, {"augment": EDMAugment(seed=3), "channels_last": True}])
def test_a_resumed_run_is_the_same_run(arguments, tmp_path, options):
    noise = flips()

    def make(folder, **changes):
        return build(
            arguments, noise=noise, loss="tdsm", classifier=classifier(noise), output_dir=str(tmp_path / folder),
            save_strategy="steps", save_steps=3, max_steps=7, optim="adamw_torch", learning_rate=1e-3, **options,
            **changes,
        )  # fmt: skip

    whole, again = make("whole"), make("again")
    whole.train()
    again.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-3"))
    other = weights(again)
    assert all(torch.equal(value, other[name]) for name, value in weights(whole).items())
    for ours, theirs in zip(whole.ema.shadow_params, again.ema.shadow_params, strict=True):
        assert torch.equal(ours, theirs)
    assert whole.ema.optimization_step == again.ema.optimization_step == 7
    assert whole.realised_noise() == again.realised_noise()
    assert losses(again)[3:] == losses(whole)[3:]
    average = load_file(tmp_path / "whole" / "checkpoint-6" / "ema.safetensors")
    assert int(average["optimization_step"]) == 6 and not any("augment" in name for name in average)


def test_the_best_model_comes_back_as_a_whole(arguments, tmp_path):
    """Weights, their average and the layer for augmentation are those of the step that `rank` calls the best."""
    trainer = build(
        arguments, noise=flips(), augment=EDMAugment(probability=0.9), max_steps=6, ema_decay=0.5,
        save_strategy="steps", eval_strategy="steps", save_steps=2, eval_steps=2, load_best_model_at_end=True,
        metric_for_best_model="rank", greater_is_better=False,
        compute_metrics=lambda prediction: {"rank": abs(trainer.state.global_step - 4)},
    )  # fmt: skip
    trainer.train()
    best, last = tmp_path / "run" / "checkpoint-4", tmp_path / "run" / "checkpoint-6"
    assert trainer.state.best_model_checkpoint == str(best)
    for file, ours in (
        ("model.safetensors", weights(trainer)),
        ("hf_noise_state.safetensors", weights(trainer)),
        ("ema.safetensors", dict(zip(trainer.names, trainer.ema.shadow_params))),
    ):
        theirs, later = load_file(best / file), load_file(last / file)
        shared = [name for name in ours if name in theirs]
        assert shared and all(torch.equal(ours[name], theirs[name]) for name in shared)
        assert not any(torch.equal(ours[name], later[name]) for name in shared)
    assert trainer.ema.optimization_step == 4 and trainer.realised_noise()["n"] == 48


def test_a_saved_model_is_a_pipeline_that_knows_its_noise(arguments, tmp_path):
    noise = flips()
    trainer = build(arguments, noise=noise, augment=EDMAugment(), label_dropout=0.1)
    trainer.train()
    state = torch.get_rng_state()
    trainer.save_model(str(tmp_path / "saved"))
    assert torch.equal(torch.get_rng_state(), state)
    assert hf_noise.load_noise(tmp_path / "saved") == noise
    loaded = EDMPipeline.from_pretrained(tmp_path / "saved")
    assert loaded.config.num_classes == CLASSES and loaded.config.has_unconditional
    assert loaded.scheduler.config.sigma_data == 0.5
    ours = trainer.pipeline()
    for pipeline in (loaded, ours):
        pipeline.set_progress_bar_config(disable=True)
    asked = dict(class_labels=[0, 3], seed=1, num_inference_steps=3, output_type="pt")
    assert torch.equal(loaded(**asked).images, ours(**asked).images)
    assert "hf_noise" not in json.loads((tmp_path / "saved" / "unet" / "config.json").read_text())


def test_evaluation_is_of_clean_labels_under_both_weights(arguments):
    trainer = build(arguments, noise=flips(), ema_decay=0.5, max_steps=12)
    trainer.train()
    batch = rows(13, 1).__getitems__(range(13))
    images, labels, sample = batch["pixel_values"], batch["labels"], batch["sample_id"]
    sigma = torch.exp(-1.2 + 1.2 * normals(42, 87, 0, sample, 1)[:, 0])
    noise = normals(42, 87, 1, sample, SIZE**2).view_as(images)
    found = trainer.evaluate()
    for key, ema in (("eval_loss", False), ("eval_ema_loss", True)):
        with torch.no_grad():
            expected = dsm_loss(Denoiser(trainer.pipeline(ema=ema).unet), images, sigma, noise, labels)
        assert found[key] == pytest.approx(expected.mean().item(), rel=1e-5)
    assert found["eval_images"] == 13 and found["eval_loss"] != found["eval_ema_loss"]
    assert trainer.evaluate()["eval_loss"] == found["eval_loss"]


def test_training_lowers_the_loss(arguments):
    trainer = build(arguments, max_steps=40, optim="adamw_torch", learning_rate=3e-3, ema_decay=0.8)
    before = trainer.evaluate(trainer.train_dataset)["eval_loss"]
    trainer.train()
    after = trainer.evaluate(trainer.train_dataset)
    assert after["eval_loss"] < 0.95 * before and after["eval_ema_loss"] < 0.95 * before


def test_labels_that_are_noisy_already_are_not_drawn_again(arguments):
    clean = rows().columns["labels"]
    wrong = torch.arange(32) % 4 == 0
    data = rows(labels=torch.where(wrong, (clean + 1) % CLASSES, clean), clean_labels=clean, is_noisy=wrong)
    trainer = build(arguments, data, max_steps=4)
    trainer.train()
    assert trainer.realised_noise() == {"rate": 0.25, "n": 32}


def test_the_classifier_is_frozen_and_in_no_checkpoint(arguments, tmp_path):
    noise = flips()
    helper = classifier(noise)
    before = {name: value.clone() for name, value in helper.state_dict().items()}
    trainer = build(arguments, noise=noise, loss="tdsm", classifier=helper, save_strategy="steps", save_steps=3)
    trainer.train()
    assert all(torch.equal(value, before[name]) for name, value in helper.state_dict().items())
    assert not helper.training and not any(p.requires_grad for p in helper.parameters())
    saved = load_file(tmp_path / "run" / "checkpoint-3" / "model.safetensors")
    assert saved.keys() == network().state_dict().keys()


def test_the_inverse_form_with_a_classifier_of_noisy_labels(arguments):
    noise = flips(ratio=0.3)
    helper = classifier(hf_noise=noise.to_dict())
    trainer = build(arguments, noise=noise, loss="tdsm", weights="inverse", classifier=helper)
    trainer.train()
    assert np.isfinite(losses(trainer)).all()


def test_a_classifier_of_labels_of_unknown_noise(arguments):
    """Labels that someone brings, without `noise`: the classifier predicts noisy ones, and the inverse form fits."""
    transition, data = flips(ratio=0.3).transition, rows(sample_id=torch.arange(32))
    helper = TimeClassifierTrainer(classifier(), arguments(), train_dataset=data, transition=None).model
    options = {"loss": "tdsm", "classifier": helper, "transition": transition}
    with pytest.raises(ValueError, match='weights="bayes" takes a classifier of clean labels, this one predicts noisy'):
        build(arguments, data, **options)
    trainer = build(arguments, data, weights="inverse", **options)
    trainer.train()
    assert np.isfinite(losses(trainer)).all()


def test_a_classifier_of_clean_labels_fits_any_noise(arguments):
    """It has no T of its own, and so takes that of this run's noise."""
    helper, noise = classifier(hf_noise=flips(0.0).to_dict(), predicts="clean"), flips()
    trainer = build(arguments, noise=noise, loss="tdsm", classifier=helper)
    np.testing.assert_allclose(trainer.transition.matrix, noise.transition)
    check_same_noise(classifier(flips(0.5)).config, None)
    with pytest.raises(ValueError, match="the classifier's noise has 4 classes, this run 5"):
        check_same_noise(classifier(flips()).config, LabelFlips.symmetric(ratio=1.0, num_classes=5))


def test_another_matrix_than_the_classifiers_is_told(arguments):
    noise = flips()
    for ratio, warned in ((0.9, pytest.warns(UserWarning, match="differs by up to 0.026")), (1.0, nullcontext())):
        with warned:
            build(arguments, noise=noise, loss="tdsm", classifier=classifier(noise), transition=flips(ratio).transition)


def test_a_skipped_step_is_not_averaged(arguments, monkeypatch):
    """GradScaler skips the second of four steps, as it does where float16 gradients overflow."""
    trainer = build(arguments, max_steps=4)
    skipped = property(lambda self: trainer.state.global_step == 2)
    monkeypatch.setattr(type(trainer.accelerator), "optimizer_step_was_skipped", skipped)
    trainer.train()
    assert trainer.state.global_step == 4 and trainer.ema.optimization_step == 3


def test_classes_have_the_same_names_in_classifier_and_data(arguments):
    noise, names = flips(), ["cat", "dog", "owl", "yak"]
    data = rows()
    data.info = DatasetInfo(features=Features(label=ClassLabel(names=names)))
    options = {"noise": noise, "loss": "tdsm"}
    build(arguments, data, classifier=classifier(noise, class_names=names), **options)
    with pytest.raises(ValueError, match="the classifier calls class 2 'yak', the data 'owl'"):
        build(arguments, data, classifier=classifier(noise, class_names=["cat", "dog", "yak", "owl"]), **options)


SINGULAR = np.full((CLASSES, CLASSES), 1 / CLASSES)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss": "sm"}, "loss must be \"dsm\" or \"tdsm\", got 'sm'"),
        ({"loss": "tdsm"}, "needs classifier="),
        ({"classifier": classifier()}, 'are for loss="tdsm"'),
        ({"loss": "tdsm", "classifier": classifier(num_classes=5, transition=None)}, "num_classes = 5, this run 4"),
        ({"loss": "tdsm", "classifier": classifier(sigma_data=0.4)}, "sigma_data = 0.4, this run 0.5"),
        ({"loss": "tdsm", "classifier": classifier(P_std=1.0)}, "P_std = 1.0, this run 1.2"),
        ({"loss": "tdsm", "classifier": classifier(image_size=16)}, "image_size = 16, this run 8"),
        ({"loss": "tdsm", "classifier": classifier(flips(0.5))}, "labels of other noise.*differ by up to 0.1"),
        (
            {"loss": "tdsm", "classifier": classifier(flips(0.5), transition_source="estimated",
                                                      hf_noise=flips(0.5).to_dict())},
            "labels of other noise",
        ),
        (
            {"loss": "tdsm", "classifier": classifier(flips(0.0), hf_noise=flips(0.0).to_dict())},  # T = I: plain
            "labels of other noise",
        ),
        ({"loss": "tdsm", "classifier": classifier(hf_noise=flips(0.5).to_dict()), "weights": "inverse"}, "of other"),
        ({"loss": "tdsm", "classifier": classifier(hf_noise=flips().to_dict())}, "this one predicts noisy ones"),
        ({"loss": "tdsm", "classifier": classifier(flips()), "weights": "inverse"}, "takes a classifier of noisy"),
        ({"loss": "tdsm", "classifier": classifier(flips()), "transition": np.eye(3)}, "transition has 3 classes"),
        (
            {"loss": "tdsm", "classifier": classifier(hf_noise=flips().to_dict()), "transition": SINGULAR,
             "weights": "inverse"},
            "condition number.*forward correction",
        ),
        ({"ema_decay": 1.0}, r"ema_decay must lie in \[0, 1\), got 1.0"),
        ({"temperature": 0.0}, "temperature must be finite and > 0, got 0.0"),
        ({"temperature": float("inf")}, "temperature must be finite and > 0, got inf"),
    ],
)  # fmt: skip
def test_refusals(arguments, options, message):
    with pytest.raises(ValueError, match=message):
        build(arguments, noise=flips(), **options)


def test_data_that_do_not_fit_are_refused(arguments):
    with pytest.raises(ValueError, match=r"\[-1, 1\], these do in \[0, 1\]"):
        data = rows()
        build(arguments, DeviceImages(data.images, data.columns, mean=[0.0], std=[1.0]))
    larger = torch.nn.functional.pad(rows().images, [4] * 4)  # 16 x 16, which a U-Net for 8 x 8 would take
    with pytest.raises(ValueError, match=r"= \[1, 8, 8\], the data have \[1, 16, 16\]"):
        build(arguments, DeviceImages(larger, rows().columns, mean=[0.5], std=[0.5]))
    listed = [{"pixel_values": torch.zeros(1, 16, 16), "labels": 0, "sample_id": i} for i in range(8)]
    with pytest.raises(ValueError, match=r"the data have \[1, 16, 16\]"):
        build(arguments, listed).train()
    with pytest.raises(ValueError, match=r"1 of 32 labels are outside \[0, 4\), the first is 4 in row 7"):
        build(arguments, rows(labels=torch.where(torch.arange(32) == 7, 4, 0)))
    batch = rows().__getitems__(range(32))  # rows of any data set: the label 4 is that of images without a label
    batch["labels"][7] = 4
    listed = [{name: values[i] for name, values in batch.items()} for i in range(32)]
    with pytest.raises(ValueError, match=r"1 of 32 labels are outside \[0, 4\), the first is 4"):
        build(arguments, listed, per_device_train_batch_size=32).train()
    last = "of its 5 class embeddings the last is for images without a label; make it with num_class_embeds = 6"
    with pytest.raises(ValueError, match=f"the noise has 5 classes, the model 4: {last}"):
        build(arguments, noise=LabelFlips.symmetric(ratio=1.0, num_classes=5))
    data = rows()
    data.info = DatasetInfo(features=Features(label=ClassLabel(names=list("abcde"))))
    with pytest.raises(ValueError, match=f"the data have 5 classes, the model 4: {last}"):
        build(arguments, data)

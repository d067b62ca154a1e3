"""The classifier's trainer: which labels it trains on, what it counts, and that a resumed run is the same run."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from transformers import TrainingArguments

from hf_noise.hub.load import load_noise
from hf_noise.models.image import image_classifier
from hf_noise.noise import HumanLabels, LabelFlips, UniformTokens
from hf_noise.trainers import ImageClassifierTrainer
from hf_noise.trainers.images import CropFlip, DeviceImages

CLASSES, SIZE = 4, 6


def separable(n, seed=0):
    """Images whose class is the brightest of four quadrants."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, n)
    images = rng.integers(0, 90, (n, 1, SIZE, SIZE), dtype=np.uint8)
    for image, label in zip(images, labels):
        top, left = divmod(label, 2)
        image[0, 3 * top : 3 * top + 3, 3 * left : 3 * left + 3] += 120
    return torch.from_numpy(images), torch.from_numpy(labels)


def rows(n=32, seed=0, augment=None, **columns):
    images, labels = separable(n, seed)
    columns = {"labels": labels, "sample_id": torch.arange(n) * 3 + seed, **columns}
    return DeviceImages(images, columns, mean=[0.3], std=[0.2], augment=augment)


@pytest.fixture
def arguments(tmp_path):
    def make(**changes):
        usual = {
            "output_dir": str(tmp_path / "run"), "use_cpu": True, "report_to": "none", "disable_tqdm": True,
            "save_strategy": "no", "logging_steps": 1, "per_device_train_batch_size": 8, "max_steps": 3,
            "lr_scheduler_type": "constant", "optim": "sgd", "learning_rate": 0.05, "max_grad_norm": 0.0,
        }  # fmt: skip
        return TrainingArguments(**(usual | changes))

    return make


def network(seed=0):
    torch.manual_seed(seed)
    return image_classifier("resnet10-digits", labels=CLASSES, image_size=SIZE, num_channels=1)


def flips(ratio=1.0, **options):
    return LabelFlips.symmetric(ratio=ratio, num_classes=CLASSES, seed=5, **options)


def train(arguments, *, noise=None, data=None, resume=None, seed=0, **options):
    changes = {name: options.pop(name) for name in list(options) if name in TrainingArguments.__dataclass_fields__}
    trainer = ImageClassifierTrainer(
        network(seed), arguments(**changes), noise=noise, train_dataset=data or rows(), eval_dataset=rows(13, 1),
        **options,
    )  # fmt: skip
    trainer.train(resume)
    return trainer


def weights(trainer):
    return {name: value.clone() for name, value in trainer.model.state_dict().items()}


def test_the_first_loss_is_the_mean_over_noisy_labels(arguments):
    data, noise = rows(8), flips()
    trainer = ImageClassifierTrainer(network(), arguments(max_steps=1), noise=noise, train_dataset=data)
    model = network().train()
    logits = model(data.__getitems__(range(8))["pixel_values"]).logits
    noisy, is_noisy = noise(data.columns["labels"], data.columns["sample_id"], 0)
    expected = F.cross_entropy(logits, noisy).item()
    trainer.train()
    (log,) = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert log["loss"] == pytest.approx(expected, rel=1e-5)
    assert log["noise_rate"] == pytest.approx(is_noisy.float().mean().item())
    hits = logits.argmax(-1)
    assert log["accuracy_trained_labels"] == pytest.approx((hits == noisy).float().mean().item())
    assert log["accuracy_clean_labels"] == pytest.approx((hits == data.columns["labels"]).float().mean().item())
    assert log["memorised"] == pytest.approx((hits == noisy)[is_noisy].float().mean().item())


def test_each_epoch_has_its_own_noise_unless_it_is_static(arguments):
    drawn = {}
    for redraw in ("epoch", "never"):
        noise = flips(redraw=redraw)
        trainer = ImageClassifierTrainer(network(), arguments(max_steps=8), noise=noise, train_dataset=rows())
        original, seen = trainer.targets, drawn.setdefault(redraw, {})

        def targets(inputs, *, draw, original=original, seen=seen, trainer=trainer):
            found = original(inputs, draw=draw)
            seen.setdefault(trainer.epoch, {}).update(zip(inputs["sample_id"].tolist(), found[0].tolist()))
            return found

        trainer.targets = targets
        trainer.train()
    assert set(drawn["epoch"]) == {0, 1} and len(drawn["epoch"][0]) == 32
    assert drawn["epoch"][0] != drawn["epoch"][1] and drawn["never"][0] == drawn["never"][1] == drawn["epoch"][0]


def test_labels_that_are_noisy_already_are_not_drawn_again(arguments):
    clean = rows().columns["labels"]
    noisy = (clean + 1) % CLASSES
    wrong = torch.arange(32) % 2 == 0
    data = rows(labels=torch.where(wrong, noisy, clean), clean_labels=clean, is_noisy=wrong)
    trainer = train(arguments, data=data, max_steps=4)
    assert trainer.realised_noise() == {"rate": 0.5, "n": 32}
    assert trainer.evaluate(data)["eval_images"] == 32
    predicted = trainer.predict(data)
    assert np.array_equal(predicted.label_ids, clean)


def test_accumulated_batches_equal_one_large_batch(arguments):
    """Without batch statistics in between, which do depend on the micro-batch: in evaluation mode."""
    results = []
    for batch, passes in ((16, 1), (4, 4)):
        model = network()
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = 0.0
                module.eval()
                module.train = lambda mode=True, module=module: module
        args = arguments(per_device_train_batch_size=batch, gradient_accumulation_steps=passes, max_steps=2)
        trainer = ImageClassifierTrainer(model, args, noise=flips(), loss="corrected", train_dataset=rows())
        trainer.train()
        results.append((weights(trainer), [entry for entry in trainer.state.log_history if "loss" in entry]))
    for name, value in results[0][0].items():
        torch.testing.assert_close(value, results[1][0][name], rtol=0, atol=1e-5)
    for first, second in zip(results[0][1], results[1][1], strict=True):
        assert first["loss"] == pytest.approx(second["loss"], rel=1e-5)
        assert first["noise_rate"] == second["noise_rate"]


@pytest.mark.parametrize("batch_size", [1, 5, 13])
def test_evaluation_counts_every_image_once(arguments, batch_size):
    trainer = train(arguments, per_device_eval_batch_size=batch_size, per_device_train_batch_size=8)
    data = rows(13, 1)
    with torch.no_grad():
        logits = trainer.model.eval()(data.__getitems__(range(13))["pixel_values"]).logits.double()
    found = trainer.evaluate()
    assert found["eval_images"] == 13
    assert found["eval_nll"] == pytest.approx(F.cross_entropy(logits, data.columns["labels"]).item(), rel=1e-5)
    assert found["eval_accuracy"] == pytest.approx((logits.argmax(-1) == data.columns["labels"]).double().mean().item())


def test_prediction_sees_every_image_even_if_training_drops_the_last_batch(arguments):
    args = arguments(dataloader_drop_last=True, per_device_eval_batch_size=64)
    trainer = ImageClassifierTrainer(network(), args, train_dataset=rows(), eval_dataset=rows(13, 1))
    logits, labels, _ = trainer.predict(rows(13, 1))
    assert logits.shape == (13, CLASSES) and np.array_equal(labels, rows(13, 1).columns["labels"])
    assert trainer.evaluate()["eval_images"] == 13


@pytest.mark.parametrize("stop", [3, 6])
def test_resumed_weights_are_bit_identical(arguments, tmp_path, stop):
    settings = {"noise": flips(0.5), "loss": "corrected", "max_steps": 9, "save_strategy": "steps", "save_steps": stop}
    data = partial(rows, augment=CropFlip(padding=1))
    whole = train(arguments, data=data(), **settings)
    checkpoint = tmp_path / "run" / f"checkpoint-{stop}"
    resumed = train(arguments, data=data(), resume=str(checkpoint), seed=1, **settings)
    for name, value in weights(whole).items():
        assert torch.equal(value, weights(resumed)[name]), name
    assert resumed.realised_noise() == whole.realised_noise()


def test_correction_learns_what_cross_entropy_cannot(arguments):
    """Cyclic noise at e = 0.45: the corrected model is sure of the class, the plain one of a mixture."""
    noise = LabelFlips.cyclic(error_rate=0.45, num_classes=CLASSES, seed=1)
    options = {"noise": noise, "data": rows(256), "max_steps": 80, "learning_rate": 0.1}
    options["per_device_train_batch_size"] = 32
    nll = {loss: train(arguments, loss=loss, **options).evaluate()["eval_nll"] for loss in ("nll", "corrected")}
    assert nll["nll"] > -math.log(0.75) and nll["corrected"] < 0.5 * nll["nll"]


def test_the_identity_corrects_nothing(arguments):
    plain = train(arguments, noise=flips(0.5))
    corrected = train(arguments, noise=flips(0.5), loss="corrected", transition=np.eye(CLASSES))
    for name, value in weights(plain).items():
        torch.testing.assert_close(value, weights(corrected)[name], rtol=1e-5, atol=1e-6)


def test_smoothing_and_mixup_change_the_loss_as_stated(arguments):
    data = rows(8)
    logits = network().train()(data.__getitems__(range(8))["pixel_values"]).logits
    for smoothing in (0.0, 0.2):
        trainer = train(arguments, data=rows(8), max_steps=1, label_smoothing_factor=smoothing)
        expected = F.cross_entropy(logits, data.columns["labels"], label_smoothing=smoothing).item()
        assert trainer.state.log_history[0]["loss"] == pytest.approx(expected, rel=1e-5)


def test_mixup_mixes_images_and_losses_by_the_same_share(arguments, monkeypatch):
    data, share, read = rows(8), 0.3, []
    by_index = DeviceImages.__getitems__
    monkeypatch.setattr(DeviceImages, "__getitems__", lambda self, index: read.append(index) or by_index(self, index))
    monkeypatch.setattr(torch.distributions.Beta, "sample", lambda *_: torch.tensor(share))
    trainer = train(arguments, data=data, max_steps=1, mixup=1.0)
    batch = data.__getitems__(read[0])
    images, labels = batch["pixel_values"], batch["labels"]
    logits = network().train()(share * images + (1 - share) * images.flip(0)).logits
    first, second = F.cross_entropy(logits, labels), F.cross_entropy(logits, labels.flip(0))
    expected = share * first + (1 - share) * second
    assert trainer.state.log_history[0]["loss"] == pytest.approx(expected.item(), rel=1e-5)
    assert abs(first - second) > 1e-3  # so that swapped shares would show


def test_a_checkpoint_tells_its_noise_and_loads_as_any_other(arguments, tmp_path):
    from transformers import AutoModelForImageClassification

    trainer = train(arguments, noise=flips(0.5))
    trainer.save_model(str(tmp_path / "saved"))
    assert load_noise(tmp_path / "saved") == flips(0.5)
    loaded = AutoModelForImageClassification.from_pretrained(tmp_path / "saved")
    for name, value in loaded.state_dict().items():
        assert torch.equal(value, trainer.model.state_dict()[name])


def human():
    clean = np.arange(40) % CLASSES
    return HumanLabels.from_columns(clean, np.where(np.arange(40) % 5 == 0, (clean + 1) % CLASSES, clean),
                                    num_classes=CLASSES, name="test")  # fmt: skip


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"noise": LabelFlips.symmetric(ratio=0.5, num_classes=5)}, ValueError, "the noise has 5 classes, the model 4"),
        ({"noise": UniformTokens(ratio=0.5, vocab_size=4)}, TypeError, "takes noise on labels, got Uniform"),
        ({"loss": "corrected"}, ValueError, "takes T from the noise, and the trainer was given none"),
        ({"loss": "corrected", "transition": np.eye(3)}, ValueError, "transition has 3 classes, the model 4"),
        ({"loss": "corrected", "transition": np.ones((4, 4))}, ValueError, "row 0 of the transition matrix sums to 4"),
        ({"loss": "nll", "transition": np.eye(4)}, ValueError, 'transition= is for loss="corrected"'),
        ({"loss": "other"}, ValueError, 'must be .*"nll".* "corrected"'),
        ({"mixup": -1.0}, ValueError, "mixup must be 0 or lie in .*, got -1.0"),
    ],
)
def test_what_does_not_fit_is_refused(arguments, options, error, message):
    with pytest.raises(error, match=message):
        ImageClassifierTrainer(network(), arguments(), train_dataset=rows(), **options)


def test_human_labels_have_to_be_in_the_rows(arguments):
    with pytest.raises(ValueError, match="HumanLabels cannot be drawn"):
        train(arguments, noise=human())


@pytest.mark.parametrize("name", ["labels", "clean_labels"])
def test_labels_outside_the_classes_are_counted_before_training(arguments, name):
    labels = rows().columns["labels"].clone()
    labels[[3, 7, 9]] = torch.tensor([4, -1, -100])
    columns = {"labels": rows().columns["labels"], "clean_labels": rows().columns["labels"], name: labels}
    with pytest.raises(ValueError, match=rf"3 of 32 {name} are outside \[0, 4\), the first is 4 in row 3"):
        ImageClassifierTrainer(network(), arguments(), train_dataset=rows(**columns))


def test_arguments_stay_as_the_user_made_them(arguments):
    args = arguments(label_smoothing_factor=0.1, max_steps=1)
    losses = []
    for _ in range(2):
        trainer = ImageClassifierTrainer(network(), args, train_dataset=rows(8))
        trainer.train()
        losses.append(trainer.state.log_history[0]["loss"])
    assert args.label_smoothing_factor == 0.1 and losses[0] == losses[1]


def test_a_run_that_was_finished_knows_the_epoch_it_ended_in(arguments, tmp_path):
    settings = {"noise": flips(0.5), "max_steps": 10, "save_strategy": "steps", "save_steps": 10}
    whole = train(arguments, data=rows(augment=CropFlip(padding=1)), **settings)
    last = str(tmp_path / "run" / "checkpoint-10")
    again = train(arguments, data=rows(augment=CropFlip(padding=1)), resume=last, **settings)
    assert again.epoch == whole.epoch == 2  # 4 steps an epoch, so the third one was begun
    assert again.train_dataset.epoch == whole.train_dataset.epoch == 2


def test_the_best_checkpoint_can_be_kept(arguments):
    settings = {"eval_strategy": "steps", "save_strategy": "steps", "load_best_model_at_end": True}
    trainer = train(arguments, max_steps=4, save_steps=2, eval_steps=2, **settings)
    assert trainer.state.best_metric == pytest.approx(trainer.evaluate()["eval_nll"])


def test_workers_cannot_read_what_is_on_the_device(arguments):
    with pytest.raises(ValueError, match="dataloader_num_workers must be 0"):
        ImageClassifierTrainer(network(), arguments(dataloader_num_workers=1), train_dataset=rows())

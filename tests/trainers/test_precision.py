"""Diffusion trainers in bfloat16 and compiled: the loss is that of float32, weights stay float32, graphs stay few."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hf_noise.models.edm_unet import edm_unet
from hf_noise.models.time_classifier import TimeDependentClassifier
from hf_noise.noise import LabelFlips
from hf_noise.trainers import EDMTrainer, TimeClassifierTrainer
from hf_noise.trainers.edm_augment import EDMAugment
from hf_noise.trainers.images import DeviceImages

NOISE = LabelFlips.symmetric(ratio=1.0, num_classes=4, seed=5)
LOW = {"bf16": True, "torch_compile": True, "torch_compile_backend": "eager"}


def rows(n=32):
    draw = np.random.default_rng(0)
    images = torch.from_numpy(draw.integers(0, 256, (n, 1, 8, 8), dtype=np.uint8))
    columns = {"labels": torch.from_numpy(draw.integers(0, 4, n)), "sample_id": torch.arange(n)}
    return DeviceImages(images, columns, mean=[0.5], std=[0.5])


def classifier(**told):
    torch.manual_seed(1)
    return TimeDependentClassifier(4, 8, 1, "cnn-digits", **told)


def diffusion(args, seen):
    """TDSM with what makes batches differ in shape: chunks of pairs, dropped labels, augmentation."""
    helper = classifier(transition=NOISE.transition.tolist(), transition_source="known")
    helper.network.convolutions[0].register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    torch.manual_seed(0)
    unet = edm_unet("edm-digits", num_classes=4, image_size=8, num_channels=1)
    torch.nn.init.normal_(unet.conv_out.weight, std=0.1)
    options = {"loss": "tdsm", "classifier": helper, "augment": EDMAugment(probability=0.5), "label_dropout": 0.2}
    return EDMTrainer(unet, args, noise=NOISE, train_dataset=rows(), channels_last=True, **options)


def of_noisy_images(args, seen):
    model = classifier(augmentation=True)
    model.network.convolutions[0].register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    options = {"transition": "estimated", "augment": EDMAugment(probability=0.5)}
    return TimeClassifierTrainer(model, args, noise=NOISE, train_dataset=rows(), channels_last=True, **options)


@pytest.fixture
def graphs():
    """`graphs()`: how many graphs were compiled in this test."""
    torch._dynamo.reset()
    before = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    yield lambda: torch._dynamo.utils.counters["stats"]["unique_graphs"] - before
    torch._dynamo.reset()


@pytest.mark.filterwarnings("ignore:Dynamo detected a call to a:UserWarning")  # inside diffusers
@pytest.mark.parametrize("build", [diffusion, of_noisy_images])
def test_bfloat16_and_compiled(arguments, graphs, build):
    """The frozen classifier of TDSM too, which no one prepares for autocast but the trainer."""
    losses = []
    for low in ({}, LOW):
        seen = []
        trainer = build(arguments(per_device_train_batch_size=8, max_steps=3, learning_rate=1e-3, **low), seen)
        trainer.train()
        assert set(seen) == {torch.bfloat16 if low else torch.float32}
        assert {parameter.dtype for parameter in trainer.model.parameters()} == {torch.float32}
        losses.append([entry["loss"] for entry in trainer.state.log_history if "loss" in entry])
    print(f"losses {losses}, {graphs()} graphs")
    assert losses[1] != losses[0] and losses[1] == pytest.approx(losses[0], rel=0.02)
    assert 1 <= graphs() <= 3

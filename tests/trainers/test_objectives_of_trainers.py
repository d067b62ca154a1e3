"""Objectives given to trainers: as values and in their short spellings, into configs, checkpoints and records."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save_file

from hf_noise import objectives
from hf_noise.diffusion import EDMPipeline
from hf_noise.losses.nll import HAS_FUSED
from hf_noise.models.edm_unet import edm_unet
from hf_noise.models.image import image_classifier
from hf_noise.models.time_classifier import TimeDependentClassifier
from hf_noise.noise import LabelFlips
from hf_noise.objectives import (
    ELR,
    GCE,
    NLL,
    TDSM,
    Corrected,
    CorrectedLabels,
    CrossEntropy,
    Objective,
    VolumePlan,
    objective_from_dict,
)
from hf_noise.objectives.base import Bound, condensed
from hf_noise.trainers import EDMTrainer, ImageClassifierTrainer, TimeClassifierTrainer
from hf_noise.trainers.images import DeviceImages
from hf_noise.trainers.levels import NoiseLevels
from hf_noise.trainers.resuming import check_same_claims

CLASSES = 4
FLIPS = LabelFlips.symmetric(ratio=1.0, num_classes=CLASSES, seed=3)


@pytest.fixture
def own(monkeypatch):
    """Objectives of a user's own on tokens, on their logits and on labels, known while the test runs."""
    monkeypatch.setattr(objectives.base, "_OBJECTIVES", dict(objectives.base._OBJECTIVES))

    @dataclass(frozen=True)
    class Capped(Objective):
        """The likelihood of each target, no target counting more than `cap`."""

        cap: float = 5.0

        name = "capped"
        unit = "tokens"

        def __call__(self, nll):
            return nll.clamp_max(self.cap)

    @dataclass(frozen=True)
    class Brier(Objective):
        """The squared error of the predicted distribution."""

        name = "brier"
        unit = "tokens"
        needs_logits = True

        def __call__(self, nll, logits, targets):
            one_hot = F.one_hot(targets.clamp_min(0), logits.shape[-1])
            return (logits.softmax(-1) - one_hot).square().sum(-1)

    @dataclass(frozen=True)
    class Power(Objective):
        """(1 - p^q) / q of the label's probability p."""

        q: float = 0.7

        name = "power"
        unit = "labels"

        def __call__(self, logits, labels):
            return (1 - F.log_softmax(logits, -1).gather(-1, labels[:, None])[:, 0].mul(self.q).exp()) / self.q

    @dataclass(frozen=True)
    class Unlikely(Objective):
        """The log-probability of all tokens but the target: -inf at an NLL of 0, as where there is no target."""

        name = "unlikely"
        unit = "tokens"

        def __call__(self, nll):
            return -torch.log(-torch.expm1(-nll))

    class Scale(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.tensor(0.5))

    class Scaled(Bound):
        """In a run, with its own parameter."""

        def __init__(self, module_name):
            self.module, self.module_name = Scale(), module_name

        def __call__(self, nll, *labels):
            return nll.mean(-1) * self.module.weight if labels else nll * self.module.weight

    @dataclass(frozen=True)
    class Learned(Objective):
        """The likelihood times a parameter of its own."""

        module_name: str = "hf_noise_scale"

        name = "learned"
        unit = "tokens"
        learns = "loss='learned'"

        def bound(self, run):
            return Scaled(self.module_name)

    @dataclass(frozen=True)
    class LearnedOfLabels(Learned):
        """The same on labels."""

        name = "learned"
        unit = "labels"

    return {"learned": Learned, "learned_of_labels": LearnedOfLabels, "unlikely": Unlikely, "capped": Capped,
            "brier": Brier, "power": Power}  # fmt: skip


def images(n=16):
    labels = torch.arange(n) % CLASSES
    pixels = torch.randint(0, 256, (n, 1, 8, 8), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    return DeviceImages(pixels, {"labels": labels, "sample_id": torch.arange(n)}, mean=[0.5], std=[0.5])


@pytest.fixture
def make(make_trainer):
    """`make(cls, **settings)`: a trainer of images, with noise."""

    def build(cls, **settings):
        torch.manual_seed(0)
        models = {
            ImageClassifierTrainer: lambda: image_classifier("resnet10-digits", labels=CLASSES, image_size=8,
                                                             num_channels=1),
            TimeClassifierTrainer: lambda: TimeDependentClassifier(CLASSES, 8, 1, "cnn-digits"),
            EDMTrainer: lambda: edm_unet("edm-digits", num_classes=CLASSES, image_size=8, num_channels=1),
        }  # fmt: skip
        return make_trainer(images(), model=models[cls](), cls=cls, noise=FLIPS, **settings)

    return build


def of_time_classifier():
    T = FLIPS.transition.tolist()
    return TimeDependentClassifier(CLASSES, 8, 1, "cnn-digits", transition=T, transition_source="known")


@pytest.mark.parametrize(
    ("short", "value", "facts"),
    [
        ({}, NLL(), {"error_rate": 0.0, "source": "none"}),
        ({"loss": "corrected"}, Corrected(), {"error_rate": 0.5, "source": "known"}),
        ({"loss": "corrected", "error_rate": 0.2}, Corrected(0.2), {"error_rate": 0.2, "source": "assumed"}),
        ({"loss": "corrected", "error_rate": "learned"}, Corrected("learned"), {"source": "learned"}),
    ],
    ids=str,
)
def test_a_language_model_states_its_objective(make_trainer, random_rows, noise, short, value, facts, tmp_path):
    rows = random_rows(8)
    for given in (short, {"loss": value}):
        trainer = make_trainer(rows, noise=noise, **given)
        assert trainer.loss == value
        record = trainer.loss_record()
        assert record["name"] == value.name and record.items() >= facts.items()
        assert objective_from_dict(json.loads(json.dumps(record["objective"]))) == value
    trainer.save_model(tmp_path / "saved")
    config = json.loads((tmp_path / "saved" / "config.json").read_text())
    assert objective_from_dict(config["hf_noise_objective"]) == value


@pytest.mark.parametrize(
    ("cls", "short", "value"),
    [
        (ImageClassifierTrainer, {}, CrossEntropy()),
        (ImageClassifierTrainer, {"loss": "corrected"}, CorrectedLabels()),
        (ImageClassifierTrainer, {"loss": "gce"}, GCE()),
        (ImageClassifierTrainer, {"loss": "elr"}, ELR()),
        (ImageClassifierTrainer, {"loss": "corrected", "transition": "estimated", "volume": VolumePlan(weight=0.1)},
         CorrectedLabels("estimated", VolumePlan(weight=0.1))),
        (ImageClassifierTrainer, {"loss": "corrected", "transition": FLIPS.transition},
         CorrectedLabels(FLIPS.transition)),
        (TimeClassifierTrainer, {}, CorrectedLabels()),
        (TimeClassifierTrainer, {"transition": None}, CrossEntropy()),
        (TimeClassifierTrainer, {"transition": "estimated", "volume": VolumePlan(weight=0.1)},
         CorrectedLabels("estimated", VolumePlan(weight=0.1))),
        (EDMTrainer, {"loss": "tdsm", "tau": 0.2, "chunk": 3}, TDSM(tau=0.2, chunk=3)),
    ],
    ids=str,
)  # fmt: skip
def test_short_spellings_are_the_values(make, cls, short, value):
    more = {"classifier": of_time_classifier()} if cls is EDMTrainer else {}
    losses = []
    for given in (short, {"loss": value}):
        trainer = make(cls, **given, **more)
        assert trainer.loss == value and trainer.loss_record()["objective"] == value.to_dict()
        trainer.train()
        losses.append([entry["loss"] for entry in trainer.state.log_history if "loss" in entry])
    assert losses[0] == losses[1]


@pytest.mark.parametrize(
    ("cls", "given", "message"),
    [
        (ImageClassifierTrainer, {"loss": CrossEntropy(), "transition": np.eye(4)}, "transition= is for loss="),
        (ImageClassifierTrainer, {"loss": "elr", "mixup": 0.5}, "ELR looks at each row, and mixup=0.5 mixes two"),
        (TimeClassifierTrainer, {"loss": "elr"}, "TimeClassifierTrainer does not hand over"),
        (TimeClassifierTrainer, {"loss": "nll", "transition": None}, "are short for loss=CorrectedLabels"),
        (EDMTrainer, {"loss": TDSM(), "tau": 0.1}, r"tau= is short for loss=TDSM\(...\)"),
        (EDMTrainer, {"tau": 2}, r"tau must lie in \[0, 1\), got 2"),
        (EDMTrainer, {"levels": NoiseLevels(), "P_std": 1.0}, "holds P_std already"),
        (EDMTrainer, {"P_mean": 30}, r"P_mean must lie in \[-20, 20\]"),
    ],
    ids=str,
)
def test_what_is_said_twice_or_out_of_range_is_refused(make, cls, given, message):
    with pytest.raises(ValueError, match=message):
        make(cls, **given)


def test_a_short_spelling_beside_a_value_is_refused(make_trainer):
    with pytest.raises(ValueError, match=r'error_rate=0.2 is for loss="corrected", and loss is Corrected\('):
        make_trainer(loss=Corrected(), error_rate=0.2)


def test_levels_are_one_value_or_three_short_ones(make):
    trainer = make(EDMTrainer, sigma_data=0.25, P_mean=-1.0)
    assert trainer.noise_levels == NoiseLevels(sigma_data=0.25, P_mean=-1.0)
    assert (trainer.sigma_data, trainer.P_mean, trainer.P_std) == (0.25, -1.0, 1.2)
    same = make(EDMTrainer, levels=NoiseLevels(sigma_data=0.25, P_mean=-1.0))
    sample = torch.arange(5)
    assert torch.equal(trainer.levels(sample, 80, 1), same.levels(sample, 80, 1))
    with pytest.raises(TypeError, match="levels must be NoiseLevels"):
        make(EDMTrainer, levels=0.5)


def test_a_pipeline_states_the_objective(make, tmp_path):
    trainer = make(EDMTrainer, loss="tdsm", tau=0.2, classifier=of_time_classifier())
    assert trainer.loss_record() == {"name": "tdsm", "tau": 0.2, "transition": "known",
                                     "objective": TDSM(tau=0.2).to_dict()}  # fmt: skip
    trainer.save_model(tmp_path / "saved")
    loaded = EDMPipeline.from_pretrained(tmp_path / "saved")
    assert objective_from_dict(loaded.config.hf_noise_objective) == TDSM(tau=0.2)
    assert trainer.published_parameters() == list(trainer.model.parameters())


@pytest.mark.parametrize("name", ["capped", "brier"])
def test_an_objective_of_ones_own_on_tokens(make_trainer, random_rows, noise, own, name, tmp_path):
    rows = random_rows(8, (16, 9))
    trainer = make_trainer(rows, noise=noise, loss=name, save_strategy="steps", save_steps=1)
    assert trainer.loss == own[name]() and trainer.loss_record()["objective"] == own[name]().to_dict()
    batch = trainer.data_collator(rows[:4])
    labels, mask = trainer.targets(batch, draw=True)
    targets, _ = trainer.aligned(labels, mask)
    with torch.no_grad():
        logits = trainer.model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        loss, scored = trainer.compute_loss(trainer.model.train(), batch, return_outputs=True)
    valid = targets != -100
    if name == "capped":
        expected = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none").view(4, -1).clamp_max(5)
    else:
        expected = (logits.softmax(-1) - F.one_hot(targets.clamp_min(0), 64)).square().sum(-1)
    torch.testing.assert_close(loss, (expected * valid).sum() / valid.sum())
    assert scored["nll"].max() > 5  # what is logged stays the likelihood
    trainer.train()
    with safe_open(tmp_path / "run" / "checkpoint-1" / "hf_noise_state.safetensors", "pt") as state:
        claims = json.loads(state.metadata()["hf_noise_claims"])
    assert claims["objective"] == own[name]().to_dict()
    with pytest.raises(ValueError, match="was trained with loss = |was trained with error_rate = "):
        make_trainer(rows, noise=noise).train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-1"))


@pytest.mark.parametrize("fused_loss", [False, True] if HAS_FUSED else [False])
def test_what_is_said_where_there_is_no_target_does_not_count(make_trainer, random_rows, own, fused_loss):
    """Rows of 16 and of 9 tokens: seven positions of every other row are padding, where this objective is infinite."""
    trainer = make_trainer(random_rows(8, (16, 9)), noise=None, loss=own["unlikely"](), fused_loss=fused_loss)
    batch = trainer.data_collator(random_rows(8, (16, 9))[:4])
    loss, scored = trainer.compute_loss(trainer.model.train(), batch, return_outputs=True)
    nll = scored["nll"][scored["nll"] > 0]
    assert len(nll) == 2 * 15 + 2 * 8
    torch.testing.assert_close(loss, -torch.log(-torch.expm1(-nll)).mean())
    loss.backward()
    assert all(parameter.grad.isfinite().all() for parameter in trainer.model.parameters())


@pytest.mark.parametrize("name", ["scale", "hf_noise_a.b", "", "transformer"])
def test_what_would_be_lost_in_checkpoints_is_refused(make_trainer, random_rows, own, name):
    with pytest.raises(ValueError, match=f"Learned learns .* as module_name='{name}', which checkpoints"):
        make_trainer(random_rows(8), noise=None, loss=own["learned"](name))


def test_what_an_objective_of_ones_own_learns_is_in_its_checkpoints(make_trainer, make, random_rows, own, tmp_path):
    settings = {"noise": None, "loss": own["learned"](), "save_strategy": "steps", "save_steps": 1}
    whole = make_trainer(random_rows(8), **settings)
    whole.train()
    again = make_trainer(random_rows(8), **settings)
    again.train(str(tmp_path / "run" / "checkpoint-1"))
    assert again.learned.weight.item() == whole.learned.weight.item() != 0.5
    of_images = make(ImageClassifierTrainer, loss=own["learned_of_labels"]())
    of_images.train()
    assert of_images.learned.weight.item() != 0.5


T_OTHER = LabelFlips.symmetric(ratio=0.5, num_classes=CLASSES).transition


@pytest.mark.parametrize(
    ("cls", "first", "then", "message"),
    [
        (ImageClassifierTrainer, CorrectedLabels(FLIPS.transition), CorrectedLabels(T_OTHER),
         r"objective.transition\[0\]\[0\] = 0.5\d*, this run has 0.6\d*"),
        (ImageClassifierTrainer, CorrectedLabels(), CorrectedLabels(FLIPS.transition),
         "objective.transition = known, this run has a matrix of 4 rows"),
        (TimeClassifierTrainer, CorrectedLabels(FLIPS.transition), CorrectedLabels(T_OTHER),
         r"objective.transition\[0\]\[0\] = 0.5\d*, this run has 0.6\d*"),
        (TimeClassifierTrainer, CorrectedLabels(), CorrectedLabels("estimated"), "transition = known, .* estimated"),
        (TimeClassifierTrainer, CorrectedLabels("estimated"),
         CorrectedLabels("estimated", VolumePlan(phases=((0.5, 1.0), (0.6, 0.2)))),
         r"objective.volume.phases = a matrix of 3 rows, this run has a matrix of 2 rows"),
        (TimeClassifierTrainer, CorrectedLabels("estimated"), CorrectedLabels("estimated", VolumePlan()), None),
        (EDMTrainer, TDSM(), TDSM(tau=0.2), "objective.tau = 0.01, this run has 0.2"),
        (EDMTrainer, TDSM(), TDSM(temperature=2.0), "objective.temperature = 1.0, this run has 2.0"),
        (EDMTrainer, TDSM(), TDSM(transition=T_OTHER), r"objective.transition\[0\]\[0\] = 0.5\d*, this run has 0.6\d*"),
        (EDMTrainer, TDSM(chunk=3), TDSM(transition=FLIPS.transition, chunk=2), None),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:transition= differs")
def test_a_run_is_not_resumed_for_another_objective(make, cls, first, then, message, tmp_path):
    """Steps of another T or of another tau would be recorded as if they were the later one's."""
    more = {"classifier": of_time_classifier()} if cls is EDMTrainer else {}
    settings = {"save_strategy": "steps", "save_steps": 1, "max_steps": 1}
    make(cls, loss=first, **settings, **more).train()
    checkpoint = str(tmp_path / "run" / "checkpoint-1")
    again = make(cls, loss=then, **(settings | {"max_steps": 2}), **more)
    if message is not None:
        with pytest.raises(ValueError, match=f"checkpoint-1 was trained with {message}. Go on as it began"):
            again.train(checkpoint)
        # One from before claims held the objective says less, and is gone on from as before.
        state = tmp_path / "run" / "checkpoint-1" / "hf_noise_state.safetensors"
        with safe_open(state, "pt") as old:
            claims = json.loads(old.metadata()["hf_noise_claims"])
            tensors = {name: old.get_tensor(name) for name in old.keys()}  # noqa: SIM118
        del claims["objective"]
        save_file(tensors, state, metadata={"hf_noise_claims": json.dumps(claims)})
        if first.learns != then.learns:
            return
        check_same_claims(again, checkpoint)
    else:
        again.train(checkpoint)
        assert again.state.global_step == 2


def test_a_claim_holds_a_small_matrix_as_it_is_and_a_digest_of_a_large_one():
    small, large, other = (np.eye(n) for n in (100, 101, 101))
    other[0, :2] = 0.5
    assert CorrectedLabels(small).claims()["objective"]["transition"] == small.tolist()
    digests = [CorrectedLabels(T).claims()["objective"]["transition"] for T in (large, large.copy(), other)]
    assert digests[0] == digests[1] != digests[2] and digests[0].startswith("101 rows, sha256 ")
    # An older claim has all of it.
    assert condensed({"transition": large.tolist()}) == {"transition": digests[0]}


def test_logits_and_a_fused_head_exclude_each_other(make_trainer, own):
    with pytest.raises(ValueError, match="Brier needs the logits"):
        make_trainer(loss=own["brier"](), fused_loss=True)


@pytest.mark.parametrize("cls", [ImageClassifierTrainer, TimeClassifierTrainer])
def test_an_objective_of_ones_own_on_labels(make, own, cls):
    trainer = make(cls, loss="power")
    assert trainer.loss == own["power"]()
    trainer.train()
    log = next(entry for entry in trainer.state.log_history if "loss" in entry)
    assert log["loss"] < 1 / 0.7 < log["nll_corrupted_targets"] + log["nll_clean_targets"]  # logged as a likelihood
    if cls is TimeClassifierTrainer:
        assert (trainer.source, trainer.transition, trainer.model.predicts) == (None, None, "noisy")
        assert trainer.objective_claims["loss"] == "power"
    else:
        with pytest.raises(ValueError, match="Power has no smoothed form"):
            make(cls, loss=own["power"](0.5), label_smoothing_factor=0.1)

"""The evaluation of generated images: real digits in the place of generated ones, whose figures are known."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from printed import printed_by
from safetensors.torch import load_file, save_file

from hf_noise.data.digits import digits
from hf_noise.diffusion import EDMHeunScheduler, EDMPipeline
from hf_noise.metrics import extractors, inception_weights, judge_extractor, mixture_reference
from hf_noise.models.edm_unet import edm_unet
from hf_noise.models.image import image_classifier
from hf_noise.noise import LabelFlips
from hf_noise.reports.record import RunRecord, read_records
from hf_noise.studies.classifier import study as classifier
from hf_noise.studies.evaluation import run as evaluate_generation_run
from hf_noise.studies.evaluation import sets as image_sets
from hf_noise.studies.evaluation import study as evaluate_generation
from hf_noise.studies.evaluation.report import TASK
from hf_noise.studies.judging import classwise_distance, load_judge
from hf_noise.studies.sampling import study as sample_edm

DIGITS = [str(i) for i in range(10)]
NOISE = LabelFlips.symmetric(ratio=1.0, num_classes=10)
SEEN: dict[bytes, tuple[torch.Tensor, torch.Tensor]] = {}


main = functools.partial(printed_by, evaluate_generation.main)


def write(folder: Path, images: np.ndarray, labels: np.ndarray, **stated) -> Path:
    folder.mkdir(parents=True)
    rows = []
    for i, (image, label) in enumerate(zip(images, labels.tolist())):
        Image.fromarray(image).save(folder / f"{i}.png")  # 10 comes after 9 in the rows, not in the folder
        rows.append(json.dumps({"file_name": f"{i}.png", "label": label}) + "\n")
    (folder / "metadata.jsonl").write_text("".join(rows))
    if stated:
        (folder / "settings.json").write_text(json.dumps(stated))
    return folder


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Test digits as a clean generator would draw them, as one of r = 1 would, and as .npz."""
    folder = tmp_path_factory.mktemp("evaluation")
    images, labels = digits("test")
    clean = write(folder / "clean", images, labels, noise=LabelFlips.symmetric(ratio=0.0, num_classes=10).to_dict())
    asked, _ = NOISE(labels, np.arange(len(labels)))  # an image of y under another class
    noisy = write(folder / "noisy", images, asked, noise=NOISE.to_dict())
    train, train_labels = digits("train")
    np.savez(folder / "copies.npz", images=train[..., None], labels=train_labels)
    arguments = ["--output", folder / "out", "--images", clean, noisy, folder / "copies.npz", "--judge_epochs", 2]
    printed = main(*arguments)
    return folder, arguments, printed, records_in(folder / "out")


def records_in(folder: Path) -> dict[str, RunRecord]:
    return {record.name: record for record in read_records(folder) if record.task == TASK}


@pytest.fixture
def nothing_begins(monkeypatch):
    """Nothing that is refused here may be refused after hours of training, or after images were drawn."""
    for module, name in ((evaluate_generation_run, "trained_judge"), (sample_edm, "main")):
        monkeypatch.setattr(module, name, lambda *_, **__: pytest.fail("this began before the input was checked"))


def pipeline_in(folder: Path, num_classes: int = 10, channels: int = 1, size: int = 8) -> EDMPipeline:
    torch.manual_seed(0)
    unet = edm_unet("edm-digits", num_classes=num_classes, image_size=size, num_channels=channels)
    pipeline = EDMPipeline(unet, EDMHeunScheduler(), num_classes=num_classes, hf_noise=NOISE.to_dict())
    pipeline.save_pretrained(folder)
    return pipeline


def value(record: RunRecord, name: str) -> float:
    return record.metrics[name]["value"]


def test_consistency_and_the_judge(study):
    _, _, _, records = study
    assert set(records) == {"real-test", "clean", "noisy", "copies"}
    judge = records["real-test"].metrics["judge_test_accuracy"]
    assert judge["value"] > 0.8 and judge["n"] == 355 and "resnet10-digits" in judge["judge"]
    for name in ("real-test", "clean"):
        found = records[name].metrics["label_consistency"]
        assert (found["value"], found["low"], found["n"]) == (judge["value"], judge["low"], 355)
    wrong = np.mean(NOISE(digits("test")[1], np.arange(355))[1])
    # Near (1 - e) a0 + e (1 - a0) / 9 with the share that was drawn; the mistakes of the judge are not uniform.
    expected = mixture_reference(judge["value"], wrong, 10)
    assert value(records["noisy"], "label_consistency") == pytest.approx(expected, abs=0.03)
    assert set(records["noisy"].metrics["label_consistency"]["per_class"]) == set(DIGITS)


def test_only_the_classwise_distance_sees_wrong_labels(study):
    _, _, _, records = study
    same = ("frechet_distance", "density", "coverage", "judge_score")
    for name in same:
        for other in ("noisy", "real-test"):
            assert value(records[other], name) == pytest.approx(value(records["clean"], name), rel=1e-5)
    for name, sign in (("cw_frechet_distance", 1), ("cw_density", -1), ("cw_coverage", -1), ("cas", -1)):
        assert sign * value(records["noisy"], name) > sign * value(records["clean"], name)
    copies = records["copies"]
    assert value(copies, "frechet_distance") == pytest.approx(0, abs=1e-6)
    assert value(copies, "density") == pytest.approx(6 / 5) and value(copies, "coverage") == 1
    assert value(copies, "cw_density") == pytest.approx(6 / 5) and value(copies, "cw_coverage") == 1
    # A classifier trained on copies of the training images is the judge over again.
    assert value(copies, "cas") == pytest.approx(value(copies, "judge_test_accuracy"), abs=0.01)
    assert copies.noise == {"protocol": "unknown"} and "cas" not in records["real-test"].metrics


def test_nothing_else_is_called_fid(study):
    folder, _, printed, records = study
    whole = (folder / "out" / "study.md").read_text(encoding="utf-8")
    assert "FID" not in printed + whole and "Frechet distance in judge features (resnet10-digits)" in whole
    for record in records.values():
        assert "fid" not in record.metrics
        assert record.metrics["frechet_distance"]["name"] == "Frechet distance in judge features (resnet10-digits)"
        assert record.metrics["judge_score"]["name"] == "score exp(KL) of the judge's classes (resnet10-digits)"
        weights = record.metrics["judge_test_accuracy"]["weights"]
        for name in ("frechet_distance", "cw_frechet_distance", "density", "cw_coverage"):
            found = record.metrics[name]
            assert (found["features"], found["weights"]) == ("judge features (resnet10-digits)", weights)
    smallest = np.bincount(digits("test")[1]).min()
    assert records["clean"].metrics["cw_frechet_distance"]["smallest_class"] == smallest
    table = [line for line in whole.splitlines() if line.startswith("| ")]
    judge = f"{100 * value(records['clean'], 'judge_test_accuracy'):.1f}"
    assert len(table) == 6 and all(judge in line for line in table[2:])  # a header, a rule, four sets
    reference = 100 * mixture_reference(value(records["clean"], "label_consistency"), 0.5, 10)
    assert f"{reference:.1f}" in next(line for line in table if line.startswith("| noisy"))


def test_started_again_it_does_nothing(study):
    folder, arguments, printed, _ = study
    before = {path: path.stat().st_mtime_ns for path in (folder / "out").rglob("*.json") if path.name == "record.json"}
    assert len(before) == 8  # judge, four sets, three of CAS
    assert main(*arguments).splitlines()[-5:] == printed.splitlines()[-5:]
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_another_judge_is_noticed_and_the_same_one_elsewhere_is_not(study, tmp_path):
    folder, _, _, _ = study
    judge = folder / "out" / "judge" / "r0-seed0"
    arguments = ["--output", tmp_path / "out", "--images", folder / "clean", "--cas", "false", "--judge"]
    main(*arguments, judge)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("record.json")}
    main(*arguments, shutil.copytree(judge, tmp_path / "moved" / judge.name))
    assert {path: path.stat().st_mtime_ns for path in before} == before and len(before) == 2
    other = shutil.copytree(judge, tmp_path / "other" / judge.name)  # the same name
    weights = load_file(other / "model.safetensors")
    weights["network.fc.bias"] += 1e-3
    save_file(weights, other / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(FileExistsError, match=r"other settings \(feature_weights, judge_weights\)"):
        main(*arguments, other)


def test_two_processes_train_their_judge_and_measure_what_one_does(study, tmp_path):
    folder, _, _, _ = study
    recipe = Path(__file__).parents[2] / "recipes" / "evaluate_generation.py"
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", recipe]
    common = ["--images", folder / "noisy", "--cas", "false", "--batch_size", "50", "--judge_epochs", "1"]
    command = [*launch, "--output", tmp_path / "two", "--num_processes", 2, *common]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*map(str, command)], env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr[-3000:]
    judge = tmp_path / "two" / "judge" / "r0-seed0"
    main("--output", tmp_path / "one", *common, "--judge", judge)
    alone, together = (records_in(tmp_path / where) for where in ("one", "two"))
    assert set(alone) == set(together) == {"real-test", "noisy"}
    for name, record in together.items():
        assert record.budget["processes"] == 2 and alone[name].budget["processes"] == 1
        assert record.metrics.keys() == alone[name].metrics.keys()
        for metric, found in record.metrics.items():
            expected = alone[name].metrics[metric]
            assert found["value"] == pytest.approx(expected["value"], rel=1e-4), metric
            assert found["n"] == expected["n"] and found.get("weights") == expected.get("weights")


def with_few_features(weights: Path, **options) -> extractors.Extractor:
    """Inception, of whose 2048 features 64 are kept: covariances of all take seconds each, as do images seen before."""
    whole = extractors.inception_extractor(weights, **options)

    def forward(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        key = images.numpy().tobytes()
        if key not in SEEN:
            features, logits = whole._forward(images)
            SEEN[key] = features[:, :64], logits
        return SEEN[key]

    return replace(whole, _forward=forward)


def test_inception_with_other_weights_and_with_those_of_the_release(study, tmp_path, monkeypatch):
    """Random weights; that they count as the release's is pretended. Small pictures, or it would take minutes."""
    inception = pytest.importorskip("pytorch_fid.inception")
    with pytest.MonkeyPatch.context() as patch:
        torch.manual_seed(0)
        patch.setattr(inception, "load_state_dict_from_url", lambda *_, **__: {})
        patch.setattr(torch.nn.Module, "load_state_dict", lambda *_, **__: None)
        save_file(inception.fid_inception_v3().state_dict(), tmp_path / "model.safetensors")
    smaller = torch.nn.functional.interpolate
    monkeypatch.setattr(inception.F, "interpolate", lambda x, size, **options: smaller(x, size=(75, 75), **options))
    monkeypatch.setattr(evaluate_generation_run, "inception_extractor", with_few_features)
    digest = hashlib.sha256((tmp_path / "model.safetensors").read_bytes()).hexdigest()
    folder, _, _, _ = study
    images, labels = digits("test")
    some = write(tmp_path / "some", images[:60], labels[:60])
    judge = folder / "out" / "judge" / "r0-seed0"
    arguments = ["--images", some, "--judge", judge, "--cas", "false", "--train_rows", 150, "--inception", tmp_path]
    with pytest.warns(UserWarning, match="rows of 64 features in the smallest class"):
        printed = main("--output", tmp_path / "other", *arguments)
    whole = (tmp_path / "other" / "study.md").read_text(encoding="utf-8")
    assert f"Frechet distance in Inception features (weights {digest[:8]})" in whole and "FID" not in printed + whole
    dry = main("--output", tmp_path / "other", *arguments, "--dry_run")
    assert f"distances in: Inception features (weights {digest[:8]}), which are not those of FID" in dry
    monkeypatch.setattr(inception_weights, "INCEPTION_SHA256", digest)
    with pytest.warns(UserWarning, match="rows of 64 features in the smallest class"):
        printed = main("--output", tmp_path / "release", *arguments)
    assert "distances in: Inception features (FID)" in main("--output", tmp_path / "x", *arguments, "--dry_run")
    assert {"FID", "CW-FID"} <= set(printed.split())
    assert {"FID", "CW-FID", "IS"} <= set((tmp_path / "release" / "study.md").read_text(encoding="utf-8").split())
    other, release = (records_in(tmp_path / where)["some"].metrics for where in ("other", "release"))
    of_judge = study[3]["clean"].metrics
    for keys in (("fid", "frechet_distance"), ("cw_fid", "cw_frechet_distance"), ("inception_score", "judge_score")):
        assert keys[0] not in other and keys[1] not in release
        assert release[keys[0]]["value"] == pytest.approx(other[keys[1]]["value"], rel=1e-6)
        assert release[keys[0]]["weights"] == digest != of_judge[keys[1]]["weights"]
    # The judge, not Inception, says what is in an image.
    seen = judge_of(judge)(torch.from_numpy(images[:60, None]), progress=False)[1].argmax(1).numpy()
    assert other["label_consistency"]["value"] == pytest.approx(np.mean(seen == labels[:60]))
    assert other["judge_test_accuracy"]["value"] == of_judge["judge_test_accuracy"]["value"]


def test_what_the_command_line_cannot_say(tmp_path, capsys):
    for wrong in (["--k", "0"], ["--splits", "0"], ["--steps", "0"], ["--seed", "-1"], ["--num_images", "1"]):
        with pytest.raises(SystemExit):
            main("--output", tmp_path / "out", "--pipeline", "runs/typo", *wrong, "--dry_run")
        assert f"{wrong[0]} must be >= " in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main("--output", tmp_path)
    with pytest.raises(SystemExit):
        main("--output", tmp_path, "--images", tmp_path, "--cas_model", "resnet-50")
    assert not (tmp_path / "out").exists()


def test_sets_and_their_names(study, tmp_path, monkeypatch):
    folder, _, _, _ = study
    where = image_sets.name_of
    assert where("user1/edm") == "user1--edm" and where(str(folder / "clean")) == "clean"
    assert where(str(folder / "copies.npz")) == "copies"
    monkeypatch.chdir(folder / "clean")
    assert where(".") == where("../clean/") == "clean" and where("..") == folder.name
    (tmp_path / ".hidden").mkdir()
    for nameless in ("/", tmp_path / ".hidden"):
        with pytest.raises(ValueError, match="cannot give a set its name"):
            where(str(nameless))
    with pytest.raises(ValueError, match="names of their own, got 'clean'"):
        main("--output", tmp_path, "--images", ".", folder / "clean")


def test_labels_that_are_none(study, tmp_path):
    folder, _, _, _ = study
    images, labels = digits("test")
    with pytest.raises(FileNotFoundError, match="metadata.jsonl is missing"):
        main("--output", tmp_path, "--images", tmp_path)
    few = write(tmp_path / "few", images[:4], labels[:4])
    (few / "3.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"1 of 4 images of .*few are missing, first 3.png"):
        main("--output", tmp_path, "--images", few)
    first = '{"file_name": "0.png", "label": 0}\n'
    for line, error, message in (
        ('{"file_name": "1.png"}', ValueError, "no file_name or no label"),
        ('"1.png"', ValueError, "no file_name or no label"),
        ('{"file_name": "1.png", "label"', ValueError, "is no JSON"),
        ('{"file_name": "1.png", "label": 3.7}', TypeError, "label must be an integer, .* got 3.7"),
        ('{"file_name": "1.png", "label": "cat"}', TypeError, "label must be an integer, .* got 'cat'"),
        ('{"file_name": "1.png", "label": true}', TypeError, "label must be an integer, .* got True"),
    ):
        (few / "metadata.jsonl").write_text(first + line)
        with pytest.raises(error, match=f"metadata.jsonl, line 2.*{message}"):
            main("--output", tmp_path, "--images", few)
    (few / "metadata.jsonl").write_text("\n")
    with pytest.raises(ValueError, match="few has no images"):
        main("--output", tmp_path, "--images", few)
    (few / "metadata.jsonl").write_text(first)
    (few / "settings.json").write_text('{"noise": {"ratio": 1.0}}')
    with pytest.raises(ValueError, match="the noise that .*few states must be noise.to_dict"):
        main("--output", tmp_path, "--images", few)
    file = tmp_path / "some.npz"
    for arrays, error, message in (
        ({"images": images}, ValueError, "some.npz is no .npz file with .*: it has no array `labels`"),
        ({"labels": labels}, ValueError, "it has no array `images`"),
        ({"images": images, "labels": labels + 0.7}, TypeError, r"labels must be integers \[N\], got float64"),
    ):
        np.savez(file, **arrays)
        with pytest.raises(error, match=message):
            main("--output", tmp_path, "--images", file)
    np.save(tmp_path / "array.npy", labels)
    for content in (b"not a zip file", (tmp_path / "array.npy").read_bytes()):
        file.write_bytes(content)
        with pytest.raises(ValueError, match="some.npz is no .npz file"):
            main("--output", tmp_path, "--images", file)


@pytest.mark.usefixtures("nothing_begins")
def test_what_is_refused_before_a_judge_is_trained(study, tmp_path):
    folder, _, _, _ = study
    images, labels = digits("test")
    out = ["--output", tmp_path / "out"]
    with pytest.raises(OSError, match="the pipeline runs/typo is no folder here and cannot be read from the Hub"):
        main(*out, "--pipeline", "runs/typo", "--dry_run")
    with pytest.raises(FileNotFoundError, match=r"the pipeline runs/a/typo: there is no such folder"):
        main(*out, "--pipeline", "runs/a/typo")
    pipeline_in(tmp_path / "bare")
    index = tmp_path / "bare" / "model_index.json"
    stated = json.loads(index.read_text())
    index.write_text(json.dumps({name: value for name, value in stated.items() if name != "num_classes"}))
    with pytest.raises(ValueError, match=r"bare \(EDMPipeline\) states no num_classes"):
        main(*out, "--pipeline", tmp_path / "bare", "--dry_run")
    pipeline_in(tmp_path / "three", num_classes=3)
    with pytest.raises(ValueError, match="three draws 3 classes, the data have 10"):
        main(*out, "--pipeline", tmp_path / "three")
    pipeline_in(tmp_path / "large", size=16)
    with pytest.raises(ValueError, match="images of .*large are 16 x 16 in 1 channels, the real ones 8 x 8 in 1"):
        main(*out, "--pipeline", tmp_path / "large")
    with pytest.raises(FileNotFoundError, match="neither a file nor a folder nor a Hub id"):
        main(*out, "--images", folder / "clean", "--inception", tmp_path / "gone.pth")
    with pytest.raises(OSError, match="the judge user/typo is no folder here"):
        main(*out, "--images", folder / "clean", "--judge", "user/typo")
    with pytest.raises(ValueError, match="--k must be below 1442"):
        main(*out, "--images", folder / "clean", "--k", "1442")
    other = write(tmp_path / "other", images[:20], labels[:20], num_classes=2)
    with pytest.raises(ValueError, match="other was drawn for 2 classes, the data have 10"):
        main(*out, "--images", other)
    beyond = write(tmp_path / "beyond", images[:20], labels[:20] + 1)
    with pytest.raises(ValueError, match=r"labels of .*beyond must lie in \[0, 10\), got 1 to 10"):
        main(*out, "--images", beyond)
    wide = write(tmp_path / "wide", np.pad(images[:20], [(0, 0), (0, 0), (0, 1)]), labels[:20])
    with pytest.raises(ValueError, match=r"images of .*wide.0.png are 8 x 9 in 1 channels, the real ones 8 x 8 in 1"):
        main(*out, "--images", wide)
    np.savez(tmp_path / "colour.npz", images=np.zeros((20, 8, 8, 3), np.uint8), labels=labels[:20])
    with pytest.raises(ValueError, match="images of .*colour.npz are 8 x 8 in 3 channels"):
        main(*out, "--images", tmp_path / "colour.npz")
    one = write(tmp_path / "one", images[:1], labels[:1])
    with pytest.raises(ValueError, match="one has 1 images, too few"):
        main(*out, "--images", one)
    assert not (tmp_path / "out" / "real-test").exists()
    # The folder of a training run: nothing may be drawn into it.
    pipeline_in(tmp_path / "r0")
    claimed = tmp_path / "runs" / "r0"
    claimed.mkdir(parents=True)
    (claimed / "run.json").write_text(json.dumps({"ratio": 0.0}))
    with pytest.raises(FileExistsError, match="r0 holds a run with other settings"):
        main("--output", tmp_path / "runs", "--pipeline", tmp_path / "r0", "--num_images", 20)
    assert [path.name for path in claimed.iterdir()] == ["run.json"]


def test_other_images_under_the_name_of_a_finished_set(study, tmp_path):
    """With the same labels, in a file of the same size."""
    folder, _, _, _ = study
    images, labels = digits("test")
    train, train_labels = digits("train")
    np.savez(tmp_path / "copies.npz", images=train[::-1, ..., None], labels=train_labels)
    with pytest.raises(FileExistsError, match=r"other settings \(content\)"):
        main("--output", folder / "out", "--images", tmp_path / "copies.npz", "--judge_epochs", 2)
    moved = write(tmp_path / "clean", images[::-1], labels[::-1])
    with pytest.raises(FileExistsError, match=r"other settings \(content\)"):
        main("--output", folder / "out", "--images", moved, "--judge_epochs", 2)


def judge_of(folder: Path):
    data = SimpleNamespace(classes=DIGITS, image_size=8, num_channels=1, settings=classifier.STUDY.parse([]))
    return load_judge(str(folder), data, torch.device("cpu"))


def test_a_judge_is_safetensors_and_no_code(study, tmp_path, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("somebody was asked whether to run code"))
    judge = study[0] / "out" / "judge" / "r0-seed0"
    pickled = shutil.copytree(judge, tmp_path / "pickled", ignore=shutil.ignore_patterns("checkpoint-*"))
    torch.save(load_file(pickled / "model.safetensors"), pickled / "pytorch_model.bin")
    (pickled / "model.safetensors").unlink()
    with pytest.raises(OSError, match="the judge .*pickled cannot be read"):
        judge_of(pickled)
    coded = shutil.copytree(judge, tmp_path / "coded", ignore=shutil.ignore_patterns("checkpoint-*"))
    config = json.loads((coded / "config.json").read_text())
    config |= {"model_type": "unheard-of", "auto_map": {
        "AutoConfig": "code.Config", "AutoModelForImageClassification": "code.Model",
    }}  # fmt: skip
    (coded / "config.json").write_text(json.dumps(config))
    (coded / "code.py").write_text("raise AssertionError('code of a repository was run')")
    with pytest.raises(ValueError, match="trust_remote_code"):
        judge_of(coded)
    partly = shutil.copytree(judge, tmp_path / "partly", ignore=shutil.ignore_patterns("checkpoint-*"))
    weights = load_file(partly / "model.safetensors")
    save_file({name: weights[name] for name in weights if "fc" not in name}, partly / "model.safetensors")
    with pytest.raises(ValueError, match=r"partly does not hold .*: 2 tensors \(network.fc.bias, .*\) missing"):
        judge_of(partly)
    with pytest.raises(ValueError, match="takes 8 x 8 pixels in 1 channels, the data have 9 x 9 in 3"):
        wrong = SimpleNamespace(classes=DIGITS, image_size=9, num_channels=3, settings=classifier.STUDY.parse([]))
        load_judge(str(judge), wrong, torch.device("cpu"))


def test_a_judge_that_saw_images_which_are_held_out_here_is_refused(study):
    """What its record says of the share that was held out has to be what is held out now."""
    judge = study[0] / "out" / "judge" / "r0-seed0"
    settings = classifier.STUDY.parse(["--test_fraction", "0.4"])
    data = SimpleNamespace(classes=DIGITS, image_size=8, num_channels=1, settings=settings)
    with pytest.raises(ValueError, match="was trained with --test_fraction None, this run has 0.4: it has seen images"):
        load_judge(str(judge), data, torch.device("cpu"))


def test_classwise_distance_of_few_images():
    rng = np.random.default_rng(0)
    model = image_classifier("resnet10-digits", labels=2, image_size=8, num_channels=1)
    judge = judge_extractor(model, name="j", mean=[0.0], std=[1.0])
    real, fake = rng.normal(size=(40, 5)).astype(np.float32), rng.normal(size=(9, 5)).astype(np.float32)
    labels, asked = np.arange(40) % 2, np.array([0] * 7 + [1] * 2)
    with pytest.warns(UserWarning, match="2 rows of 5 features in the smallest class"):
        found = classwise_distance(real, labels, fake, asked, ["cat", "dog"], judge)
    assert found["smallest_class"] == 2 and found["n"] == 9 and set(found["per_class"]) == {"cat", "dog"}
    assert found["value"] == pytest.approx(np.mean(list(found["per_class"].values())))
    assert found["name"] == "class-wise Frechet distance in judge features (j)" and found["weights"] == judge.weights
    with pytest.warns(UserWarning, match=r"no class-wise Frechet distance: class 1 \(dog\) has 1 generated images"):
        assert classwise_distance(real, labels, fake[:8], asked[:8], ["cat", "dog"], judge) is None
    with pytest.warns(UserWarning, match=r"class 2 \(owl\) has 0 real images, at least 2"):
        assert classwise_distance(real, labels, fake, asked, ["cat", "dog", "owl"], judge) is None


def test_from_a_pipeline_by_way_of_a_folder_and_directly(study, tmp_path):
    folder, _, _, _ = study
    saved = tmp_path / "r0.5"
    pipeline = pipeline_in(saved)
    in_turns = ["--classes", *DIGITS]
    common = ["--num_images", "60", "--batch_size", "60"]
    drawn = tmp_path / "drawn" / "r0.5"
    sample_edm.main(["--model", str(saved), "--output", str(drawn), "--num_inference_steps", "3", *common, *in_turns])
    judge = ["--judge", folder / "out" / "judge" / "r0-seed0", "--judge_epochs", 2, "--cas_model", "test_resnet"]
    main("--output", tmp_path / "a", "--images", drawn, *judge)
    given = ["--output", tmp_path / "b", "--pipeline", saved, "--steps", 3, *common, *judge]
    printed = main(*given)
    records = [records_in(tmp_path / where)["r0.5"] for where in "ab"]
    for record in records:
        assert record.noise == NOISE.to_dict()
        assert record.metrics["label_consistency"]["n"] == 60 and record.metrics["cas"]["name"] == "CAS (test_resnet)"
    assert records[0].data["content"] == records[1].data["content"]  # of every file, byte by byte
    assert records[0].metrics.keys() == records[1].metrics.keys()
    for name, found in records[0].metrics.items():
        assert found["value"] == pytest.approx(records[1].metrics[name]["value"], rel=1e-9), name
    assert next(line for line in printed.splitlines() if line.startswith("| r0.5")).split("|")[2].strip() == "0.500"
    # Trained again: the images that are there are not those of these weights.
    pipeline.unet.conv_out.weight.data += 0.1
    pipeline.save_pretrained(saved)
    with pytest.raises(ValueError, match="holds images drawn with weights = "):
        main(*given)
    shutil.rmtree(tmp_path / "b" / "r0.5" / "samples")
    with pytest.raises(FileExistsError, match="r0.5 holds a record of other images"):
        main(*given)


def test_dry_run(study, tmp_path):
    folder, _, _, _ = study
    pipeline_in(tmp_path / "edm")
    images = ["--images", folder / "noisy", "--pipeline", tmp_path / "edm"]
    printed = main(*images, "--output", tmp_path / "none", "--dry_run")
    assert re.search(r"edm: to be drawn from .*edm, 10 classes, noise 0.5", printed)
    assert "judge: resnet10-digits, 330 steps x 64" in printed and "distances in: judge features" in printed
    assert "noisy: 355 images of 10 classes, noise 0.5" in printed
    assert not (tmp_path / "none").exists()

"""The evaluation of generated images: real digits in the place of generated ones, whose figures are known."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import evaluate_generation
import numpy as np
import pytest
import sample_edm
import torch
from PIL import Image

from hf_noise.data.digits import digits
from hf_noise.diffusion import EDMHeunScheduler, EDMPipeline
from hf_noise.metrics import mixture_reference
from hf_noise.models.edm_unet import edm_unet
from hf_noise.noise import LabelFlips
from hf_noise.reports.record import RunRecord, read_records

DIGITS = [str(i) for i in range(10)]
NOISE = LabelFlips.symmetric(ratio=1.0, num_classes=10)


def main(*arguments) -> str:
    threads, printed = torch.get_num_threads(), io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            evaluate_generation.main([str(argument) for argument in arguments])
    finally:
        torch.set_num_threads(threads)
    return printed.getvalue()


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
    records = {record.name: record for record in read_records(folder / "out") if record.task.startswith("class_cond")}
    return folder, arguments, printed, records


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
    _, _, printed, records = study
    assert "FID" not in printed and "Frechet distance in judge features (resnet10-digits)" in printed
    for record in records.values():
        assert "fid" not in record.metrics
        assert record.metrics["frechet_distance"]["name"] == "Frechet distance in judge features (resnet10-digits)"
    table = [line for line in printed.splitlines() if line.startswith("| ")]
    judge = f"{100 * value(records['clean'], 'judge_test_accuracy'):.2f}"
    assert len(table) == 6 and all(judge in line for line in table[2:])  # a header, a rule, four sets
    reference = 100 * mixture_reference(value(records["clean"], "label_consistency"), 0.5, 10)
    assert f"{reference:.2f}" in next(line for line in table if line.startswith("| noisy"))


def test_started_again_it_does_nothing(study):
    folder, arguments, printed, _ = study
    before = {path: path.stat().st_mtime_ns for path in (folder / "out").rglob("*.json") if path.name == "record.json"}
    assert len(before) == 8  # judge, four sets, three of CAS
    assert main(*arguments).splitlines()[-5:] == printed.splitlines()[-5:]
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_two_processes_measure_what_one_does(study, tmp_path):
    folder, arguments, _, records = study
    recipe = Path(evaluate_generation.__file__)
    judge = folder / "out" / "judge" / "r0-seed0"
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", recipe]
    command = [*launch, "--output", tmp_path, "--images", folder / "noisy", "--judge", judge, "--num_processes", 2]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*map(str, command), "--cas", "false", "--batch_size", "50"], env=environment, cwd=tmp_path,
        capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    for name in ("real-test", "noisy"):
        (record,) = read_records(tmp_path / name)
        assert record.budget["processes"] == 2
        for metric, found in record.metrics.items():
            expected = records[name].metrics[metric]
            assert found["value"] == pytest.approx(expected["value"], rel=1e-4), metric
            assert found["n"] == expected["n"]


def test_what_is_refused(study, tmp_path):
    folder, arguments, _, _ = study
    with pytest.raises(SystemExit):
        main("--output", tmp_path)
    with pytest.raises(FileNotFoundError, match="metadata.jsonl is missing"):
        main("--output", tmp_path, "--images", tmp_path)
    images, labels = digits("test")
    few = write(tmp_path / "few", images[:4], labels[:4])
    (few / "3.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"1 of 4 images of .*few are missing, first 3.png"):
        main("--output", tmp_path, "--images", few)
    (few / "metadata.jsonl").write_text('{"file_name": "0.png", "label": 0}\n{"file_name": "1.png"}\n')
    with pytest.raises(ValueError, match=r"metadata.jsonl, line 2: no file_name or no label"):
        main("--output", tmp_path, "--images", few)
    with pytest.raises(SystemExit):
        main("--output", tmp_path, "--images", folder / "clean", "--cas_model", "resnet-50")
    with pytest.raises(ValueError, match="names of their own, got 'clean'"):
        main("--output", tmp_path, "--images", folder / "clean", folder / "clean")
    judge = folder / "out" / "judge" / "r0-seed0"
    other = write(tmp_path / "other", images[:20], labels[:20], num_classes=2)
    with pytest.raises(ValueError, match="other was drawn for 2 classes, the data have 10"):
        main("--output", tmp_path / "out", "--images", other, "--judge", judge)
    # Other images under the name of a finished set, with the same labels in a file of the same size.
    train, train_labels = digits("train")
    np.savez(tmp_path / "copies.npz", images=train[::-1, ..., None], labels=train_labels)
    with pytest.raises(FileExistsError, match=r"other settings \(content\)"):
        main("--output", folder / "out", "--images", tmp_path / "copies.npz", "--judge_epochs", 2)
    moved = write(tmp_path / "clean", images[::-1], labels[::-1])
    with pytest.raises(FileExistsError, match=r"other settings \(content\)"):
        main("--output", folder / "out", "--images", moved, "--judge_epochs", 2)


def test_from_a_pipeline_by_way_of_a_folder_and_directly(study, tmp_path):
    folder, _, _, _ = study
    torch.manual_seed(0)
    unet = edm_unet("edm-digits", num_classes=10, image_size=8, num_channels=1)
    saved = tmp_path / "r0.5"
    EDMPipeline(unet, EDMHeunScheduler(), has_unconditional=False, hf_noise=NOISE.to_dict()).save_pretrained(saved)
    in_turns = ["--classes", *DIGITS]
    common = ["--num_images", "60", "--batch_size", "60"]
    drawn = tmp_path / "drawn" / "r0.5"
    sample_edm.main(["--model", str(saved), "--output", str(drawn), "--num_inference_steps", "3", *common, *in_turns])
    judge = ["--judge", folder / "out" / "judge" / "r0-seed0", "--judge_epochs", 2, "--cas_model", "test_resnet"]
    main("--output", tmp_path / "a", "--images", drawn, *judge)
    given = ["--output", tmp_path / "b", "--pipeline", saved, "--steps", 3, *common, *judge]
    printed = main(*given)
    records = [
        next(one for one in read_records(tmp_path / where / "r0.5") if one.task.startswith("class_cond"))
        for where in "ab"
    ]
    for record in records:
        assert record.noise == NOISE.to_dict()
        assert record.metrics["label_consistency"]["n"] == 60 and record.metrics["cas"]["name"] == "CAS (test_resnet)"
    assert records[0].data["content"] == records[1].data["content"]  # of every file, byte by byte
    assert records[0].metrics.keys() == records[1].metrics.keys()
    for name, found in records[0].metrics.items():
        assert found["value"] == pytest.approx(records[1].metrics[name]["value"], rel=1e-9), name
    assert next(line for line in printed.splitlines() if line.startswith("| r0.5")).split("|")[2].strip() == "0.500"
    # Trained again: the images that are there are not those of these weights.
    unet.conv_out.weight.data += 0.1
    EDMPipeline(unet, EDMHeunScheduler(), has_unconditional=False, hf_noise=NOISE.to_dict()).save_pretrained(saved)
    with pytest.raises(ValueError, match="holds images drawn with weights = "):
        main(*given)


def test_dry_run(study, tmp_path, capsys):
    folder, _, _, _ = study
    printed = main("--images", folder / "noisy", "--output", tmp_path / "none", "--dry_run")
    assert "judge: resnet10-digits, 330 steps x 64" in printed and "distances in: judge features" in printed
    assert "noisy: 355 images of 10 classes, noise 0.5" in printed
    assert not (tmp_path / "none").exists()

"""The main job from the command line to its table: tiny networks on the embedded text."""

from __future__ import annotations

import functools
import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from printed import printed_by
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainingArguments

import hf_noise
from hf_noise.data.embedded import docs_text
from hf_noise.objectives.base import _OBJECTIVES, Objective
from hf_noise.reports.record import read_records
from hf_noise.studies.language import study as gpt2_noise
from hf_noise.studies.text import Text

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "recipes" / "gpt2_noise.py"


main = functools.partial(printed_by, gpt2_noise.main)


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> list[str]:
    """Settings of a run that takes a second: few steps, and a short text to validate on."""
    text = tmp_path_factory.mktemp("text") / "validation.txt"
    text.write_text("\n".join(docs_text("validation"))[:8000], encoding="utf-8")
    return [
        "--validation_source", str(text), "--tokenizer", "embedded:300", "--block_size", "16", "--batch_size", "4",
        "--micro_batch", "64", "--steps", "4", "--save_steps", "2", "--logging_steps", "2", "--score_rows", "64",
        "--plan", "steps",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def settings(tmp_path_factory, tiny):
    folder = tmp_path_factory.mktemp("study")
    return ["--output", folder, *tiny, "--ratio", "0", "1", "--corrected", "1", "--learned", "1", "--estimated", "1"]


@pytest.fixture(scope="module")
def study(settings):
    """Folder of a finished study and what was printed."""
    return Path(settings[1]), main(*settings)


RUNS = [
    "r0-compute-of-r1-steps-seed0", "r0-seed0", "r1-corrected-estimated-steps-seed0",
    "r1-corrected-learned-steps-seed0", "r1-corrected-steps-seed0", "r1-nll-steps-seed0",
]  # fmt: skip


def test_every_run_has_its_folder_record_card_and_checkpoint(study):
    folder, _ = study
    assert sorted(path.name for path in folder.iterdir()) == [*RUNS, "study.md", "study.png"]
    for run in RUNS:
        assert {"record.json", "README.md", "model.safetensors", "config.json", "tokenizer.json", "run.json"} <= {
            path.name for path in (folder / run).iterdir()
        }
        ratio = int(run[1])
        noise = hf_noise.load_noise(folder / run)
        assert (noise.ratio, noise.vocab_size) == (ratio, 300)
        model = AutoModelForCausalLM.from_pretrained(folder / run)
        assert model.config.vocab_size == len(AutoTokenizer.from_pretrained(folder / run)) == 300
        assert "hf_noise" in (folder / run / "README.md").read_text()
        steps = 4 if run == "r0-seed0" else 8
        assert sorted(path.name for path in (folder / run).glob("checkpoint-*")) == [
            f"checkpoint-{steps - 2}", f"checkpoint-{steps}",
        ]  # fmt: skip


def test_records_hold_what_was_measured(study):
    folder, _ = study
    records = {record.name: record for record in read_records(folder)}
    assert sorted(records) == RUNS
    for record in records.values():
        targets = record.budget["steps"] * 4 * 15
        assert record.noise["realised"]["n"] == targets
        # Five standard deviations: a false alarm once in a million seeds.
        e = record.noise["error_rate"]
        assert abs(record.noise["realised"]["rate"] - e) <= 5 * (e * (1 - e) / targets) ** 0.5
        assert record.metrics["validation_nll"]["n"] == record.data["validation_rows"] * 15
        assert record.metrics["train_nll_noisy"]["n"] == 64 * 15
        assert 4 < record.metrics["validation_nll"]["value"] < 6  # the uniform distribution has ln 300 = 5.7
    plain = records["r1-nll-steps-seed0"]
    assert {"validation_nll_posthoc", "error_rate_by_ranks", "audit_auroc", "train_nll_corrupted"} <= set(plain.metrics)
    assert plain.budget["steps"] == 8
    assert records["r1-corrected-learned-steps-seed0"].loss["source"] == "learned"
    estimated = records["r1-corrected-estimated-steps-seed0"].loss
    assert (estimated["source"], estimated["error_rate"]) == (
        "estimated", plain.metrics["error_rate_by_ranks"]["value"],
    )  # fmt: skip
    assert not {name for name in records["r0-seed0"].metrics if "corrupted" in name or "audit" in name}


def test_table_and_figure(study):
    folder, printed = study
    for run in RUNS:
        assert re.search(rf"^\| {run} +\|", printed, re.MULTILINE)
    for how in ("e known", "e learned", "e estimated by ranks"):
        assert re.search(rf"^\| corrected, {how} +\|", printed, re.MULTILINE)
    for method in ("no noise", "plain", "plain, corrected afterwards"):
        assert re.search(rf"^\| {method} +\|", printed, re.MULTILINE)
    assert printed.rstrip().endswith(f"figure: {folder / 'study.png'}")
    assert (folder / "study.png").stat().st_size > 10_000


def test_started_again_it_trains_nothing_and_prints_the_same(study, settings, monkeypatch):
    folder, printed = study
    weights = {run: (folder / run / "model.safetensors").stat().st_mtime_ns for run in RUNS}
    monkeypatch.setattr("hf_noise.studies.engine.make", lambda *_: pytest.fail("made a finished run"))
    assert main(*settings) == printed
    assert weights == {run: (folder / run / "model.safetensors").stat().st_mtime_ns for run in RUNS}


def test_a_folder_with_other_settings_is_refused(study, settings):
    folder, _ = study
    before = (folder / "r0-seed0" / "record.json").read_bytes()
    with pytest.raises(FileExistsError, match=r"other settings \(learning_rate\)"):
        main(*settings, "--learning_rate", "1e-5")
    assert (folder / "r0-seed0" / "record.json").read_bytes() == before


def test_dry_run_prints_and_makes_nothing(tmp_path):
    printed = main(
        "--dry_run", "--output", tmp_path / "none", "--ratio", "0", "0.5", "--corrected", "0.5", "--steps", "100",
        "--plan", "steps", "batch", "--batch_size", "32", "--block_size", "64",
    )  # fmt: skip
    settings, runs = json.JSONDecoder().raw_decode(printed)[0], printed[printed.rindex("\n}") + 3 :]
    assert (settings["ratio"], settings["dry_run"]) == ([0.0, 0.5], True)
    data, first, *runs, duration, disk = runs.splitlines()
    assert runs == [
        "r0-seed0: e = 0.0000, 100 steps x 32 rows = 204,800 tokens, clean exposure 1.000",
        "r0-compute-of-r0.5-steps-seed0: e = 0.0000, 150 steps x 32 rows = 307,200 tokens, clean exposure 1.500",
        "r0.5-nll-steps-seed0: e = 0.3333, 150 steps x 32 rows = 307,200 tokens, clean exposure 1.000",
        "r0.5-corrected-steps-seed0: e = 0.3333, 150 steps x 32 rows = 307,200 tokens, clean exposure 1.000",
        "r0-compute-of-r0.5-batch-seed0: e = 0.0000, 100 steps x 48 rows = 307,200 tokens, clean exposure 1.500",
        "r0.5-nll-batch-seed0: e = 0.3333, 100 steps x 48 rows = 307,200 tokens, clean exposure 1.000",
        "r0.5-corrected-batch-seed0: e = 0.3333, 100 steps x 48 rows = 307,200 tokens, clean exposure 1.000",
    ]
    assert re.match(r"[\d,]+ rows of 64 tokens to train on, [\d,]+ to validate on, columns input_ids, ", data)
    assert "vocabulary of 1,024 tokens" in data and first.startswith("first row: '")
    assert re.match(r"time: about [\d.]+ (seconds|minutes) of training here, .*a step takes \d+ ms", duration)
    assert re.match(r"disk: at most 0\.\d\d GiB in ", disk)
    assert not (tmp_path / "none").exists()


def test_paper_scale_is_table_6_of_paper_a():
    shown = main("--scale", "paper", "--no_equal_compute", "--dry_run")
    found = re.findall(r"e = ([\d.]+), ([\d,]+) steps x (\d+) rows", shown)
    assert found == [
        ("0.0000", "600,000", "480"), ("0.0909", "660,000", "480"), ("0.2308", "780,000", "480"),
        ("0.3333", "450,000", "960"), ("0.5000", "100,000", "5760"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--scale", "gpu"], "--scale gpu needs a corpus"),
        (["--estimated", "0.7"], "--estimated 0.7 takes e from a run"),
    ],
)
def test_arguments_that_cannot_work_stop_before_any_work(arguments, message, capsys):
    with pytest.raises(SystemExit):
        main(*arguments)
    assert message in capsys.readouterr().err


def test_a_smaller_world_than_asked_for_stops_the_run(tmp_path, tiny):
    with pytest.raises(RuntimeError, match="asked for 2 processes, the launcher started 1"):
        main("--num_processes", "2", "--output", tmp_path / "none", *tiny)


def test_killed_and_started_again_it_ends_with_the_same_weights(tmp_path, tiny):
    arguments = [*tiny, "--steps", "100", "--save_steps", "10", "--ratio", "1", "--corrected"]
    run, command = "r1-nll-steps-seed0", [sys.executable, RECIPE, "--output", tmp_path / "killed", *arguments]
    process = subprocess.Popen(
        command, env=environment(), cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 120
        while not (tmp_path / "killed" / run / "checkpoint-30" / "trainer_state.json").exists():
            assert process.poll() is None, "the run ended before it was killed"
            assert time.monotonic() < deadline, "no checkpoint in two minutes"
            time.sleep(0.005)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not (tmp_path / "killed" / run / "model.safetensors").exists()
    last = max(int(path.name[11:]) for path in (tmp_path / "killed" / run).glob("checkpoint-*"))
    assert 30 <= last < 200

    main("--output", tmp_path / "killed", *arguments)
    main("--output", tmp_path / "whole", *arguments)
    weights = [(tmp_path / folder / run / "model.safetensors").read_bytes() for folder in ("killed", "whole")]
    assert weights[0] == weights[1]
    killed, whole = (read_records(tmp_path / folder)[0] for folder in ("killed", "whole"))
    assert killed.metrics == whole.metrics
    assert killed.noise == whole.noise


def test_accelerate_launch_makes_the_same_run(study, tiny, tmp_path):
    """Through the launch line of the README."""
    command = [sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch", RECIPE]
    arguments = ["--output", tmp_path, *tiny, "--ratio", "0", "--corrected"]
    done = subprocess.run(
        [*command, *arguments], env=environment(), cwd=tmp_path, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert re.search(r"^\| r0-seed0 +\|", done.stdout, re.MULTILINE)
    ours, there = (load_file(folder / "r0-seed0" / "model.safetensors") for folder in (study[0], tmp_path))
    for name, weight in ours.items():
        torch.testing.assert_close(there[name], weight, rtol=0, atol=1e-5)


def test_the_column_of_text_and_the_share_held_out_are_flags(tmp_path, capsys):
    Dataset.from_dict({"story": [f"Story {i} is a short one." for i in range(200)]}).to_json(tmp_path / "own.jsonl")
    own = ["--source", str(tmp_path / "own.jsonl"), "--block_size", "8", "--tokenizer", "embedded:300"]
    args = TrainingArguments(str(tmp_path), use_cpu=True, report_to="none")
    asked = [[*own, "--text_column", "story", "--validation_fraction", share] for share in ("0.1", "0.4")]
    few, more = (len(Text.load(gpt2_noise.STUDY.parse(flags), args, 4).validation) for flags in asked)
    assert 0 < 2 * few < more
    with pytest.raises(ValueError, match="no column 'text'; it has 'story'"):
        Text.load(gpt2_noise.STUDY.parse(own), args, 4)
    for flags, message in {
        ("--validation_fraction", "0"): "--validation_fraction must be > 0 and < 1, got 0",
        ("--validation_fraction", "0.2", "--validation_source", "own.txt"): "--validation_source is the whole",
    }.items():
        with pytest.raises(SystemExit):
            gpt2_noise.STUDY.parse([*own, *flags])
        assert message in capsys.readouterr().err


def test_a_loss_of_one_s_own_goes_all_the_way(tmp_path):
    """Training, measurements, record, card and table; p(clean) is not told of a loss that says nothing of it."""

    @dataclass(frozen=True)
    class Halved(Objective):
        """Half of the negative log-likelihood."""

        name = "halved_in_a_test"
        unit = "tokens"

        def __call__(self, nll):
            return nll / 2

    tiny = ["--steps", "2", "--batch_size", "4", "--block_size", "16", "--tokenizer", "embedded:300"]
    tiny += ["--score_rows", "16"]
    try:
        printed = main("--output", tmp_path, *tiny, "--ratio", "0.5", "--corrected", "--loss", Halved.name)
        (record,) = read_records(tmp_path / f"r0.5-{Halved.name}-batch-seed0" / "record.json")
        assert record.loss["name"] == Halved.name and Halved.name in printed
        assert record.metrics["validation_nll"]["n"] > 0 and "audit_auroc" not in record.metrics
        with pytest.raises(SystemExit):
            main("--output", tmp_path, *tiny, "--ratio", "0.5", "--corrected", "--loss", Halved.name, "--audit")
    finally:
        _OBJECTIVES.pop(("tokens", Halved.name))


def test_a_loss_that_does_not_fit_the_noise_is_refused_before_anything_is_trained(tmp_path, tiny):
    with pytest.raises(ValueError, match='alpha="known" takes the share from a noise of documents'):
        main("--output", tmp_path, *tiny, "--ratio", "0", "0.5", "--corrected", "--loss", "document-mixture")
    assert not list(tmp_path.rglob("*.safetensors"))

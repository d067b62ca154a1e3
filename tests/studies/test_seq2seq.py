"""The study of teacher noise from the command line to its table: a tiny encoder-decoder on pairs of few words."""

from __future__ import annotations

import functools
import shutil

import numpy as np
import pytest
import torch
from datasets import Dataset
from printed import printed_by
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    GPT2Config,
    GPT2LMHeadModel,
    T5Config,
    T5ForConditionalGeneration,
    TrainingArguments,
)

import hf_noise
from hf_noise.data.pair_tokens import pair_tokenizer
from hf_noise.noise import NoisyTeacher
from hf_noise.objectives import ErrorNorm, SequenceMixture, Truncated
from hf_noise.reports.record import read_records
from hf_noise.studies.seq2seq.kept import check_audits
from hf_noise.studies.seq2seq.pairs import Pairs, noisy_rows
from hf_noise.studies.seq2seq.run import load, noise_of
from hf_noise.studies.seq2seq.runs import Run, objective_of, runs_of
from hf_noise.studies.seq2seq.study import STUDY, Settings, plan_of
from hf_noise.studies.seq2seq.teachers import with_tokens
from hf_noise.studies.settings import SettingError, at_scale

main = functools.partial(printed_by, STUDY.main)
WORDS = ["red", "green", "blue", "tall", "small", "house", "river", "stone", "cloud", "garden", "window", "winter"]
TINY = ["--vocab_size", "270", "--layers", "1", "--d_model", "16", "--heads", "2", "--feed_forward", "16", "--steps",
        "6", "--teacher_steps", "2", "--batch_size", "8", "--micro_batch", "8", "--max_source_tokens", "48",
        "--max_target_tokens", "24", "--max_new_tokens", "8", "--logging_steps", "2", "--score_rows", "16",
        "--generated", "0"]  # fmt: skip


@pytest.fixture(scope="session")
def sources(tmp_path_factory):
    """Pairs whose target is one of the words of the rich source; the sparse one has its first letter."""
    folder, draw = tmp_path_factory.mktemp("pairs"), np.random.default_rng(0)
    for split, rows in (("train", 40), ("test", 12)):
        words = [draw.choice(WORDS, 4, replace=False).tolist() for _ in range(rows)]
        Dataset.from_dict({
            "name": [f"{one[0][0]} {i}" for i, one in enumerate(words)],
            "body": [f"{' '.join(one)} {i}" for i, one in enumerate(words)],
            "target": [f"{one[0]} {one[1]}" for one in words],
        }).to_parquet(folder / f"{split}.parquet")  # fmt: skip
    return folder


@pytest.fixture(scope="session")
def given(sources):
    return ["--source", sources / "train.parquet", "--test_source", sources / "test.parquet", "--source_column", "name",
            "body", "--seed", "0", *TINY]  # fmt: skip


@pytest.fixture(scope="session")
def study(given, tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    told = [*given, "--output", folder, "--ratio", "0", "0.5", "1", "--other", "teacher", "learned", "--loss",
            "nll", "sequence-mixture", "audited", "truncated", "error-norm", "oracle"]  # fmt: skip
    return folder, main(*told), told


CURES = ["mixture-learned", "mixture-teacher", "audited-learned", "audited-teacher", "truncated-0.3",
         "error-norm-1.15", "oracle"]  # fmt: skip
RUNS = [f"{task}-{what}-seed0" for task in ("sparse", "rich")
        for what in ("clean", "r0.5-nll", "r1-nll", *(f"r1-{cure}" for cure in CURES))]  # fmt: skip


def settings_of(sources, scale="demo", **changes):
    usual = dict(source=[str(sources / "train.parquet")], test_source=[str(sources / "test.parquet")],
                 source_column=["name", "body"], vocab_size=270, layers=1, d_model=16, heads=2, feed_forward=16,
                 output="runs/x", generated=0)  # fmt: skip
    return at_scale(Settings, scale, **usual | changes)


def test_each_run_leaves_a_checkpoint_that_knows_its_teacher(study):
    folder, _, _ = study
    assert sorted(path.name for path in folder.iterdir()) == sorted([*RUNS, "study.md", "study.png", "teacher"])
    run = folder / "rich-r1-mixture-teacher-seed0"
    assert {"model.safetensors", "record.json", "README.md", "tokenizer.json"} <= {path.name for path in run.iterdir()}
    assert (run / "audit.parquet").is_file() and not (folder / "rich-r1-truncated-0.3-seed0" / "audit.parquet").exists()
    assert Dataset.from_parquet(str(run / "audit.parquet")).num_rows == 40
    noise = hf_noise.load_noise(run)
    assert isinstance(noise, NoisyTeacher) and (noise.error_rate, noise.num_rows, noise.num_noisy) == (0.5, 40, 20)
    assert noise.teacher.steps == 2 and noise.teacher.decoding.max_new_tokens == 8
    assert hf_noise.load_noise(folder / "sparse-r1-nll-seed0").teacher != noise.teacher, "each task has its own"


def test_records_hold_what_was_measured(study):
    folder, _, _ = study
    records = {record.name: record for record in read_records(folder)}
    assert sorted(records) == sorted(RUNS)
    for name, record in records.items():
        assert (record.task, record.budget["steps"], record.data["train_rows"]) == ("seq2seq", 6, 40)
        assert record.metrics["test_target_nll"]["n"] == records["rich-clean-seed0"].metrics["test_target_nll"]["n"]
        assert record.metrics["written_nll"]["value"] > 0 and record.metrics["teacher_nll"]["value"] > 0
        assert 0 <= record.metrics["padding_share"]["value"] < 1
        on_some = record.loss["cure"] == "oracle" or record.loss["cure"].startswith("audited")
        assert ("row_auroc" in record.metrics) == ("clean" not in name and not on_some)
        assert ("kept_share" in record.metrics) == on_some
        of_noise = {name for name in record.metrics if name.startswith("train_nll")}
        if not record.loss["cure"].startswith("audited"):  # what an audit keeps may be all right, or all wrong
            both = "clean" not in name and not on_some
            assert of_noise == {"train_nll_clean"} | ({"train_nll_corrupted"} if both else set())
        assert "train_nll_noisy" not in of_noise
        if not on_some:
            assert record.noise["realised"] == {"rate": round(40 * record.noise["error_rate"]) / 40, "n": 40}
        assert record.budget["pairs_per_step"] == pytest.approx(8, rel=0.3)
    same = {record.data["targets"] for record in records.values()}
    assert len(same) == 1, "the tasks differ in their sources alone"
    assert records["rich-r1-truncated-0.3-seed0"].loss["cure"] == "truncated-0.3"
    assert 0 <= records["rich-r1-truncated-0.3-seed0"].metrics["dropped_share"]["value"] < 1
    right = records["rich-r1-oracle-seed0"]
    assert "Counted in the data: 0.5000 of 40 pairs." in (folder / "rich-r1-nll-seed0" / "README.md").read_text()
    told = "It was trained on the pairs that are right, 50% of all, which the counted rate is of."
    assert told in (folder / "rich-r1-oracle-seed0" / "README.md").read_text()
    assert (right.metrics["kept_share"]["value"], right.noise["realised"]) == (0.5, {"rate": 0.0, "n": 20})
    audit = Dataset.from_parquet(str(folder / "rich-r1-mixture-learned-seed0" / "audit.parquet"))
    kept = records["rich-r1-audited-learned-seed0"].metrics["kept_share"]
    assert np.isnan(audit["p_clean"][:]).all() and sum(audit["is_noisy"]) == 20
    learned = records["sparse-r1-mixture-learned-seed0"]
    assert "learned_error_rate" not in learned.metrics and learned.loss["error_rate"] is None, "it is no estimate"
    doubt = "two groups cannot be told apart: 40 rows are too few, it takes 50"
    assert learned.loss["audit"] == {"groups": {}, "doubt": doubt} and "audited_error_rate" not in learned.metrics
    assert kept["value"] == 1 and "tell no pairs apart (their records say why)" in (folder / "study.md").read_text()
    told = "It was trained on all pairs, as the audit of rich-r1-mixture-learned-seed0 finds none that are another's"
    assert told in (folder / "rich-r1-audited-learned-seed0" / "README.md").read_text()


def test_an_audit_comes_before_what_is_trained_by_it(sources, tmp_path):
    settings = settings_of(sources, loss=["audited", "nll", "sequence-mixture"], output=str(tmp_path))
    assert settings.loss == ["nll", "sequence-mixture", "audited"]
    runs = runs_of(settings)
    check_audits(settings, runs)
    made = tmp_path / "rich-r1-mixture-learned-seed0"
    made.mkdir()
    (made / "record.json").write_text("{}")
    with pytest.raises(ValueError, match="rich-r1-mixture-learned-seed0 is finished and has no audit.parquet"):
        check_audits(settings, runs)


def test_the_table_and_the_claims(study):
    folder, printed, _ = study
    assert "sequence mixture, q of the teacher" in printed and "error norm truncation" in printed
    assert "the relative rise is smaller with the rich source, same targets" in printed
    assert "(one seed)" in printed and "Both tasks have the same targets and tokens" in printed
    assert printed.rstrip().endswith(f"tables, of each run too: {folder / 'study.md'}")
    assert all(run in (folder / "study.md").read_text() for run in RUNS)


def test_started_again_it_trains_and_writes_nothing(study, monkeypatch):
    _, printed, told = study
    monkeypatch.setattr("hf_noise.studies.engine.make", lambda *_: pytest.fail("made a finished run"))
    assert main(*told) == printed


def test_another_seed_has_the_targets_that_are_there(study, monkeypatch):
    folder, _, told = study
    for name in ("teacher_targets.generate", "teacher_training._train"):
        monkeypatch.setattr(f"hf_noise.data.{name}", lambda *_, **__: pytest.fail("a teacher worked twice"))
    settings = STUDY.parse([str(one) for one in [*told, "--seed", "0", "1"]])
    data = load(settings, TrainingArguments(str(folder), use_cpu=True, report_to="none"), runs_of(settings))
    pairs, written = data.pairs["rich"], data.written["rich"]
    masks = []
    for ratio in (0.5, 1.0):
        noise = noise_of(Run("rich", ratio, "nll", "none", 1), pairs, written)
        rows = noisy_rows(pairs, written, noise)
        masks.append(np.asarray(rows["is_noisy"][:]))
        for row, clean, mark, theirs in zip(rows["labels"], rows["clean_labels"], masks[-1], written.train["labels"]):
            assert row == (theirs if mark else clean)
        nll = np.where(masks[-1], written.nll[1], written.nll[0])
        assert np.asarray(rows["teacher_nll"][:]) == pytest.approx(nll)
    assert masks[0].sum() == 13 and masks[1].sum() == 20 and not (masks[0] & ~masks[1]).any(), "nested"


def test_the_runs_of_a_study(sources):
    runs = runs_of(settings_of(sources, seed=[3]))
    assert len(runs) == 2 * (3 + 7) and runs[0] == Run("sparse", 0.0, "nll", "none", 3)
    assert runs[0].name == "sparse-clean-seed3" and runs[-1].name == "rich-r1-oracle-seed3"
    cured = runs_of(settings_of(sources, cured=[0.5], loss=["truncated"], fraction=[0.1, 0.25], seed=[0], task=["rich"],
                                source_column=["body"]))  # fmt: skip
    assert [run.name for run in cured] == ["rich-clean-seed0", "rich-r0.5-truncated-0.1-seed0",
                                           "rich-r0.5-truncated-0.25-seed0"]  # fmt: skip
    by_rate = settings_of(sources, error_rate=[0.0, 0.5], loss=["nll"], task=["rich"], source_column=["body"], seed=[0])
    assert [run.ratio for run in runs_of(by_rate)] == [0.0, 1.0]
    plans = {plan_of(by_rate, run, None).steps for run in runs_of(by_rate)}
    assert plans == {by_rate.steps}, "a teacher's targets get no more compute"


def test_objectives_of_runs(sources):
    settings = settings_of(sources, fraction=[0.2], threshold=[1.2])
    found = {(run.loss, run.other): objective_of(run, settings) for run in runs_of(settings)}
    assert found["nll", "none"] == "nll" and found["truncated", "none"] == Truncated(fraction=0.2, drops="rows")
    assert found["error-norm", "none"] == ErrorNorm(threshold=1.2)
    assert found["sequence-mixture", "teacher"] == SequenceMixture("known", other="teacher")
    assert found["sequence-mixture", "learned"] == SequenceMixture("learned", other="learned")


def test_scales_have_what_their_tasks_need():
    demo, paper = at_scale(Settings, "demo"), at_scale(Settings, "paper")
    assert [demo.place(task).source_column for task in demo.task] == ["name", "body"]
    assert at_scale(Settings, "demo", task=["rich"]).place("rich").source_column == "body"
    given = at_scale(Settings, "gpu", source=["embedded/docs-pairs"])
    assert given.source_column == ["name", "body"]
    assert [paper.place(task).max_source_tokens for task in paper.task] == [256, 2048]
    assert paper.truncate and demo.truncate and given.truncate, "of one's own pairs nothing is cut unasked"
    assert not at_scale(Settings, "gpu", source=["pairs.parquet"], task=["rich"]).truncate
    assert (paper.steps, paper.teacher_steps, paper.learning_rate, paper.layers) == (50_000, 5000, 1e-4, 6)
    assert STUDY.elsewhere(paper) == "hf_noise/wmt14-noisy" and STUDY.elsewhere(demo) is None


@pytest.mark.parametrize(
    "flags, message",
    [
        (dict(scale="gpu", source=[]), "--scale gpu needs --source"),
        (dict(source_column=["a", "b", "c"]), "--source_column takes one, or one for each of --task"),
        (dict(teacher=["a/b"]), "--teacher takes one for each of --task sparse rich, got 1"),
        (dict(task=["rich", "rich"]), "--task rich rich: each once"),
        (dict(max_new_tokens=65), "--max_new_tokens 65 is more than --max_target_tokens 64"),
        (dict(source_column=["body"]), "--task sparse rich would be the same pairs twice"),
        (dict(source=["hf_noise/wmt14-noisy"]), "hf_noise/wmt14-noisy has columns and test pairs of its own"),
        (dict(cured=[0.7]), "--cured 0.7 is compared with the plain loss there"),
        (dict(ratio=[0.0, 0.2], error_rate=[0.5]), "--ratio and --error_rate say the same"),
        (dict(ratio=[]), "--ratio is empty"),
        (dict(d_model=20, heads=4), "--d_model 20 must be a multiple of twice --heads 4"),
        (dict(model="no where/at all"), "--model no where/at all: there is no such folder"),
        (dict(loss=["elr"]), "--loss must be one of nll, sequence-mixture"),
        (dict(decoding="best"), "--decoding must be one of greedy, sample, beam"),
    ],
)  # fmt: skip
def test_settings_that_cannot_be_honoured_are_refused(sources, flags, message):
    with pytest.raises(SettingError, match=message):
        settings_of(sources, **flags)


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--source_column", "names", "body"], "no column 'names'.*choose both with --source_column and "),
        (["--train_rows", "41"], "--train_rows 41, but there are 40 pairs"),
        (["--max_source_tokens", "4"], "have a source of more than 4 tokens, .*truncate=True"),
        (["--tokens_per_batch", "30"], "the longest pair of the (sparse|rich) task has"),
        (["--ratio", "0", "0.001"], "--ratio 0.001 of 40 pairs is not one pair"),
        (["--vocab_size", "5000"], "vocab_size=5000 is too large"),
    ],
)  # fmt: skip
def test_data_that_cannot_be_used_are_refused_before_a_teacher_is_trained(given, tmp_path, monkeypatch, flags, message):
    monkeypatch.setattr("hf_noise.data.teacher_training._train", lambda *_: pytest.fail("trained a teacher"))
    with pytest.raises(ValueError, match=message):
        main(*given, "--output", tmp_path / "out", *flags)


def test_a_dry_run_tells_the_pairs_and_trains_no_teacher(given, tmp_path, monkeypatch):
    monkeypatch.setattr("hf_noise.data.teacher_training._train", lambda *_: pytest.fail("trained a teacher"))
    printed = main(*given, "--dry_run", "--output", tmp_path / "out", "--ratio", "0", "1", "--loss", "nll")
    assert "sparse: 40 pairs to train on, 12 to test on" in printed and "both tasks have the same targets" in printed
    assert "rich: teacher: trained first, 2 steps; it writes all targets once, sample, at most 8 tokens" in printed
    assert "rich-r1-nll-seed0: e = 0.5000, 6 steps x 8 pairs on average = 48 pairs" in printed
    cut = main(*given, "--dry_run", "--output", tmp_path / "out", "--ratio", "0", "--max_source_tokens", "4",
               "--truncate")  # fmt: skip
    assert "100.0% of the sources and 0.0% of the targets cut" in cut
    assert "time: about" in printed and not (tmp_path / "out").exists()


def test_tasks_with_the_same_targets_share_a_tokenizer_wherever_they_come_from(given, sources, tmp_path):
    """By what the targets are, and not by the names of files."""
    for split in ("train", "test"):
        shutil.copy(sources / f"{split}.parquet", tmp_path / f"{split}-again.parquet")
    changed = Dataset.from_parquet(str(sources / "train.parquet")).map(lambda row: {"target": row["target"] + "!"})
    changed.to_parquet(tmp_path / "other.parquet")
    told = {}
    for other in ("train-again", "other"):
        told[other] = main(*given, "--source", sources / "train.parquet", tmp_path / f"{other}.parquet",
                           "--test_source", sources / "test.parquet", tmp_path / "test-again.parquet",
                           "--ratio", "0", "--dry_run", "--output", tmp_path / "out")  # fmt: skip
    same = "both tasks have the same targets, and one tokenizer"
    assert same in told["train-again"] and same not in told["other"]


def test_steps_that_hold_more_pairs_than_asked_for_are_told(given, tmp_path, caplog):
    """Each pass holds the longest pair, and a step of eight of them more than eight short ones."""
    main(*given, "--ratio", "0", "--task", "rich", "--source_column", "body", "--dry_run", "--micro_batch", "1",
         "--max_target_tokens", "100", "--output", tmp_path / "out")  # fmt: skip
    (told,) = {record.getMessage() for record in caplog.records if "pairs on average" in record.getMessage()}
    assert "steps of the rich task have" in told
    assert "and not --batch_size 8: each of 1 processes times 8 passes" in told


def test_a_teacher_is_of_a_task_in_the_words_of_the_builders(study, given, tmp_path):
    trained = study[0] / "teacher" / "rich"
    (place,) = [trained] if (trained / "config.json").exists() else [one.parent for one in trained.rglob("config.json")]
    with pytest.raises(ValueError, match=r"was trained for the task '.*, body -> target', not '.*, name -> target'"):
        main(*given, "--output", tmp_path / "out", "--teacher", place, place, "--ratio", "1", "--loss", "nll",
             "--dry_run")  # fmt: skip
    from hf_noise.data.builders.docs_pairs_noisy import DocsPairsNoisyConfig

    demo = Pairs("rich", "embedded/docs-pairs", ("body", "target"), None, None)
    assert demo.words == DocsPairsNoisyConfig(columns=("body", "target"), r=0).task


def test_texts_that_just_fit_are_not_counted_as_cut(sources):
    rows = Dataset.from_dict({"source": ["a" * n for n in (7, 8, 9, 3)], "target": ["b" * n for n in (3, 4, 2, 1)],
                              "sample_id": range(4)})  # fmt: skip
    settings = settings_of(sources, task=["rich"], source_column=["body"], max_source_tokens=[8], max_target_tokens=4,
                           max_new_tokens=4, truncate=True)  # fmt: skip
    tokenizer = pair_tokenizer([("a", "b")], 258)  # of single bytes: a text of n letters is n + 1 tokens
    found = with_tokens(settings, Pairs("rich", "s", ("source", "target"), rows, rows), tokenizer)
    assert (found.cut, found.targets_cut) == (0.5, 0.25), "8 and 9 letters, and 4"


@pytest.fixture(scope="module")
def tokenizer(sources):
    rows = Dataset.from_parquet(str(sources / "train.parquet"))
    return pair_tokenizer(zip(rows["body"], rows["target"]), 270)


@pytest.fixture(scope="module")
def t5(tokenizer, tmp_path_factory):
    """The folder of a model that was saved by its owner."""
    folder = tmp_path_factory.mktemp("models") / "t5"
    torch.manual_seed(0)
    T5ForConditionalGeneration(T5Config(
        vocab_size=270, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2, pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id, decoder_start_token_id=tokenizer.pad_token_id,
    )).save_pretrained(folder)  # fmt: skip
    tokenizer.save_pretrained(folder)
    return folder


def test_a_model_that_cannot_take_the_pairs_is_refused_before_a_teacher_writes(given, t5, tokenizer, tmp_path,
                                                                               monkeypatch):  # fmt: skip
    monkeypatch.setattr("hf_noise.studies.seq2seq.run.writes", lambda *_: pytest.fail("a teacher wrote"))
    short = BartConfig(vocab_size=270, d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
                       decoder_attention_heads=2, encoder_ffn_dim=16, decoder_ffn_dim=16, max_position_embeddings=12,
                       pad_token_id=0, eos_token_id=1, bos_token_id=1, decoder_start_token_id=1)  # fmt: skip
    models = {"gpt2": GPT2LMHeadModel(GPT2Config(vocab_size=270, n_embd=8, n_layer=1, n_head=1)),
              "bart": BartForConditionalGeneration(short)}  # fmt: skip
    refused = {"gpt2": r"--model .*gpt2 is a gpt2 \(GPT2LMHeadModel\), which is no encoder-decoder; give one, such",
               "bart": "--model .*bart, rich task: .* have a source of more than the 12 tokens that the model"}
    for name, model in models.items():
        model.save_pretrained(tmp_path / name)
        tokenizer.save_pretrained(tmp_path / name)
        asked = [*given, "--model", tmp_path / name, "--task", "rich", "--source_column", "body", "--teacher", t5]
        with pytest.raises(ValueError, match=refused[name]):
            main(*asked, "--output", tmp_path / "out")


def test_a_dry_run_looks_at_the_teacher_that_is_given(given, t5, tmp_path, monkeypatch):
    asked = [*given, "--task", "rich", "--source_column", "body", "--ratio", "1", "--loss", "nll", "--dry_run",
             "--output", tmp_path / "out"]  # fmt: skip
    assert "at most 8 tokens\n" in main(*asked, "--teacher", t5)
    printed = main(*asked, "--teacher", t5, "--vocab_size", 268)
    assert "at most 8 tokens of its own, which are not those of the models" in printed
    monkeypatch.chdir(t5.parent.parent)
    here = t5.parent.name
    with pytest.raises(SettingError, match=f"--teacher {here}/t6: the folder {here} is here .* there is no {here} if"):
        at_scale(Settings, "demo", task=["rich"], teacher=[f"{here}/t6"])
    printed = main(*asked, "--teacher", "somebody/teacher")
    assert "rich: 40 pairs" in printed and "model: somebody/teacher on the Hub" in printed
    (t5.parent / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="is no whole teacher, it lacks config.json"):
        main(*asked, "--teacher", t5.parent / "empty")


def test_a_model_and_a_teacher_of_ones_own(given, t5, tmp_path):
    folder = t5
    main(*given, "--output", tmp_path / "out", "--model", folder, "--teacher", folder, "--task", "rich",
         "--source_column", "body", "--ratio", "1", "--loss", "nll", "--steps", "2")  # fmt: skip
    (record,) = read_records(tmp_path / "out")
    assert record.data["teacher"]["has_same_tokens"]
    assert record.model["config"]["model_type"] == "t5" and record.model["name"] == "t5"
    assert record.noise["teacher"]["steps"] is None and record.data["teacher"]["name"] == "t5"

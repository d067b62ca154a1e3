"""The benchmarks run to their end and find that what they compare is equal; no test depends on how fast they are."""

from __future__ import annotations

import importlib
import json
import logging
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch, tmp_path):
    """Runs a benchmark by name in quick mode; returns the record it writes, its rows by what they measure."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    threads = torch.get_num_threads()
    # pytest captures all levels, and the compiler of torch writes down every step where somebody listens.
    logging.disable(logging.INFO)

    def run(name: str, *arguments: str) -> tuple[dict, dict]:
        output = tmp_path / f"{name}.json"
        missed = importlib.import_module(name).main(["--quick", "--output", str(output), *arguments])
        record = json.loads(output.read_text())
        assert missed == sum(row["passed"] is False for row in record["rows"])
        return record, {row["what"]: row for row in record["rows"]}

    yield run
    logging.disable(logging.NOTSET)
    torch.set_num_threads(threads)


def test_noise(benchmark, capsys):
    record, rows = benchmark("noise", "--only", "tokens")
    printed = capsys.readouterr().out
    equal = [what for what, row in rows.items() if row["bar"] == "equal"]
    assert {"NumPy noise and its definition", "compiled and NumPy noise, 32 x 1024"} <= set(equal)
    assert sum(what.startswith("columns of the map route") for what in equal) == 4
    assert {row["bar"] for row in rows.values()} >= {">= 1", ">= 8", ">= 0.75", ">= 5", ">= 0.8"}
    for what, row in rows.items():
        assert f"| {what} | {row['text']} |" in printed
        if isinstance(row["figure"], dict):
            assert row["figure"]["low"] <= row["figure"]["median"] <= row["figure"]["high"], what
    assert record["versions"]["torch"] and record["hardware"]["cores"] >= 1


def test_seq2seq(benchmark):
    _, rows = benchmark("seq2seq")
    bars = [row["bar"] for row in rows.values() if row["passed"] is not None]
    assert bars == [">= 1.5", "equal", "<= 1.02", "<= 1.01", "equal", "<= 1.1"]
    assert rows["weights after the bare loop and the trainer"]["passed"]
    assert rows["targets of both ways of writing"]["passed"]
    assert rows["padding, by a budget of tokens"]["figure"] < rows["padding, plain"]["figure"]


def test_masking(benchmark):
    record, rows = benchmark("masking")
    equal = {what for what, row in rows.items() if row["bar"] == "equal"}
    assert equal == {"masking and its definition", "NumPy and torch"}
    assert [what for what, row in rows.items() if row["bar"] == ">= 5"] == [
        "rows to a masked batch / collator, rows of lists", "rows to a masked batch / collator, rows of arrays",
        "NumPy / torch_mask_tokens",
    ]  # fmt: skip
    assert record["settings"]["vocab_size"] == 30522


def test_objectives(benchmark):
    record, rows = benchmark("objectives", "--width", "64")
    names = {what.split(" / ")[0] for what, row in rows.items() if row["bar"] == "<= 1.03"}
    assert names >= {"corrected", "smoothed", "truncated", "error-norm", "gce", "document-mixture"}
    waits = {what: row["figure"] for what, row in rows.items() if "host syncs" in what}
    assert set(waits.values()) == {0.0} and len(waits) == len(names)


def test_lgm(benchmark):
    record, rows = benchmark("lgm", "--batch", "4")
    equal = [what for what, row in rows.items() if row["bar"] == "equal"]
    same = "gradients of the closed forms and of double backward"
    assert equal == [f"{same}, 768 x 20", f"{same}, 384 x 2"]
    assert rows["double backward / closed form, 768 x 20"]["bar"] == ">= 3"
    assert [row["bar"] for what, row in rows.items() if what.startswith("LGM fit / bare loop, ")].count("<= 1.5") == 2
    assert rows["grid of 5 seeds x 12 settings / LGM fit, 384 x 2"]["bar"] == "<= 3"
    # A count, not a time: a grid is far from so many fits on any machine.
    assert rows["grid / 60 LGM fits, 384 x 2"]["figure"]["median"] < 0.5 and record["settings"]["batch"] == 4


def test_labels(benchmark):
    record, rows = benchmark("noise", "--only", "labels")
    assert record["settings"]["only"] == "labels" and not any("token" in what for what in rows)
    equal = [what for what, row in rows.items() if row["bar"] == "equal"]
    assert {"symmetric flips and their definition, 1000 classes", "NumPy and torch, matrix, 1000 classes"} <= set(equal)
    bars = {what: row["bar"] for what, row in rows.items() if row["text"].endswith("x") and row["bar"]}
    assert {what: bar for what, bar in bars.items() if "cleanlab" not in what} == {
        "symmetric / recipe, 10 classes": ">= 0.8", "matrix / recipe, 10 classes": ">= 0.3",
        "symmetric / recipe, 1000 classes": ">= 0.8",
    }  # fmt: skip
    # Figures, not times: these hold on any machine.
    realised = {what: row for what, row in rows.items() if what.startswith("realised")}
    assert len(realised) == 9 and all(row["passed"] for row in realised.values())


def test_gpt2(benchmark):
    _, rows = benchmark("gpt2")
    assert rows["weights after the bare loop and the trainer"]["passed"]
    assert rows["host syncs, stock Trainer"]["figure"] >= 1, "the stock Trainer reads every loss, so the counter works"
    # Counts, not times: these hold on any machine. Ours asks once whether a step is finite, transformers' filter twice.
    for name in ("without noise", "with noise", "corrected loss", "learned e"):
        assert rows[f"host syncs, trainer {name} - stock"]["figure"] == -1
    plain, *fused = [row for what, row in rows.items() if "allocations of tokens x vocabulary" in what]
    assert plain["figure"] >= 1, "the plain loss holds its logits, so the counter works"
    assert all(row["figure"] == 0 for row in fused)


def test_text_classifier(benchmark):
    record, rows = benchmark("classifier", "--model", "small-bert")
    assert record["title"] == "Text classifier, small-bert" and rows["weights after both trainers"]["passed"]
    assert [row["bar"] for row in rows.values()].count("<= 1.02") == 5 and "ELR / plain loss, both with noise" in rows


def test_gradients(benchmark):
    record, rows = benchmark("gradients", "--batch", "2")
    assert [row["bar"] for row in rows.values() if row["bar"]] == ["equal", "<= 0.0001", "<= 0.95", "<= 25"]
    # Of a small network this holds on any machine.
    assert rows["blocks off float64 sums"]["passed"] and record["settings"]["vocab_size"] == 1000
    assert rows["blocks, memory of a further example"]["passed"]


def test_audit(benchmark):
    _, rows = benchmark("audit")
    assert rows["mean NLL, nano, V = 1024"]["passed"]
    assert rows["audit / evaluate, nano, V = 1024"]["bar"] == "<= 1.3"


def test_token_audit(benchmark):
    record, rows = benchmark("token_audit", "--kinds", "uniform", "look-alikes")
    for kind in ("uniform 0.2", "look-alikes 0.2"):
        for measure in ("AUROC", "AP"):
            others = [rows[f"{kind}: {measure}, {other}"]["figure"] for other in ("loss", "error norm", "excess loss")]
            assert rows[f"{kind}: {measure}, weight"]["bar"] == f">= {round(max(others), 4):g}"
        assert rows[f"{kind}: interval holds the rate"]["bar"] == ">= 0.93"
    assert record["settings"]["text"] == "embedded/docs-text"


def test_label_audit(benchmark):
    record, rows = benchmark("label_audit")
    assert record["settings"]["sets"] == ["digits, symmetric 0.2", "digits, cyclic 0.2", "digits, pairs 0.2"]
    for name in record["settings"]["sets"]:
        assert rows[f"{name}: interval holds the rate"]["passed"]
        assert rows[f"{name}: F1 of the list / best of its ranking"]["bar"] == ">= 0.97"


def test_diffusion_audit(benchmark, capsys):
    record, rows = benchmark("diffusion_audit")
    name, printed = "digits, symmetric 0.2", capsys.readouterr().out
    assert record["settings"]["sets"] == [name]
    cases = ["logistic on pixels, out of fold", "network without noise, in-sample",
             "time classifier, sigma 0.05, out of fold", "time classifier, sigma 0.8, in-sample"]  # fmt: skip
    for case in cases:
        assert 0 <= rows[f"{name}: {case}: AUROC"]["figure"] <= 1 and f"wrong) | {case} | " in printed
        held = "interval holds the rate" + ", or a warning" * case.endswith("in-sample")
        assert rows[f"{name}: {case}: {held}"]["bar"] == ">= 1"


def test_features(benchmark):
    _, rows = benchmark("features")
    for kind in ("texts", "images"):
        assert rows[f"features of {kind}"]["passed"]
        assert rows[f"extraction / bare loop, {kind}"]["bar"] == "<= 1.05"


def test_diffusion(benchmark):
    _, rows = benchmark("diffusion")
    equal = [what for what, row in rows.items() if row["bar"] == "equal"]
    assert len(equal) == 8 and {"network calls of the sampler", "images of a float32 and a float64 state"} <= set(equal)
    assert {row["bar"] for row in rows.values()} >= {"<= 1", "<= 0.85", "<= 1.1", "<= 1.02", "<= 4"}
    # Counts, not times: these hold on any machine.
    for classes in (10, 100):
        assert rows[f"host syncs, TDSM - plain step, {classes} classes"]["passed"]
        assert rows[f"host syncs, loop - plain step, {classes} classes"]["figure"] > classes, "so the counter works"


def test_verdicts_and_spread(benchmark, monkeypatch):
    compare = importlib.import_module("compare")
    report = compare.Report("verdicts", {})
    spread = compare.ratio(compare.np.array([2.0, 4.0, 6.0, 8.0, 10.0]), compare.np.full(5, 2.0))
    assert (spread.low, spread.median, spread.high, spread.n) == (2.0, 3.0, 4.0, 5)
    report.add("met", spread, at_least=1.0)
    report.add("missed", spread, at_most=2.5)
    report.add("for information", spread)
    assert [(row["passed"], row["close"]) for row in report.rows] == [(True, False), (False, True), (None, False)]
    with pytest.raises(SystemExit, match="nothing was timed"):
        report.equal("two things", False, "1 and 2")


def test_variants_take_turns(benchmark):
    interleave = importlib.import_module("compare").interleave
    calls = []
    times = interleave({name: lambda name=name: calls.append(name) for name in "ab"}, rounds=2)
    assert "".join(calls) == "ab" + "ab" + "ba"
    assert {name: len(seconds) for name, seconds in times.items()} == {"a": 2, "b": 2}


def test_the_counters_see_what_they_count(benchmark):
    observe = importlib.import_module("observe")
    x = torch.arange(4.0)

    def train(steps: int) -> None:
        for _ in range(steps):
            float(x.sum())  # 1
            x.tolist()  # 2
            x[x > 1]  # 3, as its shape depends on values
            bool((x > 1).any())  # 4
            x + 1

    assert observe.syncs_per_step(train) == 4
    _, n, peak = observe.large_allocations(lambda: (torch.ones(1 << 20) + 1).sum(), 4 << 20)
    assert n == 2 and 8 << 20 <= peak < 9 << 20


def test_verified_rows(benchmark):
    record, rows = benchmark("verified_rows")
    assert record["settings"]["verified"] == [200, 400] and len(rows) == 18
    assert all(row["figure"] > 75 for what, row in rows.items() if "is covered" in what)
    assert all(row["passed"] for what, row in rows.items() if "made up" in what and "beyond" not in what)


def test_audit_plan(benchmark):
    record, rows = benchmark("audit_plan", "--rounds", "2")
    assert record["settings"]["settings"] == ["digits, cyclic 0.2"]
    for judge, draws in (("given labels", 2), ("200 verified rows", 1)):
        for name in ("given", "drop", "relabel", "soft", "corrected", "verify"):
            held = rows[f"{judge}: accuracy of {name} is held, {draws} draws"]
            assert held["figure"] in (0, 50, 100) and held["bar"].startswith(">= ")
        assert f"{judge}: difference of given is held, {draws} draws" not in rows
    assert rows["given labels: lost beside the best option by best"]["figure"] >= 0

"""The card of an audited data set, from a record alone."""

from __future__ import annotations

import numpy as np
import pytest
from huggingface_hub import DatasetCard

from hf_noise.hub.audit_card import audit_card
from hf_noise.hub.card import render_card
from hf_noise.reports.record import RunRecord

T = [[0.9, 0.1], [0.0, 1.0]]
AUDIT = {
    "class_names": ["a|b", "c"], "transition": T, "transition_low": [[0.8, 0.05], [0.0, 0.9]],
    "transition_high": [[0.95, 0.2], [0.1, 1.0]], "prior": [0.5, 0.5], "rows_of_class": [45, 55],
}  # fmt: skip
RATE = {
    "value": 0.05, "low": 0.02, "high": 0.3, "n": 100, "confidence": 0.9, "how": "agreement; it assumes *nothing*",
    "verified": None,
}  # fmt: skip


def record(**changes) -> RunRecord:
    told = {
        "name": "mine", "task": "label_audit", "recipe": "recipes/audit.py", "seed": 0, "settings": {}, "budget": {},
        "model": {"way": "words", "words": "words and letters"}, "noise": {"protocol": "unknown"}, "loss": {},
        "data": {"source": "user/mine", "split": "train", "column": "label", "task": "text-classification",
                 "audit": AUDIT},
        "metrics": {"error_rate": RATE, "listed": {"value": 0.04, "n": 100, "rows": 4}}, "wall_seconds": 1.0,
        "command": "python audit.py",
    }  # fmt: skip
    return RunRecord(**told | changes)


def test_the_rate_and_what_it_stands_on_are_told():
    made = record()
    card = audit_card(made)
    assert "**5.0% [2.0, 30.0] of them are wrong**" in card.text and "interval of\n90%, by 100 rows." in card.text
    assert "- agreement\n- it assumes \\*nothing\\*" in card.text, "as text, and no markup"
    assert "| 10.0 | 5.0 | 20.0 |" in card.text and "4 rows are on the list" in card.text
    assert str(render_card(made)) == str(card)
    assert "## Measured" not in card.text and "on purpose" not in card.text


def test_its_metadata_can_be_read_back():
    told = DatasetCard(str(audit_card(record()))).data.to_dict()
    assert told["audit"]["transition"] == T and told["audit"]["error_rate"]["high"] == 0.3
    assert told["source_datasets"] == ["user/mine"] and "label-audit" in told["tags"]
    assert told["configs"][0]["data_files"] == [{"split": "train", "path": "rows.parquet"}]


def test_verified_rows_hidden_noise_and_what_was_measured_are_told():
    metrics = {"error_rate": RATE | {"verified": 30}, "listed": {"value": 0.04, "n": 100, "rows": 4},
               "auroc": {"value": 0.75, "n": 100}}  # fmt: skip
    noise = {"protocol": "label_flips", "kind": "cyclic", "realised": {"rate": 0.06, "n": 100}}
    text = audit_card(record(metrics=metrics, noise=noise)).text
    for told in ("of which 30 were verified", "made 6.0% of them wrong", "| auroc | 0.75 | 100 |"):
        assert told in text


def test_other_records_are_refused():
    with pytest.raises(ValueError, match="needs the record of one .*got that of 'causal_lm'"):
        audit_card(record(task="causal_lm"))
    with pytest.raises(ValueError, match="needs the record of one"):
        audit_card(record(metrics={}))


def test_many_classes_warnings_and_given_probabilities_are_told():
    classes = 25
    t = np.full((classes, classes), 0.1 / (classes - 1))
    np.fill_diagonal(t, 0.9)
    audit = AUDIT | {
        "class_names": [f"c{i}" for i in range(classes)], "rows_of_class": [1000] * classes, "transition": t.tolist(),
        "transition_low": t.tolist(), "transition_high": t.tolist(), "prior": [1 / classes] * classes,
        "warnings": ["the labels alone do not tell the rate"],
    }  # fmt: skip
    data = record().data | {"audit": audit, "measured_on": "9 test rows"}
    metrics = record().metrics | {"error_rate": RATE | {"confidence": 0.975}, "auroc": {"value": 0.75, "n": 100}}
    model = {"way": "probabilities", "words": "probabilities that were given"}
    card = audit_card(record(data=data, metrics=metrics, model=model))
    assert "transition" not in card.data.to_dict()["audit"] and "stands in `audit.json`" in card.text
    assert "taken as given" in card.text and "no row by a model" not in card.text
    assert "97.5%" in card.text and "measured on 9 test rows." in card.text
    assert card.text.index("do not tell the rate") < card.text.index("## How that is known")
    plain = audit_card(record()).text
    assert "no row by a model" in plain and "given:" not in plain and "metadata above" in plain

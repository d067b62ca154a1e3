from __future__ import annotations

import ast
import json
import math
import os
import re
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from hub_store import card_errors
from huggingface_hub import DatasetCard, ModelCard

from hf_noise.hub import render
from hf_noise.hub.card import data_card, main, model_card, render_card
from hf_noise.hub.data_card import COLUMNS, config_block, with_config
from hf_noise.hub.load import load_noise
from hf_noise.noise import LabelFlips
from hf_noise.noise.block import noise_block, noise_sentence
from hf_noise.reports.record import DataRecord, RunRecord, read_records

HUB_CARDS = Path(__file__).parents[2] / "hub_cards"


def data_record(noise, names=("r0.5", "r0.5-again"), **changes) -> DataRecord:
    splits = {
        "train": {"rows": 8, "units": 128, "noisy": True},
        "validation": {"rows": 3, "units": 48, "noisy": False},
    }
    stated = noise.to_dict() | {"realised": {"rate": 0.25, "n": 128}}
    values = {
        "name": "user/docs-noisy",
        "builder": "hf_noise/docs-noisy",
        "source": "embedded/docs-text",
        "data": {"tokenizer": "bytes", "vocab_size": 128},
        "columns": COLUMNS,
        "configs": [
            {"config_name": name, "noise": stated, "splits": splits, "arguments": {"r": 0.5, "seed": 7}}
            for name in names
        ],
        "license": "psf-2.0",
        "language": "en",
        "command": "python recipes/publish_dataset.py",
        "versions": {"python": "3.11.1"},
        "created": "2025-01-01T00:00:00+00:00",
        "git": None,
    }
    return DataRecord(**values | changes)


def test_metadata_of_a_model_card_survives_reading(record, tmp_path):
    card = model_card(record, license="apache-2.0", tags=["demo"])
    card.save(tmp_path / "README.md")
    read = ModelCard.load(tmp_path / "README.md")
    assert read.data.to_dict() == card.data.to_dict()
    assert str(read) == str(card)
    assert read.data.library_name == "transformers" and read.data.pipeline_tag == "text-generation"
    assert read.data.tags == ["hf_noise", "noisy-data", "uniform_tokens", "demo"]
    assert read.data.datasets == ["owner/some-text"]
    assert read.data.license == "apache-2.0"
    assert card_errors(str(card)) == []
    assert load_noise(tmp_path / "README.md").to_dict() == read.data.noise["config"]


def test_the_noise_block_says_everything(record, noise):
    block = model_card(record).data.noise
    assert {key: block[key] for key in ("protocol", "r", "e", "seed", "realised")} == {
        "protocol": "uniform_tokens",
        "r": 0.5,
        "e": 1 / 3,
        "seed": 7,
        "realised": {"rate": 0.3301, "n": 5000},
    }
    assert block["config"] == noise.to_dict()
    assert block["budget"] == record.budget
    assert "alpha" not in block  # the protocol has none


def test_model_index_holds_every_metric_with_its_n(record):
    results = {result.metric_type: result for result in model_card(record).data.eval_results}
    assert results["validation_nll"].metric_value == 4.25
    assert results["validation_nll"].metric_args == {
        "n": 924,
        "unit": "nats per token",
        "low": 4.2,
        "high": 4.3,
    }
    assert results["validation_nll"].dataset_split == "validation"
    assert results["train_nll_noisy"].dataset_split == "train"
    assert results["validation_perplexity"].metric_value == pytest.approx(math.exp(4.25))
    assert results["validation_perplexity"].metric_args["n"] == 924
    assert results["my_own_score"].metric_args == {"n": 5000}


def test_the_text_of_a_model_card_shows_what_a_reader_asks(record):
    text = model_card(record, repo_id="user/repo").text
    assert "| NLL, clean validation targets | 4.25 | 4.2 to 4.3 | nats per token | 924 |" in text
    assert "| my own score | 0.93 |  |  | 5,000 |" in text
    assert "GPT-2 with 33,000 parameters, trained on `owner/some-text` for 1,920 tokens in 15 steps." in text
    assert "r = 0.5 noisy units per clean one, e = 0.3333 of all units" in text
    assert "Counted in the data: 0.3301 of 5,000 units." in text
    assert "forward-corrected likelihood" in text and "e = 0.3333 (known)" in text
    assert 'AutoModelForCausalLM.from_pretrained("user/repo")' in text
    assert 'AutoTokenizer.from_pretrained("user/repo")' in text
    assert 'hf_noise.load_noise("user/repo")' in text
    assert "python recipes/gpt2_noise.py --ratio 0.5" in text
    assert "torch 2.11.0" in text and "Some CPU, 2 cores" in text and "| wall time, s | 61 |" in text
    assert "None" not in text and "{{" not in text and "\n\n\n" not in text


def test_an_interval_may_be_open(record):
    """Of a figure whose record has no upper end, for no finite one was found, or no lower end."""
    ends = {"a": {"low": 0.5}, "b": {"high": 2.5}, "c": {"low": 0.5, "high": 2.5}, "d": {}}
    metrics = {name: {"value": 1.5, "n": 9} | of for name, of in ends.items()}
    text = model_card(replace(record, metrics=metrics)).text
    for name, told in (("a", "0.5 or more"), ("b", "2.5 or less"), ("c", "0.5 to 2.5"), ("d", "")):
        assert f"| {name} | 1.5 | {told} | 9 |" in text


def test_only_the_record_carries_figures(record):
    """Change every figure of the record: none of the old ones is left in the card."""
    changed = json.loads(record.to_json())
    changed["metrics"] = {"validation_nll": {"value": 3.125, "n": 77}}
    changed["model"]["parameters"], changed["data"] = 77_777, {"source": "owner/other"}
    changed["noise"]["realised"] = {"rate": 0.111, "n": 66}
    changed["budget"], changed["wall_seconds"] = {"steps": 44}, 33.0
    text = str(model_card(RunRecord.from_dict(changed)))
    assert "3.125" in text and "77,777" in text and "0.111" in text
    for old in ("4.25", "4.875", "0.93", "924", "33,000", "5,000", "0.3301", "1,920", "61"):
        assert old not in text


@pytest.mark.parametrize(
    ("task", "data", "config", "shown"),
    [
        ("noisy_classification", {"image_size": 8, "channels": 1}, {"image_size": 9}, "torch.rand(1, 1, 8, 8)"),
        ("noisy_classification", {}, {"image_size": 8, "num_channels": 3}, "torch.rand(1, 3, 8, 8)"),
        ("noisy_classification", {"image_size": 8}, {}, r"data\['channels'\] nor in .*\['num_channels'\]"),
        ("noisy_classification", {}, None, r"the record 'labels' .*says neither in data\['image_size'\] .*got None"),
        ("class_conditional_generation", {"classes": 4}, {}, "class_labels=[0, 3]"),
        ("class_conditional_generation", {}, {"num_class_embeds": 5}, "class_labels=[0, 3]"),
        ("class_conditional_generation", {}, {"num_class_embeds": None}, r"data\['classes'\] nor in .*_class_embeds"),
    ],
)
def test_the_images_of_a_card_are_those_of_data_or_model(record, task, data, config, shown):
    noise = LabelFlips.symmetric(ratio=1.0, num_classes=4).to_dict()
    changed = {"name": "labels", "task": task, "data": data, "noise": noise, "model": {"name": "x", "config": config}}
    changed = RunRecord.from_dict(record.to_dict() | changed | {"loss": {"name": "nll"}})
    if "\\" in shown:
        with pytest.raises(ValueError, match=shown):
            model_card(changed, repo_id="user/labels")
    else:
        assert shown in model_card(changed, repo_id="user/labels").text


def test_a_clean_run_says_so(record, noise):
    changed = record.to_dict() | {"noise": noise.to_dict() | {"ratio": 0.0, "error_rate": 0.0}}
    card = model_card(RunRecord.from_dict(changed))
    assert "No noise was added" in card.text and "known to be wrong" not in card.text
    assert card.data.noise["e"] == 0


@pytest.mark.parametrize(
    ("source", "expected"),
    [("owner/text", "owner/text"), ("embedded/docs-text", None), ("hf_noise/docs-noisy", None), ("../x/y",
    None), (None, None),
     ("folder/file.parquet", None), ("runs/text.jsonl.gz", None), ("text", None), ("a/b/c", None), ("a b/c",
     None)],
)  # fmt: skip
def test_only_hub_ids_are_named_as_datasets(record, source, expected):
    assert render.hub_id(source) == expected
    changed = record.to_dict() | {"data": {"source": source}}
    assert model_card(RunRecord.from_dict(changed)).data.get("datasets") == ([expected] if expected else None)


def test_cards_hold_no_token_and_no_local_path(record):
    token = "hf_" + "aB3" * 11
    data = {"source": "/home/someone/text.parquet", "note": f"read with {token}"}
    changed = record.to_dict() | {"data": data, "command": f"python /opt/x/recipes/a.py --note {token}"}
    text = str(model_card(RunRecord.from_dict(changed)))
    assert token not in text and "someone" not in text and "/opt" not in text
    assert "text.parquet" in text


def test_a_noise_that_could_not_be_loaded_again_gets_no_card(record):
    with pytest.raises(ValueError, match="unknown noise protocol 'static_of_tv'"):
        model_card(RunRecord.from_dict(record.to_dict() | {"noise": {"protocol": "static_of_tv"}}))
    with pytest.raises(ValueError, match="no model card for the task 'chess'; known tasks: causal_lm"):
        model_card(RunRecord.from_dict(record.to_dict() | {"task": "chess"}))


def test_numbers_are_readable():
    values = (1234567, 4.5, 4.01532, 0.93, 0.0, 1e-5, 3e-4, 123456.0, None, "x", True)
    shown = ["1,234,567", "4.5", "4.0153", "0.93", "0", "1e-05", "0.0003", "1.23e+05", "none", "x", "True"]
    assert [render.number(value) for value in values] == shown


def test_metadata_of_a_data_card(noise, tmp_path):
    card = data_card(data_record(noise))
    card.save(tmp_path / "README.md")
    read = DatasetCard.load(tmp_path / "README.md")
    assert read.data.to_dict() == card.data.to_dict()
    assert card_errors(str(card)) == []
    assert read.data["configs"][0] == {
        "config_name": "r0.5",
        "data_files": [
            {"split": "train", "path": "r0.5/train-*"},
            {"split": "validation", "path": "r0.5/validation-*"},
        ],
        "default": True,
    }
    assert "default" not in read.data["configs"][1]
    assert [block["config_name"] for block in read.data["noise"]] == ["r0.5", "r0.5-again"]
    assert read.data["noise"][0]["config"] == noise.to_dict()
    assert read.data["size_categories"] == ["n<1K"]
    text = read.text
    assert (
        "| `r0.5` | uniform_tokens | 0.5 | 0.3333 | 0.2500 of 128 | 7 | train 8 (noisy), validation 3 |"
        in text
    )
    assert 'load_dataset("user/docs-noisy", "r0.5", split="train")' in text
    assert 'hf_noise.load_dataset("hf_noise/docs-noisy", r=0.5, seed=7)' in text
    for column in COLUMNS:
        assert f"| `{column}` |" in text


def test_another_configuration_keeps_the_user_s_text(noise):
    card = data_card(data_record(noise, names=("r0.5",)))
    card.text = card.text.replace("## Limits", "My own remark.\n\n## Limits")
    card.data["my_key"] = {"kept": 1}
    block = config_block("r1.0", noise.to_dict(), {"train": {"rows": 5}})
    twice = with_config(with_config(card, block), block)
    assert "My own remark." in twice.text and twice.data["my_key"] == {"kept": 1}
    assert [b["config_name"] for b in twice.data["noise"]] == ["r0.5", "r1.0"]
    assert [c.get("default") for c in twice.data["configs"]] == [True, None]
    assert twice.text.count("| `r1.0` |") == 1 and twice.text.count("| `r0.5` |") == 1
    assert str(with_config(twice, block)) == str(twice)
    again = with_config(twice, config_block("r0.5", noise.to_dict(), {"train": {"rows": 9}}))
    assert sum(bool(c.get("default")) for c in again.data["configs"]) == 1


def test_a_card_written_by_hand_gets_the_table_at_its_end(noise):
    block = config_block("r0.5", noise.to_dict(), {"train": {"rows": 5}})
    card = with_config(DatasetCard("---\nlicense: mit\n---\n\n# Mine\n\nText.\n"), block)
    assert card.text.startswith("\n# Mine\n\nText.\n\n## Noise\n") and "| `r0.5` |" in card.text
    assert card.data.license == "mit"


EVIL = [
    "<script>x</script>", "a|b\n| c", "```\n# h\n```", 'q"uo\'te\\', "]]> &lt; <!--", "{{ x }}", "---\nlicense: x\n---",
]  # fmt: skip


@pytest.mark.parametrize("evil", EVIL)
def test_names_stay_names(record, noise, evil, tmp_path):
    """In the title, the intro, tables, the metadata and the code of both cards."""
    values = record.to_dict() | {
        "name": evil, "model": {"name": evil}, "data": {"source": evil, "classes": evil}, "command": f"python {evil}",
        "metrics": {evil: {"value": 1.5, "n": 2, "unit": evil}}, "versions": {evil: evil}, "hardware": {"cpu": evil},
        "loss": {"name": "corrected", "error_rate": 0.1, "source": evil},
    }  # fmt: skip
    card = model_card(RunRecord.from_dict(values), repo_id=f"user/{evil}")
    of_data = data_card(data_record(noise, name=f"user/{evil}", source=evil, columns={evil: evil, f"clean_{evil}": "x"},
                                    command=f"python {evil}", data={evil: evil}))  # fmt: skip
    for made in (card, of_data):
        made.save(tmp_path / "README.md")
        read = type(made).load(tmp_path / "README.md")
        assert read.data.to_dict() == made.data.to_dict() and str(read) == str(made)
        fences = re.findall(r"^(`{3,})\w+\n(.*?)^\1$", made.text, re.DOTALL | re.MULTILINE)
        for fence, block in fences:
            assert fence not in block
            if "import" in block:
                ast.parse(block)
        rest = re.sub(r"^(`{3,})\w+\n.*?^\1$", "", made.text, flags=re.DOTALL | re.MULTILINE)
        for line in rest.split("\n"):
            if line.startswith("|"):
                assert len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) in (3, 5, 6, 8), line
        plain = re.sub(r"(`+)(?!`).*?(?<!`)\1(?!`)", "", rest.replace("<!-- hf_noise", ""))  # code within a line
        assert "<script" not in plain and "<!--" not in plain and "\n# h\n" not in plain
        assert len(re.findall(r"^#+ ", plain, re.MULTILINE)) == (7 if made is card else 5)
    assert card.data.model_name == evil and card.data.eval_results[0].metric_type == evil


def test_a_local_folder_of_two_names_is_no_data_set_of_the_hub(record, noise, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    values = {field: getattr(record, field) for field in record.to_dict() if field != "schema"}
    assert RunRecord(**values).data["source"] == "owner/some-text"
    (tmp_path / "owner" / "some-text").mkdir(parents=True)
    local = RunRecord(**values)
    assert local.data["source"] == "./owner/some-text" and "datasets" not in model_card(local).data.to_dict()
    assert data_card(data_record(noise, source="owner/some-text")).data.get("source_datasets") is None
    # A record of the Hub's data set is read as it was written, whatever lies here now.
    assert RunRecord.from_json(record.to_json()) == record and RunRecord.from_json(local.to_json()) == local


def test_without_a_place_there_is_no_code(record, noise):
    text = model_card(RunRecord.from_dict(record.to_dict() | {"name": "r0.5"})).text
    assert "from_pretrained" not in text and "## Use" not in text and "\n\n\n" not in text
    text = data_card(data_record(noise, name="docs")).text
    assert "load_noise" not in text and "\n\n\n" not in text and "hf_noise.load_dataset" in text


def test_the_sentence_names_the_rates_and_what_was_counted(noise):
    block = noise_block(noise.to_dict() | {"realised": {"rate": 0.3, "n": 1000}})
    assert noise_sentence(block).endswith(
        "e = 0.3333 of all units. Counted in the data: 0.3000 of 1,000 units."
    )
    assert noise_block(noise) == {key: value for key, value in block.items() if key != "realised"}


@pytest.mark.parametrize("path", sorted(HUB_CARDS.glob("*/record.json")), ids=lambda path: path.parent.name)
def test_published_cards_are_what_their_records_render_to(path):
    (record,) = read_records(path)
    readme = (path.parent / "README.md").read_bytes()
    again = render_card(record, repo_id=f"user/{record.name}")
    assert str(again).encode() == readme, f"python -m hf_noise.hub.card {path} --owner user renders it again"
    assert card_errors(readme.decode()) == []
    assert yaml.safe_load(readme.decode().split("---\n")[1])["noise"]
    assert load_noise(
        path.parent, config_name=None if isinstance(record, RunRecord) else record.configs[0]["config_name"]
    )


def test_the_command_renders_beside_the_record(record, noise, tmp_path, capsys):
    record.write(tmp_path / "model" / "record.json")
    data_record(noise).write(tmp_path / "data" / "record.json")
    main([os.fspath(tmp_path / name / "record.json") for name in ("model", "data")])
    assert (tmp_path / "model" / "README.md").read_text() == str(model_card(record))
    assert (tmp_path / "data" / "README.md").read_text() == str(data_card(data_record(noise)))
    assert capsys.readouterr().out.count("README.md") == 2

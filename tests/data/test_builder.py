"""Settings of the noise: equal ones share a cache, wrong ones are refused before work starts."""

from __future__ import annotations

import os

import numpy as np
import pytest
from datasets import Features, get_dataset_config_names, load_dataset, load_dataset_builder

from hf_noise.data.builder import first_sample_id
from hf_noise.noise import UniformTokens

NAME = "hf_noise/docs-noisy"


def cache_dir(**settings):
    return load_dataset_builder(NAME, **settings).cache_dir


def test_settings_that_mean_the_same_share_a_cache():
    one = cache_dir(r=1)
    assert one == cache_dir(r=1.0) == cache_dir(error_rate=0.5) == cache_dir(r=1, seed=0, noisy_splits=[])
    assert cache_dir(r=1, noisy_splits="validation") == cache_dir(r=1, noisy_splits=["validation"])
    assert cache_dir(r=1, tokenizer="embedded") == cache_dir(r=1, tokenizer="embedded:2048")


def test_other_settings_have_their_own():
    settings = [
        {}, {"r": 0.5}, {"seed": 1}, {"epoch": 1}, {"exclude_original": True}, {"block_size": 64},
        {"noisy_splits": ("validation",)}, {"tokenizer": "embedded:300"},
    ]
    folders = [cache_dir(**{"r": 1.0, **changed}) for changed in settings]
    assert len(set(folders)) == len(settings)


def test_another_content_of_the_source_has_its_own(tmp_path):
    file = tmp_path / "a.txt"
    file.write_text("some words\n" * 500)
    before = cache_dir(r=1, source=str(file))
    os.utime(file, ns=(1, 1))
    assert cache_dir(r=1, source=str(file)) != before


@pytest.mark.parametrize("name", [None, "r0.5"])
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"r": -0.1}, r"ratio must be finite and >= 0, got -0.1"),
        ({"r": float("nan")}, "finite"),
        ({"r": float("inf")}, "finite"),
        ({"r": 0.7, "error_rate": 0.2}, "give one of them"),
        ({"r": 0.5, "epoch": -1}, r"epoch must lie in \[0, 2\^63\), got -1"),
        ({"r": 0.5, "seed": -1}, "seed"),
    ],
)
def test_wrong_values(name, settings, message):
    with pytest.raises(ValueError, match=message):
        load_dataset_builder(NAME, name, **settings)


@pytest.mark.parametrize("error_rate", [1.0, -0.1, float("nan")])
def test_wrong_error_rate(error_rate):
    with pytest.raises(ValueError, match=r"error_rate must lie in \[0, 1\)"):
        load_dataset_builder(NAME, error_rate=error_rate)


def test_no_rate_at_all():
    with pytest.raises(ValueError, match="say how much noise"):
        load_dataset_builder(NAME, seed=3)


def test_named_configurations():
    assert get_dataset_config_names(NAME) == ["r0.0", "r0.1", "r0.3", "r0.5", "r1.0"]
    with pytest.raises(ValueError, match="'r0.5' means r=0.5, not r=3.0"):
        load_dataset_builder(NAME, "r0.5", r=3)
    with pytest.raises(ValueError, match="brings its r"):
        load_dataset_builder(NAME, "r0.5", error_rate=0.1)
    for name in ("r9", 5, "default"):
        with pytest.raises(ValueError, match=f"configuration {name!r} not found; hf_noise/docs-noisy has r0.0, r0.1"):
            load_dataset_builder(NAME, name)
    with pytest.raises(ValueError, match="'r0.5' not found; hf_noise/packed has none"):
        load_dataset_builder("hf_noise/packed", "r0.5")
    for name in (NAME, "hf_noise/digits-noisy", "hf_noise/noisy"):
        with pytest.raises(ValueError, match="say how much noise"):
            load_dataset_builder(name)


@pytest.mark.parametrize("name", [None, "r0.5"])
@pytest.mark.parametrize(("builder", "setting"), [("digits", "classes"), ("docs", "ratio"), ("noisy", "check")])
def test_a_setting_that_a_builder_does_not_have(name, builder, setting):
    told = f"hf_noise/{builder}-noisy has no setting '{setting}'; it takes r, error_rate, seed, "
    builder = "hf_noise/noisy" if builder == "noisy" else f"hf_noise/{builder}-noisy"
    with pytest.raises(TypeError, match=told.replace("noisy-noisy", "noisy")):
        load_dataset_builder(builder, name, r=0.5, **{setting: 10})


@pytest.mark.parametrize("argument", ["data_files", "data_dir", "features", "revision"])
def test_arguments_of_other_builders_are_refused(argument, tmp_path):
    file = tmp_path / "my.txt"
    file.write_text("some words")
    value = {"data_dir": str(tmp_path), "data_files": str(file), "features": Features(), "revision": "main"}[argument]
    with pytest.raises(TypeError, match=f"{argument}=.* means nothing for hf_noise/docs-noisy"):
        load_dataset(NAME, r=0.5, **{argument: value})


def test_unknown_setting():
    with pytest.raises(TypeError, match="ratoi"):
        load_dataset_builder(NAME, ratoi=0.5)


def test_builder_knows_its_noise():
    builder = load_dataset_builder(NAME, r=0.5, seed=7, exclude_original=True, noisy_splits="test")
    assert builder.noise == UniformTokens(ratio=0.5, vocab_size=2048, seed=7, exclude_original=True)
    assert builder.noise_of("train") == builder.noise_of("test") == builder.noise
    assert builder.noise_of("validation").error_rate == 0


@pytest.mark.parametrize("value", [0.5, "1", True])
def test_epochs_that_are_no_integers(value):
    with pytest.raises(TypeError, match="epoch must be an integer, got"):
        load_dataset_builder(NAME, r=0.5, epoch=value)


@pytest.mark.parametrize(
    "setting", [{"epoch": np.int64(1)}, {"block_size": np.int32(64)}, {"exclude_original": np.bool_(True)},
                {"validation_fraction": np.float32(0.25)}, {"seed": np.uint8(3)}],
)  # fmt: skip
def test_numbers_of_numpy_mean_what_pythons_do(setting):
    plain = {name: value.item() for name, value in setting.items()}
    assert cache_dir(r=0.5, **setting) == cache_dir(r=0.5, **plain) != cache_dir(r=0.5)
    config = load_dataset_builder(NAME, r=0.5, **setting).config
    assert all(type(getattr(config, name)) is type(value) for name, value in plain.items())


def test_noisy_split_that_is_not_there():
    with pytest.raises(ValueError, match="noisy_splits names test, but the splits are train, validation"):
        load_dataset(NAME, r=0.5, noisy_splits="test", streaming=True)


def test_sample_ids_never_meet():
    ids = [first_sample_id(split, shard) for split in ("train", "validation", "test") for shard in (0, 1, 2**20 - 1)]
    assert ids[:2] == [0, 2**40] and sorted(set(ids)) == ids and ids[-1] + 2**40 < 2**63
    names = ("train", *"edcba")
    firsts = [first_sample_id(split, 0, names) for split in sorted(names)]
    assert sorted(firsts) == [number << 60 for number in (0, 3, 4, 5, 6, 7)] and first_sample_id("a", 0) == 3 << 60


def test_ids_that_would_meet_are_refused():
    for shard in (-1, 2**20):
        with pytest.raises(ValueError, match=rf"shard {shard} of the split 'train' is outside \[0, 2\^20\)"):
            first_sample_id("train", shard)
    with pytest.raises(ValueError, match="splits a, b, c, d, e, f would share sample ids"):
        first_sample_id("a", 0, list("abcdef"))

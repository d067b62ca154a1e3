"""What data say of the noise they were corrupted with: one line of JSON at the end of their description.

`describe_noise` writes it. `noise_from_description` reads the noise, `noise_dict_from_description` its dictionary with
the realised rate, `noise_records` all lines there are.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from hf_noise.noise.base import Noise, noise_from_dict

__all__ = ["describe_noise", "noise_dict_from_description", "noise_from_description", "noise_records"]


def describe_noise(
    description: str | None,
    noise: Noise,
    epoch: int = 0,
    realised: Mapping[str, Mapping[str, Any]] | None = None,
    **told: Any,
) -> str:
    """The description of data that were just corrupted: the text of `description`, and the noise in the last line.

    The line is JSON: `{"noise": {protocol, version, fields, "realised": {"rate", "n"}}, "epoch": 0, "realised": {split:
    {"rate", "n"}}, ...}`. Lines of that kind which are there already go, because they no longer describe the data. What
    is written down was drawn once: noise of epoch 0 is said to be drawn never again, so that a trainer does not take it
    for noise that it has to renew.

    `filter`, `select` and `train_test_split` of `datasets` keep the line of all rows, `concatenate_datasets` joins the
    lines that differ, and a file written by `to_parquet` has none.

    Args:
        description: of the data before.
        noise: what they were corrupted with.
        epoch: which epoch's noise was drawn.
        realised: the share of noisy units in each split and their number, once they were counted; that under "noise" is
            of the train split, or of the first one.
        **told: what else to say, JSON-able.
    """
    if epoch == 0 and noise.redraw != "never":
        noise = dataclasses.replace(noise, redraw="never")
    stated = noise.to_dict()
    record: dict[str, Any] = {"noise": stated, "epoch": epoch, **told}
    if realised:
        stated["realised"] = realised.get("train") or next(iter(realised.values()))
        record["realised"] = realised
    text = "\n".join(line for line in (description or "").splitlines() if not line.startswith('{"noise"'))
    return f"{text.strip()}\n\n{json.dumps(record)}".lstrip()


def noise_dict_from_description(description: str) -> dict[str, Any] | None:
    """What `load_dataset("hf_noise/...")` says of its noise in `dataset.info.description`: JSON in a line of its own.

    Returns:
        `Noise.to_dict()`, with the realised rate `{"rate", "n"}` under "realised" once the data are built; None if
        no line is one of ours. Of data sets with the same noise that were put together, no rate is that of all rows.

    Raises:
        TypeError: the description is no text.
        ValueError: it states several noises, as data sets that were put together do; or a line begins like one of ours
            and is not.
    """
    if description is not None and not isinstance(description, str):
        raise TypeError(f"a description is a text, got {description!r:.80} of type {type(description).__name__}")
    last = (description or "").strip().splitlines()[-1:]
    if last and last[0].startswith('{"noise"'):
        try:
            stated = json.loads(last[0])["noise"]
        except (ValueError, RecursionError) as error:
            raise ValueError(
                f"the description's last line states a noise that cannot be read: {last[0]:.80}"
            ) from error
        if not isinstance(stated, dict):
            raise ValueError(
                f"the description's last line states {stated!r:.80} as its noise; it holds Noise.to_dict()"
            )
    stated = [record["noise"] for record in noise_records(description)]
    noises = [{key: value for key, value in noise.items() if key != "realised"} for noise in stated]
    if other := next((noise for noise in noises if noise != noises[-1]), None):
        raise ValueError(
            f"the description states several noises, {other!r:.200} and {noises[-1]!r:.200}: data sets were put "
            "together; use one of them, or say the noise that all rows have"
        )
    if not stated:
        return None
    return stated[-1] if all(noise == stated[-1] for noise in stated) else noises[-1]


def noise_records(description: str) -> list[dict[str, Any]]:
    """All that a description says of noise, one entry for each line of ours: data sets put together have several.

    Returns:
        Dictionaries with "noise" and perhaps "epoch" and "realised" (`{split: {"rate", "n"}}`).

    Raises:
        ValueError: a line begins like one of ours and is broken.
    """
    records = []
    for line in (description or "").splitlines():
        if line.startswith('{"noise"'):
            try:
                record = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise ValueError(f"the description of the data states broken noise ({error}): {line[:80]!r}") from None
            if isinstance(record["noise"], dict):
                records.append(record)
    return records


def noise_from_description(description: str) -> Noise | None:
    """The noise that a data set of `load_dataset("hf_noise/...")` carries, from its `info.description`.

    Returns None for a description that states no noise.

    Raises:
        ValueError: the noise is of a protocol, version or field that this hf_noise does not know, or cannot be read.
    """
    stated = noise_dict_from_description(description)
    if stated is None:
        return None
    return noise_from_dict({key: value for key, value in stated.items() if key != "realised"})

"""What data say of the noise they were corrupted with: one line of JSON at the end of their description."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from hf_noise.noise.base import Noise

__all__ = ["describe_noise"]


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

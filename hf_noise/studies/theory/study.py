"""What theory says of noise documents and noisy labels: figures 7 and 9 of paper B, 3 of paper A, PAC, and a table.

The table says for each share of noise and each exchange rate k which statement of Proposition 1 holds. k over training
(figure 7a) is measured on two finished runs of `gpt2_noise.py` or `bert_noise.py`, one on clean text and one on the
mixture, whose records hold the losses along training; without `--clean` and `--mixed` that panel is left out. All
values stand in `theory.json` beside the figures.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, ClassVar

from hf_noise.analysis.ntp_theory import LARGEST_LOSS
from hf_noise.studies.ranges import Name, Output, Range, ShareBelowOne, ShareInside
from hf_noise.studies.settings import CommandSettings, SettingError, parse, setting

# Of paper B: GPT-2 124M on clean text, and uniform noise over its vocabulary, of which nothing was learned.
CLEAN_LOSS, NOISE_LOSS = 2.9, math.log(50257)

Loss = Annotated[float, Range(0, LARGEST_LOSS)]
Rate = Annotated[float, Range(1e-200, 1e200)]


@dataclass
class Settings(CommandSettings):
    """Settings of the theory study."""

    one_or_more: ClassVar = ("alpha", "k")

    output: Output = setting("runs/theory", "folder of figures, table and values", group="study", in_result=False)
    clean: Name | None = setting(None, "record, or its folder, of a run on clean text", group="data")
    mixed: Name | None = setting(None, "record, or its folder, of the run on the mixture", group="data")
    early: ShareInside = setting(1 / 30, "share of training after which the mixed run gives p_n", group="data")
    alpha: list[ShareBelowOne] = setting(
        [0.01, 0.05, 0.2, 0.4, 0.55], "shares of noise, of the table", group="noise and loss"
    )
    k: list[Rate] = setting(
        [1, 10, 100, 1000], "clean probability lost per noise probability gained", group="noise and loss"
    )
    clean_loss: Loss | None = setting(
        None, f"nats on clean text; {CLEAN_LOSS:g}, or that of --clean", group="measurement"
    )
    noise_loss: Loss | None = setting(
        None, f"nats on noise; {NOISE_LOSS:.2f}, or the early one of --mixed", group="measurement"
    )

    def complete(self) -> None:
        if (self.clean is None) != (self.mixed is None):
            given, missing = ("clean", "mixed") if self.mixed is None else ("mixed", "clean")
            raise SettingError(f"--{given} is one of a pair of runs; give --{missing} too")


def main(argv: Sequence[str] | None = None) -> None:
    settings = parse(Settings, argv, __doc__.split("\n\n")[0])
    from hf_noise.studies.theory.pair import read_pair

    pair = None if settings.clean is None else read_pair(settings.clean, settings.mixed, settings.early)
    if settings.dry_run:
        print(json.dumps(asdict(settings), indent=2))
        print(f"pair of runs: {pair.describe() if pair else 'none, so no k over training'}")
        return
    from hf_noise.studies.theory.report import show

    print(show(settings, pair))

"""What Local Gradient Matching costs: its closed form, training with it, and a whole grid of heads at once.

    python benchmarks/lgm.py [--batch 8] [--quick] [--output benchmarks/results/lgm.json]

Heads are linear, on 768 features of 20 classes, and on 384 features of 2 (a small sentence encoder on sentiment). Bars
are explained in benchmarks/README.md.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable

import torch
import torch.nn.functional as F
from compare import Report, Spread, arguments, interleave, ratio, start
from torch import Tensor, nn

from hf_noise.losses import local_gradient_matching
from hf_noise.losses.head_gradients import Targets
from hf_noise.losses.linear_gradient import OneLinearForm
from hf_noise.trainers.heads import HeadPlan, HeadSetting, fit_heads, head_grid

GAMMA, LAM = 0.01, 0.15
SEEDS, SETTINGS = 5, 12


class Unknown(nn.Module):
    """A head of which no closed form is known."""

    def __init__(self, inner: nn.Module):
        super().__init__()
        self.inner = inner

    def forward(self, features: Tensor) -> Tensor:
        return self.inner(features)


def make_rows(rows: int, width: int, classes: int) -> tuple[Tensor, Tensor]:
    """Features of unit variance, and labels that a linear head can learn in part."""
    draw = torch.Generator().manual_seed(0)
    features = torch.randn(rows, width, generator=draw)
    logits = features @ torch.randn(width, classes, generator=draw)
    return features, (logits + width**0.5 * torch.randn(rows, classes, generator=draw)).argmax(1)


def double_backward(head: nn.Module, features: Tensor, labels: Tensor, noise: Tensor) -> Tensor:
    """The loss as it is usually written: two gradients with a graph, to be differentiated again."""
    weights = list(head.parameters())
    clean, noisy = (F.cross_entropy(head(given), labels) for given in (features, features + GAMMA * noise))
    both = (torch.autograd.grad(loss, weights, create_graph=True) for loss in (clean, noisy))
    square = sum((one - other).square().sum() for one, other in zip(*both))
    return clean + LAM * (square + 1e-12).sqrt()


def losses(batch: int, width: int, classes: int) -> dict[str, Callable[[], Tensor]]:
    """Loss and gradient of one batch; each returns the gradient of the weight.

    "closed form" is what `fit_heads` takes in a step, "public function" the same as a function for autograd.
    """
    features, labels = make_rows(batch, width, classes)
    noise, head = torch.randn(features.shape, generator=torch.Generator().manual_seed(1)), nn.Linear(width, classes)

    def gradient_of(loss: Callable[[], Tensor]) -> Callable[[], Tensor]:
        def step() -> Tensor:
            head.zero_grad()
            loss().backward()
            return head.weight.grad

        return step

    def matched(of: nn.Module) -> Callable[[], Tensor]:
        return lambda: local_gradient_matching(of, features, labels, gamma=GAMMA, lam=LAM, noise=noise).loss

    weight, bias = head.weight.detach(), head.bias.detach()
    targets = Targets(F.one_hot(labels, classes).to(features.dtype)[None])

    def closed() -> Tensor:
        with torch.no_grad():
            form = OneLinearForm(weight, bias, features, noise, targets, GAMMA)
            return form.gradients(1.0, LAM)[0][0]

    return {
        "closed form": closed, "public function": gradient_of(matched(head)),
        "torch.func": gradient_of(matched(Unknown(head))),
        "double backward": gradient_of(lambda: double_backward(head, features, labels, noise)),
        "cross-entropy": gradient_of(lambda: F.cross_entropy(head(features), labels)),
    }  # fmt: skip


def bare_loop(features: Tensor, labels: Tensor, classes: int, batch: int, fused: bool) -> Callable[[], None]:
    """An epoch of plain cross-entropy as one writes it in torch."""
    head = nn.Linear(features.shape[1], classes)
    optimiser = torch.optim.AdamW(head.parameters(), lr=6e-4, fused=fused)

    def epoch() -> None:
        for rows in torch.randperm(len(features)).split(batch):
            optimiser.zero_grad()
            F.cross_entropy(head(features[rows]), labels[rows]).backward()
            optimiser.step()

    return epoch


def fits(features: Tensor, labels: Tensor, batch: int) -> dict[str, Callable[[], None]]:
    """An epoch of heads by `fit_heads`: one without a penalty, one with, and the grid."""
    def fit(settings: list[HeadSetting]) -> Callable[[], None]:
        return lambda: fit_heads(features, labels, settings, HeadPlan(epochs=1), progress=False)

    rates, strengths = (3e-4, 6e-4, 1e-3), (0.05, 0.1, 0.15, 0.2)
    grid = head_grid(learning_rate=rates, lam=strengths, gamma=GAMMA, batch_size=batch, seed=range(SEEDS))
    assert len(grid) == SEEDS * SETTINGS
    return {"plain fit": fit(head_grid(batch_size=batch)), "LGM fit": fit(head_grid(lam=LAM, batch_size=batch)),
            "grid": fit(grid)}  # fmt: skip


def main(argv: list[str] | None = None) -> int:
    parser = arguments(__doc__)
    parser.add_argument("--batch", type=int, default=8, help="rows of a step")
    args = parser.parse_args(argv)
    start(args)
    if args.batch < 2:
        raise SystemExit(f"--batch must be >= 2, got {args.batch}")
    logging.getLogger("hf_noise.losses.gradient_matching").setLevel(logging.ERROR)  # it says that torch.func is slower
    tasks = {"768 x 20": (768, 20), "384 x 2": (384, 2)}
    rows, repeats, rounds = (16, 2, 2) if args.quick else (2048, 50, 21)
    rounds = args.rounds or rounds
    report = Report(f"Local Gradient Matching, batches of {args.batch}",
                    {"batch": args.batch, "rows": rows, "rounds": rounds, "gamma": GAMMA, "lam": LAM})  # fmt: skip
    for name, (width, classes) in tasks.items():
        ways, is_first = losses(args.batch, width, classes), name == "768 x 20"
        closed, *others = (ways[way]().clone() for way in ways if way != "cross-entropy")
        apart = max(float((other - closed).abs().max() / closed.abs().max()) for other in others)
        report.equal(f"gradients of the closed forms and of double backward, {name}", apart < 1e-4, f"{apart:.1g}")
        times = interleave(ways, rounds, repeats=repeats)
        report.add(f"closed form, loss and gradient, {name}", Spread.of(times["closed form"] * 1e6), unit="us")
        report.add(f"double backward / closed form, {name}", ratio(times["double backward"], times["closed form"]),
                   at_least=3.0 if is_first else None)  # fmt: skip
        for way in ("double backward", "torch.func"):
            report.add(f"{way} / public function, {name}", ratio(times[way], times["public function"]))
        report.add(f"closed form / cross-entropy, {name}", ratio(times["closed form"], times["cross-entropy"]))
        features, labels = make_rows(rows, width, classes)
        loops = {f"bare loop{', fused AdamW' * fused}": bare_loop(features, labels, classes, args.batch, fused)
                 for fused in (False, True)}  # fmt: skip
        times = interleave(loops | fits(features, labels, args.batch), max(2, rounds // 2))
        steps = -(-rows // args.batch)
        report.add(f"LGM fit, {name}", Spread.of(times["LGM fit"] / steps * 1e6), unit="us/step")
        report.add(f"LGM fit / bare loop, {name}", ratio(times["LGM fit"], times["bare loop"]), at_most=1.5)
        for other in ("bare loop, fused AdamW", "plain fit"):
            report.add(f"LGM fit / {other}, {name}", ratio(times["LGM fit"], times[other]))
        report.add(f"plain fit / bare loop, {name}", ratio(times["plain fit"], times["bare loop"]))
        report.add(f"grid of {SEEDS} seeds x {SETTINGS} settings / LGM fit, {name}",
                   ratio(times["grid"], times["LGM fit"]), at_most=3.0)  # fmt: skip
        report.add(f"grid / {SEEDS * SETTINGS} LGM fits, {name}",
                   ratio(times["grid"], SEEDS * SETTINGS * times["LGM fit"]))  # fmt: skip
    return report.finish(args.output)


if __name__ == "__main__":
    sys.exit(min(1, main()))

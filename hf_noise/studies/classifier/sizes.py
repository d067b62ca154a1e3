"""What noise costs against the number of clean images: the study once for each, then a table, a figure and claims."""

from __future__ import annotations

import argparse
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from statistics import mean
from typing import Any

from hf_noise.reports.figures import save_figure, start_figure
from hf_noise.reports.paper import paper_table
from hf_noise.reports.record import RunRecord, command_line, now, read_records, versions, write_atomic
from hf_noise.reports.tables import Column, Table, fixed, markdown_table, percent, shown_table
from hf_noise.reports.verdicts import Spread, Verdict, joined, lies_in, of_test_rows, spread
from hf_noise.studies.classifier.study import Settings
from hf_noise.studies.compute import has_more_compute
from hf_noise.studies.settings import SettingError
from hf_noise.studies.study import Study

__all__ = ["Noisy", "comparable", "show_sizes", "size_figure", "sizes_of", "sweep", "table_of_sizes", "verdicts"]

#: What a sweep is of where the command says nothing else: paper A's first and last ratio at equal clean exposure.
USUAL = ("--ratio", "0", "1", "--protocol", "symmetric", "--loss", "nll", "--plan", "steps", "--no_equal_compute",
         "--seed", "0", "1", "2")  # fmt: skip


@dataclass(frozen=True)
class Noisy:
    """One kind of noise, loss and plan at one number of clean images.

    Attributes:
        rows: clean images.
        name: of protocol, loss and plan.
        error_rate: e.
        seeds: that have a run without noise and one with.
        clean: test accuracy without noise, of each of these seeds.
        accuracy: with noise, of the same.
    """

    rows: int
    name: str
    error_rate: float
    seeds: tuple[int, ...]
    clean: tuple[float, ...]
    accuracy: tuple[float, ...]

    @property
    def loss(self) -> Spread:
        """Relative loss of accuracy in percent, seed by seed."""
        return self.loss_of(self.seeds)

    def loss_of(self, seeds: Collection[int]) -> Spread:
        """The same of these of its seeds."""
        pairs = zip(self.seeds, self.clean, self.accuracy)
        return spread([100 * (1 - noisy / clean) for seed, clean, noisy in pairs if seed in seeds])


def sweep(study: Study, sizes: Sequence[str], argv: Sequence[str]) -> None:
    """The study for each of these numbers of training images, in folders `rows-<n>` of the output."""
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--output")
    output, argv = (asked := first.parse_known_args(argv))[0].output, asked[1]
    if output is None:
        output = f"{study.parse([*USUAL, *argv, '--train_rows', sizes[0]]).output}-sizes"
    parsed = [study.parse([*USUAL, *argv, "--train_rows", n, "--output", f"{output}/rows-{n}"]) for n in sizes]
    counts = [one.train_rows for one in parsed]
    if len(set(counts)) < len(counts):
        raise SettingError(f"--train_rows {' '.join(sizes)}: a number stands there twice")
    if parsed[0].push_to_hub:
        raise SettingError("--push_to_hub would push runs of all sizes to the same names; push from one of the folders")
    parsed.sort(key=lambda one: one.train_rows)
    if parsed[0].dry_run:
        from hf_noise.studies.dry_run import look

        for settings in parsed:
            print(f"--train_rows {settings.train_rows}")
            look(study, settings)
        return
    from hf_noise.studies.engine import train

    is_main = True
    for settings in parsed:
        runs, plans, _ = study.planned(settings)
        is_main = train(study, settings, runs, plans)
    if is_main:
        # Those of earlier commands with this output too, as far as nothing but what is compared differs.
        folders = [path for path in Path(output).glob("rows-*") if path.is_dir()]
        records = [one for path in folders for one in read_records(path) if isinstance(one, RunRecord)]
        kept, left_out = comparable(records, parsed[0])
        print("\n\n".join([*left_out, show_sizes(kept, Path(output))]))


def comparable(records: Sequence[RunRecord], settings: Settings) -> tuple[list[RunRecord], list[str]]:
    """The records of runs that differ from these settings in what is compared alone: rows, seed, noise, loss and plan.

    Also says of the others, which are left out, what they were made with.
    """
    told, kept, left_out = _deciding(asdict(settings)), [], {}
    for record in records:
        theirs = _deciding(record.settings)
        differ = [f"--{name} {theirs.get(name)}" for name in told if theirs.get(name) != told[name]]
        if differ:
            left_out.setdefault(" ".join(differ), []).append(f"{record.data['train_rows']} images: {record.name}")
        else:
            kept.append(record)
    return kept, [f"left out, of {how}: {', '.join(names)}" for how, names in left_out.items()]


def _deciding(given: Mapping[str, Any]) -> dict[str, Any]:
    """Of a run's settings those that its result depends on beside what is compared."""
    known = {one.name: one for one in fields(Settings) if one.metadata["in_result"] and one.name != "train_rows"}
    return {name: given.get(name) or None if one.metadata["is_later"] else given.get(name)
            for name, one in known.items()}  # fmt: skip


def sizes_of(records: Sequence[RunRecord]) -> list[Noisy]:
    """The runs with noise beside those without of the same number of images and seed, by name, e and rows."""
    clean: dict[tuple[int, int], float] = {}
    found: dict[tuple[str, float, int], dict[int, float]] = {}
    for record in records:
        rows, value = record.data["train_rows"], record.metrics["test_accuracy"]["value"]
        if has_more_compute(record):
            continue
        if record.noise["error_rate"] == 0:
            clean[rows, record.seed] = value
            continue
        kind = record.noise.get("kind") or f"human:{record.noise.get('name')}"
        name = f"{kind}, {record.loss['name']}, {record.budget['plan']}"
        found.setdefault((name, record.noise["error_rate"], rows), {})[record.seed] = value
    told = []
    for (name, e, rows), by_seed in sorted(found.items()):
        seeds = [seed for seed in sorted(by_seed) if clean.get((rows, seed), 0) > 0]
        if seeds:
            told.append(Noisy(rows, name, e, tuple(seeds), *(tuple(of[seed] for seed in seeds) for of in (
                {seed: clean[rows, seed] for seed in seeds}, by_seed
            ))))  # fmt: skip
    return told


_COLUMNS = (
    Column("clean images", 0, "images"), Column("noise, loss, plan", 2, "noise"), Column("e"),
    Column("accuracy without noise, %", 1, "clean, %"), Column("accuracy, %", 1, "noisy, %"),
    Column("relative loss, % [95% interval]", 0, "loss, %"), Column("seeds", 3),
)  # fmt: skip


def table_of_sizes(found: Sequence[Noisy]) -> Table:
    """One line per noise and number of images."""
    return Table(_COLUMNS, [
        [str(one.rows), one.name, fixed(one.error_rate, 2), percent(mean(one.clean)), percent(mean(one.accuracy)),
         one.loss.told(1), str(len(one.clean))] for one in found
    ])  # fmt: skip


def verdicts(found: Sequence[Noisy]) -> list[Verdict]:
    """Paper A's trend: the more clean images, the smaller the relative loss; flat with all of ImageNet."""
    told = []
    for name, e in dict.fromkeys((one.name, one.error_rate) for one in found):
        sizes = [one for one in found if (one.name, one.error_rate) == (name, e)]
        if len(sizes) < 2:
            continue
        steps = [_less(*pair) for pair in zip(sizes, sizes[1:])]
        what = f"{name}, e = {e:.2g}: the relative loss of accuracy shrinks"
        whole, first, last = _less(sizes[0], sizes[-1]), sizes[0], sizes[-1]
        if whole is not None:
            start, end = (one.loss_of(_both(first, last)).mean for one in (first, last))
            told.append(Verdict(f"{what} from {first.rows} to {last.rows} clean images", "table 3 (trend)",
                                f"by {whole.told(1)} points, from {start:.1f}% to {end:.1f}%" + _of_paper(e),
                                *lies_in(whole, 0)))  # fmt: skip
        if len(steps) > 1 and None not in steps:
            told.append(Verdict(f"{what} at every step of {', '.join(str(one.rows) for one in sizes)}",
                                "table 3 (trend)", f"by {', '.join(step.told(1) for step in steps)} points",
                                *joined([lies_in(step, 0) for step in steps])))  # fmt: skip
    return of_test_rows(told)


def _less(small: Noisy, large: Noisy) -> Spread | None:
    """By how many points of percent the loss is smaller with more images, in the seeds of both; None without any."""
    seeds = _both(small, large)
    pairs = zip(small.loss_of(seeds).values, large.loss_of(seeds).values)
    return spread([one - other for one, other in pairs]) if seeds else None


def _both(one: Noisy, other: Noisy) -> set[int]:
    return {*one.seeds} & {*other.seeds}


def _of_paper(e: float) -> str:
    """The relative losses that the paper has at this rate, of ImageNet and its subsets."""
    table, losses = paper_table("A.table3"), []
    ratio = next((r for r in table if abs(r / (1 + r) - e) < 1e-6), None)
    if ratio is None:
        return ""
    for column in ("imagenet10", "imagenet100", "imagenet1000"):
        losses.append(f"{100 * (1 - table[ratio][column] / table[0.0][column]):.1f}%")
    return f" (paper: {', '.join(losses)} with 10, 100, 1000 classes)"


_COLOURS = ("#2166ac", "#b2182b", "#1b7837", "#762a83", "#e08214")


def size_figure(found: Sequence[Noisy], path: str | Path) -> Path:
    """Relative loss of accuracy, and accuracy itself, against the number of clean images."""
    plt = start_figure()
    fig, (left, right) = plt.subplots(1, 2, figsize=(10.4, 4.4), layout="constrained")
    kinds = list(dict.fromkeys((one.name, one.error_rate) for one in found))
    names = {name for name, _ in kinds}
    clean: dict[int, tuple[float, ...]] = {}
    for (name, e), colour in zip(kinds, _COLOURS * len(kinds)):
        sizes = [one for one in found if (one.name, one.error_rate) == (name, e)]
        label = f"e = {e:.2g}" + (f", {name}" if len(names) > 1 else "")
        rows = [one.rows for one in sizes]
        _draw(left, rows, [one.loss.values for one in sizes], colour, label)
        _draw(right, rows, [tuple(100 * value for value in one.accuracy) for one in sizes], colour, label)
        clean |= {one.rows: one.clean for one in sizes}
    _draw(right, sorted(clean), [tuple(100 * value for value in clean[n]) for n in sorted(clean)], "#555555",
          "without noise")  # fmt: skip
    left.axhline(0, color="#888888", lw=0.8)
    left.set(ylabel="relative loss of accuracy (%)")
    left.set_title("What noise takes from few and from many", loc="left", fontweight="bold")
    right.set(ylabel="accuracy, clean test labels (%)")
    right.set_title("... and what is left", loc="left", fontweight="bold")
    for axis in (left, right):
        axis.set_xscale("log")
        axis.set_xticks(sorted(clean), [f"{n:,}" for n in sorted(clean)])
        axis.minorticks_off()
        axis.set_xlabel("clean images, equal clean exposure of each")
        axis.legend(frameon=False, fontsize=9, loc="best")
    return save_figure(fig, path)


def _draw(axis: Any, rows: Sequence[int], values: Sequence[Sequence[float]], colour: str, label: str) -> None:
    axis.plot(rows, [mean(one) for one in values], "o-", color=colour, lw=1.6, ms=5.5, label=label)
    for n, of_seeds in zip(rows, values):
        axis.plot([n] * len(of_seeds), of_seeds, ".", color=colour, alpha=0.4)


def show_sizes(records: Sequence[RunRecord], output: Path) -> str:
    """Table, claims and files of a sweep."""
    found = sizes_of(records)
    if not found:
        return "nothing to compare: a sweep takes runs without noise and with, of the same images and seed"
    table, judged = shown_table(table_of_sizes(found), output / "sizes.md"), verdicts(found)
    claims = markdown_table(["claim", "of", "measured", "verdict"],
                            [[one.claim, one.source, one.statistic, one.word] for one in judged])  # fmt: skip
    claims = claims if judged else "no claim can be judged: it takes several numbers of images, of the same seeds"
    write_atomic(output / "sizes.md", f"{table_of_sizes(found).markdown()}\n\n{claims}\n")
    values = {
        "sizes": [asdict(one) | {"relative_loss": one.loss.mean, "interval": one.loss.interval} for one in found],
        "claims": [asdict(one) | {"verdict": one.word} for one in judged], "command": command_line(),
        "versions": versions(), "created": now(),
    }  # fmt: skip
    file = write_atomic(output / "sizes.json", json.dumps(values, indent=2, allow_nan=False) + "\n")
    figure = size_figure(found, output / "sizes.png")
    return "\n".join([table, "", claims, "", f"figure: {figure}", f"values: {file}"])

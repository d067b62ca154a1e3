"""Committed records for tests of the report, as they are and changed."""

import json
import shutil
from pathlib import Path

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"
#: Enough of all records to have every family, and a study whose records share names.
SOME = ("gpt2-demo", "seq2seq-demo", "classifier-demo", "edm-demo", "classifier-sizes-digits")


#: Of these the first seed is taken, and a test adds those that it wants.
OF_ONE_SEED = ("gpt2-demo", "classifier-demo", "edm-demo")


def records_of(name):
    """Fields of the committed records of a study."""
    records = [json.loads(line) for line in (RESULTS / name / "records.jsonl").open()]
    return [one for one in records if one["seed"] == 0 or name not in OF_ONE_SEED]


def copied(folder):
    """A folder with a few studies' records, and the figure of one."""
    for name in SOME:
        write_records(folder / name, records_of(name))
    shutil.copy(RESULTS / "edm-demo" / "study.png", folder / "edm-demo")
    return folder


def told_of():
    """Raw fields of those records by study and name, without the code that is tested."""
    return {f"{name}/{one['name']}": one for name in SOME for one in records_of(name)}


def value(told, place, metric):
    return told[place]["metrics"][metric]["value"]


def more_seeds(folder, name, seeds):
    """Records of a study, made anew for other seeds with smaller figures; `seeds` of each by its name without one."""
    lines = []
    for one in records_of(name):
        run = one["name"].removesuffix("-seed0")
        assert one["seed"] == 0 and run != one["name"]
        for seed in seeds(run):
            own = [seed] if isinstance(one["settings"]["seed"], list) else seed
            metrics = {key: {**told, "value": told["value"] * (1 - seed / 10)} for key, told in one["metrics"].items()
                       if isinstance(told.get("value"), float)}  # fmt: skip
            lines.append(one | {"seed": seed, "name": f"{run}-seed{seed}", "metrics": metrics,
                                "settings": one["settings"] | {"seed": own}})  # fmt: skip
    write_records(folder / name, lines)


def write_records(folder, lines):
    folder.mkdir(parents=True)
    (folder / "records.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines))

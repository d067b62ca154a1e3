"""A study for tests of `reproduce`: cells that write a record at once, fail, end their process, or take their time."""

import argparse
import json
import os
import signal
import time
from pathlib import Path

from hf_noise.atomic import temporary_beside
from hf_noise.reports.record import RunRecord
from hf_noise.studies.reproduce.cells import Family, Part, parsed
from hf_noise.studies.settings import SettingError


def record(name, seed=0, value=1.0, **changes):
    told = {
        "name": name, "task": "tiny", "recipe": "none", "model": {}, "data": {}, "budget": {}, "loss": {"name": "nll"},
        "noise": {"protocol": "none", "ratio": 0.0}, "settings": {"size": 1, "scale": "demo"}, "seed": seed,
        "metrics": {"loss": {"value": value, "n": 1}}, "wall_seconds": 60.0, "git": None,
    }  # fmt: skip
    return RunRecord(**told | changes)


class Tiny(Family):
    """Each name is a cell, and says what becomes of it."""

    def settings(self, argv):
        parser = argparse.ArgumentParser()
        parser.add_argument("--names", nargs="+", default=[])
        parser.add_argument("--size", type=int, default=1)
        parser.add_argument("--seed", nargs="+", type=int, default=[0])
        parser.add_argument("--output")
        told = parsed(parser.parse_args, argv)
        if told.size < 0:
            raise SettingError("--size must be >= 0")
        return told

    def cells(self, settings):
        for seed in settings.seed:
            for name in settings.names:
                run, told = f"{name}-seed{seed}", {"size": settings.size}
                yield run, [Part(Path(settings.output) / run / "record.json", run, "tiny", told, told)]

    def make(self, settings, name):
        kind, folder = name.partition("-")[0], Path(settings.output) / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "run.json").write_text(json.dumps({"size": settings.size}))
        with (Path(settings.output) / "made.txt").open("a") as file:
            file.write(f"{name}\n")
        print(f"making {name}", flush=True)
        if kind == "fails":
            raise ValueError("there is no such\n  file")
        first = not (folder / "tried").exists()
        (folder / "tried").touch()
        if kind == "killed" and first:
            os.kill(os.getpid(), signal.SIGKILL)
        if kind == "slow" and first:
            time.sleep(60)
        if kind == "halfway" and first:
            temporary_beside(folder / "record.json").write_text('{"schema": "hf_n')
            os.kill(os.getpid(), signal.SIGKILL)
        end = time.monotonic() + 20
        while kind == "waits" and not (folder / "go").exists() and time.monotonic() < end:
            time.sleep(0.05)
        if kind == "waits":
            print("made", flush=True)
        if kind != "empty":
            noise = {"protocol": "none", "ratio": float(kind[1:]) if kind[1:].isdigit() else 0.0}
            record(name, value=1.0 - noise["ratio"], noise=noise).write(folder / "record.json")


FAMILY = Tiny()

"""Cells of `reproduce`: made once, killed and made again alone, failing without stopping others; a study of its own."""

import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from reproduce_fakes.tiny import record

from hf_noise.reports.paper import Runs
from hf_noise.studies.door import Stopped
from hf_noise.studies.reproduce import runner
from hf_noise.studies.reproduce.board import Board, in_words
from hf_noise.studies.reproduce.cells import Part
from hf_noise.studies.reproduce.plan import Asked, cells_of, is_there
from hf_noise.studies.reproduce.records import Kept

TINY = "reproduce_fakes.tiny"


def cells(asked, names, more="", folder=""):
    return cells_of(Runs(TINY, {"demo": f"--names {names} {more}"}, folder={"demo": folder}), asked)


def made(asked, folder="reproduce_fakes.tiny"):
    file = asked.output / "demo" / folder / "made.txt"
    return file.read_text().split() if file.is_file() else []


def test_cells_are_made_once_and_failures_stop_nobody(tmp_path, capsys):
    asked = Asked("demo", tmp_path)
    lane = cells(asked, "a fails killed empty b")
    failures = {one.cell.name: one for one in runner.run([lane], asked)}
    assert list(failures) == ["fails-seed0", "killed-seed0", "empty-seed0"]
    assert failures["fails-seed0"].message == "there is no such file"
    assert failures["killed-seed0"].message.startswith("its process ended (signal 9")
    assert failures["empty-seed0"].message == "it ended without a record"
    assert made(asked) == ["a-seed0", "fails-seed0", "killed-seed0", "empty-seed0", "b-seed0"]
    log = failures["fails-seed0"].log.read_text()
    assert log.startswith("making fails-seed0\nTraceback") and "no such" in log
    told = capsys.readouterr().err
    assert "5 cells to make" in told and "[2/5] reproduce_fakes.tiny/fails-seed0 failed: there is no such file" in told
    assert "[5/5] reproduce_fakes.tiny/b-seed0: 0 seconds" in told

    # The same command again: what was made is left alone, what was killed is made, and what fails fails.
    again = {one.cell.name for one in runner.run([cells(asked, "a fails killed empty b")], asked)}
    assert again == {"fails-seed0", "empty-seed0"}
    assert made(asked)[5:] == ["fails-seed0", "killed-seed0", "empty-seed0"]


def test_lanes_run_side_by_side(tmp_path):
    asked = Asked("demo", tmp_path, seeds=2)
    lanes = [cells(asked, "a", folder="one"), cells(asked, "b", folder="two")]
    assert [len(lane) for lane in lanes] == [2, 2] and runner.run(lanes, asked, jobs=2) == []
    assert [made(asked, f"{TINY}-{name}") for name in ("one", "two")] == [["a-seed0", "a-seed1"],
                                                                          ["b-seed0", "b-seed1"]]  # fmt: skip
    assert all(is_there(cell, asked) for lane in lanes for cell in lane)


def test_a_folder_of_other_settings_is_refused_before_it_is_touched(tmp_path):
    asked = Asked("demo", tmp_path)
    assert runner.run([cells(asked, "a")], asked) == []
    (failure,) = runner.run([cells(asked, "a", "--size 2")], asked)
    assert "a-seed0 holds a run with other settings (size); delete it, or give another --output" in failure.message
    assert made(asked) == ["a-seed0"]


def test_a_command_that_is_killed_leaves_nothing_running_and_goes_on_with_the_cell_that_was_cut_off(tmp_path):
    code = ("from pathlib import Path\nfrom hf_noise.reports.paper import Runs\n"
            "from hf_noise.studies.reproduce.plan import Asked, cells_of\n"
            "from hf_noise.studies.reproduce.runner import run\n"
            "if __name__ == '__main__':\n"
            f"    asked = Asked('demo', Path({str(tmp_path)!r}))\n"
            f"    run([cells_of(Runs({TINY!r}, {{'demo': '--names a slow b'}}), asked)], asked)\n")  # fmt: skip
    script = tmp_path / "command.py"
    script.write_text(code)
    paths = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[2])])
    process = subprocess.Popen([sys.executable, str(script)], env=os.environ | {"PYTHONPATH": paths})
    asked = Asked("demo", tmp_path)
    try:
        end = time.monotonic() + 60
        while "slow-seed0" not in made(asked) and time.monotonic() < end:
            time.sleep(0.1)
        log = runner.log_of(cells(asked, "slow")[0], asked)
        while not log.read_text() and time.monotonic() < end:
            time.sleep(0.1)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert made(asked) == ["a-seed0", "slow-seed0"]
    assert runner.run([cells(asked, "a slow b")], asked) == []
    assert made(asked) == ["a-seed0", "slow-seed0", "slow-seed0", "b-seed0"]


def test_ctrl_c_ends_the_processes_and_says_how_far_it_came(tmp_path, monkeypatch):
    asked = Asked("demo", tmp_path)

    def interrupted(self):
        if made(asked)[-1:] == ["slow-seed0"]:
            raise KeyboardInterrupt

    monkeypatch.setattr(Board, "tick", interrupted)
    begun = time.monotonic()
    with pytest.raises(Stopped, match="after 1 of 3 cells"):
        runner.run([cells(asked, "a slow b")], asked)
    assert time.monotonic() - begun < 50 and made(asked) == ["a-seed0", "slow-seed0"]


def test_records_of_before_cover_cells_of_the_same_settings_alone(tmp_path):
    first, other = record("a-seed0"), record("b-seed0", settings={"size": 2, "scale": "demo"})
    kept = Kept([first.to_dict(), other.to_dict()])
    asked = Asked("demo", tmp_path, kept=kept, reuses=True)
    a, b, c = cells(asked, "a b c")
    assert (is_there(a, asked), is_there(b, asked), is_there(c, asked)) == (True, False, False)
    assert not is_there(a, Asked("demo", tmp_path, kept=kept)), "only where they are asked for"
    assert kept.of(a.parts[0]) == first and kept.of(b.parts[0]) is None
    # A setting that records of before do not have was off then.
    later = Part(a.parts[0].file, "a-seed0", "tiny", settings={"size": 1, "later": None})
    assert kept.of(later) is not None
    assert kept.of(Part(later.file, "a-seed0", "tiny", settings={"size": 1, "later": 3})) is None
    # What it takes: of the same cell, else of its name at this scale, else of its task.
    assert [kept.seconds(cell, "demo") for cell in (a, b, c)] == [60, 60, 60] and kept.seconds(a, "paper") == 60
    assert kept.seconds(b, "paper") is None


def test_a_model_that_a_study_made_is_known_in_another_folder(tmp_path):
    told = record("a-seed0", settings={"model": "runs/x/backbones/clean-seed0"}).to_dict()
    output = tmp_path / "demo" / "backbones"
    kept, file = Kept([told]), output / "heads" / "clean-seed0" / "topics" / "a-seed0" / "record.json"
    made_here = {"model": f"{output}/backbones/clean-seed0"}
    assert kept.of(Part(file, "a-seed0", "tiny", settings=made_here)) is not None
    for other in (f"{output}/backbones/noisy-seed0", "owner/clean-seed0"):
        assert kept.of(Part(file, "a-seed0", "tiny", settings={"model": other})) is None
    strict, elsewhere = Kept([told], is_strict=True), {"model": f"{tmp_path}/own/backbones/clean-seed0"}
    assert strict.of(Part(file, "a-seed0", "tiny", settings=made_here)) is not None
    assert strict.of(Part(file, "a-seed0", "tiny", settings=elsewhere)) is None, "somebody else's model"


def test_the_board_says_what_runs_and_how_long_it_will_take(tmp_path, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("hf_noise.studies.reproduce.board.time.perf_counter", lambda: clock[0])
    a, b, c = cells(Asked("demo", tmp_path), "a b c")
    log = tmp_path / "log"
    log.write_bytes(b"epoch:   7%|x  \r epoch:  40%|xxxx")
    with Board({a: 100.0, b: 200.0, c: None}, jobs=1) as board:
        assert board.seconds_left == 100 + 200 + 150  # of the last one the mean of the others
        board.started(a, log)
        clock[0] = 50.0
        assert board.line() == "7 minutes left: reproduce_fakes.tiny/a-seed0 40%"
        board.ended(a, None)  # twice as fast as elsewhere
        assert board.seconds_left == 100 + 75 and board.made == 1
        board.started(b, tmp_path / "none")
        board.ended(b, "no")
        # How soon a cell fails says nothing of others; of what nobody knows it is the mean of those that are known.
        assert board.line() == "1 failed, 75 seconds left: "
    assert Board({a: None}, jobs=1).seconds_left is None
    assert [in_words(one) for one in (5, 119, 120, 7300, 200_000)] == ["5 seconds", "119 seconds", "2 minutes",
                                                                      "2 hours", "2 days"]  # fmt: skip


def test_cells_that_run_count_in_the_time_that_is_left(tmp_path, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("hf_noise.studies.reproduce.board.time.perf_counter", lambda: clock[0])
    asked = Asked("demo", tmp_path)
    (late,), (a, b, c) = cells(asked, "late", folder="one"), cells(asked, "a b c", folder="two")
    board = Board({late: 60.0, a: 600.0, b: 600.0, c: 600.0}, jobs=2, file=io.StringIO())
    assert board.seconds_left == 1800, "cells of a folder follow each other"
    board.started(late, tmp_path / "log")
    board.started(a, tmp_path / "log")
    told = []
    for clock[0] in (0.0, 60.0, 120.0, 180.0):
        told.append(board.seconds_left)
    # It should have ended after 60 seconds: after 120 all seem to take twice as long, after 180 three times.
    assert told == pytest.approx([1800, 1740, 3480, 5220])
    board.ended(late, None)
    assert board.seconds_left == pytest.approx(3 * 1800 - 180)
    clock[0] = 600.0  # a is done sooner than that tells
    board.ended(a, None)
    assert board.seconds_left == pytest.approx(2 * 600 * (180 + 600) / (60 + 600))
    board.started(b, tmp_path / "log")
    before = board.seconds_left
    clock[0] += 300
    assert board.seconds_left == pytest.approx(before - 300)
    board.ended(b, None)
    board.started(c, tmp_path / "log")
    clock[0] += 6000
    assert board.seconds_left == pytest.approx(600), "one that is late takes a while more, however late it is"


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_on_a_terminal_one_line_moves(tmp_path):
    a, b = cells(Asked("demo", tmp_path), "a b")
    log = tmp_path / "log"
    log.write_bytes(b" 12%|")
    shown = Terminal()
    with Board({a: None, b: None}, jobs=1, file=shown) as board:
        board.started(a, log)
        board.tick()
        board.ended(a, "no room")
        board.started(b, log)
        board.ended(b, None)
    told = shown.getvalue()
    assert "0/2 |" in told and "reproduce_fakes.tiny/a-seed0 12%" in told and "2/2 |" in told
    assert "[1/2] reproduce_fakes.tiny/a-seed0 failed: no room\n" in told
    empty = Terminal()
    with Board({}, jobs=1, file=empty) as board:
        board.tick()
    assert empty.getvalue() == "", "nothing to make, nothing to show"


def test_processes_share_cores_and_gpus(monkeypatch, tmp_path):
    monkeypatch.setattr(runner.os, "sched_getaffinity", lambda _: {3, 5, 7}, raising=False)
    assert runner._shares(1) == [None] and runner._shares(2) == [[3, 7], [5]]
    assert runner._shares(4) == [[3], [5], [7], [3]], "more processes than cores"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,GPU-7")
    assert runner._gpus(3) == ["2", "GPU-7", "2"] and runner.usual_jobs() == 2
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert runner._gpus(2) == [None, None] and runner.usual_jobs() == 3
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    tool = tmp_path / "nvidia-smi"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert runner._gpus(2) == [None, None], "there is no such tool"
    tool.write_text("#!/bin/sh\necho 0\necho 1\n")
    tool.chmod(0o755)
    assert runner._gpus(3) == ["0", "1", "0"]

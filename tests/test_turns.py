"""Jobs of several processes take turns, and a killed one does not keep its place."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

from difix3d.turns import places, turn

HOLD = """
import sys, time
from pathlib import Path
from difix3d.turns import turn
with turn(Path(sys.argv[1]), lambda: None, 1):
    print("held", flush=True)
    time.sleep(60)
"""


def hold(folder: Path) -> subprocess.Popen:
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_process_waits_and_says_so_once_until_the_first_is_killed(tmp_path: Path) -> None:
    first = hold(tmp_path)
    said, held = [], threading.Event()

    def second() -> None:
        with turn(tmp_path, lambda: said.append("waiting"), 1):
            held.set()

    waiter = threading.Thread(target=second)
    try:
        waiter.start()
        time.sleep(1.3)
        assert said == ["waiting"] and not held.is_set()
    finally:
        first.kill()
        first.wait()
    waiter.join(10)
    assert held.is_set() and said == ["waiting"]


def test_as_many_run_at_once_as_there_are_places(tmp_path: Path) -> None:
    first = hold(tmp_path)
    try:
        with turn(tmp_path, lambda: None, 2):  # the second of two places is free
            pass
    finally:
        first.kill()
        first.wait()
    assert 1 <= places() <= 4


def test_an_error_inside_frees_the_place(tmp_path: Path) -> None:
    for _ in range(2):
        try:
            with turn(tmp_path, lambda: None, 1):
                raise ValueError("inside")
        except ValueError as error:
            assert str(error) == "inside"

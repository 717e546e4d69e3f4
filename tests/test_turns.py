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
with turn(Path(sys.argv[1]), lambda ahead: None, 1):
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
        with turn(tmp_path, said.append, 1):
            held.set()

    waiter = threading.Thread(target=second)
    try:
        waiter.start()
        time.sleep(1.3)
        assert said == [0] and not held.is_set()
    finally:
        first.kill()
        first.wait()
    waiter.join(10)
    assert held.is_set() and said == [0]


def test_who_came_first_is_next_and_the_dead_wait_no_more(tmp_path: Path) -> None:
    first, came, said = hold(tmp_path), [], {number: [] for number in (1, 2, 3)}
    dead = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    while not list(tmp_path.glob("*.waiting")):
        time.sleep(0.05)

    def wait(number: int) -> None:
        with turn(tmp_path, said[number].append, 1):
            came.append(number)
            time.sleep(0.7)  # longer than between two looks: a newcomer would find the place free first

    waiters = [threading.Thread(target=wait, args=(number,)) for number in said]
    try:
        for waiter in waiters:
            waiter.start()
            time.sleep(0.1)
        assert [ahead[0] for ahead in said.values()] == [1, 2, 3]
        dead.kill()
        dead.wait()
        time.sleep(1.2)
        assert [ahead[-1] for ahead in said.values()] == [0, 1, 2]
    finally:
        first.kill()
        first.wait()
        dead.kill()
    for waiter in waiters:
        waiter.join(20)
    assert came == [1, 2, 3] and said[3] == [3, 2, 1, 0]
    assert not list(tmp_path.glob("*.waiting"))


def test_as_many_run_at_once_as_there_are_places(tmp_path: Path) -> None:
    first = hold(tmp_path)
    try:
        with turn(tmp_path, lambda ahead: None, 2):  # the second of two places is free
            pass
    finally:
        first.kill()
        first.wait()
    assert 1 <= places() <= 4


def test_an_error_inside_frees_the_place(tmp_path: Path) -> None:
    for _ in range(2):
        try:
            with turn(tmp_path, lambda ahead: None, 1):
                raise ValueError("inside")
        except ValueError as error:
            assert str(error) == "inside"

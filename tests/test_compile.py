"""How kernels are kept and run: a cache folder wherever one can be written, any mix of threads, forks and errors."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from splat_scenes import camera_at, random_splats

from difix3d.splatting import rasterize, warm_up
from difix3d.splatting.cpu import cache
from difix3d.splatting.cpu import compile as compiling


def drawn(seed: int) -> torch.Tensor:
    splats = {name: tensor.float() for name, tensor in random_splats(500, seed).items()}
    return rasterize(**splats, camera=camera_at(200, 150))[0]


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """An empty folder that kernels are kept in during a test."""
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "numba"))
    cache.kernel_folder.cache_clear()
    yield tmp_path / "numba"
    cache.kernel_folder.cache_clear()


def test_the_cache_is_in_the_first_folder_that_can_be_written(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def folder() -> Path:
        cache.kernel_folder.cache_clear()
        return cache.kernel_folder()

    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    assert folder().parent == elsewhere
    monkeypatch.delenv("NUMBA_CACHE_DIR")
    assert folder().parent == tmp_path / "home"
    (tmp_path / "file").touch()  # below a file nothing can be made, not even by root
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    temporary = folder()
    assert temporary.parent == tmp_path / "temporary" and temporary.is_dir() and folder() == temporary
    temporary.chmod(0o777)  # made by somebody else, who might put code there for us to run
    assert folder() != temporary and folder().parent == temporary.parent


def test_the_background_compiler_is_started_once_and_works(elsewhere: Path) -> None:
    process = cache.compile_in_background()
    assert process is not None
    try:
        assert cache.compile_in_background() is None and not cache.is_complete()
        deadline = time.monotonic() + 120
        while not list(elsewhere.rglob("*.nbc")) and time.monotonic() < deadline:
            assert process.poll() is None
            time.sleep(0.1)
    finally:
        process.kill()
        process.wait()
    assert list(elsewhere.rglob("*.nbc")) and not cache.is_complete()  # the first kernel is there; it was killed


def test_after_a_warm_up_nothing_is_left_to_compile(elsewhere: Path) -> None:
    warm_up()  # this process has its kernels; the folder learns that they are complete
    assert cache.is_complete() and cache.compile_in_background() is None


def test_a_dead_background_compiler_is_replaced(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cache._first_to_start() and not cache._first_to_start()
    stamp = cache.kernel_folder() / "started"
    os.utime(stamp, (0, 0))
    assert cache._first_to_start() and not cache._first_to_start()


def test_who_compiles_second_waits_for_the_first(elsewhere: Path) -> None:
    inside, order = threading.Event(), []

    def second() -> None:
        inside.wait()
        with cache.compiling():
            order.append("second")

    thread = threading.Thread(target=second)
    thread.start()
    with cache.compiling():
        inside.set()
        thread.join(0.3)
        order.append("first")
    thread.join()
    assert order == ["first", "second"] and cache.is_complete()


def test_a_failed_compilation_is_not_called_complete(elsewhere: Path) -> None:
    with pytest.raises(ValueError, match="no compiler"), cache.compiling():
        raise ValueError("no compiler")
    assert not cache.is_complete()


def test_a_machine_without_a_home_compiles_once_and_then_reads(tmp_path: Path) -> None:
    """As in a container whose home is read-only: the second process finds what the first one compiled."""
    (tmp_path / "home").touch()
    (tmp_path / "temporary").mkdir()
    environment = {"HOME": str(tmp_path / "home"), "TMPDIR": str(tmp_path / "temporary"), "PATH": "/usr/bin:/bin"}
    script = (
        "import numpy as np\nfrom difix3d.splatting.cpu.tiles import sort_visible\n"
        "assert sort_visible(np.array([3, 1, 2], np.uint32)).tolist() == [1, 2, 0]\n"
        "print(sum(sort_visible.stats.cache_hits.values()))"
    )
    hits = []
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        hits.append(int(done.stdout))
    assert hits == [0, 1] and any((tmp_path / "temporary").rglob("*.nbc"))


def test_python_threads_may_draw_at_once() -> None:
    expected, found = [drawn(seed) for seed in range(4)], [None] * 4

    def work(seed: int) -> None:
        for _ in range(5):
            found[seed] = drawn(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(one, other) for one, other in zip(expected, found))


def test_a_forked_process_draws_too() -> None:
    """Our threads are made anew in the child. (torch's own are not: its larger sums hang there, so numpy compares.)"""
    script = (
        "import os, sys; sys.path.insert(0, 'tests')\nfrom test_compile import drawn\n"
        "before = drawn(1).numpy().tobytes()\npid = os.fork()\n"
        "if pid == 0: os._exit(0 if drawn(1).numpy().tobytes() == before else 3)\n"
        "sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))"
    )
    root = Path(__file__).resolve().parent.parent
    done = subprocess.run([sys.executable, "-c", script], cwd=root, timeout=60, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_every_piece_is_taken_once_and_an_error_in_any_thread_is_raised(threads: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        taken: list[int] = []

        def worker(counter: np.ndarray, failing: int) -> None:
            while (turn := take_in_python(counter)) < 50:
                if turn == failing:
                    raise ValueError(turn)
                taken.append(turn)

        compiling.run(worker, -1)
        assert sorted(taken) == list(range(50))
        with pytest.raises(ValueError, match="7"):
            compiling.run(worker, 7)
    finally:
        torch.set_num_threads(before)


@compiling.kernel
def take_in_python(counter: np.ndarray) -> int:
    return compiling.take(counter)

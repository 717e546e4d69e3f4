"""What a container may use, by the files of its control group."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from difix3d import machine


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, None),
        ({"cpu.max": "max 100000"}, None),
        ({"cpu.max": "200000 100000"}, 2),
        ({"cpu.max": "150000 100000"}, 2),
        ({"cpu.max": "20000 100000"}, 1),
        ({"cpu.max": "nonsense"}, None),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        ({"cpu/cpu.cfs_quota_us": "300000", "cpu/cpu.cfs_period_us": "100000"}, 3),
    ],
)
def test_cores_are_no_more_than_the_containers_share(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], expected: int | None
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text + "\n")
    monkeypatch.setattr(machine, "_CGROUP", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(16), raising=False)
    assert machine.container_cores() == expected and machine.cores() == (expected or 16)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(1), raising=False)
    assert machine.cores() == 1


def test_torch_takes_no_more_threads_than_that(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; import importlib.util as u\n"
        "spec = u.find_spec('difix3d'); name = 'difix3d.machine'\n"
        "path = Path(spec.submodule_search_locations[0]) / 'machine.py'\n"
        "module = u.module_from_spec(u.spec_from_file_location(name, path))\n"
        "module.__spec__.loader.exec_module(module)\n"
        "module.container_cores = lambda: 1\n"
        "sys.modules[name] = module\n"
        "import difix3d, torch; print(torch.get_num_threads())"
    )
    kept = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    assert subprocess.check_output([sys.executable, "-c", code], env=kept, text=True).strip() == "1"

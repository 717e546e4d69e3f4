"""What the README says to type exists, and the defaults it quotes are the real ones."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from difix3d.cli import _parser

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
COMMANDS = [
    line.split("#")[0].strip()
    for block in re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
    for line in block.splitlines()
    if line.strip()
]


@pytest.mark.parametrize("command", [command for command in COMMANDS if command.startswith("difix3d ")])
def test_each_difix3d_command_parses(command: str) -> None:
    _parser().parse_args(shlex.split(command)[1:])


def test_make_targets_exist() -> None:
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    quoted = {command.split()[1] for command in COMMANDS if command.startswith("make ")}
    assert {"run", "test"} <= quoted <= targets


def test_python_files_and_pictures_exist() -> None:
    for command in COMMANDS:
        if command.startswith("python "):
            assert (ROOT / command.split()[1]).is_file(), command
    for path in re.findall(r"\]\(((?!http)[^)#]+)\)", README):
        assert (ROOT / path).exists(), path


def test_every_stage_is_in_the_readme() -> None:
    from difix3d.stages import SCENE_STAGES, STUDIO_STAGES

    for stage in SCENE_STAGES + STUDIO_STAGES:
        assert any(command.startswith(f"difix3d {stage} ") for command in COMMANDS), stage


def test_preset_table_is_the_fits() -> None:
    from difix3d.stages.fit import PRESETS

    rows = re.findall(r"^\| (quick|balanced|best) \| (.*?) \| ([\d,]+) \| (\d+) px \|$", README, re.MULTILINE)
    assert len(rows) == len(PRESETS)
    for name, seconds, splats, long_side in rows:
        preset = PRESETS[name]
        assert int(splats.replace(",", "")) == preset.max_splats
        assert int(long_side) == preset.long_side_px
        assert seconds == f"{'' if name == 'quick' else 'up to '}{preset.seconds} s"


def test_the_space_runs_the_gradio_that_is_required() -> None:
    version = re.search(r"^sdk_version: (\S+)", README, re.MULTILINE).group(1)
    minimum = re.search(r"^gradio>=([\d.]+),<(\d+)", (ROOT / "requirements.txt").read_text(), re.MULTILINE)
    assert version.startswith(minimum.group(1)) and int(version.split(".")[0]) < int(minimum.group(2))
    assert (ROOT / re.search(r"^app_file: (\S+)", README, re.MULTILINE).group(1)).is_file()

"""Imports go downwards only; the disk wing and the model wing of floor 2 never meet; the top is light to import."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent / "difix3d"

FLOORS = {
    **dict.fromkeys(("types", "errors", "events", "machine", "__init__"), 0.0),
    **dict.fromkeys(("atomic", "kept", "turns", "hub", "perceptual_weights", "spread", "derived"), 1.0),
    **dict.fromkeys(("geometry", "trajectories", "references", "warping", "losses", "dists", "metrics"), 1.0),
    **dict.fromkeys(("scene", "formats", "ratings"), 2.1),
    **dict.fromkeys(("sfm", "splatting", "fixers", "pairs", "training"), 2.2),
    "stages": 3.0,
    "jobs": 3.5,
    "presets": 3.7,  # a list of jobs' steps
    **dict.fromkeys(("cli", "ui", "__main__"), 4.0),
}


def room(module: str) -> str:
    return module.split(".")[1] if "." in module else "__init__"


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: write absolute imports"
            found |= {
                f"{node.module}.{alias.name}" if node.module == "difix3d" else node.module for alias in node.names
            }
    return {name for name in found if name == "difix3d" or name.startswith("difix3d.")}


def test_every_room_has_a_floor() -> None:
    rooms = {path.stem if path.is_file() else path.name for path in PACKAGE.iterdir() if path.name != "__pycache__"}
    assert {name for name in rooms if not name.startswith(".")} <= set(FLOORS)


def test_imports_go_downwards_only() -> None:
    wrong = []
    for path in sorted(PACKAGE.rglob("*.py")):
        # A room's __main__ is a command, at the top like the others.
        here = "__main__" if path.name == "__main__.py" else path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        for module in imports(path):
            there = room(module)
            if there not in FLOORS:  # `from difix3d import __version__`
                continue
            wings_meet = {FLOORS[here], FLOORS[there]} == {2.1, 2.2}
            if here != there and (FLOORS[there] > FLOORS[here] or wings_meet):
                wrong.append(
                    f"{path.relative_to(PACKAGE.parent)} imports {module}: floor {FLOORS[here]} must not reach floor "
                    f"{FLOORS[there]}. Pass arrays in, or move the code that needs both up into a stage."
                )
    assert not wrong, "\n".join(wrong)


def test_importing_the_package_and_help_are_light() -> None:
    code = (
        "import sys, difix3d.cli\n"
        "try:\n    difix3d.cli.main(['--help'])\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'gradio', 'pycolmap', 'cv2', 'numba', 'diffusers'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)

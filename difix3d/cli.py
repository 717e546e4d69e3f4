"""The command line: the same stages, settings and events as the app.

Human progress goes to stderr. With --json the last line of stdout is one JSON object. Exit status: 0 done, 2 what
was asked cannot be done (the message says why), 1 a bug (its traceback is on stderr), 130 interrupted.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import difix3d
from difix3d.errors import ConfigError, Difix3DError, RatingError
from difix3d.events import Artifact, Done, Event, Progress, Warned
from difix3d.scene import Scene, folder_name, was_deleted
from difix3d.stages import SCENE_STAGES, STUDIO_STAGES, config_class, make_config, stage_function

if TYPE_CHECKING:
    from difix3d.ratings.store import RatingStore

_HELP = {
    "ingest": "decode photos or a video and choose the frames worth keeping",
    "reconstruct": "find the cameras (structure from motion, or poses you have)",
    "fit": "fit 3D Gaussian splats to the photos",
    "render": "render the splats along a trajectory",
    "fix": "fix the renders of a trajectory",
    "evaluate": "compare renders and fixes with the held-out photos",
    "report": "write a page about the scene: plots, and photos beside their renders",
    "export": "write ratings and pairs as training data",
    "finetune": "train a checkpoint on an export",
    "campaign": "let raters judge a tuned checkpoint against its parent, blind",
    "pairs": "make training pairs of captures: flawed renders and their photos",
    "convert": "write a file of splats in another format (.ply, .spz, .splat)",
}

LPIPS = "lpips"


class _Parser(argparse.ArgumentParser):
    """Wrong flags are told like every other thing that cannot be done, also in JSON."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}. See: {self.prog} --help")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    argv = list(sys.argv[1:] if argv is None else argv)
    as_json = "--json" in argv
    try:
        arguments = _parser().parse_args(argv)
        result = _COMMANDS[arguments.command](arguments)
    except Difix3DError as error:
        if as_json:
            print(json.dumps({"ok": False, "error": {"kind": error.kind, "message": error.message}}))
        print(f"difix3d: {error.message}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("difix3d: stopped. Finished stages are kept; run the same command again to go on.", file=sys.stderr)
        return 130
    except Exception as error:
        traceback.print_exc()
        if as_json:
            message = f"{type(error).__name__}: {error}"
            print(json.dumps({"ok": False, "error": {"kind": "Crash", "message": message}}))
        return 1
    if as_json:
        print(json.dumps({"ok": True, **result}, default=str))
    else:
        for name, value in result.get("figures", {}).items():
            print(f"{name}: {value if isinstance(value, str) else json.dumps(value, default=str)[:400]}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="difix3d", description="Capture, splat, fix, rate, fine-tune.")
    parser.add_argument("--version", action="version", version=f"difix3d {difix3d.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=_Parser)

    run = commands.add_parser("run", help="the whole chain, resuming where it stopped")
    run.add_argument("capture", nargs="+", help="a video, photos, a folder of photos, or a scene folder")
    run.add_argument("--scene", help="scene folder (default: scenes/NAME-OF-CAPTURE)")
    run.add_argument("--preset", default="quick", choices=("quick", "balanced", "best"), help="default: quick")
    run.add_argument("--trajectory", nargs="+", help="names or camera_path files (default: extrapolate)")
    run.add_argument("--fixer", default="", help="a fixer's name, a checkpoint folder or a Hub id")
    run.add_argument("--holdout", type=int, default=8, help="every N-th photo is kept out of the fit (default: 8)")
    run.add_argument("--train-every", type=int, default=1, help="use only every K-th of the others (default: 1)")
    run.add_argument("--seconds", type=float, default=0.0, help="the fit's time budget (default: the preset's)")
    run.add_argument("--until", choices=SCENE_STAGES, help="the last stage to run")
    run.add_argument("--json", action="store_true", help="end with one JSON line on stdout")

    for stage in SCENE_STAGES + STUDIO_STAGES:
        command = commands.add_parser(stage, help=_HELP[stage])
        if stage in SCENE_STAGES:
            command.add_argument("--scene", required=True, help="scene folder")
        for field in dataclasses.fields(config_class(stage)):
            _add_flag(command, stage, field)
        command.add_argument("--json", action="store_true", help="end with one JSON line on stdout")

    ratings = commands.add_parser("ratings", help="what the ratings say; verify, back up, push, weights of frames")
    ratings.add_argument("what", nargs="?", default="show", choices=_RATINGS, help="default: show")
    ratings.add_argument("--scene", default=None, help="show: of this scene only (its name)")
    ratings.add_argument("--without", nargs="+", type=int, default=(), help="show: leave these raters out (numbers)")
    ratings.add_argument("--without-flagged", action="store_true", help="show: leave out the raters that are flagged")
    ratings.add_argument("--since", default="", help="show: of this day (in UTC, as 2026-11-28) and later")
    scenes = os.environ.get("DIFIX3D_SCENES", "scenes")
    ratings.add_argument(
        "--scenes", default=scenes, help=f"verify, weights, push: folder of scenes (default: {scenes})"
    )
    ratings.add_argument("--out", default="", help="backup, weights: the file to write")
    repository = os.environ.get("DIFIX3D_DATASET_REPO", "")
    told = f" (default: {repository})" if repository else " (default: $DIFIX3D_DATASET_REPO)"
    ratings.add_argument("--to", default=repository, help=f"push: dataset repository OWNER/NAME of the Hub{told}")
    ratings.add_argument("--export", default="", help="push: the folder of an export that goes there too")
    ratings.add_argument("--ratings-db", default="", help="SQLAlchemy URL (default: $DIFIX3D_RATINGS_DB)")
    ratings.add_argument("--json", action="store_true", help="end with one JSON line on stdout")

    fixers = commands.add_parser("fixers", help="what each fixer takes here: licence, device, download, seconds")
    fixers.add_argument("--json", action="store_true", help="end with one JSON line on stdout")

    weights = commands.add_parser("weights", help="fetch weights from the Hub now, and not at first use")
    weights.add_argument("what", nargs="?", default=LPIPS, help=f"a fixer, or {LPIPS}: VGG-16 for LPIPS (the default)")
    weights.add_argument("--json", action="store_true", help="end with one JSON line on stdout")
    return parser


def _add_flag(command: argparse.ArgumentParser, stage: str, field: dataclasses.Field) -> None:
    """One config field as a flag; a field marked positional=True in its metadata comes without dashes."""
    help_text = field.metadata.get("help", "")
    default = None if field.default is dataclasses.MISSING else field.default
    if field.metadata.get("positional"):
        command.add_argument(field.name, nargs="+", help=help_text)
        return
    flag = "--" + field.metadata.get("flag", field.name).replace("_", "-")
    keywords: dict[str, Any] = {"dest": field.name, "default": default}
    keywords["help"] = help_text + ("" if default in (None, "", ()) else f" (default: {default})")
    if isinstance(default, bool):
        keywords["action"] = argparse.BooleanOptionalAction
    elif isinstance(default, tuple):
        keywords |= {"nargs": "+", "type": type(default[0]) if default else str}
    else:
        keywords["type"] = str if default is None else type(default)
        keywords["required"] = default is None
        keywords["choices"] = field.metadata.get("choices")
    command.add_argument(flag, **keywords)


def _run(arguments: argparse.Namespace) -> dict[str, Any]:
    from difix3d.jobs import run_inline
    from difix3d.presets import DEFAULT_TRAJECTORIES, steps_for_run

    started = time.monotonic()
    scene, capture = _scene_for(arguments.capture, arguments.scene)
    steps = steps_for_run(
        capture,
        preset=arguments.preset,
        trajectories=arguments.trajectory or DEFAULT_TRAJECTORIES,
        fixer=arguments.fixer,
        holdout=arguments.holdout,
        train_every=arguments.train_every,
        seconds=arguments.seconds,
        until=arguments.until,
    )
    figures: dict[str, Any] = {}
    outputs: list[str] = []
    for event in _told(run_inline(scene, steps)):
        if isinstance(event, Done):
            figures[event.stage] = {**event.figures, "seconds": event.seconds, "skipped": event.skipped}
            outputs.extend(event.outputs)
    total = round(time.monotonic() - started, 1)
    return {"stage": "run", "seconds": total, "scene": str(scene.root), "figures": figures, "outputs": outputs}


def _scene_for(capture: list[str], scene: str | None) -> tuple[Scene, list[str]]:
    """The scene folder of a capture (made if need be), and what is to be ingested: nothing for a scene folder."""
    for path in capture:
        if not Path(path).exists():
            raise ConfigError(f"{path}: no such file or folder. Give a video, photos, or a folder of photos.")
    first = Path(capture[0]).resolve()
    if len(capture) == 1 and (first / "scene.json").is_file():
        return Scene(first), []
    if scene:
        return Scene.create(scene, name=_capture_name(first), source=str(first)), capture
    root = Path(os.environ.get("DIFIX3D_SCENES", "scenes"))
    name = folder_name(_capture_name(first))
    # Another capture of the same name gets a scene of its own.
    for number in range(1, 1000):
        folder = root / (name if number == 1 else f"{name}-{number}")
        if was_deleted(folder):
            continue
        if not (folder / "scene.json").is_file() or Scene(folder).info.get("source") == str(first):
            return Scene.create(folder, name=_capture_name(first), source=str(first)), capture
    raise ConfigError(f"{root} holds 1,000 scenes called {name}. Name one with --scene DIR.")


def _capture_name(path: Path) -> str:
    """What people would call it: "saharov" for saharov/images/, "walk" for walk.mp4."""
    return path.parent.name if path.name.lower() in ("images", "photos", "input") else path.stem


def _stage(arguments: argparse.Namespace) -> dict[str, Any]:
    stage = arguments.command
    settings = {field.name: getattr(arguments, field.name) for field in dataclasses.fields(config_class(stage))}
    settings = {name: list(value) if isinstance(value, tuple) else value for name, value in settings.items()}
    if stage in SCENE_STAGES:
        from difix3d.jobs import Step, run_inline

        if stage == "ingest":
            scene, capture = _scene_for(settings["capture"], arguments.scene)
            settings["capture"] = [str(Path(path).resolve()) for path in capture]
        else:
            scene = Scene(arguments.scene)
        events = run_inline(scene, [Step(stage, settings)])
    else:
        events = stage_function(stage)(make_config(stage, settings))
    last = None
    for event in _told(events):
        last = event
    assert isinstance(last, Done), f"{stage} ended without Done"
    return {"stage": stage, "seconds": last.seconds, "figures": last.figures, "outputs": list(last.outputs)}


def _ratings(arguments: argparse.Namespace) -> dict[str, Any]:
    from difix3d.ratings.store import RatingStore, default_url

    started = time.monotonic()
    with RatingStore(arguments.ratings_db or default_url()) as store:
        figures, outputs = _RATINGS[arguments.what](store, arguments)
    seconds = round(time.monotonic() - started, 2)
    return {"stage": "ratings", "seconds": seconds, "figures": figures, "outputs": outputs}


def _show_ratings(store: RatingStore, arguments: argparse.Namespace) -> tuple[dict[str, Any], list[str]]:
    from difix3d.ratings.campaigns import entered, outcomes
    from difix3d.ratings.filters import all_that_stand, vote_filter
    from difix3d.ratings.results import results_of
    from difix3d.ratings.schema import RATE

    wanted = vote_filter(arguments.scene, arguments.since, arguments.without, arguments.without_flagged)
    chosen = wanted.chosen(all_that_stand(store))
    old_against_new = outcomes(entered(store), [vote for vote in chosen.votes if vote.purpose == RATE])
    found = results_of(chosen)
    same_raters = dataclasses.replace(wanted, without=tuple(found["filters"]["without_raters"]), without_flagged=False)
    every = same_raters.chosen(store.ratings(arguments.scene, include_superseded=True, marks=False)).votes
    counts = {
        "ratings": found["votes"],
        "items": found["pairs"],
        "superseded": sum(bool(vote.superseded_by) for vote in every),
    }
    return {**counts, **found, "campaigns": old_against_new}, []


def _verify_ratings(store: RatingStore, arguments: argparse.Namespace) -> tuple[dict[str, Any], list[str]]:
    problems = store.verify(arguments.scenes)
    if problems:
        named = "\n".join(f"  {each['scene_id']} {each['path']}: {each['problem']}" for each in problems[:20])
        raise RatingError(
            f"{len(problems)} of {store.pictures()} rated pictures in {arguments.scenes} are not as they were rated:\n"
            f"{named}\nRestore them from a backup; until then exports leave their votes out and say so."
        )
    return {"checked": store.pictures(), "problems": 0}, []


def _backup_ratings(store: RatingStore, arguments: argparse.Namespace) -> tuple[dict[str, Any], list[str]]:
    if not arguments.out:
        raise ConfigError("Name the file to write: difix3d ratings backup --out FILE.sqlite")
    out = Path(arguments.out).resolve()
    store.backup(out)
    return {"bytes": out.stat().st_size}, [str(out)]


def _weights_of_frames(store: RatingStore, arguments: argparse.Namespace) -> tuple[dict[str, Any], list[str]]:
    from difix3d.atomic import write_json
    from difix3d.ratings.candidates import candidates_of
    from difix3d.ratings.export_scenes import find_scenes
    from difix3d.ratings.weights import frame_weights

    if not arguments.out:
        raise ConfigError("Name the file to write: difix3d ratings weights --out FILE.json")
    scenes = find_scenes(Path(arguments.scenes), arguments.scene)
    entries = frame_weights(store, [candidates_of(scene) for scene in scenes])
    out = Path(arguments.out).resolve()
    write_json(out, entries)
    return {"frames": len(entries), "left_out": sum(entry["weight"] == 0 for entry in entries)}, [str(out)]


def _push_ratings(store: RatingStore, arguments: argparse.Namespace) -> tuple[dict[str, Any], list[str]]:
    from difix3d.ratings.push.transfer import push_now

    if not arguments.to:
        raise ConfigError("Name the dataset repository: difix3d ratings push --to OWNER/NAME (or DIFIX3D_DATASET_REPO)")
    export = Path(arguments.export) if arguments.export else None
    pushed = push_now(store, Path(arguments.scenes), arguments.to, export)
    return dataclasses.asdict(pushed), [f"https://huggingface.co/datasets/{pushed.repository}"]


_RATINGS = {
    "show": _show_ratings,
    "verify": _verify_ratings,
    "backup": _backup_ratings,
    "push": _push_ratings,
    "weights": _weights_of_frames,
}


def _fixers(arguments: argparse.Namespace) -> dict[str, Any]:
    from difix3d.fixers.listing import look_closely, offers, phrases

    started = time.monotonic()
    checkpoints = Path(os.environ.get("DIFIX3D_SCENES", "scenes")).resolve().parent / "checkpoints"
    found = [look_closely(offer) for offer in offers(checkpoints)]
    figures = {each.name: dataclasses.asdict(each) if arguments.json else "; ".join(phrases(each)) for each in found}
    return {"stage": "fixers", "seconds": round(time.monotonic() - started, 2), "figures": figures, "outputs": []}


def _weights(arguments: argparse.Namespace) -> dict[str, Any]:
    from difix3d.fixers import load_fixer
    from difix3d.perceptual_weights import fetch_vgg

    started = time.monotonic()
    events = fetch_vgg("weights") if arguments.what == LPIPS else load_fixer(arguments.what).fetch("weights")
    for _ in _told(events):
        pass
    figures = {arguments.what: "its weights are here"}
    return {"stage": "weights", "seconds": round(time.monotonic() - started, 2), "figures": figures, "outputs": []}


def _told(events: Iterator[Event]) -> Iterator[Event]:
    """Pass events on, and tell a person about them on stderr."""
    live = sys.stderr.isatty()
    last_text, last_told = "", 0.0
    for event in events:
        if isinstance(event, Progress):
            share = f" {event.done:.0f}/{event.total:.0f} {event.unit}".rstrip() if event.total else ""
            numbers = " ".join(f"{name}={value:.4g}" for name, value in event.figures.items())
            left = f" ({event.seconds_left:.0f} s left)" if event.seconds_left is not None else ""
            text = f"[{event.stage}] {event.message}{share}{left} {numbers}".rstrip()
            now = time.monotonic()
            if live:
                print(f"\r\033[K{text[:150]}", end="", file=sys.stderr, flush=True)
            elif event.message != last_text or now - last_told > 5.0:
                print(text, file=sys.stderr, flush=True)
                last_text, last_told = event.message, now
        else:
            print(("\r\033[K" if live else "") + _line(event), file=sys.stderr, flush=True)
        yield event


def _line(event: Event) -> str:
    if isinstance(event, Warned):
        return f"[{event.stage}] note: {event.message}"
    if isinstance(event, Artifact):
        return f"[{event.stage}] wrote {event.path}"
    if isinstance(event, Done):
        return f"[{event.stage}] " + ("unchanged, kept" if event.skipped else f"done in {event.seconds:.1f} s")
    return f"[{event.stage}] {event}"


_COMMANDS = {
    "run": _run,
    "ratings": _ratings,
    "fixers": _fixers,
    "weights": _weights,
    **dict.fromkeys(SCENE_STAGES + STUDIO_STAGES, _stage),
}

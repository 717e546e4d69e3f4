"""Step 3: one frame, the photos a person chooses, a fix within seconds, and every fix so far to compare."""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from difix3d.errors import ConfigError
from difix3d.ratings.candidates import RENDER, candidates_of
from difix3d.scene import Scene
from difix3d.stages.fixing import store_candidate, trust_path
from difix3d.types import Candidate
from difix3d.ui import fixers, zero
from difix3d.ui.live import NOT_KEPT, how_much, photos_in_words, unkept
from difix3d.ui.scene import NO_SCENE
from difix3d.ui.shared import LATEST, QUIET, SLOW, Shared, empty, told
from difix3d.ui.thumbnails import thumbnail_url
from difix3d.ui.widgets import picker, wipe

MOST_OFFERED = 18
PHOTOS_NOTE = (
    "Photos that see the same place: first those that together show the most, then the next best. The bar is how much "
    "of the frame each can be believed to show. "
    "Press to add one or take it out; the fix follows at once where the fixer is quick."
)
NO_FRAMES = "No frames yet: they come after the splats are fitted. Capture shows how far it is."


def build(shared: Shared) -> None:
    """The step's components and events."""
    nothing = gr.HTML(empty(NO_SCENE))
    with gr.Row(equal_height=False, visible=False, elem_id="dx-fix") as group:
        with gr.Column(scale=3, min_width=320, elem_id="dx-fix-picture"):
            before_after = wipe(elem_id="dx-fix-wipe")
            with gr.Row(elem_id="dx-fix-sides"):
                left = gr.Dropdown([], label="Left", filterable=False, min_width=220, elem_id="dx-fix-left")
                right = gr.Dropdown([], label="Right", filterable=False, min_width=220, elem_id="dx-fix-right")
        with gr.Column(scale=2, min_width=320):
            with gr.Row():
                trajectory = gr.Dropdown([], label="Path", filterable=False, min_width=150, elem_id="dx-fix-path")
                fixer = fixers.chooser(shared, min_width=240, elem_id="dx-fix-fixer")
            index = gr.Slider(0, 1, value=0, step=1, label="Frame", elem_id="dx-fix-frame")
            gr.HTML(f"<p class='dx-note'>{PHOTOS_NOTE}</p>")
            photos = picker()
            with gr.Row():
                go = gr.Button(fixers.FIX_IT, variant="primary", scale=2, elem_id="dx-fix-go")
                again = gr.Button("Choose for me")
            fetching = fixers.Fetching(shared, "fix")
            about = gr.HTML()
            fixers.all_fixers(shared)

    opened = [shared.visitor, shared.scene_id]
    asked = [*opened, trajectory, index, fixer]
    offered = [photos]
    sides = [left, right, before_after]
    shared.revision.change(
        _reader(shared), [*asked, *sides], [nothing, group, trajectory, fixer, index, *sides], **QUIET
    ).then(_offerer(shared, keep=True), [*asked, photos], offered, **QUIET)
    # Whoever moves on before the first answer is here gets the last one. `input`: arrow keys move the slider too.
    for changed in (trajectory.input, index.input):
        changed(_frame_reader(shared), asked, [index, *sides], **LATEST)
        changed(_offerer(shared), asked, offered, **LATEST)
    fixer.input(_offerer(shared), [*asked, photos], offered, **LATEST)
    noted = (fixers.noter(shared), [*opened, fixer], [about, go])
    for moment in (fixer.change, shared.revision.change):
        moment(*noted, **LATEST)
    again.click(_offerer(shared), asked, offered, **LATEST)
    for side in (left, right):
        side.input(_comparer(shared), [*opened, left, right], [before_after], **LATEST)
    wanted, made = gr.State(None), gr.State(None)
    fetched = go.click(
        _fetcher(shared, fetching),
        [*asked, photos],
        [*fetching.outputs, wanted],
        show_progress="hidden",
        **fixers.FETCHING,
    )
    fetched.then(*noted, **QUIET)
    # What looked at no photos as far as was known may do so now that it is here.
    ready = fetched.success(_offerer(shared, keep=True), [*asked, photos], offered, **QUIET)
    measured = ready.success(
        _measurer(shared, fetching), [shared.visitor, wanted], fetching.outputs, show_progress="hidden", **SLOW
    )
    fixed = measured.success(
        _fixer(shared), [shared.visitor, wanted], made, show_progress="full", show_progress_on=[go], **SLOW
    )
    fixed.success(_shower(shared), [*opened, trajectory, index, left, right, wanted, made], sides, **QUIET)


@dataclass(frozen=True)
class Wanted:
    """What somebody pressed the button for: however long it takes, and wherever they are by then. photos: what the page
    said of them."""

    scene_id: str
    trajectory: str
    index: int
    fixer: str
    photos: Any


def _reader(shared: Shared) -> Any:
    """The frames there are; what was chosen stays where it still exists, and is not sent: it may have changed since."""

    @told
    def read(
        visitor: dict[str, str],
        scene_id: str,
        trajectory: str | None,
        index: int,
        fixer: str | None,
        left: str | None,
        right: str | None,
        shown: dict[str, Any] | None,
    ) -> tuple[Any, ...]:
        fixer_box = fixers.refreshed(shared, fixer)
        frames: dict[str, list[int]] = {}
        if scene_id:
            scene = shared.studio.open_scene(scene_id, visitor["id"])
            frames = frames_of(scene)
        if not frames:
            text = NO_FRAMES if scene_id else NO_SCENE
            none = gr.Dropdown(choices=[], value=None)
            hidden = gr.HTML(empty(text), visible=True), gr.Row(visible=False)
            return *hidden, none, fixer_box, gr.skip(), none, none, None
        wanted = trajectory
        if trajectory not in frames:
            trajectory = next(iter(frames))
            index = len(frames[trajectory]) // 2
        last = max(frames[trajectory])
        path = _box(list(frames), trajectory, shown=trajectory == wanted)
        slider = _slider(last, min(index, last), moved=trajectory != wanted or index > last)
        boxes, found, names = _sides(scene, trajectory, min(index, last), left, right, shown=True)
        pair = _pair(shared, scene, found, *names)
        same = pair is not None and shown is not None and all(shown.get(key) == pair[key] for key in pair)
        visible = gr.HTML(visible=False), gr.Row(visible=True)
        return *visible, path, fixer_box, slider, *boxes, gr.skip() if same else pair

    return read


def _frame_reader(shared: Shared) -> Any:
    @told
    def read(visitor: dict[str, str], scene_id: str, trajectory: str, index: int, fixer: str) -> tuple[Any, ...]:
        scene = shared.studio.open_scene(scene_id, visitor["id"])
        last = max(frames_of(scene).get(trajectory, [0]))
        within = min(int(index), last)
        boxes, found, names = _sides(scene, trajectory, within)
        return _slider(last, within, moved=within != index), *boxes, _pair(shared, scene, found, *names)

    return read


def _offerer(shared: Shared, keep: bool = False) -> Any:
    """Photos for this frame, the best ones chosen; what was chosen for the same frame stays so with another fixer.
    keep: what is offered for the frame and the fixer already stays as it is, while the fixer looks at as many."""

    @told
    def offer(
        visitor: dict[str, str], scene_id: str, trajectory: str | None, index: int, fixer: str | None, now: Any = None
    ) -> Any:
        if not scene_id or not trajectory or not fixer:
            return None
        began = time.time_ns()
        asked = [scene_id, trajectory, int(index), fixer]
        scene = shared.studio.open_scene(scene_id, visitor["id"])
        chooser = shared.studio.chooser(scene, fixer)
        most = chooser.session.fixer.max_references
        if keep and now and now.get("asked") == asked and now.get("most") == most:
            return gr.skip()
        value = {"most": most, "asked": asked, "live": chooser.previews, "visitor": visitor["id"], "began": began}
        # Renders without cameras: nothing to offer here, and whoever presses Fix is told what is missing.
        if most == 0 or not scene.trajectory_path(trajectory).is_file():
            return {**value, "photos": [], "chosen": []}
        offered = chooser.offered(trajectory, int(index), MOST_OFFERED)
        photos = [
            {
                "name": each.name,
                "url": thumbnail_url(shared.studio.media, scene, each.name),
                "covered": each.covered,
                "angle": round(each.angle_deg),
            }
            for each in offered
        ]
        names = [each.name for each in offered]
        if now and now.get("most") and now.get("asked", [])[:3] == asked[:3]:
            chosen = [name for name in now.get("chosen", []) if name in names][:most]
        else:
            chosen = [each.name for each in offered if each.chosen]
        return {**value, "photos": photos, "chosen": chosen}

    return offer


def _comparer(shared: Shared) -> Any:
    @told
    def compared(visitor: dict[str, str], scene_id: str, left: str | None, right: str | None) -> dict[str, Any] | None:
        if not scene_id or not left or not right:
            return None
        scene = shared.studio.open_scene(scene_id, visitor["id"])
        everything = [candidate for frame in candidates_of(scene).values() for candidate in frame]
        pair = _pair(shared, scene, everything, left, right)
        return pair and {**pair, "shown": time.time_ns()}

    return compared


def _fetcher(shared: Shared, fetching: fixers.Fetching) -> Any:
    """Note what is wanted, and bring the fixer's weights here, where they are not."""

    @told
    def fetched(
        visitor: dict[str, str], scene_id: str, trajectory: str | None, index: int, fixer: str | None, photos: Any
    ) -> Generator[tuple[Any, Any, Wanted], None, None]:
        if not scene_id or not trajectory or not fixer:
            raise ConfigError(NO_FRAMES)
        wanted = Wanted(scene_id, trajectory, int(index), fixer, photos)
        session = shared.studio.session(shared.studio.open_scene(scene_id, visitor["id"]), fixer)
        for line, stop in fetching.follow(visitor["id"], session.fixer.fetch()):
            yield line, stop, wanted

    return fetched


def _measurer(shared: Shared, fetching: fixers.Fetching) -> Any:
    """Find out how much of its fixes to show, where nobody did: it takes longer than a fix."""

    @told
    def measured(visitor: dict[str, str], wanted: Wanted) -> Generator[tuple[Any, Any], None, None]:
        scene = shared.studio.open_scene(wanted.scene_id, visitor["id"])
        session = shared.studio.session(scene, wanted.fixer)
        if scene.trajectory_path(wanted.trajectory).is_file():  # else whoever fixes is told what is missing
            cameras = session.trajectory(wanted.trajectory).cameras
            camera = cameras[min(max(wanted.index, 0), len(cameras) - 1)]
            yield from fetching.follow(visitor["id"], session.strengths.measure(max(camera.width, camera.height)))
        else:
            yield gr.skip(), gr.skip()

    return measured


def _fixer(shared: Shared) -> Any:
    """Fix the frame, and keep the fix for those whose scene it is; what `_shower` shows."""

    @told
    def fix(visitor: dict[str, str], wanted: Wanted) -> dict[str, Any]:
        scene = shared.studio.open_scene(wanted.scene_id, visitor["id"])
        session = shared.studio.session(scene, wanted.fixer)
        chosen = _said(wanted, session.fixer.max_references)
        frame = session.frame(wanted.trajectory, wanted.index)
        if zero.present() and session.fixer.device() != "cpu":
            name = shared.studio.fixer(wanted.fixer).name
            fixed = zero.fix_frame(str(scene.root), name, frame.trajectory, frame.index, chosen)
        else:
            fixed = session.fix(frame, chosen)
        if not shared.studio.may_change(scene, visitor["id"]):
            # Kept, it would be a new question for everybody who rates, and on the host's disk for good.
            gr.Info(NOT_KEPT, title="")
            render = scene.renders_dir(frame.trajectory) / f"{frame.index:05d}.png"
            value = {"frame": [scene.id, frame.trajectory, frame.index], "before": shared.studio.media.url(render)}
            return {"preview": {**value, **unkept(session.fixer.name, fixed, theirs=False)}}
        by = session.fixer, fixed.references
        candidate = store_candidate(scene, frame, fixed.rgb, *by, strength=fixed.strength, trust=fixed.trust)
        return {"kept": candidate.image_path}

    return fix


def _shower(shared: Shared) -> Any:
    """Show what was fixed; to those who have gone on to another frame meanwhile, only say that it is there."""

    @told
    def show(
        visitor: dict[str, str],
        scene_id: str,
        trajectory: str | None,
        index: int,
        left: str | None,
        right: str | None,
        wanted: Wanted,
        made: dict[str, Any],
    ) -> tuple[Any, ...]:
        if (scene_id, trajectory, int(index)) != (wanted.scene_id, wanted.trajectory, wanted.index):
            gr.Info(f"Frame {wanted.index} of {wanted.trajectory} is fixed.", title="")
            return gr.skip(), gr.skip(), gr.skip()
        # Told apart from the same comparison before: a preview may have been shown since.
        now = {"shown": time.time_ns()}
        if "preview" in made:
            return gr.skip(), gr.skip(), {**made["preview"], **now}
        scene = shared.studio.open_scene(scene_id, visitor["id"])
        # The page may have read the scene again since the fix is there, and its person chosen what to compare it with.
        known = right == made["kept"]
        sides = {"left": left if known else None, "right": made["kept"], "shown": known}
        boxes, found, names = _sides(scene, wanted.trajectory, wanted.index, **sides)
        comparison = _pair(shared, scene, found, *names)
        return (*boxes, comparison and {**comparison, **now})

    return show


def _said(wanted: Wanted, most: int) -> list[str] | None:
    """The photos chosen on the page; None where none were offered for this frame and fixer, or before it was known to
    look at any: then those are taken that would have been chosen."""
    photos, asked = wanted.photos, [wanted.scene_id, wanted.trajectory, wanted.index, wanted.fixer]
    if not photos or photos["asked"] != asked or (most and not photos["most"]):
        return None
    return [str(name) for name in photos["chosen"]]


def frames_of(scene: Scene) -> dict[str, list[int]]:
    """Rendered trajectories, newest first, and their frames' numbers."""
    folders = sorted((scene.root / "renders").glob("[!.]*"), key=lambda path: -path.stat().st_mtime)
    found = {
        folder.name: sorted(int(path.stem) for path in folder.glob("*.png") if path.stem.isdecimal())
        for folder in folders
    }
    return {name: numbers for name, numbers in found.items() if numbers}


def candidates_at(scene: Scene, trajectory: str, index: int) -> list[Candidate]:
    """The render of a frame and all its fixes."""
    return candidates_of(scene).get((trajectory, index), [])


def describe(scene: Scene, candidate: Candidate) -> str:
    """A candidate in a few words: its fixer, which photos it used, how much of it is shown where not all is."""
    if candidate.fixer == RENDER:
        return "render, as it is"
    words = f"{candidate.fixer}, {photos_in_words(candidate.references)}"
    shown = candidate.extra.get("shown")
    return words + how_much(shown) if isinstance(shown, float) else words


def _sides(
    scene: Scene, trajectory: str, index: int, left: str | None = None, right: str | None = None, shown: bool = False
) -> tuple[tuple[Any, Any], list[Candidate], tuple[str | None, str | None]]:
    """What to compare of a frame: both boxes, all that there is, and what is chosen: `left` and `right` where they are
    of this frame; else the render and the newest fix. shown: the boxes show those already."""
    candidates = candidates_at(scene, trajectory, index)
    choices = [(describe(scene, candidate), candidate.image_path) for candidate in candidates]
    paths = [path for _, path in choices]
    first = left if left in paths else next(iter(paths), None)
    second = right if right in paths else next(reversed(paths), None)
    boxes = _box(choices, first, shown and first == left), _box(choices, second, shown and second == right)
    return boxes, candidates, (first, second)


def _box(choices: list[Any], value: str | None, shown: bool) -> Any:
    """What is shown already is not sent: somebody may have chosen another one meanwhile."""
    return gr.Dropdown(choices=choices) if shown and value is not None else gr.Dropdown(choices=choices, value=value)


def _slider(last: int, index: int, moved: bool) -> Any:
    bounds: dict[str, Any] = {"minimum": 0, "maximum": max(1, last)}
    return gr.update(**bounds, value=index) if moved else gr.update(**bounds)


def _pair(
    shared: Shared, scene: Scene, candidates: Sequence[Candidate], left: str | None, right: str | None
) -> dict[str, Any] | None:
    known = {candidate.image_path: candidate for candidate in candidates}
    if left is None or right is None or left not in known or right not in known:
        return None
    url = shared.studio.media.url
    return {
        "frame": [scene.id, known[right].trajectory, known[right].frame_index],
        "before": url(scene.inside(left)),
        "after": url(scene.inside(right)),
        "trust": shared.studio.media.url_if_there(trust_path(scene.inside(right))),
        "labels": [known[left].fixer, known[right].fixer],
        "caption": " and ".join(dict.fromkeys(describe(scene, known[side]) for side in (left, right))),
    }

"""Step 5: what the votes say, an export that stands alone, and a fine-tuned checkpoint that joins the fixers."""

from __future__ import annotations

import json
import shutil
from collections.abc import Generator
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image

from difix3d import jobs
from difix3d.atomic import replacing_file
from difix3d.derived import derived_file
from difix3d.errors import ConfigError, JobError
from difix3d.fixers.difix.fixer import default_checkpoint
from difix3d.fixers.difix.hub import PINNED_REVISIONS
from difix3d.fixers.listing import trained
from difix3d.fixers.lite.checkpoint import NAME as LITE
from difix3d.fixers.lite.checkpoint import weights_of
from difix3d.hub.files import gigabytes
from difix3d.perceptual_weights import VGG_BYTES, fetch_vgg, find_weights
from difix3d.ratings.export import MARK
from difix3d.scene import Scene, folder_name, safe_name
from difix3d.ui import campaign
from difix3d.ui.fixers import FETCHING, Fetching
from difix3d.ui.rate import EVERYWHERE, HERE
from difix3d.ui.shared import LATEST, QUIET, Shared, empty, facts, once_looked_at, told
from difix3d.ui.studio import Studio, archive_of

NO_VOTES = "No votes yet. Compare some pairs under Rate; each one is counted here."
HUB_STARTS = (*PINNED_REVISIONS, "nvidia/difix_ref")
MOST_STEPS, FIRST_STEPS = 2000, 30
MOST_CROP_PX = 256
NAME = "mine"


def build(shared: Shared, tab: gr.Tab) -> None:
    """The step's components and events. Votes do not change `revision`: they are read again when `tab` is opened."""
    scope = gr.Radio([HERE, EVERYWHERE], value=HERE, label="Votes and pairs of", elem_id="dx-data-scope")
    results = gr.HTML(empty(NO_VOTES))
    with gr.Row(equal_height=False):
        with gr.Column(min_width=320):
            gr.HTML(
                "<h3>Export</h3><p class='dx-note'>Difix's training JSON, a preferences table and every vote, with "
                "their pictures.</p>"
            )
            filtered = gr.HTML()
            write = gr.Button("Write the dataset", variant="primary", elem_id="dx-export")
            exported = gr.HTML()
        with gr.Column(min_width=320, visible=not shared.studio.public):
            gr.HTML(
                "<h3>Fine-tune</h3><p class='dx-note'>A real, short training run. The new checkpoint joins the "
                "list of fixers.</p>"
            )
            start = gr.Dropdown([], label="Start from", filterable=False, elem_id="dx-start-from")
            with gr.Row():
                steps = gr.Slider(
                    1, MOST_STEPS, value=FIRST_STEPS, step=1, label="Steps", min_width=140, elem_id="dx-steps"
                )
                name = gr.Textbox(label="Name of the new checkpoint", value=NAME, max_length=60, min_width=140)
            train = gr.Button("Fine-tune on the dataset", elem_id="dx-finetune")
            ready = gr.HTML()
            lacking = gr.HTML()
            get = gr.Button(f"Get them ({gigabytes(VGG_BYTES)})", size="sm", visible=False, elem_id="dx-lpips-get")
            fetching = Fetching(shared, "lpips")
            opened = [shared.visitor, shared.scene_id, scope]
            looked = gr.State(False)
            campaign.build(shared, opened, looked, tab)

    tab.select(lambda: True, None, [looked], **QUIET)
    read, shown = _reader(shared), [results, exported]
    for moment in (scope.change, tab.select):
        moment(read, opened, shown, **LATEST)
    shared.revision.change(once_looked_at(read, len(shown)), [looked, *opened], shown, **LATEST)
    shared.revision.change(_starts(shared), [start, name], [start, ready, name], **QUIET)
    shared.filters.change(_filtered, [shared.filters], [filtered], **QUIET)
    write.click(_exporter(shared), [*opened, shared.filters], None, **QUIET)
    train.click(_trainer(shared), [*opened, start, steps, name], None, **QUIET)
    shared.revision.change(_lacking, None, [lacking, get], **QUIET)
    got = get.click(_getter(fetching), [shared.visitor], fetching.outputs, show_progress="hidden", **FETCHING)
    got.then(_lacking, None, [lacking, get], **QUIET)


def counts_html(studio: Studio, scene_id: str | None) -> str:
    """What the votes say of one scene, or of all."""
    counts = studio.store.counts(scene_id)
    if not counts["ratings"]:
        return empty(NO_VOTES)
    choices, bias = counts["choices"], counts["side_bias"]
    rows = [
        ("votes", f"{counts['ratings']:,}", f"{counts['superseded']} changed or undone"),
        ("people", f"{counts['raters']:,}", ""),
        ("pairs", f"{counts['items']:,}", f"in {counts['scenes']} scenes"),
        ("one is better", f"{choices['decided']:,}", f"{choices['tie']} equal, {choices['both_bad']} both bad"),
    ]
    if bias["left_share"] is not None:
        rows.append(("left side chosen", f"{bias['left_share']:.0%}", "50 % is no side bias"))
    return facts(rows) + _rates(studio.store.win_rates(scene_id))


def _rates(rates: dict[str, dict[str, Any]]) -> str:
    bars = []
    for fixer, rate in sorted(rates.items(), key=lambda item: -(item[1]["win_rate"] or 0)):
        if rate["win_rate"] is None:
            continue
        low, high = rate["interval"]
        bars.append(
            f"<div><span>{escape(fixer)}</span><span class='dx-range'><i style='left:{100 * low:.1f}%;"
            f"width:{100 * (high - low):.1f}%'></i><b style='left:{100 * rate['win_rate']:.1f}%'></b></span>"
            f"<span>{rate['win_rate']:.0%} of {rate['pairs']} pair{'s' * (rate['pairs'] != 1)}</span></div>"
        )
    if not bars:
        return ""
    return (
        "<h3>How often each is preferred</h3>"
        f"<div class='dx-rates'>{''.join(bars)}</div>"
        "<p class='dx-note'>Against the others. Each pair counts once, a tie is half a win; the band is the 95 % "
        "interval (Wilson). Results leave out pairs that only who uploaded the scene has judged.</p>"
    )


def _reader(shared: Shared) -> Any:
    @told
    def read(visitor: dict[str, str], scene_id: str, scope: str) -> tuple[str, str]:
        studio = shared.studio
        if not scene_id:
            return empty(NO_VOTES), ""
        scene = studio.open_scene(scene_id, visitor["id"])
        if scope == EVERYWHERE and studio.public:  # other people's scenes are theirs
            return empty("On this server, votes are counted scene by scene."), _exported(shared, scene, HERE)
        return counts_html(studio, None if scope == EVERYWHERE else scene.id), _exported(shared, scene, scope)

    return read


def _filtered(filters: dict[str, Any]) -> str:
    """What the filters of Results keep out of the dataset."""
    parts = [f"from before {filters['since']}"] if filters.get("since") else []
    if filters.get("without"):
        parts.append(f"of rater {', '.join(filters['without'])}")
    if filters.get("without_flagged"):
        parts.append("of raters who are flagged")
    if not parts:
        return ""
    return f"<p class='dx-note'>As chosen under Results, without votes {escape(' and '.join(parts))}.</p>"


def _exporter(shared: Shared) -> Any:
    @told
    def export(visitor: dict[str, str], scene_id: str, scope: str, filters: dict[str, Any]) -> None:
        studio = shared.studio
        scene = _open(shared, visitor, scene_id)
        scenes = scene.root if scope == HERE or studio.public else studio.scenes_root
        settings = {"out": str(_export_dir(studio, scene, scope)), "scenes": str(scenes), **filters}
        studio.start_job(scene, visitor["id"], [jobs.Step("export", settings)])
        gr.Info("Writing. The line above shows how far it is.")

    return export


def _trainer(shared: Shared) -> Any:
    @told
    def train(visitor: dict[str, str], scene_id: str, scope: str, start: str | None, steps: int, name: str) -> None:
        studio = shared.studio
        scene = _open(shared, visitor, scene_id)
        if studio.public:
            raise JobError("Training is not offered on a shared server: export, and run difix3d finetune on your own.")
        if start not in dict(_start_choices(studio)).values():
            raise ConfigError("Choose a checkpoint to start from.")
        data = _export_dir(studio, scene, scope)
        if not (data / MARK).is_file():
            raise ConfigError("There is no dataset yet: press Write the dataset first.")
        out = studio.checkpoints_root / safe_name(folder_name(name or studio.free_name(NAME)))
        settings = {"data": str(data), "start": start, "out": str(out), "steps": int(steps)}
        if (
            start is not None and weights_of(start) is None
        ):  # lite has a crop of its own, and takes smaller pictures too
            settings["crop"] = _crop_px(data)
        studio.start_job(scene, visitor["id"], [jobs.Step("finetune", settings)])
        gr.Info("Training. The line above shows how far it is.")

    return train


def _lacking() -> tuple[str, Any]:
    """What training, and the comparison with kept-out photos, miss where LPIPS's weights are not here."""
    if find_weights("vgg"):
        return "", gr.Button(visible=False)
    text = "The weights of LPIPS are not here: training uses L2 alone, which blurs, and no LPIPS is measured."
    return f"<p class='dx-note'>{text}</p>", gr.Button(visible=True)


def _getter(fetching: Fetching) -> Any:
    @told
    def get(visitor: dict[str, str]) -> Generator[tuple[Any, Any], None, None]:
        yield from fetching.follow(visitor["id"], fetch_vgg())

    return get


def _crop_px(data: Path) -> int:
    """Side of the training crops: small, since a person waits, and never more than the pictures have."""
    pairs = json.loads((data / "difix.json").read_text())["train"]
    if not pairs:
        raise ConfigError(
            "The dataset has no training pairs with a reference. Keep photos out of the fit (More settings), or "
            "rate some fixes, and write it again."
        )
    with Image.open(data / next(iter(pairs.values()))["image"]) as picture:
        return min(MOST_CROP_PX, min(picture.size) // 8 * 8)


def _open(shared: Shared, visitor: dict[str, str], scene_id: str) -> Scene:
    if not scene_id:
        raise ConfigError("Open a scene first.")
    return shared.studio.open_scene(scene_id, visitor["id"])


def _export_dir(studio: Studio, scene: Scene, scope: str) -> Path:
    return studio.exports_root / ("all-scenes" if scope == EVERYWHERE and not studio.public else scene.id)


def _exported(shared: Shared, scene: Scene, scope: str) -> str:
    folder = _export_dir(shared.studio, scene, scope)
    if not (folder / MARK).is_file():
        return ""
    mark = json.loads((folder / MARK).read_text())
    figures = mark["figures"]
    rows = [
        ("training pairs", f"{figures.get('pairs', 0):,}", f"{figures.get('photos', 0)} with true photos"),
        ("votes", f"{figures['ratings']:,}", f"{figures['preferences']} as preferences"),
        ("pictures", f"{figures.get('images', 0):,}", f"{figures.get('image_bytes', 0) / 2**20:.1f} MB"),
    ]
    archive = _zipped(folder)
    name = f"{folder_name(scene.info['name'])}-dataset.zip"
    link = f"<a href='{shared.studio.media.url(archive, name)}' download='{escape(name)}'>Download (.zip)</a>"
    where = "" if shared.studio.public else f"<p class='dx-note'>In {escape(str(folder))}</p>"
    return facts(rows) + f"<div class='dx-links'>{link}</div>" + where


def _zipped(folder: Path) -> Path:
    """The export as one file beside it, made again when the export is another."""

    def pack(archive: Path) -> None:
        with replacing_file(archive) as temporary:
            shutil.make_archive(str(temporary.with_suffix("")), "zip", folder)

    return derived_file(archive_of(folder), folder / MARK, pack)


def _start_choices(studio: Studio) -> list[tuple[str, str]]:
    own = [(f"{one.name} (trained here)", str(one.folder)) for one in trained(studio.checkpoints_root)]
    default = default_checkpoint()
    named = [] if default in HUB_STARTS else [(Path(default).name, default)]
    shipped = (f"{LITE} (small, ships with the project)", LITE)
    return [*named, shipped, *own, *((f"{name} (5 GB, from the Hub)", name) for name in sorted(set(HUB_STARTS)))]


def _starts(shared: Shared) -> Any:
    @told
    def starts(chosen: str | None, name: str) -> tuple[Any, str, Any]:
        choices = _start_choices(shared.studio)
        first = choices[0][1]  # what was named, else the one that needs no download
        value = chosen if chosen in [value for _, value in choices] else first
        wanted = folder_name(name or NAME)
        free = shared.studio.free_name(wanted)
        told_of = campaign.trained_html(shared.studio)
        return gr.Dropdown(choices=choices, value=value), told_of, gr.skip() if free == wanted else free

    return starts

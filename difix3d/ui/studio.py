"""What all pages share: where scenes are, who may see which, which fixers there are, and the ratings.

A visitor is a random id that the browser keeps. On one's own machine (the server listens on loopback only) every scene
is the visitor's. Where strangers can come in (a Space, --share, another host) a scene belongs to the visitor who made
it; scenes that the host made on the command line are there for everybody to look at and rate.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import re
import secrets
import shutil
import threading
from collections import OrderedDict
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from difix3d import jobs
from difix3d.atomic import recover_folder, replacing_file
from difix3d.errors import ConfigError, JobError, SceneError
from difix3d.events import Event
from difix3d.fixers import DEFAULT_FIXER, load_fixer
from difix3d.fixers.difix.fixer import last_change
from difix3d.fixers.listing import Offer, checkpoint_folder, offers
from difix3d.formats.overlap import natural_key
from difix3d.machine import free_disk_bytes
from difix3d.ratings.export import MARK
from difix3d.ratings.store import RatingStore
from difix3d.scene import Scene, folder_name, mark_deleted, safe_name, was_deleted
from difix3d.stages.choosing import Chooser
from difix3d.stages.fixing import FixSession
from difix3d.ui.abandoned import make_room, mark_used
from difix3d.ui.media import Media

if TYPE_CHECKING:
    from difix3d.ratings.push.transfer import Pushing

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "courtyard"
FREE_DISK_BYTES = 2 * 2**30
"""A scene of 80 photos needs about a quarter of this."""
_KEPT_SESSIONS = 3


class Studio:
    """scenes: folder of scenes; exports/ and checkpoints/ are beside it. public: strangers can come in."""

    def __init__(self, scenes: Path | str, ratings_url: str = "", fixer: str = "", public: bool = False):
        self.scenes_root = Path(scenes).resolve()
        self.scenes_root.mkdir(parents=True, exist_ok=True)
        self.public = public
        # Signs the tickets of pairs, and never leaves the server.
        self.secret = _kept_secret(self.scenes_root / ".server-secret")
        # The one secret that there was before, "" where there was none. Every browser was sent it, so it signs nothing
        # any more. But browsers keep their visitor's id under it, and raters' keys are made with it: without it nobody
        # would be known again, nor could take their votes back.
        published = self.scenes_root / ".studio-secret"
        self._published = published.read_text() if published.is_file() else ""
        self.default_fixer = fixer or DEFAULT_FIXER
        self.store = RatingStore(ratings_url, self.scenes_root)
        self.media = Media()
        self.first_scene = ""
        self.pushing: Pushing | None = None
        self._stops: dict[str, threading.Event] = {}
        self._sessions: OrderedDict[tuple[str, int, str, int], FixSession] = OrderedDict()
        self._choosers: list[Chooser] = []
        self._lock = threading.Lock()

    @property
    def exports_root(self) -> Path:
        return self.scenes_root.parent / "exports"

    @property
    def checkpoints_root(self) -> Path:
        return self.scenes_root.parent / "checkpoints"

    @property
    def rater_secret(self) -> str:
        """What raters' keys are made with."""
        return self._published or self.secret

    @property
    def browser_key(self) -> str:
        """What browsers keep their visitor's id under. Gradio sends it to every one of them."""
        return self._published or hmac.new(self.secret.encode(), b"browser", hashlib.sha256).hexdigest()

    # Scenes

    def scenes_of(self, visitor: str) -> list[Scene]:
        """What this visitor may see, newest first."""
        return [scene for scene in self.scenes_of_all() if self.may_see(scene, visitor)]

    def scenes_of_all(self) -> list[Scene]:
        """Every visitor's and the host's, newest first. For the server's own use."""
        found = []
        for path in self.scenes_root.glob("*/scene.json"):
            with contextlib.suppress(SceneError, ValueError):
                scene = Scene(path.parent)
                found.append((scene.info.get("created", ""), natural_key(scene.id), scene))
        return [scene for *_, scene in sorted(found, key=lambda row: row[:2], reverse=True)]

    def open_scene(self, scene_id: str, visitor: str) -> Scene:
        """The scene of that id. SceneError where there is none, or it is somebody else's: no telling which."""
        gone = f"There is no scene {scene_id[:80]!r} here. Choose one from the list, or make a new one under Capture."
        try:
            scene = Scene(self.scenes_root / safe_name(scene_id))
        except SceneError as error:
            raise SceneError(gone) from error
        if not self.may_see(scene, visitor):
            raise SceneError(gone)
        if self.public and self.may_change(scene, visitor):
            mark_used(scene)
        return scene

    def may_see(self, scene: Scene, visitor: str) -> bool:
        return not self.public or scene.info.get("owner", "") in ("", owner_key(visitor))

    def may_change(self, scene: Scene, visitor: str) -> bool:
        """Start jobs in it, export it."""
        return not self.public or (bool(visitor) and scene.info.get("owner") == owner_key(visitor))

    def new_scene(self, name: str, visitor: str, uploads: Sequence[str | Path], source: str = "") -> Scene:
        """A new scene folder with the uploaded files in upload/, under names of ours where two are alike."""
        free = free_disk_bytes(self.scenes_root)
        if self.public and free < FREE_DISK_BYTES:
            make_room(self.scenes_of_all(), self.store, FREE_DISK_BYTES, self._delete)
            free = free_disk_bytes(self.scenes_root)
        if free < FREE_DISK_BYTES:
            raise SceneError(
                f"The server has {free / 2**30:.1f} GB of disk left; {FREE_DISK_BYTES / 2**30:.0f} GB are needed for a "
                "new scene. Delete scenes that are no longer needed, or come back later."
            )
        root = self._claim_folder(folder_name(name))
        scene = Scene.create(root, name=name, source=source or ", ".join(Path(path).name for path in uploads[:3]))
        if self.public and visitor:
            scene.update_info(owner=owner_key(visitor))
        folder = scene.root / "upload"
        folder.mkdir()
        for number, path in enumerate(map(Path, uploads)):
            target = folder / path.name
            if target.exists():
                target = folder / f"{path.stem}_{number}{path.suffix}"
            _link_or_copy(path, target)
        return scene

    @contextlib.contextmanager
    def begun_scene(self, name: str, visitor: str, uploads: Sequence[str | Path], source: str = "") -> Iterator[Scene]:
        """new_scene, to start its first job in. Where that cannot be, the folder goes again: each press of Start would
        leave a dead scene and a copy of the upload. JobError, before anything is copied, from check_no_job."""
        self.check_no_job(visitor)
        scene = self.new_scene(name, visitor, uploads, source)
        try:
            yield scene
        except Exception:
            _remove(scene)
            raise

    def uploads_of(self, scene: Scene) -> list[str]:
        """What was uploaded, to ingest; empty for a scene that came otherwise."""
        folder = scene.root / "upload"
        return sorted((str(path) for path in folder.iterdir()), key=natural_key) if folder.is_dir() else []

    def delete_scene(self, scene: Scene, visitor: str) -> None:
        """Remove the scene and its export. JobError while something runs there, SceneError for somebody else's scene.

        The scene goes last: who is stopped on the way finds it still there, and deletes it again.
        """
        if not self.may_change(scene, visitor):
            raise SceneError("This scene is not yours to delete.")
        self._delete(scene)

    def _delete(self, scene: Scene) -> None:
        job = jobs.find(scene)
        if job is not None and job.state == jobs.RUNNING:
            raise JobError("A job is running in this scene. Cancel it first.")
        mark_deleted(scene.root)
        _remove_export(self.exports_root / scene.id)
        _remove(scene)

    def check_no_job(self, visitor: str) -> None:
        """JobError where this visitor of a public server has a job running: they have one at a time."""
        if not self.public:
            return
        for other in self.scenes_of(visitor):
            running = jobs.find(other)
            if running and running.state == jobs.RUNNING and self.may_change(other, visitor):
                raise JobError(f"Your job in {other.info['name']!r} is still running. Wait for it, or cancel it.")

    def start_job(self, scene: Scene, visitor: str, steps: Sequence[jobs.Step]) -> jobs.Job:
        """jobs.start, for those who may, and have none running (check_no_job). ConfigError for a training that would
        take the place of a checkpoint: that is left to the command line."""
        if not self.may_change(scene, visitor):
            raise JobError("This scene is shown to everybody. Make one of your own under Capture to work on it.")
        self.check_no_job(visitor)
        for step in steps:
            if step.stage == "finetune":
                self._require_new(Path(step.config["out"]))
        # A database's URL may hold a password: it goes to the child, and not into the job's file.
        url = self.store.engine.url.render_as_string(hide_password=False)
        return jobs.start(scene, steps, {"DIFIX3D_RATINGS_DB": url})

    # Fixers

    def free_name(self, name: str) -> str:
        """`name`, or the next of its kind that no checkpoint has. One whose training was stopped is free: under its
        name it goes on."""
        base, number = name, 1
        if numbered := re.fullmatch(r"(.+)-(\d{1,4})", name):
            base, number = numbered[1], int(numbered[2])
        while (self.checkpoints_root / name).exists():
            number += 1
            name = f"{base[:50]}-{number}"
        return name

    def _require_new(self, out: Path) -> None:
        if out.exists():
            raise ConfigError(
                f"There is a checkpoint called {out.name} already, and it stays. Give the new one another name: "
                f"{self.free_name(out.name)} is free."
            )
        for scene in self.scenes_of(""):
            job = jobs.find(scene)
            if job and job.state == jobs.RUNNING and any(step.config.get("out") == str(out) for step in job.steps):
                raise ConfigError(
                    f"{out.name} is being trained in {scene.info['name']!r}. Wait for it, or give another name."
                )

    def fixers(self) -> list[Offer]:
        """What can be chosen here. Quick: nothing is loaded, nobody asked."""
        return offers(self.checkpoints_root, self.default_fixer)

    def fixer(self, name: str) -> Offer:
        """The offer of that name. SceneError for one that was not made: no path comes from a browser."""
        for offer in self.fixers():
            if offer.name == name:
                return offer
        raise SceneError("That fixer is no longer there. Choose one from the list.")

    def stoppable(self, key: str, events: Generator[Event, None, Any]) -> Iterator[Event]:
        """`events` until `stop(key)` is called, which ends them with a JobError."""
        asked = self._stops[key] = threading.Event()
        with contextlib.closing(events):
            for event in events:
                if asked.is_set():
                    raise JobError("Stopped. What came so far is kept: the next time it goes on from there.")
                yield event

    def stop(self, key: str) -> None:
        if key in self._stops:
            self._stops[key].set()

    def session(self, scene: Scene, fixer: str) -> FixSession:
        """A FixSession with its model and splats kept loaded; the longest unused of a few goes, and at once those with
        weights that were trained again since."""
        stamp = scene.splats_path.stat().st_mtime_ns if scene.splats_path.is_file() else 0
        model = (self.fixer(fixer).name, _trained(fixer))
        key = (str(scene.root), stamp, *model)
        with self._lock:
            for stale in [other for other in self._sessions if other[2] == fixer and other[2:] != model]:
                gone = self._sessions.pop(stale)
                self._choosers = [known for known in self._choosers if known.session is not gone]
            if key not in self._sessions:
                loaded = next((s.fixer for other, s in self._sessions.items() if other[2:] == model), None)
                self._sessions[key] = FixSession(scene, loaded or load_fixer(fixer))
            self._sessions.move_to_end(key)
            while len(self._sessions) > _KEPT_SESSIONS:
                self._sessions.popitem(last=False)
            return self._sessions[key]

    def chooser(self, scene: Scene, fixer: str) -> Chooser:
        """What the page needs to choose references: kept as long as the session it looks into."""
        session = self.session(scene, fixer)
        with self._lock:
            for known in self._choosers:
                if known.session is session:
                    return known
            self._choosers = [*self._choosers, Chooser(session)][-_KEPT_SESSIONS:]
            return self._choosers[-1]

    def health(self) -> dict[str, Any]:
        """For /healthz."""
        from difix3d import __version__

        self.store.last_number()  # raises where the ratings cannot be read
        return {"ok": True, "version": __version__, "scenes": len(list(self.scenes_root.glob("*/scene.json")))}

    def _claim_folder(self, name: str) -> Path:
        """A new folder, whose name was no deleted scene's, and which has no export from before."""
        for number in range(1, 10_000):
            root = self.scenes_root / (name if number == 1 and not self.public else f"{name}-{self._suffix(number)}")
            if was_deleted(root) or (self.exports_root / root.name).exists():
                continue
            with contextlib.suppress(FileExistsError):
                root.mkdir()
                return root
        raise SceneError(f"There are too many scenes called {name!r}. Give another name.")

    def _suffix(self, number: int) -> str:
        return secrets.token_hex(4) if self.public else str(number)


def _kept_secret(path: Path) -> str:
    """On disk, so that what browsers hold is still understood after a restart."""
    if not path.is_file():
        with replacing_file(path) as temporary:
            temporary.write_text(secrets.token_hex(16))
            temporary.chmod(0o600)
    return path.read_text()


def owner_key(visitor: str) -> str:
    """What a scene keeps of its owner: enough to know them again, not enough to pose as them."""
    return hashlib.sha256(f"owner {visitor}".encode()).hexdigest()[:24] if visitor else ""


def _remove(scene: Scene) -> None:
    # Gone at once, for those too who write into it just now: gold is made while people rate.
    doomed = scene.root.with_name(f".{scene.id[:60]}-{secrets.token_hex(4)}.deleted")
    scene.root.rename(doomed)
    (doomed / "scene.json").unlink()
    shutil.rmtree(doomed)


def _trained(fixer: str) -> int:
    """When the checkpoint folder of a fixer last changed, in ns; 0 where it has none here."""
    folder = checkpoint_folder(fixer)
    return last_change(folder) if folder else 0


def archive_of(export: Path) -> Path:
    """Where the export in a folder lies as one file. Not with_suffix: names hold dots, "walk-14.35" is one."""
    return export.with_name(f"{export.name}.zip")


def _remove_export(export: Path) -> None:
    """At once for all who look; what is aside when this is stopped goes the next time."""
    recover_folder(export)
    aside, archive = export.with_name(f".{export.name}.deleted"), archive_of(export)
    if (export / MARK).is_file():
        if aside.exists():
            shutil.rmtree(aside)
        export.rename(aside)
    if archive.is_file():
        archive.unlink()
    if aside.exists():
        shutil.rmtree(aside)


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system
        shutil.copyfile(source, target)

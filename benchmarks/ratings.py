"""Many raters at once over HTTP, on SQLite and on PostgreSQL: how fast, and whether every vote is kept.

    python benchmarks/ratings.py [--raters 50] [--seconds 40] [--pace 3] [--kills 20] [--json]

The app is started as a person would start it, over a made scene; raters are threads of this program on the same
machine. First each votes every `pace` seconds, as people do at their fastest: latencies (the answer's way back
included). Then all vote as fast as they are answered: votes_per_s. A twentieth of the votes is sent twice. lost: votes
that the server acknowledged and the log does not hold; doubled: showings with two votes in the log. Then, `kills`
times, the server gets SIGKILL while all vote, and is started again: lost counts those too.

PostgreSQL is started by this program in a temporary folder (apt install postgresql); without it `postgresql` is null.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from rating_campaign import App, Rater, guesses, make_scene

from difix3d.ratings.sampler import Sampler
from difix3d.ratings.schema import GOLD, RATE, REPEAT
from difix3d.ratings.store import RatingStore
from difix3d.scene import Scene

sys.path.append(str(Path(__file__).resolve().parent.parent / "tests"))

from postgresql_server import PostgresqlServer, programs


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--raters", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=40.0, help="of each of the two ways of voting")
    parser.add_argument("--pace", type=float, default=3.0, help="seconds from vote to vote of one rater")
    parser.add_argument("--kills", type=int, default=20, help="of the server, on each database")
    parser.add_argument("--frames", type=int, default=400)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found: dict[str, Any] = {"raters": options.raters, "pace_s": options.pace, "kills": options.kills}
    with tempfile.TemporaryDirectory() as folder:
        found["sqlite"] = measured(Path(folder), "", options)
    found["postgresql"] = None
    if programs():
        server = PostgresqlServer()
        try:
            server.create()
            server.start()
            with tempfile.TemporaryDirectory() as folder:
                found["postgresql"] = measured(Path(folder), server.url(), options)
        finally:
            server.stop()
    for name in ("sqlite", "postgresql"):
        if found[name]:
            print(name, " ".join(f"{key}={value}" for key, value in found[name].items()))
    if options.json:
        print(json.dumps(found))


def measured(folder: Path, database: str, options: argparse.Namespace) -> dict[str, Any]:
    make_scene(folder / "scenes" / "campaign", options.frames)
    app = App(folder, database)
    with RatingStore(app.database, folder / "scenes") as store:
        sampler = Sampler(store, folder / "scenes")  # gold takes seconds to make: not while it is measured
        sampler.next("nobody", [Scene(folder / "scenes" / "campaign")])
        sampler.catalogue.wait_for_gold()
        sampler.close()
    app.start()
    try:
        raters = [
            Rater(app.port, f"rater-number-{number:06d}", guesses, pictures=False) for number in range(options.raters)
        ]
        together(raters, lambda rater: rater.agree())
        paced = rated(raters, options.seconds, options.pace)
        flat_out = rated(raters, options.seconds, 0.0)
        for number in range(options.kills):
            killed_while_rating(app, raters, 1.0 + number % 4 / 2)
    finally:
        app.kill()
    acknowledged = {id_ for rater in raters for id_ in rater.acknowledged}
    with RatingStore(app.database) as store:
        votes = store.ratings(include_superseded=True, purposes=(RATE, GOLD, REPEAT), marks=False)
    showings = Counter((vote.rater_number, vote.item_id, vote.purpose) for vote in votes if not vote.superseded_by)
    superseded = sum(bool(vote.superseded_by) for vote in votes)
    return {
        "votes_per_s": flat_out["votes_per_s"],
        "vote_p50_ms": paced["vote_p50_ms"],
        "vote_p95_ms": paced["vote_p95_ms"],
        "next_p50_ms": paced["next_p50_ms"],
        "next_p95_ms": paced["next_p95_ms"],
        "lost": len(acknowledged - {vote.id for vote in votes}),
        "doubled": sum(count - 1 for count in showings.values()) + superseded,
        "acknowledged": len(acknowledged),
        "flat_out_vote_p95_ms": flat_out["vote_p95_ms"],
        "flat_out_next_p95_ms": flat_out["next_p95_ms"],
    }


def rated(raters: list[Rater], seconds: float, pace_s: float) -> dict[str, float]:
    for rater in raters:
        rater.next_s.clear()
        rater.vote_s.clear()
    before = sum(len(rater.acknowledged) for rater in raters)
    started = time.monotonic()
    end = started + seconds

    def rate(rater: Rater) -> None:
        rng = random.Random(rater.visitor)
        time.sleep(rng.random() * pace_s)
        while time.monotonic() < end:
            begun = time.monotonic()
            if not rater.rate_one():
                raise SystemExit(f"{rater.visitor} has nothing left to rate: use more --frames")
            time.sleep(max(0.0, begun + pace_s * rng.uniform(0.5, 1.5) - time.monotonic()))

    together(raters, rate)
    votes = sum(len(rater.acknowledged) for rater in raters) - before
    found = {"votes_per_s": round(votes / (time.monotonic() - started), 1)}
    for name in ("next", "vote"):
        taken = [1000 * each for rater in raters for each in getattr(rater, f"{name}_s")]
        found |= {f"{name}_p{q}_ms": round(float(np.percentile(taken, q)), 1) for q in (50, 95)}
    return found


def killed_while_rating(app: App, raters: list[Rater], after_s: float) -> None:
    """All vote as fast as they can until the server is gone."""

    def rate(rater: Rater) -> None:
        try:
            while rater.rate_one():
                pass
        except OSError:
            return

    threads = [threading.Thread(target=rate, args=(rater,)) for rater in raters]
    for thread in threads:
        thread.start()
    time.sleep(after_s)
    app.kill()
    for thread in threads:
        thread.join()
    app.start()


def together(raters: list[Rater], do: Any) -> None:
    failed: list[BaseException] = []

    def run(rater: Rater) -> None:
        try:
            do(rater)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=run, args=(rater,)) for rater in raters]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]


if __name__ == "__main__":
    main()

"""What the stage `pairs` is made of.

sources.py   which scenes there are to make pairs of, reconstructed if need be
unit.py      one fit with its renders: the piece of work that is done whole or not at all
fits.py      splats at given shares of a fit's schedule
photos.py    a scene's photos at the size that is fitted
workers.py   units on all cores
store.py     the folder they end up in: what it holds, what it will hold, its index

    OUT/pairs.json                          marks the folder; settings and figures of the last run
    OUT/difix.json, OUT/pairs.jsonl         Difix's training JSON; everything else there is to know (difix3d.pairs.rows)
    OUT/scenes/NAME/                        scenes made here of photos; no pair needs them
    OUT/pairs/SCENE/photos-480/NAME-HASH.png  a photo at the size that is fitted: target and reference
    OUT/pairs/SCENE/FIT/unit.json           rows of one fit; its folder appears as a whole
    OUT/pairs/SCENE/FIT/100/NAME.png        a render at the full schedule, NAME_alpha.png, NAME_depth.npy; 050: at half
    OUT/pairs/SCENE/FIT/100/seen/           depth at the cameras of photos that were fitted
"""

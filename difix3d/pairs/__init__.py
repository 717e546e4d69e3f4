"""Training pairs from captures: a flawed render, and the photo that was truly taken there.

plan.py        which photos are fitted, which cameras are rendered, when: the curation strategies of Difix3D+
alignment.py   whether a render and its photo show the same thing in the same place
rows.py        one line of pairs.jsonl
read.py        a line and its files as arrays, for training
"""

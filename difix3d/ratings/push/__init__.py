"""Votes and exports to a dataset repository of the Hugging Face Hub, a little at a time.

outbox.py     what waits on this machine, as files under names that are given once
entries.py    the log since the last time, as lines that are never changed
card.py       README.md of the repository
transfer.py   what waits goes to the Hub; what goes wrong is told, and tried again
"""

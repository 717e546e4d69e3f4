"""What the votes say, as a step of the page.

step.py      its components, and what changes them
counting.py  the figures, counted aside and kept until there is a newer vote
view.py      the figures as HTML
plots.py     the figures as pictures
"""

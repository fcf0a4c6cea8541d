"""Published tables, run again: a paper is a file of data (``experiments/papers/<id>.yaml``) and this package reads it.

- ``schema``: what such a file may say. ``load``: finding, expanding and checking one; ``pairs``: its short form.
- ``plan``: the protocol as trial configs, and what is missing. ``estimate``, ``preview``: what that would cost here.
- ``coordinate``, ``run``: the missing trials, in one process or several, through the same trial folders as a sweep.
- ``measures``: from finished trials to one number a cell and seed, bias corrections included.
- ``table``: published beside ours, with a verdict a cell. ``claims``: sentences of a paper, supported or not.
- ``render``, ``figures``, ``report``, ``record``: Markdown, LaTeX, CSV, terminal, pictures, and a copy to commit.

Nothing is imported here: listing papers costs no torch and no pandas.
"""

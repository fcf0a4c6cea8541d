"""A runs frame in; tables, figures and a page out. Never imports torch.

``points`` gathers confirm runs into operating points and the Pareto table, ``verdicts`` judges its rows, ``worth``
and ``costs`` say what a front saves and costs; ``render`` puts any grid of cells on a terminal, into Markdown, LaTeX
and CSV, ``tables`` is the Pareto table through it; ``figures`` and ``figures_runs`` draw, ``page`` embeds the same;
``report`` writes all of it into a sweep's folder; ``drawing`` is for scripts with figures of their own.
"""

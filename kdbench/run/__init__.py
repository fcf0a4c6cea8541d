"""Runs of any plan: jobs, the folder per run that is the truth, the scheduler, its executors and observers.

A *run* trains one network (``RunConfig`` -> ``RunResult``); a *job* is a run that a plan asks for. ``job`` holds the
protocol of plans, ``observers`` that of whoever watches, ``store`` the folders, ``frame`` the table of all runs.
Nothing here but ``worker`` imports torch.
"""

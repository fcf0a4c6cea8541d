"""Runs of any plan: jobs, the folder per run that is the truth, the scheduler, its executors and observers.

A *run* trains one network (``RunConfig`` -> ``RunResult``); a *job* is a run that a plan asks for. ``job`` holds the
protocol of plans, ``observers`` that of whoever watches, ``store`` the folders, ``launch`` what every verb calls.
``worker`` trains, with ``ranks`` where a run takes several devices; they, ``devices``, ``estimate`` and ``student``
import torch.
"""

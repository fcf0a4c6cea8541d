"""Leaderboards: rows out of any number of sweeps and members' folders, as files and in W&B.

``submissions`` finds what was run below any folders, ``protocol`` says what may be ranked together, ``leaderboard``
merges it into one frame in which every run counts once, ``files`` writes and prints it, ``publish`` and ``pull`` bring
it to W&B and a team's runs back. Importing this package imports neither torch nor wandb.
"""

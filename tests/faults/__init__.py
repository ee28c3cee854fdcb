"""A campaign of faults against real runs: everything that may happen to a training, counted.

    PYTHONPATH=tests python -m faults [NAME ...] [--n 200] [--seed 0]

Each campaign yields trials; a trial says what was done and how it ended, and the command counts
the endings. BAD endings are defects. The slow tests run each campaign at a smaller size.
"""

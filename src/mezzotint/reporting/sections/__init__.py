"""Sections of the report, one file for each part of a run.

Here: functions from a reading of a run's files to blocks of the page.
Not here: how a block looks (`reporting.blocks`, page.html).
"""

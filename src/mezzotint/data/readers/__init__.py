"""Readers: one file for each format that a data set comes in.

Here: functions from a folder, a table or the hub to an `Encoded`, which `data.sources` asks.
Not here: pixels (`data.pixels`), splits and the cache.
"""

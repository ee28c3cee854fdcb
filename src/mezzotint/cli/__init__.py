"""The command line: parse, call the library, show.

Here: verbs and options, exit codes, results in words.
Not here: anything that a notebook could want.
"""

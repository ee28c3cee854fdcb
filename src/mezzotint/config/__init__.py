"""Configuration: names and TOML in, frozen objects out. No other room turns names into classes.

Here: the schema, the registries, the presets and their variants, translation of older keys.
Not here: anything that trains, draws or writes a run.
"""

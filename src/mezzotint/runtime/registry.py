"""Tables of names: where the class, function or module of each name lies.

A table is read without importing what it names, so that `--help` lists every choice at once. What
a name stands for is imported when it is first asked for.

    COLOURS: Registry[Any, Entry] = Registry("colour", {"red": entry("colours.warm:Red")})
    list(COLOURS), COLOURS["red"]  # ['red'], the class Red of the module colours.warm
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Generic, TypeVar

from mezzotint.errors import InputError, suggest

__all__ = ["Entry", "Registry", "entry"]

T = TypeVar("T")
E = TypeVar("E", bound="Entry")


@dataclass(frozen=True)
class Entry:
    """Where something lies, and the values that its name gives some of its fields."""

    target: str
    """"module:name"; "module" for a whole module."""

    fixed: Mapping[str, Any] = field(default_factory=dict, kw_only=True)
    """Field -> value, of a class."""

    def load(self) -> Any:
        """Import it."""
        module, _, name = self.target.partition(":")
        found = import_module(module)
        return getattr(found, name) if name else found


def entry(target: str, **fixed: Any) -> Entry:
    """Return an entry; see `Entry` for its fields."""
    return Entry(target, fixed=fixed)


@dataclass(frozen=True, eq=False)
class Registry(Mapping[str, T], Generic[T, E]):
    """Names and what they stand for, in order; a new one is a line in `entries`."""

    what: str
    """What a name names, as in "sampler"."""

    entries: dict[str, E]

    def names(self) -> tuple[str, ...]:
        """Return all names; nothing is imported."""
        return tuple(self.entries)

    def resolve(self, name: str) -> T:
        """Return what a name stands for.

        Raises:
            InputError: The name is not known; the message has the closest one.

        """
        if name not in self.entries:
            raise InputError(f"unknown {self.what} '{name}': {suggest(name, self.entries)}")
        return self[name]

    def __getitem__(self, name: str) -> T:
        found: T = self.entries[name].load()
        return found

    def __contains__(self, name: object) -> bool:
        return name in self.entries  # Mapping's own would import it

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

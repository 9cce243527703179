"""A data set of your own: a class or a function of yours, by its dotted name."""

from dataclasses import dataclass, field
from typing import Any, Literal

from git_model.data.example import Source
from git_model.utils.dotted import call_object
from git_model.utils.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class PythonData:
    """What a function of yours returns: an object with `__len__` and `__getitem__`, which gives an
    `Example`. Worker processes load from copies of it, so it must be picklable where there are any.
    """

    kind: Literal["python"] = "python"
    source: str  # the dotted name of the function or class, such as my_data.Paintings
    arguments: dict[str, Any] = field(default_factory=dict)  # that it is called with

    def open(self) -> Source:
        """Import and call it.

        Raises:
            ConfigError: it cannot be imported or called, or returns no source.
        """
        source: Source = call_object(self.source, "source", **self.arguments)
        require_source(source, f"source is {self.source}, which")
        return source


def require_source(source: Any, where: str) -> None:
    """Refuse an object that is no `Source`, or an empty one; errors begin with `where`."""
    if not all(hasattr(source, name) for name in ("__len__", "__getitem__")):
        raise ConfigError(
            f"{where} gives {type(source).__name__}, expected an object with __len__ and "
            "__getitem__"
        )
    if len(source) == 0:
        raise ConfigError(f"{where} has no example, expected at least one")

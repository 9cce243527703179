"""Your own data set: a class or a function, by its dotted name."""

from dataclasses import dataclass, field
from typing import Any, Literal

from git_model.data.example import Source
from git_model.utils.dotted import call_object
from git_model.utils.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class PythonData:
    """The result of your own class or function: an object with `__len__` and `__getitem__`, which
    returns an `Example`. Worker processes load from copies of the object, so with workers it must
    be picklable."""

    kind: Literal["python"] = "python"
    source: str  # the dotted name of the function or class, such as my_data.Paintings
    arguments: dict[str, Any] = field(default_factory=dict)  # keyword arguments of the call

    def open(self) -> Source:
        """Import the class or function, and call it.

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

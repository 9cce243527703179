"""torch.compile, announced in a line, kept between processes, and never the cause of an error."""

import logging
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor, nn

CACHE_VARIABLE = "TORCHINDUCTOR_CACHE_DIR"

Graph = Callable[..., Any]


class Compiler:
    """A backend of torch.compile: inductor, torch's own, with two lines on stderr at most. The
    first says what is compiled, before the first graph. The second says why a graph could not be
    compiled, as where there is no C++ compiler; that graph runs as it is, with the same result.

    Args:
        name: of what is compiled.
        cuda_graphs: on a GPU, record what was compiled as a CUDA graph.
    """

    def __init__(self, name: str, *, cuda_graphs: bool = False) -> None:
        self.name = name
        self._mode = "reduce-overhead" if cuda_graphs else "default"
        self._announced = self._failed = False

    def __call__(self, graph: Any, inputs: Sequence[Tensor]) -> Graph:
        """A compiled graph of torch.fx, or its own `forward`."""
        if self._failed:
            return graph.forward
        if not self._announced:
            self._announced = True
            folder = os.environ.get(CACHE_VARIABLE, "torch's cache for temporary files")
            _print(
                f"compiling {self.name}: a minute or two the first time on this machine; the "
                f"result is kept in {folder}"
            )
        try:
            return _inductor(self._mode)(graph, inputs)
        except Exception as error:  # whatever a compiler raises: the graph itself is fine
            self._failed = True
            _warn(self.name, error)
            return graph.forward


class Fallback:
    """Runs a module's compiled code. If that fails where the module itself does not, a line says
    so, and the module runs as it is from then on."""

    def __init__(self, compiled: Graph, plain: Graph, name: str) -> None:
        self._compiled = compiled
        self._plain = plain
        self._name = name
        self._failed = False

    def __call__(self, *inputs: Tensor) -> Any:
        """The module's outputs."""
        if self._failed:
            return self._plain(*inputs)
        try:
            return self._compiled(*inputs)
        except Exception as error:  # whatever torch's compiler or a CUDA graph raises
            outputs = self._plain(*inputs)  # wrong inputs fail here, too, and are no fault of it
            self._failed = True
            _warn(self._name, error)
            return outputs


def compile_in_place(module: nn.Module, name: str, *, cuda_graphs: bool = False) -> None:
    """Let a module run compiled from its first call on, for inputs of any size, as long as that
    works. What is compiled is kept in the user's cache folder for later processes, unless
    TORCHINDUCTOR_CACHE_DIR names another.

    Args:
        cuda_graphs: as in `Compiler`.
    """
    _keep_between_processes()
    # it warns, with a line of its source, of a machine that has CUDA's compiler and no GPU
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    try:
        module.compile(backend=Compiler(name, cuda_graphs=cuda_graphs))
    except RuntimeError as error:  # a version of Python that torch.compile does not know
        _print(f"Warning: {name} runs uncompiled: {str(error).strip().splitlines()[0]}")
        return
    # what `module(...)` calls, compiled and not; torch has no public names for these
    if (compiled := module._compiled_call_impl) is not None:
        module._compiled_call_impl = Fallback(compiled, module._call_impl, name)


def _keep_between_processes() -> None:
    """Set a cache folder for torch that survives a restart of the machine."""
    if CACHE_VARIABLE in os.environ:
        return
    try:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        folder = Path(base, "git-model", "compiled")
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except (OSError, RuntimeError):
        return  # nothing can be written there: torch takes its folder for temporary files
    os.environ[CACHE_VARIABLE] = str(folder)


def _inductor(mode: str) -> Callable[..., Any]:
    from torch._dynamo import lookup_backend  # as torch's documentation of own backends shows
    from torch._inductor import list_mode_options

    inductor: Callable[..., Any] = lookup_backend("inductor")
    return partial(inductor, config_patches=list_mode_options(mode))


def _warn(name: str, error: Exception) -> None:
    lines = str(error).strip().splitlines() or [""]
    _print(f"Warning: {name} runs uncompiled: {type(error).__name__}: {lines[0]}")


def _print(line: str) -> None:
    print(line, file=sys.stderr, flush=True)

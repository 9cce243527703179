"""The engines that run exported graphs: ONNX Runtime and OpenVINO. Tensors in, tensors out."""

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from git_model.config import GITConfig
from git_model.export.folder import SUFFIX, WEIGHTS, ExportInfo
from git_model.export.graphs import SEE, SEE_CLIP, STEP, Shape, Signature, signatures
from git_model.export.packages import openvino_core, require_packages
from git_model.generation.padded_session import flat, layers_of
from git_model.model.attention import KeyValue
from git_model.utils.errors import CheckpointError, GITError

Arrays = Sequence[np.ndarray]
FREE = "?"  # a size that is free


class Engine(ABC):
    """The graphs of one folder, on one device, with as many CPU threads as torch has.

    calls: how many times each graph ran. A pickle of an engine holds the folder's path, and opens
    the folder again.

    Args:
        device: the engine's name for it, such as "cpu"; "auto" lets the engine choose.

    Raises:
        GITError: the engine is not installed, has no such device, or cannot load a graph; or the
            graphs are not those of this configuration.
    """

    def __init__(self, folder: Path, info: ExportInfo, config: GITConfig, device: str) -> None:
        self.device = device
        self._opened = folder.absolute(), info, config, device
        self._threads = torch.get_num_threads()
        self._lock = Lock()  # OpenVINO runs one request of a graph at a time
        self._signatures = signatures(config)
        self.calls = dict.fromkeys(self._signatures, 0)
        self._paths = {
            graph: folder / f"{graph}{SUFFIX[info.engine]}" for graph in self._signatures
        }
        self._graphs: dict[str, Any] = {}
        for name, path in self._paths.items():
            self._graphs[name] = self._load(path)
            _require_shapes(path, self._shapes(self._graphs[name]), self._signatures[name])

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self._opened

    @abstractmethod
    def _load(self, path: Path) -> Any:
        """A graph, ready to run."""

    @abstractmethod
    def _run(self, graph: Any, inputs: dict[str, np.ndarray]) -> Arrays:
        """The outputs of a graph."""

    @abstractmethod
    def _shapes(self, graph: Any) -> dict[str, Shape]:
        """The shape of each input and output of a graph, by name; a size that is free is a str."""

    def see(self, pixels: Tensor) -> tuple[KeyValue, ...]:
        """Pixels (B, 3, H, W), or of clips (B, F, 3, H, W) -> the image prefix of each layer."""
        return layers_of(self._outputs(SEE if pixels.ndim == 4 else SEE_CLIP, pixels))

    def step(
        self, tokens: Tensor, token_mask: Tensor, image: Sequence[KeyValue], past: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The logits of the next tokens and the text cache; shapes as in `graphs.StepGraph`."""
        logits, present = self._outputs(STEP, tokens, token_mask, *flat(image), past)
        return logits, present

    def _outputs(self, name: str, *inputs: Tensor) -> list[Tensor]:
        arrays = [np.ascontiguousarray(tensor.numpy()) for tensor in inputs]
        named = dict(zip(self._signatures[name].inputs, arrays, strict=True))
        with self._lock:
            self.calls[name] += 1
            with _running(self._paths[name]):
                outputs = self._run(self._graphs[name], named)
        return [torch.from_numpy(output) for output in outputs]


class OnnxRuntime(Engine):
    """ONNX Runtime. Its devices are its execution providers: cpu, cuda, cuda:1, tensorrt, …"""

    _process: ClassVar[int | None] = None  # that has opened a graph with several threads

    def _load(self, path: Path) -> Any:
        import onnxruntime

        self._refuse_fork()
        _refuse_outer_weights(path.with_name(WEIGHTS))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.log_severity_level = 4  # its errors are exceptions, too
        provider, settings = _provider(self.device, onnxruntime.get_available_providers())
        cpu = "CPUExecutionProvider"
        providers = [(provider, settings), *([] if provider == cpu else [cpu])]
        with _loading(path):
            session = onnxruntime.InferenceSession(path, options, providers=providers)
        if session.get_providers()[0] != provider:  # it falls back to the CPU by itself
            raise GITError(
                f"device {self.device!r} cannot be used here: ONNX Runtime could not start its "
                f"{provider}, expected a machine with its libraries, or cpu"
            )
        if self._threads > 1:
            OnnxRuntime._process = os.getpid()
        return session

    def _refuse_fork(self) -> None:
        """Refuse to open a graph in a fork of a process that has its threads: it would hang."""
        if self._process not in (None, os.getpid()):
            raise GITError(
                "ONNX Runtime cannot open a model in a process that was forked from one that had "
                "opened one already: start processes with multiprocessing's method spawn, open "
                "models in them only, or use one thread"
            )

    def _run(self, graph: Any, inputs: dict[str, np.ndarray]) -> Arrays:
        return graph.run(None, inputs)

    def _shapes(self, graph: Any) -> dict[str, Shape]:
        values = [*graph.get_inputs(), *graph.get_outputs()]
        return {value.name: [size or FREE for size in value.shape] for value in values}


class OpenVINO(Engine):
    """OpenVINO. Its devices: cpu, gpu, gpu.1, npu, auto."""

    def _load(self, path: Path) -> Any:
        core = openvino_core()
        device = self.device.upper()
        names = [name.lower() for name in core.available_devices]
        if device != "AUTO" and device.lower() not in names:
            raise GITError(
                f"device {self.device!r} cannot be used here: OpenVINO has {', '.join(names)}, "
                "expected one of these, or auto"
            )
        settings: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY"}
        if device == "CPU":
            settings |= {"INFERENCE_NUM_THREADS": self._threads, "INFERENCE_PRECISION_HINT": "f32"}
        with _loading(path):
            model = core.read_model(path, path.with_name(WEIGHTS))
            return core.compile_model(model, device, settings)

    def _run(self, graph: Any, inputs: dict[str, np.ndarray]) -> Arrays:
        return list(graph(inputs).values())

    def _shapes(self, graph: Any) -> dict[str, Shape]:
        return {
            name: [size.get_length() if size.is_static else FREE for size in value.partial_shape]
            for value in (*graph.inputs, *graph.outputs)
            for name in value.names
        }


def open_engine(folder: Path, info: ExportInfo, config: GITConfig, device: str) -> Engine:
    """The engine that a folder was exported for.

    Raises:
        GITError: as in `Engine`; or the folder holds torch's programs.
    """
    if info.engine == "torch":
        raise GITError(
            f"{folder}: programs of torch.export, for AOTInductor and ExecuTorch; torch opens them "
            f"with pickle, so this project does not: open the source, {info.source}, or export "
            "with --format onnx or openvino"
        )
    require_packages(info.engine, ["onnxruntime" if info.engine == "onnx" else "openvino"])
    kind = OnnxRuntime if info.engine == "onnx" else OpenVINO
    return kind(folder, info, config, device)


def _provider(device: str, available: Sequence[str]) -> tuple[str, dict[str, Any]]:
    """The execution provider of a device's name, and its settings."""
    short = {name.removesuffix("ExecutionProvider").lower(): name for name in available}
    short.pop("azure", None)  # calls a service, and runs no graph
    name, colon, index = device.lower().partition(":")
    if device.lower() == "auto":
        name = "cuda" if "cuda" in short else "cpu"
    if name not in short or (colon and (name == "cpu" or not index.isdecimal())):
        raise GITError(
            f"device {device!r} cannot be used here: this ONNX Runtime has {', '.join(short)}, "
            "expected one of these, or auto"
        )
    return short[name], {"device_id": index} if index else {}


def _refuse_outer_weights(weights: Path) -> None:
    """Refuse a link that leads out of the model's folder, which ONNX Runtime does not follow."""
    if weights.resolve().parent != weights.parent.resolve():
        raise CheckpointError(
            f"{weights}: a link that leads out of the folder, which ONNX Runtime does not follow: "
            "copy the file that it leads to into the folder"
        )


def _require_shapes(path: Path, shapes: Mapping[str, Shape], signature: Signature) -> None:
    """Refuse a graph that has other inputs and outputs than the configuration says."""
    expected_shapes = {**signature.inputs, **signature.outputs}
    for name in sorted(shapes.keys() - expected_shapes.keys()):
        raise _other_model(path, f"it has {name}, and config.json says nothing of it")
    for name, expected in expected_shapes.items():
        shape = shapes.get(name)
        fits = shape is not None and len(shape) == len(expected)
        pairs = zip(shape or (), expected, strict=False)
        if not fits or any(a != b for a, b in pairs if isinstance(a, int) and isinstance(b, int)):
            sizes = "is missing" if shape is None else f"has shape {_as_text(shape)}"
            expectation = f"expected {_as_text(expected)} by config.json"
            raise _other_model(path, f"its {name} {sizes}, {expectation}")


def _other_model(path: Path, difference: str) -> CheckpointError:
    return CheckpointError(
        f"{path}: {difference}: these files are of different models, or were changed: export the "
        "source again"
    )


def _as_text(shape: Shape) -> str:
    """A shape such as "? x 3 x 224 x 224"."""
    return " x ".join(str(size) if isinstance(size, int) else FREE for size in shape)


@contextmanager
def _running(path: Path) -> Iterator[None]:
    """Turn an engine's exceptions into a GITError."""
    try:
        yield
    except Exception as error:
        raise GITError(f"{path}: the engine cannot run it: {_reason(error)}") from None


@contextmanager
def _loading(path: Path) -> Iterator[None]:
    """Turn an engine's own exceptions, which have no common base, into a CheckpointError."""
    try:
        yield
    except Exception as error:
        raise CheckpointError(
            f"{path}: the engine cannot load it: {_reason(error)}; the file is damaged, or made "
            "for a newer engine: export the source again"
        ) from None


def _reason(error: Exception) -> str:
    """An engine's message in one line, without the places in its source code."""
    lines = str(error).strip().splitlines()
    places = ("Exception from ", "Check '")  # OpenVINO's
    words = " ".join(line.strip() for line in lines if not line.startswith(places))
    return words or type(error).__name__

"""The engines that run exported graphs: ONNX Runtime and OpenVINO. Tensors in, tensors out."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import torch
from torch import Tensor

from git_model.export.folder import SUFFIX, ExportInfo
from git_model.export.graphs import INPUTS, SEE, SEE_CLIP, STEP
from git_model.export.packages import openvino_core, require_packages
from git_model.utils.errors import CheckpointError, GITError

Arrays = Sequence[np.ndarray]


class Engine(ABC):
    """The graphs of one folder, on one device, with as many CPU threads as torch has.

    calls: how many times each graph ran.

    Args:
        device: the engine's name for it, such as "cpu"; "auto" lets the engine choose.

    Raises:
        GITError: the engine is not installed, has no such device, or cannot load a graph.
    """

    def __init__(self, folder: Path, info: ExportInfo, graphs: Sequence[str], device: str) -> None:
        self.device = device
        self.calls = dict.fromkeys(graphs, 0)
        self._threads = torch.get_num_threads()
        self._lock = Lock()  # OpenVINO runs one request of a graph at a time
        paths = {graph: folder / f"{graph}{SUFFIX[info.engine]}" for graph in graphs}
        self._graphs = {graph: self._load(path) for graph, path in paths.items()}

    @abstractmethod
    def _load(self, path: Path) -> Any:
        """A graph, ready to run."""

    @abstractmethod
    def _run(self, graph: Any, inputs: dict[str, np.ndarray]) -> Arrays:
        """The outputs of a graph."""

    def see(self, pixels: Tensor) -> Tensor:
        """Pixels (B, 3, H, W), or of clips (B, F, 3, H, W) -> image (L, 2, B, H, I, d)."""
        [image] = self._outputs(SEE if pixels.ndim == 4 else SEE_CLIP, pixels)
        return image

    def step(
        self, tokens: Tensor, token_mask: Tensor, image: Tensor, past: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The logits of the next tokens and the text cache; shapes as in `graphs.StepGraph`."""
        logits, present = self._outputs(STEP, tokens, token_mask, image, past)
        return logits, present

    def _outputs(self, name: str, *inputs: Tensor) -> list[Tensor]:
        arrays = [np.ascontiguousarray(tensor.numpy()) for tensor in inputs]
        named = dict(zip(INPUTS[name], arrays, strict=True))
        with self._lock:
            self.calls[name] += 1
            outputs = self._run(self._graphs[name], named)
        return [torch.from_numpy(output) for output in outputs]


class OnnxRuntime(Engine):
    """ONNX Runtime. Its devices are its execution providers: cpu, cuda, cuda:1, tensorrt, …"""

    def _load(self, path: Path) -> Any:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.log_severity_level = 3
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
        return session

    def _run(self, graph: Any, inputs: dict[str, np.ndarray]) -> Arrays:
        return graph.run(None, inputs)


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
            model = core.read_model(path, path.with_name("weights.bin"))
            return core.compile_model(model, device, settings)

    def _run(self, graph: Any, inputs: dict[str, np.ndarray]) -> Arrays:
        return list(graph(inputs).values())


def open_engine(folder: Path, info: ExportInfo, graphs: Sequence[str], device: str) -> Engine:
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
    return kind(folder, info, graphs, device)


def _provider(device: str, available: Sequence[str]) -> tuple[str, dict[str, Any]]:
    """The execution provider of a device's name, and its settings."""
    short = {name.removesuffix("ExecutionProvider").lower(): name for name in available}
    name, _, index = device.lower().partition(":")
    if name == "auto":
        name = "cuda" if "cuda" in short else "cpu"
    if name not in short or (index and not index.isdecimal()):
        raise GITError(
            f"device {device!r} cannot be used here: this ONNX Runtime has {', '.join(short)}, "
            "expected one of these, or auto"
        )
    return short[name], {"device_id": index} if index else {}


@contextmanager
def _loading(path: Path) -> Iterator[None]:
    """Turn an engine's own exceptions, which have no common base, into a CheckpointError."""
    try:
        yield
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[-1]
        raise CheckpointError(
            f"{path}: the engine cannot load it: {reason}; the file is damaged, or made for a "
            "newer engine: export the source again"
        ) from None

"""A traced network as a file, and the file as a module that is asked like the network. Part of `portable`."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

OPSET = 20  # of ONNX: the newest that the exporter of torch 2.11 writes without converting, and GridSample's in 3D
INPUT, OUTPUT = "images", "logits"


@dataclass(frozen=True, kw_only=True, slots=True)
class Format:
    """A kind of file: its name in a folder, the distributions that it needs, how it is written, and how it is opened
    in one thread of this CPU."""

    file: str
    needs: tuple[str, ...]
    write: Callable[[ExportedProgram, Path], None]
    open: Callable[[Path], nn.Module]


class OnnxNetwork(nn.Module):
    """An ONNX file in ONNX Runtime: images_N3HW float32 on the CPU -> logits_NKHW."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3  # errors alone: it warns of initializers that an optimiser would fold
        self._session: Any = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def forward(self, images_N3HW: Tensor) -> Tensor:
        (logits_NKHW,) = self._session.run([OUTPUT], {INPUT: images_N3HW.contiguous().numpy()})
        return torch.from_numpy(logits_NKHW)


def missing(format_name: str) -> list[str]:
    """The distributions that a format needs and this installation lacks."""
    return [name for name in FORMATS[format_name].needs if importlib.util.find_spec(name) is None]


def _write_pt2(program: ExportedProgram, path: Path) -> None:
    with warnings.catch_warnings():
        # Of weights in channels-last memory, whose storage it takes for more than they are; all of them are written.
        warnings.filterwarnings("ignore", message="No complete tensor found in the group")
        torch.export.save(program, path)


def _open_pt2(path: Path) -> nn.Module:
    return torch.export.load(path).module()


def _write_onnx(program: ExportedProgram, path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own, of functions that it calls itself
        made = torch.onnx.export(
            program, input_names=[INPUT], output_names=[OUTPUT], opset_version=OPSET, dynamo=True, verbose=False
        )
        assert made is not None  # of the way by torch.export
        made.save(path, external_data=False)  # one file; protobuf refuses more than 2 GiB by itself


FORMATS: Mapping[str, Format] = {
    "pt2": Format(file="model.pt2", needs=(), write=_write_pt2, open=_open_pt2),
    "onnx": Format(file="model.onnx", needs=("onnx", "onnxscript", "onnxruntime"), write=_write_onnx, open=OnnxNetwork),
}

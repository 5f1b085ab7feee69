"""How well holes are filled: L1, L2, PSNR and SSIM of each image, over its hole.

The first three as in table 1 of Pathak et al. 2016, for pixels in [0, 1] and with the PSNR averaged
over the images, which fits the published figures. SSIM (Wang et al., IEEE TIP 13, 2004) is
scikit-image's.
"""

from collections.abc import Mapping

import numpy as np

from ssl_bench.errors import extra

LEAST = 1e-10  # mean squared error of a perfect fill: 100 dB


def hole_quality(
    truth: np.ndarray, filled: np.ndarray, holes: np.ndarray
) -> Mapping[str, np.ndarray]:
    """`l1`, `l2`, `psnr` and `ssim`, float64 (N,), of images (N, H, W, 3) in [0, 1].

    `holes` are bool (N, H, W); each has a pixel. `l1` and `l2` are 100 times the mean absolute and
    squared error of the hole's values (the paper's percent), `psnr` is in dB, for a peak of 1.
    `ssim`, −1 to 1, is the mean over the hole's pixels and channels, with Gaussian windows of
    deviation 1.5 px that reach 5 px out of it.
    """
    found = [_of_one(*one) for one in zip(truth, filled, holes, strict=True)]
    names = ("l1", "l2", "psnr", "ssim")
    return dict(zip(names, np.array(found, dtype=np.float64).reshape(-1, 4).T, strict=True))


def _of_one(
    truth: np.ndarray, filled: np.ndarray, hole: np.ndarray
) -> tuple[float, float, float, float]:
    with extra("inpaint"):
        from skimage.metrics import structural_similarity

    errors = (filled[hole] - truth[hole]).astype(np.float64)  # (pixels, 3)
    squared = float((errors**2).mean())
    similarity = structural_similarity(
        truth, filled, channel_axis=-1, data_range=1.0, full=True,
        gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
    )[1]  # fmt: skip
    psnr = -10 * np.log10(max(squared, LEAST))
    return 100 * float(np.abs(errors).mean()), 100 * squared, psnr, float(similarity[hole].mean())

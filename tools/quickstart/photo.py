"""A real photograph, lifted to feature maps by a fixed bank of filters."""

from __future__ import annotations

import numpy as np

WINDOW = 7  # pixels that a filter spans


def photograph() -> np.ndarray:
    """Central square of scikit-image's photograph "chelsea" (CC0, by Stéfan van der Walt; part of its wheel): uint8 [300, 300, 3]."""
    from skimage.data import chelsea
    image = chelsea()
    left = (image.shape[1] - image.shape[0]) // 2
    return image[:, left:left + image.shape[0]]


def bank(channels: int, seed: int = 0) -> np.ndarray:
    """Gabor filters [channels, WINDOW, WINDOW, 3] of random orientation, wavelength, phase and colour; the seed fixes them all."""
    rng = np.random.default_rng(seed)
    angle, phase = rng.uniform(0, np.pi, channels), rng.uniform(0, 2 * np.pi, channels)
    wavelength, width = rng.uniform(2.5, 8.0, channels), rng.uniform(1.0, 2.5, channels)
    colour = rng.standard_normal((channels, 3))
    row, column = np.mgrid[:WINDOW, :WINDOW] - WINDOW // 2
    along = np.cos(angle)[:, None, None] * column + np.sin(angle)[:, None, None] * row
    wave = np.cos(2 * np.pi * along / wavelength[:, None, None] + phase[:, None, None])
    envelope = np.exp(-(row**2 + column**2) / (2 * width[:, None, None] ** 2))
    return (wave * envelope)[..., None] * colour[:, None, None, :]


def lift(image: np.ndarray, channels: int, size: int, seed: int = 0) -> np.ndarray:
    """Feature maps float32 [1, channels, size, size] of an image [H, W, 3] with values 0 to 255.

    The image is resized with anti-aliasing and correlated with `bank(channels, seed)` without padding; then every map is scaled to mean 0 and
    variance 1 and rectified, as by a batch norm and a ReLU.
    """
    from skimage.transform import resize
    small = resize(image, (size + WINDOW - 1, size + WINDOW - 1), anti_aliasing=True)
    windows = np.lib.stride_tricks.sliding_window_view(small, (WINDOW, WINDOW), axis=(0, 1))  # [size, size, 3, WINDOW, WINDOW]
    maps = np.einsum("hwcrs,krsc->khw", windows, bank(channels, seed), optimize=True)
    maps -= maps.mean((1, 2), keepdims=True)
    maps /= maps.std((1, 2), keepdims=True)
    return np.maximum(maps, 0)[None].astype(np.float32)

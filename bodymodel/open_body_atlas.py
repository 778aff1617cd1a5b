"""The built-in body's charts, shipped with the package."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from .surface_atlas import SurfaceAtlas

_FILES = {"full": "open_body_atlas.npz", "low": "open_body_atlas_low.npz"}


@lru_cache(maxsize=2)
def open_body_atlas(detail: str = "full") -> SurfaceAtlas:
    """Return the charts of the built-in body: DensePose's 24 part numbers, each part filling the unit square.

    Every (U, V) in [0, 1] is a point of the part, and left and right are mirror images, so `flip` is exact. The seams
    and the coordinates are this body's own, not DensePose's: a network trained on DensePose does not speak them.

    Args:
        detail: "full" or "low", as for `open_body`; the two have their own coordinates.

    Returns:
        The atlas, the same object each time.

    Raises:
        ValueError: another detail.

    Example:
        >>> from physique.bodymodel import open_body_atlas
        >>> open_body_atlas("low")
        SurfaceAtlas(24 parts, 3994 of 3994 faces, mirrored)
    """
    if detail not in _FILES:
        raise ValueError(f'detail: expected "full" or "low", got {detail!r}; choose one of these')
    return SurfaceAtlas.load(Path(__file__).with_name("assets") / _FILES[detail])

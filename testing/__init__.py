"""Checks, made scenes and hypothesis strategies to import in your own tests; only the strategies need hypothesis."""

from typing import TYPE_CHECKING, Any

from .correspondences import mirror_surface as mirror_surface
from .correspondences import synthetic_correspondences as synthetic_correspondences
from .second_order import assert_right_to_second_order as assert_right_to_second_order

if TYPE_CHECKING:
    from .strategies import betas as betas
    from .strategies import body_models as body_models
    from .strategies import cameras as cameras
    from .strategies import poses as poses
    from .strategies import rotations as rotations
    from .strategies import segment_scales as segment_scales

_STRATEGIES = ("betas", "body_models", "cameras", "poses", "rotations", "segment_scales")


def __getattr__(name: str) -> Any:
    """Import a strategy when it is first asked for, so that the rest works without hypothesis."""
    if name in _STRATEGIES:
        from . import strategies

        return getattr(strategies, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_STRATEGIES})

"""Sample a wide variety of adult MakeHuman bodies: the raw material of the shape space."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .makehuman import MakeHuman

RACES = ("african", "asian", "caucasian")
# name of a pair of opposite targets (ending in -decr and -incr), standard deviation of its coefficient
LOCAL_PAIRS: tuple[tuple[str, float], ...] = (
    ("arms/measure-upperarm-length-{decr,incr}", 0.45),
    ("arms/measure-lowerarm-length-{decr,incr}", 0.45),
    ("arms/measure-upperarm-circ-{decr,incr}", 0.25),
    ("arms/{s}-lowerarm-fat-{decr,incr}", 0.25),
    ("hands/{s}-hand-scale-{decr,incr}", 0.30),
    ("hands/{s}-hand-fingers-length-{decr,incr}", 0.30),
    ("feet/{s}-foot-scale-{decr,incr}", 0.30),
    ("legs/upperlegs-height-{decr,incr}", 0.40),
    ("legs/lowerlegs-height-{decr,incr}", 0.40),
    ("legs/measure-thigh-circ-{decr,incr}", 0.25),
    ("legs/measure-calf-circ-{decr,incr}", 0.25),
    ("hip/hip-scale-horiz-{decr,incr}", 0.30),
    ("hip/hip-scale-vert-{decr,incr}", 0.30),
    ("buttocks/buttocks-volume-{decr,incr}", 0.25),
    ("stomach/stomach-tone-{decr,incr}", 0.30),
    ("torso/measure-waist-circ-{decr,incr}", 0.25),
    ("torso/measure-shoulder-dist-{decr,incr}", 0.30),
    ("torso/torso-scale-vert-{decr,incr}", 0.35),
    ("torso/torso-scale-horiz-{decr,incr}", 0.25),
    ("torso/torso-scale-depth-{decr,incr}", 0.25),
    ("torso/torso-vshape-{decr,incr}", 0.25),
    ("neck/neck-scale-vert-{decr,incr}", 0.35),
    ("neck/measure-neck-circ-{decr,incr}", 0.25),
    ("head/head-scale-horiz-{decr,incr}", 0.20),
    ("head/head-scale-vert-{decr,incr}", 0.20),
    ("head/head-scale-depth-{decr,incr}", 0.20),
    ("head/head-fat-{decr,incr}", 0.20),
)


@dataclass(frozen=True)
class Factors:
    """MakeHuman's sliders of one body, each in 0..1; `race` sums to 1 and `local` has one entry a pair."""

    male: float
    age: float
    muscle: float
    weight: float
    height: float
    proportions: float
    race: np.ndarray
    local: np.ndarray


def random_factors(rng: np.random.Generator, male: bool) -> Factors:
    """Draw the sliders of one adult; wide enough for every measure to vary on its own."""
    near = 0.12 * rng.random()
    return Factors(
        male=1.0 - near if male else near,
        age=rng.uniform(0.5, 0.75),
        muscle=float(np.clip(rng.normal(0.55, 0.18), 0.05, 1.0)),
        weight=float(np.clip(rng.normal(0.55, 0.20), 0.05, 1.0)),
        height=float(np.clip(rng.normal(0.5, 0.12), 0.2, 0.8)),
        proportions=float(np.clip(rng.normal(0.55, 0.15), 0.1, 1.0)),
        race=rng.dirichlet(np.ones(len(RACES))),
        local=rng.normal(size=len(LOCAL_PAIRS)) * [sd for _, sd in LOCAL_PAIRS],
    )


def body(source: MakeHuman, factors: Factors) -> np.ndarray:
    """Return the vertices (19158, 3) in the A-pose, decimetres, with closed eyes."""
    vertices = source.vertices + _closed_eyes(source)
    gender = {"female": 1.0 - factors.male, "male": factors.male}
    age = _between(factors.age, ((0.5, "young"), (1.0, "old")))
    muscle = _between(factors.muscle, ((0.0, "minmuscle"), (0.5, "averagemuscle"), (1.0, "maxmuscle")))
    weight = _between(factors.weight, ((0.0, "minweight"), (0.5, "averageweight"), (1.0, "maxweight")))
    height = _between(factors.height, ((0.0, "minheight"), (0.5, ""), (1.0, "maxheight")))
    ideal = _between(factors.proportions, ((0.0, "uncommonproportions"), (0.5, ""), (1.0, "idealproportions")))
    for sex, share_sex in gender.items():
        for years, share_age in age.items():
            for race, share in zip(RACES, factors.race, strict=True):
                vertices += share_sex * share_age * share * source.target(f"macrodetails/{race}-{sex}-{years}")
            for m, share_m in muscle.items():
                for w, share_w in weight.items():
                    share = share_sex * share_age * share_m * share_w
                    build = f"{sex}-{years}-{m}-{w}"
                    vertices += share * source.target(f"macrodetails/universal-{build}")
                    for folder, part in (("height", height), ("proportions", ideal)):
                        for name, share_part in part.items():
                            if name and source.has_target(f"macrodetails/{folder}/{build}-{name}"):
                                vertices += share * share_part * source.target(f"macrodetails/{folder}/{build}-{name}")
    for (pair, _), amount in zip(LOCAL_PAIRS, factors.local, strict=True):
        vertices += amount * _pair_direction(source, pair)
    return vertices


def _closed_eyes(source: MakeHuman) -> np.ndarray:
    return sum(source.target(f"expression/units/caucasian/eye-{side}-closure") for side in ("left", "right"))


def _pair_direction(source: MakeHuman, pair: str) -> np.ndarray:
    """Half the difference of two opposite targets, on both sides of the body: linear in its coefficient."""
    less, more = (pair.replace("{decr,incr}", end) for end in ("decr", "incr"))
    sides = ("l", "r") if "{s}" in pair else ("",)
    return 0.5 * sum(
        source.target(more.replace("{s}", side)) - source.target(less.replace("{s}", side)) for side in sides
    )


def _between(value: float, stops: tuple[tuple[float, str], ...]) -> dict[str, float]:
    """Share `value` between the two stops around it, linearly."""
    positions = [position for position, _ in stops]
    k = int(np.clip(np.searchsorted(positions, value, side="right") - 1, 0, len(stops) - 2))
    share = (value - positions[k]) / (positions[k + 1] - positions[k])
    return {stops[k][1]: 1.0 - share, stops[k + 1][1]: share}

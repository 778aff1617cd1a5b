"""Random arguments for a body model of any family, and the same numbers in the oracle's form."""

import numpy as np
import torch
from physique.bodymodel.families import FAMILIES

FAMILY_NAMES = tuple(FAMILIES)


def random_arguments(data, *batch, seed=0, angle=0.5, transl=True, dtype=torch.float64):
    """Return every argument that the model takes, with the given batch: shape, all parts in axis-angle, transl."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape, scale=1.0):
        return scale * torch.randn(*batch, *shape, generator=generator, dtype=dtype)

    arguments = {name: draw(count) for name, count in data.coefficients}
    if "segment_scale" in arguments:
        arguments["segment_scale"] = 1 + 0.2 * arguments["segment_scale"]
    for part in data.table_row.parts:
        arguments[part.name] = draw(3, scale=angle) if part.single else draw(part.count, 3, scale=angle)
    if transl:
        arguments["transl"] = draw(3)
    return arguments


def coefficients(arguments, data):
    """Return the shape coefficients (S,) of arguments without batch, in the order of the shape directions."""
    rows = []
    for name, count in data.coefficients:
        value = arguments[name].numpy().reshape(-1)
        rows.append(np.pad(value - (name == "segment_scale"), (0, count - value.size)))
    return np.concatenate(rows)


def axis_angles(arguments, data):
    """Return (J, 3) of arguments without batch; parts left out are zero."""
    rows = []
    for part in data.table_row.parts:
        value = arguments.get(part.name)
        rows.append(np.zeros((part.count, 3)) if value is None else value.numpy().reshape(part.count, 3))
    return np.concatenate(rows)


def sample(arguments, index):
    """Return one sample of batched arguments."""
    return {name: value[index] for name, value in arguments.items()}


def to(arguments, dtype):
    """Return the arguments in another floating type."""
    return {name: value.to(dtype) for name, value in arguments.items()}


def pose_arguments(axis_angles, data):
    """Return the pose arguments for axis-angle vectors (*B, J, 3) of all joints."""
    arguments, start = {}, 0
    for part in data.table_row.parts:
        values = torch.as_tensor(axis_angles)[..., start : start + part.count, :]
        arguments[part.name] = values.squeeze(-2) if part.single else values
        start += part.count
    return arguments

"""The body model: one class for every family, in two stages, with joints-only and subset paths."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from typing_extensions import Unpack

from ..geometry.checks import broadcast_batches, expect_finite, expect_shape
from .arguments import (
    Arguments,
    BodyArguments,
    PoseArguments,
    ShapeArguments,
    Signature,
    local_rotations,
    match_dtype,
    refuse_stage,
    rotation_constants,
)
from .buffers import arrays_for_speed
from .data import BodyModelData
from .kinematics import KinematicTables, chain_joints, chain_transforms, kinematic_tables
from .outputs import BodyOutput, RestBody, SurfacePoints
from .select import select_vertices
from .skeleton import Skeleton
from .skinning import VertexBases, add_blend, apply_transforms, blend, blend_transforms

if TYPE_CHECKING:
    from .keypoints import KeypointRegressor

_Result = TypeVar("_Result")


class BodyModel(nn.Module):
    """A posable body of any family, differentiable to any order.

    All arguments are keyword-only and optional; each has its own batch shape, and they broadcast against each other.
    The module holds no parameters and no batch size: its constants are buffers that `.to(...)` moves, left out of
    `state_dict`, because they are not learnt.

    Args:
        data: the constants, from `load_body_model`, `open_body`, `segment_scale_model`, ...
        dtype: floating type of the buffers, and so of the arguments and results.
        device: where the buffers live.

    Attributes:
        data: the constants it was made from.
        v_template: (V, 3) buffer, metres.
        faces: (F, 3) buffer, int64.
        lbs_weights: (V, J) buffer.

    Source: SMPL (Loper et al. 2015), eq. 2 to 10; STAR (Osman et al. 2020), eq. 5, for its quaternion feature.

    Example:
        >>> import torch
        >>> from physique.bodymodel import BodyModel, synthetic_model
        >>> model = BodyModel(synthetic_model("smpl", num_vertices=100))
        >>> out = model(betas=torch.zeros(10), body_pose=torch.zeros(5, 23, 3))
        >>> out.vertices.shape, out.joints.shape
        (torch.Size([5, 100, 3]), torch.Size([5, 24, 3]))
    """

    v_template: Tensor
    faces: Tensor
    lbs_weights: Tensor

    def __init__(
        self, data: BodyModelData, *, dtype: torch.dtype = torch.float32, device: torch.device | str | None = None
    ) -> None:
        """Make the buffers; see the class for the arguments."""
        super().__init__()
        if not dtype.is_floating_point:
            raise TypeError(f"dtype: expected a floating type, got {dtype}; use torch.float32 or torch.float64")
        self.data = data
        self._row = data.table_row
        self._signature = Signature(data.table_row, data.coefficients)
        self._sizes = (3 * data.num_vertices, 6 * data.num_joints)
        self._J = data.num_joints
        self._has_correctives = data.posedirs is not None

        constants = {"v_template": data.v_template, "lbs_weights": data.lbs_weights}
        constants |= {f"_{name}": array for name, array in arrays_for_speed(data).items()}
        for name, array in constants.items():
            self.register_buffer(name, torch.tensor(array, dtype=dtype, device=device), persistent=False)
        self.register_buffer("faces", torch.tensor(data.faces, device=device), persistent=False)
        tables = kinematic_tables(data.skeleton, dtype=dtype, device=torch.device(device) if device else None)
        for name, table in zip(KinematicTables._fields, tables, strict=True):
            self.register_buffer(f"_tree_{name}", table, persistent=False)
        for name, constant in rotation_constants(dtype, torch.device(device) if device else None).items():
            self.register_buffer(name, constant, persistent=False)

    @property
    def skeleton(self) -> Skeleton:
        """Parents and names of the joints."""
        return self.data.skeleton

    @property
    def dtype(self) -> torch.dtype:
        """Floating type of the buffers."""
        return self._constants["v_template"].dtype

    @property
    def device(self) -> torch.device:
        """Device of the buffers."""
        return self.v_template.device

    def extra_repr(self) -> str:
        """Describe the model in `print(model)`."""
        return f"{self.data!r}, dtype={self.dtype}, device={self.device}"

    def forward(self, **arguments: Unpack[BodyArguments]) -> BodyOutput:
        """Shape and pose the body.

        Args:
            **arguments: see `BodyArguments`: betas, expression, segment_scale, global_orient, body_pose, ..., transl,
                rotation.

        Returns:
            vertices, joints and joint rotations with the broadcast batch of all arguments, and the rest body.

        Raises:
            ValueError: a shape that does not fit, more coefficients than the model has, or a part it lacks.
            TypeError: an unknown name, or a tensor of another floating type than the model's.
        """
        given = self._signature.read(arguments, self.dtype)
        return self._exactly(self._forward, given)

    def rest(self, **arguments: Unpack[ShapeArguments]) -> RestBody:
        """Shape the body: the first stage alone. Takes the shape arguments of `forward`, raises as it does."""
        given = self._signature.read(arguments, self.dtype)
        refuse_stage("rest", arguments, shape=False)
        _, _, rest = self._exactly(self._shape, given)
        return rest

    def pose(self, rest: RestBody, **arguments: Unpack[PoseArguments]) -> BodyOutput:
        """Pose a rest body: the second stage alone. Takes the pose arguments of `forward`, raises as it does.

        Args:
            rest: from `rest`; its batch broadcasts against the poses'.
            **arguments: see `PoseArguments`.
        """
        given = self._signature.read(arguments, self.dtype)
        refuse_stage("pose", arguments, shape=True)
        rests = {
            "rest.vertices": expect_shape("rest.vertices", rest.vertices, *self.v_template.shape),
            "rest.joints": expect_shape("rest.joints", rest.joints, self.data.num_joints, 3),
        }
        broadcast_batches(rests | given.batches)
        rest = RestBody(*(match_dtype(name, value, self.dtype) for name, value in zip(rests, rest, strict=True)))
        return self._exactly(self._pose_rest, rest, given)

    def joints(self, **arguments: Unpack[BodyArguments]) -> Float[Tensor, "*batch J 3"]:
        """Return the posed joints alone, never touching a vertex. Takes and raises what `forward` does."""
        given = self._signature.read(arguments, self.dtype)
        return self._exactly(self._joints, given)

    def points(self, surface: SurfacePoints, **arguments: Unpack[BodyArguments]) -> Float[Tensor, "*batch N 3"]:
        """Return posed points of the surface, computing only the vertices of their faces.

        Args:
            surface: faces (N,) and barycentric (N, 3) shared by all samples, or with a batch: one set a sample.
            **arguments: those of `forward`.

        Returns:
            (*B, N, 3) in metres.

        Raises:
            ValueError: as `forward` does.
        """
        expect_shape("surface.faces", surface.faces, "N")
        expect_shape("surface.barycentric", surface.barycentric, surface.faces.shape[-1], 3)
        expect_finite("surface.barycentric", surface.barycentric)
        corners = self.faces[surface.faces]
        weights = match_dtype("surface.barycentric", surface.barycentric, self.dtype)
        given = self._signature.read(arguments, self.dtype)
        batches = {"surface.faces": surface.faces.shape[:-1], "surface.barycentric": weights.shape[:-2]}
        broadcast_batches(batches | given.batches)
        vertices, _ = self._exactly(self._subset, corners.flatten(-2), given)
        return (vertices.unflatten(-2, (-1, 3)) * weights.unsqueeze(-1)).sum(-2)

    def keypoints(
        self, regressor: KeypointRegressor, **arguments: Unpack[BodyArguments]
    ) -> Float[Tensor, "*batch K 3"]:
        """Return the keypoints of a set, computing only the vertices that it needs.

        Args:
            regressor: names the set; its `valid` tells which keypoints this body has (the others are zero).
            **arguments: those of `forward`.

        Returns:
            (*B, K, 3) in metres, in the order of `regressor.names`.
        """
        given = self._signature.read(arguments, self.dtype)
        vertices, joints = self._exactly(self._subset, regressor.vertex_ids, given)
        return regressor(joints, vertices)

    def vertices_and_joints(
        self, ids: Int[Tensor, "*set N"] | VertexBases, **arguments: Unpack[BodyArguments]
    ) -> tuple[Float[Tensor, "*batch N 3"], Float[Tensor, "*batch J 3"]]:
        """Return some posed vertices and all posed joints, computing no other vertex.

        Args:
            ids: (N,) vertices for all samples, or with a batch: one set a sample. In a loop over the same vertices,
                pass what `vertex_bases(ids)` returned once.
            **arguments: those of `forward`.

        Returns:
            vertices (*B, N, 3) in the order of `ids` and joints (*B, J, 3), metres.
        """
        given = self._signature.read(arguments, self.dtype)
        batch = ids.template.shape[:-1] if isinstance(ids, VertexBases) else expect_shape("ids", ids, "N")
        broadcast_batches({"ids": batch} | given.batches)
        return self._exactly(self._subset, ids, given)

    def vertex_bases(self, ids: Int[Tensor, "*set N"]) -> VertexBases:
        """Return the constants of the vertices `ids` (N,), or (*B, N) with one set a sample, in the model's type."""
        constants, count = self._constants, self._sizes[0]
        expect_shape("ids", ids, "N")
        return VertexBases(
            constants["_rest_template"].narrow(0, 0, count),
            constants["_rest_directions"].narrow(1, 0, count),
            constants["_pose_directions"],
            constants["_weights"],
        ).select(ids)

    def select_vertices(self, ids: Int[Tensor, " N"]) -> BodyModel:
        """Return a model of the vertices `ids` in that order, with the same joints and the faces among them."""
        data = select_vertices(self.data, ids.detach().cpu().numpy())
        return BodyModel(data, dtype=self.dtype, device=self.device)

    @property
    def _constants(self) -> dict[str, Tensor]:
        # Straight from the module's table: the look-up of an attribute costs as much as a small tensor operation.
        return self._buffers  # pyright: ignore[reportReturnType]

    def _exactly(self, stage: Callable[..., _Result], *inputs: Any) -> _Result:
        """Run a stage with autocast kept out: millimetres are lost in half precision, and the arguments are small."""
        device = self._constants["v_template"].device.type
        try:
            casting = torch.is_autocast_enabled(device)
        except RuntimeError:  # a device that knows no autocast, such as meta
            casting = False
        if not casting:
            return stage(*inputs)
        with torch.autocast(device, enabled=False):
            return stage(*inputs)

    def _forward(self, given: Arguments) -> BodyOutput:
        planes, lever, rest = self._shape(given)
        return self._pose(planes, lever, rest, given)

    def _pose_rest(self, rest: RestBody, given: Arguments) -> BodyOutput:
        lever = torch.cat((self._constants["_tree_bones"] @ rest.joints, rest.joints), dim=-2)
        return self._pose(rest.vertices.transpose(-1, -2).flatten(-2), lever, rest, given)

    def _joints(self, given: Arguments) -> Tensor:
        constants = self._constants
        bones = self._shape_lever(given, self._J)
        local, _ = local_rotations(given.parts, given.rotation, self._row, constants)
        tree = constants["_tree_jumps"], constants["_tree_turners"], constants["_tree_placement"]
        joints = chain_joints(local, bones, *tree)
        return joints if given.transl is None else joints + given.transl.unsqueeze(-2)

    def _subset(self, ids: Tensor | VertexBases, given: Arguments) -> tuple[Tensor, Tensor]:
        """Return the posed vertices `ids` (*B, N, 3) and the posed joints; batched ids are one set a sample."""
        bases = ids if isinstance(ids, VertexBases) else self.vertex_bases(ids)
        planes = self._blend_shape(given, bases.template, bases.shape_directions)
        lever = self._shape_lever(given, 2 * self._J)
        posed, joints, _ = self._skin(planes, lever, given, bases.pose_directions, bases.weights)
        return posed.transpose(-1, -2), joints

    def _blend_shape(self, given: Arguments, template: Tensor, directions: Tensor) -> Tensor:
        if not given.coefficients:
            return template.clone()  # the caller may write into what it gets, and the template is ours
        for start, value in given.coefficients:
            template = add_blend(template, value, directions.narrow(-2, start, value.shape[-1]))
        return template

    def _shape(self, given: Arguments) -> tuple[Tensor, Tensor, RestBody]:
        """Return the rest body, also as flat planes (*B, 3 V), and as bones followed by rest joints (*B, 2 J, 3)."""
        constants = self._constants
        shaped = self._blend_shape(given, constants["_rest_template"], constants["_rest_directions"])
        planes, lever = shaped.split_with_sizes(self._sizes, dim=-1)
        lever = lever.view(*lever.shape[:-1], 2 * self._J, 3)
        vertices = planes.view(*planes.shape[:-1], 3, planes.shape[-1] // 3).transpose(-1, -2)
        return planes, lever, RestBody(vertices, lever.narrow(-2, self._J, self._J))

    def _shape_lever(self, given: Arguments, count: int) -> Tensor:
        """Return the first `count` of the bones and rest joints (*B, count, 3), without the vertices."""
        constants = self._constants
        template = constants["_rest_template"].narrow(0, self._sizes[0], 3 * count)
        directions = constants["_rest_directions"].narrow(1, self._sizes[0], 3 * count)
        lever = self._blend_shape(given, template, directions)
        return lever.view(*lever.shape[:-1], count, 3)

    def _pose(self, planes: Tensor, lever: Tensor, rest: RestBody, given: Arguments) -> BodyOutput:
        constants = self._constants
        posed, joints, turned = self._skin(planes, lever, given, constants["_pose_directions"], constants["_weights"])
        batch = posed.shape[:-2]
        if not batch == turned.shape[:-3] == joints.shape[:-2]:
            turned = turned.expand(*batch, *turned.shape[-3:])
            joints = joints.expand(*batch, *joints.shape[-2:])
        return BodyOutput(posed.transpose(-1, -2), joints, turned, rest)

    def _skin(
        self, planes: Tensor, lever: Tensor, given: Arguments, pose_directions: Tensor, weights: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return posed vertices (*B, 3, V), posed joints (*B, J, 3), and joint rotations in the batch of the poses."""
        constants = self._constants
        local, feature = local_rotations(given.parts, given.rotation, self._row, constants)
        tree = constants["_tree_jumps"], constants["_tree_turners"], constants["_tree_placement"]
        turned, joints, translations = chain_transforms(local, lever, *tree)
        transforms = blend_transforms(weights, turned, translations)
        if self._has_correctives:
            # As late as can be: for one body these directions are most of the memory that is read, and what has been
            # in the caches is gone after them.
            planes = planes + blend(feature, pose_directions)
        posed = apply_transforms(planes, transforms)
        if given.transl is None:
            return posed, joints, turned
        return posed + given.transl.unsqueeze(-1), joints + given.transl.unsqueeze(-2), turned

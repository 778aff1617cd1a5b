"""The body model: one class for every family, in two stages, with joints-only and subset paths."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from typing_extensions import Unpack

from ..geometry import to_matrix
from ..geometry.checks import broadcast_batches, expect_finite, expect_shape
from . import compiled_op as compiled_op  # registers the operators of compiled programs
from .arguments import (
    BodyArguments,
    PoseArguments,
    ShapeArguments,
    Signature,
    match_dtype,
    refuse_stage,
    rotation_constants,
)
from .buffers import arrays_for_speed
from .compiled_passes import CompiledPasses
from .data import BodyModelData
from .freeze import freeze_shape, frozen_constants
from .jacobians import PointsJacobian, joints_jacobian, points_jacobian
from .keypoint_bases import KeypointBases, keypoint_bases, keypoints_pass
from .keypoints import KeypointRegressor
from .kinematics import KinematicTables, kinematic_tables
from .outputs import BodyOutput, RestBody, SurfacePoints
from .passes import (
    Plan,
    joints_pass,
    pose_pass,
    shape_pass,
    subset_pass,
    vertex_bases,
    whole_pass,
    without_autocast,
)
from .point_mixes import CornerMix, SharedMix
from .select import select_vertices
from .skeleton import Skeleton
from .skinning import VertexBases

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
        if not isinstance(data, BodyModelData):
            raise TypeError(
                f"data: expected BodyModelData, got {type(data).__name__}; use load_body_model(path) or open_body()"
            )
        if not dtype.is_floating_point:
            raise TypeError(f"dtype: expected a floating type, got {dtype}; use torch.float32 or torch.float64")
        self.data = data
        self._fixed: dict[str, Tensor] = {}
        self._take({})

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

    def _take(self, fixed: dict[str, Tensor]) -> None:
        """Make the tables of what the model takes, where the rotations (count, 3, 3) of `fixed` parts are constants."""
        data = self.data
        self._fixed = fixed
        self._signature = Signature(data.table_row, data.coefficients, fixed)
        starts = {start: name for name, (start, _) in self._signature.coefficients.items()}
        sizes = data.num_vertices, data.num_joints
        self._plan = Plan(data.table_row, *sizes, data.posedirs is not None, starts, tuple(fixed))
        self._compiled = CompiledPasses(self._plan, self._signature, data.skeleton)

    @property
    def arguments(self) -> frozenset[str]:
        """Names of the arguments that the model takes, `transl` and `rotation` among them."""
        return self._signature.names

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
        found = self._compiled.whole(self._constants, arguments)
        if found is not None:
            return found
        given = self._signature.read(arguments, self.dtype)
        return self._exactly(whole_pass, given)

    def rest(self, **arguments: Unpack[ShapeArguments]) -> RestBody:
        """Shape the body: the first stage alone. Takes the shape arguments of `forward`, raises as it does."""
        given = self._signature.read(arguments, self.dtype)
        refuse_stage("rest", arguments, shape=False)
        return self._exactly(shape_pass, given)

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
        batch = broadcast_batches(rests | given.batches)
        rest = RestBody(*(match_dtype(name, value, self.dtype) for name, value in zip(rests, rest, strict=True)))
        return self._exactly(pose_pass, rest, given, batch)

    def joints(self, **arguments: Unpack[BodyArguments]) -> Float[Tensor, "*batch J 3"]:
        """Return the posed joints alone, never touching a vertex. Takes and raises what `forward` does."""
        found = self._compiled.joints(self._constants, arguments)
        if found is not None:
            return found
        given = self._signature.read(arguments, self.dtype)
        return self._exactly(joints_pass, given)

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
        corners, weights = self._corners(surface)
        given = self._signature.read(arguments, self.dtype)
        batches = {"surface.faces": surface.faces.shape[:-1], "surface.barycentric": weights.shape[:-2]}
        batch = broadcast_batches(batches | given.batches)
        vertices, _ = self._exactly(subset_pass, self.vertex_bases(corners.flatten(-2)), given, batch)
        return (vertices.unflatten(-2, (-1, 3)) * weights.unsqueeze(-1)).sum(-2)

    def keypoints(
        self, regressor: KeypointRegressor | KeypointBases, **arguments: Unpack[BodyArguments]
    ) -> Float[Tensor, "*batch K 3"]:
        """Return the keypoints of a set, computing only the vertices that it needs.

        Args:
            regressor: names the set; its `valid` tells which keypoints this body has (the others are zero). In a loop,
                pass what `keypoint_bases(regressor)` returned once.
            **arguments: those of `forward`.

        Returns:
            (*B, K, 3) in metres, in the order of `regressor.names`.
        """
        if isinstance(regressor, KeypointBases):
            found = self._compiled.keypoints(self._constants, regressor, arguments)
            if found is not None:
                return found
        given = self._signature.read(arguments, self.dtype)
        if isinstance(regressor, KeypointBases):
            return self._exactly(keypoints_pass, regressor, given)
        vertices, joints = self._exactly(subset_pass, self.vertex_bases(regressor.vertex_ids), given, given.batch)
        return regressor(joints, vertices)

    def keypoint_bases(self, regressor: KeypointRegressor) -> KeypointBases:
        """Return the constants of the keypoints of a set, as few points as they can be made of."""
        return keypoint_bases(self.vertex_bases(regressor.vertex_ids), regressor)

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
        if isinstance(ids, VertexBases):
            found = self._compiled.subset(self._constants, ids, arguments)
            if found is not None:
                return found
        given = self._signature.read(arguments, self.dtype)
        bases = ids if isinstance(ids, VertexBases) else self.vertex_bases(ids)
        batch = broadcast_batches({"ids": bases.template.shape[:-1]} | given.batches)
        return self._exactly(subset_pass, bases, given, batch)

    def vertex_bases(self, ids: Int[Tensor, "*set N"]) -> VertexBases:
        """Return the constants of the vertices `ids` (N,), or (*B, N) with one set a sample, in the model's type."""
        expect_shape("ids", ids, "N")
        return vertex_bases(self._plan, self._constants).select(ids)

    def select_vertices(self, ids: Int[Tensor, " N"]) -> BodyModel:
        """Return a model of the vertices `ids` in that order, with the same joints and the faces among them."""
        data = select_vertices(self.data, ids.detach().cpu().numpy())
        return BodyModel(data, dtype=self.dtype, device=self.device)._fix(self._fixed)

    def freeze(self, **arguments: Unpack[BodyArguments]) -> BodyModel:
        """Return a model in which these arguments are constants, and which takes them no more.

        Shape is folded into the template, and so are the pose correctives of the frozen parts, so that what remains
        costs less: SMPL-X with hands, face and expression frozen reads two fifths of its directions.

        Args:
            **arguments: those of `forward` but transl, without batch.

        Returns:
            A model that gives what this one gives with these arguments beside the others. Its rest body has the
            correctives of the frozen parts. Its `data` has the frozen shape; frozen rotations are not part of it.

        Raises:
            ValueError, TypeError: as `forward` does; and ValueError for a batch, or for transl.

        Example:
            >>> import torch
            >>> from physique.bodymodel import BodyModel, synthetic_model
            >>> model = BodyModel(synthetic_model("smplx", num_vertices=100))
            >>> still = torch.zeros(15, 3)
            >>> body = model.freeze(betas=torch.randn(10), left_hand_pose=still, right_hand_pose=still)
            >>> body(body_pose=torch.randn(7, 21, 3)).vertices.shape
            torch.Size([7, 100, 3])
        """
        given = self._signature.read(arguments, self.dtype)
        if given.transl is not None:
            raise ValueError("transl: expected none, got one; add it to what the frozen model returns")
        for name, batch in given.batches.items():
            if batch:
                raise ValueError(f"{name}: expected no batch, got {tuple(batch)}; freeze one body at a time")
        names = self._plan.shape_names
        shape = {names[start]: value.detach().double().cpu().numpy() for start, value in given.coefficients}
        poses = {name: to_matrix(v.detach().double(), given.rotation) for name, v in given.parts.items()}
        model = BodyModel(freeze_shape(self.data, shape), dtype=self.dtype, device=self.device)
        return model._fix({**self._fixed, **poses})

    def _fix(self, poses: dict[str, Tensor]) -> BodyModel:
        """Make the rotations (count, 3, 3) of parts constants, and return the model."""
        if not poses:
            return self
        self._take(poses)
        for name, constant in frozen_constants(self._plan, self._constants, poses).items():
            self.register_buffer(name, constant, persistent=False)
        return self

    def joints_jacobian(
        self,
        joint_ids: Int[Tensor, " N"] | None = None,
        *,
        wrt: Collection[str] | None = None,
        **arguments: Unpack[BodyArguments],
    ) -> PointsJacobian:
        """Return joints and their derivatives by the arguments given, in closed form and without a graph of their own.

        Args:
            joint_ids: (N,) which joints; default: all.
            wrt: names of the arguments whose derivatives are wanted; default: all that are given.
            **arguments: those of `forward`.

        Returns:
            The joints (*B, N, 3) and the blocks of their Jacobian.

        Example:
            >>> import torch
            >>> from physique.bodymodel import BodyModel, synthetic_model
            >>> model = BodyModel(synthetic_model("smpl"))
            >>> result = model.joints_jacobian(body_pose=torch.zeros(5, 23, 3), transl=torch.zeros(5, 3))
            >>> result.matrix(("body_pose", "transl")).shape
            torch.Size([5, 72, 72])
        """
        given = self._signature.read(arguments, self.dtype)
        return self._exactly(joints_jacobian, given, joint_ids, arguments if wrt is None else wrt)

    def vertices_jacobian(
        self,
        ids: Int[Tensor, "*#batch N"] | VertexBases,
        *,
        wrt: Collection[str] | None = None,
        correctives: bool = True,
        **arguments: Unpack[BodyArguments],
    ) -> PointsJacobian:
        """Return some vertices and their derivatives. See `points_jacobian`.

        Args:
            ids: (N,) vertices for all samples, or with a batch: one set a sample. In a loop over the same vertices,
                pass what `vertex_bases(ids)` returned once.
            wrt: see `points_jacobian`.
            correctives: likewise.
            **arguments: those of `forward`.
        """
        bases = ids if isinstance(ids, VertexBases) else self.vertex_bases(ids)
        ones = self.v_template.new_ones(()).expand(*bases.weights.shape[:-2], bases.weights.shape[-1], 1)
        return self._mixed_jacobian(CornerMix(bases, ones), None, arguments, wrt, correctives)

    def point_bases(self, surface: SurfacePoints) -> CornerMix:
        """Return the constants of surface points, for `points_jacobian` in a loop over the same points."""
        corners, weights = self._corners(surface)
        return CornerMix(self.vertex_bases(corners.flatten(-2)), weights)

    def points_jacobian(
        self,
        surface: SurfacePoints | CornerMix,
        *,
        wrt: Collection[str] | None = None,
        correctives: bool = True,
        **arguments: Unpack[BodyArguments],
    ) -> PointsJacobian:
        """Return points of the surface and their derivatives by the arguments given, pose correctives included.

        Args:
            surface: see `points`; or what `point_bases(surface)` returned once.
            wrt: names of the arguments whose derivatives are wanted; default: all that are given.
            correctives: whether derivatives include how the pose correctives change with the pose. That is half of the
                work. A solver that leaves it out still finds an exact fit, in a few steps more, but stops beside the
                best one where residuals remain, since its slope is a little wrong.
            **arguments: those of `forward`.

        Returns:
            The points (*B, N, 3) and the blocks of their Jacobian.
        """
        mix = surface if isinstance(surface, CornerMix) else self.point_bases(surface)
        return self._mixed_jacobian(mix, None, arguments, wrt, correctives)

    def keypoints_jacobian(
        self,
        regressor: KeypointRegressor | KeypointBases,
        *,
        wrt: Collection[str] | None = None,
        correctives: bool = True,
        **arguments: Unpack[BodyArguments],
    ) -> PointsJacobian:
        """Return the keypoints of a set and their derivatives. See `keypoints` and `points_jacobian`."""
        bases = regressor if isinstance(regressor, KeypointBases) else self.keypoint_bases(regressor)
        mix = SharedMix(bases.points, bases.point_weights)
        return self._mixed_jacobian(mix, bases.joint_weights, arguments, wrt, correctives)

    def _mixed_jacobian(
        self,
        mix: CornerMix | SharedMix,
        joint_weights: Tensor | None,
        arguments: BodyArguments,
        wrt: Collection[str] | None,
        correctives: bool,
    ) -> PointsJacobian:
        given = self._signature.read(arguments, self.dtype)
        broadcast_batches({"ids": mix.bases.template.shape[:-1]} | given.batches)
        wanted = arguments if wrt is None else wrt
        return self._exactly(points_jacobian, given, mix, joint_weights, wanted, correctives)

    def _corners(self, surface: SurfacePoints) -> tuple[Tensor, Tensor]:
        """Return the vertices (*set, N, 3) of surface points and their weights (*set, N, 3)."""
        expect_shape("surface.faces", surface.faces, "N")
        expect_shape("surface.barycentric", surface.barycentric, surface.faces.shape[-1], 3)
        expect_finite("surface.barycentric", surface.barycentric)
        return self.faces[surface.faces], match_dtype("surface.barycentric", surface.barycentric, self.dtype)

    @property
    def _constants(self) -> dict[str, Tensor]:
        # Straight from the module's table: the look-up of an attribute costs as much as a small tensor operation.
        return self._buffers  # pyright: ignore[reportReturnType]

    def _exactly(self, stage: Callable[..., _Result], *inputs: Any) -> _Result:
        """Run a stage with autocast kept out."""
        constants = self._constants
        with without_autocast(constants["v_template"].device.type):
            return stage(self._plan, constants, *inputs)

"""A variational autoencoder of body poses with VPoser's architecture, and VPoser's own weights."""

from __future__ import annotations

import math
import os

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Normal

from ..geometry import axis_angle_to_matrix, matrix_to_axis_angle, rotation_6d_to_matrix
from ..geometry.checks import expect_shape
from .vposer_file import read_vposer

BODY_JOINTS = 21
"""Joints that are encoded: SMPL's without the two hands, as in SMPL-H and SMPL-X."""


class PoseVAE(nn.Module):
    """A latent space of whole body poses: `encode`, `decode`, and an energy for fits.

    A new one is untrained; `load_prior("vae")` gives the one that ships, `from_vposer` reads a user's VPoser v2. Poses
    of 23 joints (SMPL) are taken as well as those of 21: the two hands come last and are not looked at. What `decode`
    returns has 21. The networks are VPoser's, and so are the names of their tensors; `eval()` it for any use but
    training, since dropout and batch normalisation make samples depend on each other.

    Args:
        width: of the hidden layers; VPoser's is 512.
        num_latents: numbers in z; VPoser has 32.
        num_starts: poses that a fit may start from.

    Attributes:
        spread: (21,) radians; how far reconstructions of real poses are off in each joint, the unit of the energy.
        start_latents: (M, num_latents) of the starting poses.

    Source: Pavlakos et al. (2019), "Expressive Body Capture", section 3.3, and VPoser v2's public description.

    Example:
        >>> import torch
        >>> prior = PoseVAE(width=64).eval()
        >>> latent = prior.encode(torch.zeros(5, 23, 3)).mean
        >>> prior.decode(latent).shape
        torch.Size([5, 21, 3])
    """

    spread: Float[Tensor, "21"]
    start_latents: Float[Tensor, "M Z"]

    def __init__(self, width: int = 512, num_latents: int = 32, num_starts: int = 1):
        super().__init__()
        if min(width, num_latents, num_starts) < 1:
            raise ValueError(
                f"width, num_latents, num_starts: expected at least 1, got {width}, {num_latents}, {num_starts}; "
                "VPoser has 512 and 32"
            )
        self.width, self.num_latents, self.num_starts = width, num_latents, num_starts
        dims = 3 * BODY_JOINTS
        # VPoser's first layer flattens; it holds the place so that the others have their numbers.
        self.encoder_net = nn.Sequential(
            nn.Identity(),
            nn.BatchNorm1d(dims),
            nn.Linear(dims, width),
            nn.LeakyReLU(),
            nn.BatchNorm1d(width),
            nn.Dropout(0.1),
            nn.Linear(width, width),
            nn.Linear(width, width),
            _Gaussian(width, num_latents),
        )
        self.decoder_net = nn.Sequential(
            nn.Linear(num_latents, width),
            nn.LeakyReLU(),
            nn.Dropout(0.1),
            nn.Linear(width, width),
            nn.LeakyReLU(),
            nn.Linear(width, 6 * BODY_JOINTS),
        )
        self.register_buffer("spread", torch.full((BODY_JOINTS,), 0.1))
        self.register_buffer("start_latents", torch.zeros(num_starts, num_latents))

    @classmethod
    def from_vposer(
        cls, path: str | os.PathLike[str], *, spread: float = 0.1, dtype: torch.dtype = torch.float32
    ) -> PoseVAE:
        """Read the weights of a VPoser v2 that the user has, without running anything that the file holds.

        Args:
            path: a checkpoint (.ckpt of PyTorch Lightning, tensors under `state_dict` as `vp_model.…`) or a state
                dict (.pt, .pth). The sizes of the networks come from the tensors.
            spread: how far reconstructions are off, in radians; the unit of the energy's second part.
            dtype: floating type of the prior.

        Raises:
            FileNotFoundError: no such file.
            ValueError: a file that is damaged, hostile or of another kind, VPoser v1 included; the text names it.
        """
        if not spread > 0:
            raise ValueError(f"spread: expected a positive angle in radians, got {spread}; 0.1 is usual")
        tensors, width, num_latents = read_vposer(path)
        prior = cls(width, num_latents).to(dtype)
        prior.load_state_dict({**prior.state_dict(), **tensors})
        prior.spread.fill_(spread)
        return prior.eval()

    @property
    def start_poses(self) -> Float[Tensor, "M 21 3"]:
        """Where a fit may start: typical poses."""
        return self.decode(self.start_latents)

    def encode(self, body_pose: Float[Tensor, "*batch n 3"]) -> Normal:
        """Return the distribution of z for each pose: independent normals (*B, num_latents).

        Args:
            body_pose: (*B, 21 or 23, 3) axis-angle, radians.
        """
        batch = expect_shape("body_pose", body_pose, "n", 3)
        if body_pose.shape[-2] not in (21, 23):
            raise ValueError(
                f"body_pose: expected (*batch, 21 or 23, 3), got {tuple(body_pose.shape)}; leave out the root"
            )
        flat = body_pose[..., :BODY_JOINTS, :].reshape(-1, 3 * BODY_JOINTS)
        mean, spread = self.encoder_net(flat)
        shape = (*batch, self.num_latents)
        return Normal(mean.reshape(shape), spread.reshape(shape), validate_args=False)

    def decode_matrices(self, latent: Float[Tensor, "*batch Z"]) -> Float[Tensor, "*batch 21 3 3"]:
        """Return the rotations of the 21 joints for each z.

        Args:
            latent: (*B, num_latents).
        """
        expect_shape("latent", latent, self.num_latents)
        return rotation_6d_to_matrix(self.decoder_net(latent).unflatten(-1, (BODY_JOINTS, 6)), layout="interleaved")

    def decode(self, latent: Float[Tensor, "*batch Z"]) -> Float[Tensor, "*batch 21 3"]:
        """Return the pose of each z, axis-angle in radians, no longer than π.

        Args:
            latent: (*B, num_latents).
        """
        return matrix_to_axis_angle(self.decode_matrices(latent))

    def residuals(self, body_pose: Float[Tensor, "*batch n 3"]) -> Float[Tensor, "*batch R"]:
        """Return what squared and summed is the energy: √½ z, then √½ of the turns to the reconstruction by `spread`.

        Args:
            body_pose: (*B, 21 or 23, 3) axis-angle, radians.

        Returns:
            (*B, num_latents + 63). At a reconstruction half a turn away a turn jumps to its negative; its square does
            not.
        """
        latent = self.encode(body_pose).mean
        given = axis_angle_to_matrix(body_pose[..., :BODY_JOINTS, :])
        turns = matrix_to_axis_angle(self.decode_matrices(latent).mT @ given) / self.spread.unsqueeze(-1)
        return math.sqrt(0.5) * torch.cat((latent, turns.flatten(-2)), dim=-1)

    def energy(self, body_pose: Float[Tensor, "*batch n 3"]) -> Float[Tensor, "*batch"]:
        """Return ½ |z|² + ½ Σ_j (angle_j / spread_j)², angle_j being that between joint j and its reconstruction.

        z is the mean of `encode`. A pose that people take has a small z and comes back as it was; one that they do not
        take comes back as another.

        Args:
            body_pose: (*B, 21 or 23, 3) axis-angle, radians.
        """
        return self.residuals(body_pose).square().sum(-1)

    def forward(self, body_pose: Float[Tensor, "*batch n 3"]) -> Float[Tensor, "*batch"]:
        """Return the energy."""
        return self.energy(body_pose)


class _Gaussian(nn.Module):
    """Mean and standard deviation, each linear in the features; the second through a softplus."""

    def __init__(self, features: int, count: int):
        super().__init__()
        self.mu = nn.Linear(features, count)
        self.logvar = nn.Linear(features, count)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        return self.mu(features), nn.functional.softplus(self.logvar(features))

"""A mixture of Gaussians over body poses: SMPLify's prior, its official file, and one's own from poses."""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..bodymodel.safe_arrays import MAX_FILE_BYTES
from ..bodymodel.safe_pickle import read_pickle
from ..geometry.checks import expect_shape
from .mixture_fit import fit_mixture

BODY_JOINTS = 21
"""Joints of `body_pose` in SMPL-H and SMPL-X: SMPL's without the two hands, which come last."""
_KEYS = ("means", "covars", "weights")


class GaussianMixturePrior(nn.Module):
    """A mixture of G Gaussians over the D numbers of a body pose, axis-angle.

    A new one is a standard Gaussian, G times; `fit` makes one from poses, `from_file` reads SMPLify's, `load_prior`
    gives the one that ships. All take 23 joints (SMPL, STAR), and 21 as well (SMPL-H, SMPL-X): the two hands come last
    in the 23 and are integrated out, which leaves the mixture of the other 63 numbers, exactly.

    The covariance of a component is kept as the inverse W of its Cholesky factor, so that |W (x - μ)|² is the squared
    Mahalanobis distance, and the upper left block of W belongs to the marginal of the first numbers. SMPLify's Lᵀ, with
    L Lᵀ the precision, differs from W by a rotation of the residuals and by nothing in their sum of squares.

    Args:
        num_components: G.
        num_dims: D, three a joint.

    Attributes:
        means: (G, D) radians.
        whitening: (G, D, D) lower triangular, 1/radian; the inverse Cholesky factors of the covariances.
        weights: (G,) that sum to 1.

    Source: Bogo et al. (2016), "Keep it SMPL", section 3.2; its public code for the file and the constants.

    Example:
        >>> import torch
        >>> prior = GaussianMixturePrior(2)
        >>> prior.energy(torch.zeros(5, 23, 3)).shape
        torch.Size([5])
    """

    means: Float[Tensor, "G D"]
    whitening: Float[Tensor, "G D D"]
    weights: Float[Tensor, " G"]

    def __init__(self, num_components: int = 8, num_dims: int = 69):
        super().__init__()
        if num_components < 1 or num_dims < 3 or num_dims % 3:
            raise ValueError(
                f"num_components, num_dims: expected at least 1, and three numbers a joint, got {num_components}, "
                f"{num_dims}; SMPL has 23 joints, 69 numbers"
            )
        self.num_components, self.num_dims = num_components, num_dims
        self.register_buffer("means", torch.zeros(num_components, num_dims))
        self.register_buffer("whitening", torch.eye(num_dims).repeat(num_components, 1, 1))
        self.register_buffer("weights", torch.full((num_components,), 1 / num_components))

    @classmethod
    def from_moments(
        cls, means: Float[Tensor, "G D"], covariances: Float[Tensor, "G D D"], weights: Float[Tensor, " G"]
    ) -> GaussianMixturePrior:
        """Return the mixture of these means, covariances and weights, in their type and on their device.

        Args:
            means: (G, D) radians.
            covariances: (G, D, D) positive definite.
            weights: (G,) positive; divided by their sum.

        Raises:
            ValueError: shapes that do not fit, numbers that are not finite, weights that are not positive, a
                covariance that is not symmetric and positive definite.
        """
        _check_moments(means, covariances, weights)
        prior = cls(*means.shape).to(means)
        factor, failed = torch.linalg.cholesky_ex(covariances.double())
        if bool(failed.any()):
            raise ValueError(
                "covariances: expected positive definite ones, got another; add a small number to the diagonal"
            )
        eye = torch.eye(means.shape[1], dtype=factor.dtype, device=factor.device)
        prior.means.copy_(means)
        prior.whitening.copy_(torch.linalg.solve_triangular(factor, eye, upper=False))
        prior.weights.copy_(weights / weights.sum())
        return prior

    @classmethod
    def from_file(cls, path: str | os.PathLike[str], *, dtype: torch.dtype = torch.float32) -> GaussianMixturePrior:
        """Read SMPLify's `gmm_08.pkl`, or another number of components, without running anything that it holds.

        Args:
            path: a pickled dict of `means` (G, D), `covars` (G, D, D) and `weights` (G,).
            dtype: floating type of the prior.

        Raises:
            FileNotFoundError: no such file.
            ValueError: a file that is damaged, hostile or of another kind; the text names it.
        """
        path = Path(path)
        if not path.exists():
            raise FileNotFoundError(f"{path}: expected a mixture file, got no file; check the path")
        try:
            means, covariances, weights = (torch.from_numpy(array) for array in _read(path))
            return cls.from_moments(means, covariances, weights).to(dtype)
        except MemoryError:
            raise
        except Exception as error:
            text = str(error) if isinstance(error, ValueError) and ": expected " in f": {error}" else ""
            text = text or f"expected a pickled mixture, got damaged data ({type(error).__name__}); download it again"
            raise ValueError(f"{path}: {text}") from None

    @classmethod
    def fit(
        cls,
        poses: Float[Tensor, "N n 3"],
        num_components: int = 8,
        *,
        seed: int,
        floor: float = 0.08,
        shared: float = 100.0,
        iterations: int = 100,
    ) -> GaussianMixturePrior:
        """Return the mixture that best explains poses, by expectation-maximisation in double precision.

        Args:
            poses: (N, n, 3) axis-angle, radians; mirror them first if sides are to be treated alike.
            num_components: G.
            seed: of the start (k-means++).
            floor: standard deviation in radians that is added to every number: no joint is ever held stiffer, and
                joints that never move in `poses` get this one.
            shared: the covariance of a component is mixed with that of all poses about their components' means as if
                that had been seen in as many poses: few poses make no thin component.
            iterations: the most that are taken.

        Raises:
            ValueError: a shape that does not fit, fewer poses than components, numbers that are not finite, a floor
                that is not positive.

        Source: Dempster et al. (1977); the prior on the covariances is an inverse Wishart, its mode the estimate.

        Example:
            >>> poses = 0.1 * torch.randn(200, 23, 3, generator=torch.Generator().manual_seed(0))
            >>> GaussianMixturePrior.fit(poses, 2, seed=0).mean_pose.shape
            torch.Size([23, 3])
        """
        if expect_shape("poses", poses, "N", "n", 3) or len(poses) < num_components:
            raise ValueError(
                f"poses: expected (N, n, 3) with N >= {num_components}, got {tuple(poses.shape)}; add some"
            )
        if not bool(poses.isfinite().all()):
            raise ValueError("poses: expected finite numbers, got others; leave those poses out")
        if not floor > 0:
            raise ValueError(f"floor: expected a positive angle in radians, got {floor}; 0.05 is small")
        flat = poses.detach().flatten(-2).double()
        moments = fit_mixture(flat, num_components, seed=seed, floor=floor, shared=shared, iterations=iterations)
        return cls.from_moments(*moments).to(poses.dtype)

    @property
    def mean_pose(self) -> Float[Tensor, "n 3"]:
        """Weighted mean of the components, from which SMPLify starts."""
        return (self.weights @ self.means).unflatten(-1, (-1, 3))

    @property
    def start_poses(self) -> Float[Tensor, "G n 3"]:
        """The means as poses: where a fit may start."""
        return self.means.unflatten(-1, (-1, 3))

    def forward(self, body_pose: Float[Tensor, "*batch n 3"]) -> Float[Tensor, "*batch"]:
        """Return the energy."""
        return self.energy(body_pose)

    def energy(self, body_pose: Float[Tensor, "*batch n 3"]) -> Float[Tensor, "*batch"]:
        """Return SMPLify's energy: the least over the components of |√½ W (x − μ)|² − log w̃.

        w̃ is w / ((2π)^(D/2) √|Σ|) in units of the narrowest component's √|Σ|, so the energy is positive. It is
        continuous, and smooth but where two components are equally near. With 21 joints, hands are integrated out.

        Args:
            body_pose: (*B, n, 3) axis-angle; n as the mixture has, or 21.

        Raises:
            ValueError: another number of joints.
        """
        apart, factor = self._apart(body_pose)
        return (0.5 * apart.square().sum(-1) + self._cost(factor)).amin(-1)

    def residuals(self, body_pose: Float[Tensor, "*batch n 3"]) -> Float[Tensor, "*batch R"]:
        """Return what squared and summed is the energy: √½ W (x − μ) of the cheapest component, then √(−log w̃).

        Args:
            body_pose: (*B, n, 3) axis-angle; n as the mixture has, or 21.

        Returns:
            (*B, 3 n + 1).
        """
        apart, factor = self._apart(body_pose)
        cost = self._cost(factor)
        best = (0.5 * apart.square().sum(-1) + cost).argmin(-1, keepdim=True)
        chosen = torch.take_along_dim(apart, best.unsqueeze(-1), dim=-2).squeeze(-2)
        constant = torch.take_along_dim(cost.sqrt().expand(apart.shape[:-1]), best, dim=-1)
        return torch.cat((math.sqrt(0.5) * chosen, constant), dim=-1)

    def log_prob(self, body_pose: Float[Tensor, "*batch n 3"]) -> Float[Tensor, "*batch"]:
        """Return the logarithm of the density of the whole mixture, per radian^D; with 21 joints that of 63 numbers.

        Args:
            body_pose: (*B, n, 3) axis-angle; n as the mixture has, or 21.
        """
        apart, factor = self._apart(body_pose)
        size = self._log_size(factor)
        dims = factor.shape[-1]
        each = self.weights.log() - size - 0.5 * dims * math.log(2 * math.pi) - 0.5 * apart.square().sum(-1)
        return each.logsumexp(-1)

    def sample(self, count: int, *, generator: torch.Generator | None = None) -> Float[Tensor, "count n 3"]:
        """Draw poses.

        Args:
            count: how many.
            generator: of random numbers, on the prior's device.
        """
        chosen = torch.multinomial(self.weights, count, replacement=True, generator=generator)
        noise = torch.randn(
            count, self.means.shape[-1], 1, dtype=self.means.dtype, device=self.means.device, generator=generator
        )
        away = torch.linalg.solve_triangular(self.whitening[chosen], noise, upper=False).squeeze(-1)
        return (self.means[chosen] + away).unflatten(-1, (-1, 3))

    def _apart(self, body_pose: Tensor) -> tuple[Tensor, Tensor]:
        """Return W (x − μ) for each component, (*B, G, D), and W."""
        expect_shape("body_pose", body_pose, "n", 3)
        joints, own = body_pose.shape[-2], self.means.shape[-1] // 3
        if joints not in (own, min(own, BODY_JOINTS)):
            raise ValueError(
                f"body_pose: expected (*batch, {own}, 3), or 21 of 23 joints, got {tuple(body_pose.shape)}; use a "
                "mixture of as many joints"
            )
        dims = 3 * joints
        factor = self.whitening[:, :dims, :dims]
        # One product for all components: W x, less W μ.
        turned = (body_pose.flatten(-2) @ factor.flatten(0, 1).mT).unflatten(-1, factor.shape[:2])
        return turned - (factor @ self.means[:, :dims, None]).squeeze(-1), factor

    def _log_size(self, factor: Tensor) -> Tensor:
        """Return log √|Σ| of each component."""
        return -factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)

    def _cost(self, factor: Tensor) -> Tensor:
        """Return −log w̃ of each component."""
        size = self._log_size(factor)
        return size - size.amin() + 0.5 * factor.shape[-1] * math.log(2 * math.pi) - self.weights.log()


def _read(path: Path) -> list[np.ndarray]:
    if not path.is_file():
        raise ValueError("expected a file, got a folder or a device; give the path of gmm_08.pkl")
    if path.stat().st_size > MAX_FILE_BYTES:
        raise ValueError(f"expected at most {MAX_FILE_BYTES >> 20} MiB, got more; this is not a mixture file")
    arrays = read_pickle(path.read_bytes(), _KEYS.__contains__)
    missing = [key for key in _KEYS if key not in arrays]
    if missing:
        raise ValueError(f"expected the keys {', '.join(_KEYS)}, got none called {', '.join(missing)}; check the file")
    return [np.array(arrays[key], dtype=np.float64) for key in _KEYS]


def _check_moments(means: Tensor, covariances: Tensor, weights: Tensor) -> None:
    """Raise ValueError unless the moments of a mixture over joints fit each other."""
    if means.dim() != 2 or means.shape[1] % 3 or 0 in means.shape:
        raise ValueError(f"means: expected (G, D) with three numbers a joint, got {tuple(means.shape)}; check the file")
    count, dims = means.shape
    for name, value, shape in (("covariances", covariances, (count, dims, dims)), ("weights", weights, (count,))):
        if tuple(value.shape) != shape:
            raise ValueError(f"{name}: expected {shape}, got {tuple(value.shape)}; give one a component")
    for name, value in (("means", means), ("covariances", covariances), ("weights", weights)):
        if not bool(value.isfinite().all()):
            raise ValueError(f"{name}: expected finite numbers, got others; the file is damaged")
    if not bool((weights > 0).all()):
        raise ValueError("weights: expected positive numbers, got others; drop components that weigh nothing")
    if not torch.allclose(covariances, covariances.mT, rtol=1e-4, atol=1e-8):
        raise ValueError("covariances: expected symmetric ones, got others; the file is damaged")

"""Rigid motions as 4x4 matrices named ``a_from_b``; rotations in float32 or better, outside autocast."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor


def rigid_from(rotation: Float[Tensor, "*b 3 3"], translation: Float[Tensor, "*b 3"]) -> Float[Tensor, "*b 4 4"]:
    """The 4x4 matrix of x -> rotation @ x + translation."""
    top = torch.cat([rotation, translation[..., None]], dim=-1)
    bottom = torch.zeros_like(top[..., :1, :])
    bottom[..., 3] = 1
    return torch.cat([top, bottom], dim=-2)


def invert(a_from_b: Float[Tensor, "*b 4 4"]) -> Float[Tensor, "*b 4 4"]:
    """b_from_a, in closed form."""
    rotation = a_from_b[..., :3, :3].mT
    return rigid_from(rotation, -(rotation @ a_from_b[..., :3, 3:])[..., 0])


def relative(world_from_cam: Float[Tensor, "*b v 4 4"]) -> Float[Tensor, "*b v v 4 4"]:
    """All ordered pairs: entry [i, j] is cam_i_from_cam_j."""
    return invert(world_from_cam)[..., :, None, :, :] @ world_from_cam[..., None, :, :, :]


def so3_exp(omega: Float[Tensor, "*b 3"]) -> Float[Tensor, "*b 3 3"]:
    """Rotation by the angle |omega| (radians) about omega, orthonormal to 2e-11 in float64 and 4e-5 in float32: as
    exact as torch's matrix exponential."""
    return torch.linalg.matrix_exp(skew(omega))


def skew(omega: Float[Tensor, "*b 3"]) -> Float[Tensor, "*b 3 3"]:
    """The matrix of the cross product: skew(a) @ b = a x b."""
    x, y, z = omega.unbind(-1)
    zero = torch.zeros_like(x)
    return torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1).unflatten(-1, (3, 3))


def rotation_angle(rotation: Float[Tensor, "*b 3 3"]) -> Float[Tensor, "*b"]:
    """Angle in radians, in [0, pi]: atan2 of the axis vector's length and the trace, accurate at both ends.

    Differentiable everywhere except where the rotation is exactly the identity or a half turn; there the gradient is 0.
    """
    axis = torch.stack(
        [
            rotation[..., 2, 1] - rotation[..., 1, 2],
            rotation[..., 0, 2] - rotation[..., 2, 0],
            rotation[..., 1, 0] - rotation[..., 0, 1],
        ],
        dim=-1,
    )
    trace = rotation.diagonal(dim1=-2, dim2=-1).sum(-1)
    squared = axis.square().sum(-1)
    length = torch.where(squared > 0, squared, torch.ones_like(squared)).sqrt()
    sine = torch.where(squared > 0, length, torch.zeros_like(length))
    return torch.atan2(sine + 1e-12, trace - 1)


class _NearestRotation(torch.autograd.Function):
    """SVD projection whose gradient divides by sums of singular values, not by differences.

    Autograd through ``torch.linalg.svd`` is infinite at equal singular values, the identity among them, although the
    projection is smooth there.
    """

    @staticmethod
    def forward(ctx: Any, matrix: Tensor) -> Tensor:
        """U diag(1, 1, det(U V^T)) V^T."""
        finite = torch.isfinite(matrix).all(-1, keepdim=True).all(-2, keepdim=True)  # or LAPACK raises for all of them
        u, singular, vh = torch.linalg.svd(torch.where(finite, matrix, torch.eye(3).to(matrix)))
        sign = torch.ones_like(singular)
        sign[..., 2] = torch.where(torch.det(u @ vh) < 0, -1.0, 1.0)
        u = u * sign[..., None, :]
        u = torch.where(finite, u, torch.nan)
        ctx.save_for_backward(u, singular * sign, vh)
        return u @ vh

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        """dR = U ((A - A^T) / (s_i + s_j)) V^T with A = U^T dM V, transposed (Levinson et al. 2020, appendix)."""
        u, singular, vh = ctx.saved_tensors
        inner = u.mT @ gradient @ vh.mT
        total = singular[..., :, None] + singular[..., None, :]
        total = torch.where(total.abs() < 1e-6, torch.full_like(total, 1e-6), total)
        return u @ ((inner - inner.mT) / total) @ vh


def rotation_from_9d(matrix: Float[Tensor, "*b 3 3"]) -> Float[Tensor, "*b 3 3"]:
    """The rotation nearest to an arbitrary matrix, by SVD (Levinson et al. 2020; pi^3's pose head), float32 or more;
    NaN for one that is not finite."""
    return _NearestRotation.apply(matrix if matrix.dtype == torch.float64 else matrix.float())


def angle_between(a: Float[Tensor, "*#b 3"], b: Float[Tensor, "*#b 3"]) -> Float[Tensor, "*#b"]:
    """Angle in radians between two vectors by Kahan's atan2(|a x b| + eps, a . b), in [0, pi].

    The gradient's magnitude is 1/|b| for every angle in (0, pi), also beyond 90 degrees. It is 0 where a x b is
    exactly 0, and where a vector is 0; a zero vector gives an angle of pi/2.
    """
    cross = torch.linalg.cross(a, b, dim=-1)
    squared = cross.square().sum(-1)
    positive = squared > 0
    sine = torch.where(positive, torch.where(positive, squared, torch.ones_like(squared)).sqrt(), squared)
    cosine = (a * b).sum(-1)
    cosine = torch.where(positive | (cosine != 0), cosine, torch.zeros_like(cosine))  # no gradient at a zero vector
    return torch.atan2(sine + torch.finfo(a.dtype).tiny ** 0.5, cosine)


def rotation_from_quaternion(xyzw: Float[Tensor, "*b 4"]) -> Float[Tensor, "*b 3 3"]:
    """Rotation of a quaternion of any length but 0, real part last; differentiable."""
    x, y, z, w = (xyzw / xyzw.norm(dim=-1, keepdim=True).clamp_min(1e-12)).unbind(-1)
    rows = [
        1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
        2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
        2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
    ]  # fmt: skip
    return torch.stack(rows, dim=-1).unflatten(-1, (3, 3))

"""Constraints on sampled clips: coordinates that are given, or a cost of the motion."""

import copy
from collections.abc import Callable
from itertools import combinations_with_replacement, product

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ddpm.normalizer import Normalizer
from ddpm.process.gaussian import GaussianModes
from ddpm.process.prediction import Prediction
from ddpm.skeleton import Skeleton

FREE = 1e3
"""Variance of where a clip begins on the ground, in units of the mean variance of the given coordinates: it may be anywhere."""
JITTER = 1e-8
"""Variance, in the same units, by which a given coordinate may be missed: some follow from others, up to rounding."""
LARGEST, LONGEST = 10_000, 5_000
"""Given coordinates, and frames of the clip, at most: the square of either is a matrix in memory."""
CACHED = 5 * 10**7
"""Numbers of the matrices that are kept for the next batch, at most."""
TOGETHER = 64
"""Frames whose covariances are computed at once."""

Cost = Callable[[Tensor], Tensor]
"""Positions ``(clips, frames, joints, coords)`` in metres -> ``(clips,)``, differentiable: a clip is exp(-cost) times as likely.
Clips begin with the root above the origin, and face as those of training."""


class Posterior:
    """The covariance of a clean clip given a noisy one, where the prediction is Gaussian; elsewhere a multiple of the identity.

    Args:
        like: normalised ``(joint, coord, frame)``, whose dtype and device are used.
        normalizer: metres <-> normalised.
        prediction: fitted.
    """

    @torch.inference_mode(False)  # the tensors are differentiated through
    def __init__(self, like: Tensor, normalizer: Normalizer, prediction: Prediction) -> None:
        self.normalizer = copy.deepcopy(normalizer).to(like)
        prediction = copy.deepcopy(prediction).to(like.device) if isinstance(prediction, nn.Module) else prediction
        found = prediction.for_clips(like[None], None, None)
        self.modes = found if isinstance(found, GaussianModes) else None
        self.power = torch.ones_like(like).flatten(0, 1) if self.modes is None else self.modes.power[0]
        """``(component, frequency)``, the variances of the modes of clips."""

    def variance(self, alpha_bar: Tensor) -> Tensor:
        """The variances of the modes given a noisy clip, but for the factor 1 - alpha_bar."""
        signal = alpha_bar.flatten()[0].to(self.power)
        return self.power / (signal * self.power + 1 - signal)

    def back(self, modes: Tensor, like: Tensor) -> Tensor:
        """``(batch, component, frequency)`` -> normalised clips ``(batch, *like.shape)``."""
        clips = modes.reshape(-1, *like.shape)
        return clips if self.modes is None else self.modes.back(modes, clips)


class Known(Posterior):
    """Moves an estimate of a clip by the least that explains the given coordinates.

    x0_hat is the mean of the clean clip given xt. With C the covariance of the clean clip given xt, and H x0 the coordinates that
    are given as y, the mean given xt and y is x0_hat + C H' (H C H')^-1 (y - H x0_hat) (Boys et al. 2023, arXiv 2310.06721, with
    the covariance of a Gaussian process instead of the network's Jacobian). For clips of that process this is exact. Where C is a
    multiple of the identity, it writes y over x0_hat.

    Args:
        clip: float64 ``(joint, coord, frame)`` in metres, as the network sees clips: turned, and with the root at the origin.
        given: bool, shaped alike: which of its coordinates are given, at least one.
        normalizer: metres <-> normalised.
        prediction: fitted.
        skeleton: of the joints.

    Raises:
        ValueError: too many coordinates are given of too long a clip.
    """

    def __init__(self, clip: Tensor, given: Tensor, normalizer: Normalizer, prediction: Prediction, skeleton: Skeleton) -> None:
        super().__init__(clip, normalizer, prediction)
        self.given, self.values = given, clip[given]
        if len(self.values) > LARGEST or clip.shape[-1] > LONGEST:
            raise ValueError(
                f"keep: {len(self.values)} coordinates of a clip of {clip.shape[-1]} frames, at most {LARGEST} of {LONGEST} "
                "frames are possible; keep fewer frames or joints, or take a shorter clip"
            )
        linear = copy.deepcopy(self.normalizer)
        linear.mean.zero_()
        n, frames = clip[..., 0].numel(), clip.shape[-1]
        basis, waves = (torch.eye(size).to(clip) for size in (n, frames))
        if self.modes is not None:
            basis, waves = self.modes.basis, self.modes.cosines[0]
        # A component at one frame moves coordinates there, and where the root goes by steps, also in all later frames.
        moved = linear.inverse(F.pad(basis.T.reshape(n, *clip.shape[:2], 1), (1, 1))).flatten(1, 2)
        now, later = moved[..., 1] - moved[..., 2], moved[..., 2]
        self.ways = [(now, waves)]
        """Of mode (k, m) in coordinate c at frame f the sum of now[k, c] wave[m, f], the matrix H."""
        if later.any():
            self.ways.append((later, F.pad(waves[:, 1:].cumsum(1), (1, 0))))
        flat = given.flatten(0, 1)
        number = torch.zeros(flat.shape, dtype=torch.long, device=clip.device)
        number[flat] = torch.arange(len(self.values), device=clip.device)
        kinds, kind = flat.T.unique(dim=0, return_inverse=True)
        self.blocks = [
            (coords := kinds[k].nonzero().flatten(), part, number[coords][:, part].flatten())
            for k in kinds.any(1).nonzero().flatten().tolist()
            for part in (kind == k).nonzero().flatten().split(TOGETHER)
        ]
        """Frames in which the same coordinates are given: these, the frames, and their numbers among all that are given."""
        self.factors: dict[float, Tensor] = {}
        # [given coordinate][axis]: 1 where the place of a clip on the ground moves it
        coord = torch.arange(clip.shape[1], device=clip.device)[None, :, None].expand_as(given)[given]
        self.axes = [axis for axis in skeleton.ground_axes if bool((coord == axis).any())]
        self.moves = (
            torch.stack([coord == axis for axis in self.axes], 1).to(clip) if self.axes else clip.new_zeros(len(coord), 0)
        )

    def __call__(self, x0_hat: Tensor, alpha_bar: Tensor) -> Tensor:
        """Normalised estimates ``(batch, joint, coord, frame)``, all at one noise level -> those that explain what is given."""
        variance = self.variance(alpha_bar)
        off = self.values - self.normalizer.inverse(x0_hat.to(self.values))[:, self.given]
        pull = off.new_zeros(len(off), *self.given.flatten(0, 1).shape)
        pull[:, self.given.flatten(0, 1)] = torch.cholesky_solve(off.T, self._factor(alpha_bar.flatten()[0].item(), variance)).T
        change = variance * sum(weight @ pull @ wave.T for weight, wave in self.ways)
        return x0_hat + self.back(change, x0_hat[0]).to(x0_hat)

    def _factor(self, level: float, variance: Tensor) -> Tensor:
        """Of Cholesky, of the covariance of the given coordinates; the same for all batches at a noise level."""
        if level not in self.factors:
            covariance = self._covariance(variance)
            unit = covariance.diagonal().mean()
            covariance += FREE * unit * self.moves @ self.moves.T
            covariance.diagonal().add_(JITTER * unit)
            if (len(self.factors) + 1) * covariance.numel() > CACHED:
                self.factors.clear()
            self.factors[level] = torch.linalg.cholesky(covariance)
        return self.factors[level]

    def _covariance(self, variance: Tensor) -> Tensor:
        """H C H'. Poses and time are independent in every component, so that it is a sum over components of their products."""
        out = variance.new_zeros(len(self.values), len(self.values))
        for (coords, frames, here), (others, times, there) in combinations_with_replacement(self.blocks, 2):
            total = variance.new_zeros(len(coords) * len(others), len(frames) * len(times))
            for (weight, wave), (weight_too, wave_too) in product(self.ways, repeat=2):
                poses = (weight[:, coords, None] * weight_too[:, None, others]).flatten(1)
                used = poses.any(1)
                time = (wave[:, frames].T * variance[used, None]) @ wave_too[:, times]
                total += poses[used].T @ time.flatten(1)
            block = total.reshape(len(coords), len(others), len(frames), len(times)).transpose(1, 2)
            block = block.reshape(len(here), len(there))
            out[here[:, None], there], out[there[:, None], here] = block, block.T
        return out

    def place(self, clips: Tensor) -> Tensor:
        """Clips ``(batch, joint, coord, frame)`` in metres, moved over the ground to what is given, which replaces theirs."""
        given = self.given.to(clips.device)
        off, moves = self.values.to(clips) - clips[:, given], self.moves.to(clips)
        shift = torch.zeros_like(clips[:, :1, :, :1])
        shift[:, 0, self.axes, 0] = off @ moves / moves.sum(0)
        clips = clips + shift
        clips[:, given] = self.values.to(clips)
        return clips


class CostGuidance(Posterior):
    """Moves an estimate of a clip to where its distribution given the noisy clip, times exp(-cost), is largest.

    That distribution is taken as Gaussian around x0_hat, in whose modes the maximum is searched by gradient steps, for each clip
    by itself; the network is not called again. For a Gaussian process and a quadratic cost this is the exact mean.

    Args:
        like: normalised ``(joint, coord, frame)``.
        normalizer: metres <-> normalised.
        prediction: fitted.
        cost: of clips in metres.
        steps: of the search, for each network call.
    """

    def __init__(self, like: Tensor, normalizer: Normalizer, prediction: Prediction, cost: Cost, steps: int = 20) -> None:
        super().__init__(like, normalizer, prediction)
        if not callable(cost):
            raise ValueError(f"cost={cost!r} must be a function of positions (clips, frames, joints, coords)")
        self.cost, self.steps = cost, steps

    @torch.inference_mode(False)
    @torch.enable_grad()
    def __call__(self, x0_hat: Tensor, alpha_bar: Tensor) -> Tensor:
        """Normalised estimates ``(batch, joint, coord, frame)``, all at one noise level -> those at which the cost is lower.

        A ValueError for a cost that is not ``(batch,)``, or of which value or slope is not finite or not known.
        """
        noise = 1 - alpha_bar.flatten()[0].to(x0_hat)
        deviation = (noise * self.variance(alpha_bar)).sqrt().to(x0_hat)
        x0_hat = x0_hat.detach().clone()  # what was computed in inference mode has no gradients

        def total(u: Tensor) -> Tensor:
            clips = self.normalizer.inverse(x0_hat + self.back(deviation * u, x0_hat[0]))
            cost = self.cost(clips.permute(0, 3, 1, 2))
            if not isinstance(cost, Tensor) or cost.shape != u.shape[:1] or not cost.is_floating_point():
                got = f"{cost.dtype} {tuple(cost.shape)}" if isinstance(cost, Tensor) else repr(cost)
                raise ValueError(f"cost: returned {got}, expected one number a clip, a tensor of floats of shape ({len(u)},)")
            if not cost.requires_grad:
                raise ValueError(
                    "cost: cannot be differentiated; compute it from the positions with operations of torch, without detach, "
                    "numpy, comparisons or rounding"
                )
            return u.square().sum((1, 2)) / 2 + cost

        def value_and_slope(u: Tensor) -> tuple[Tensor, Tensor]:
            u = u.detach().requires_grad_()
            value = total(u)
            return value.detach()[:, None, None], torch.autograd.grad(value.sum(), u)[0]

        u, rate = x0_hat.new_zeros(len(x0_hat), *deviation.shape), x0_hat.new_ones(len(x0_hat), 1, 1)
        value, slope = value_and_slope(u)
        bad = ~(value.flatten().isfinite() & slope.isfinite().flatten(1).all(1)) & x0_hat.isfinite().flatten(1).all(1)
        if bad.any():
            k = int(bad.nonzero()[0])
            what = "the slope" if value[k].isfinite().all() else f"it is {value[k].item()}, which"
            raise ValueError(
                f"cost: of clip {k} {what} is not finite; keep away from square roots, divisions and logarithms at 0, and "
                "from values beyond 1e38"
            )
        for _ in range(self.steps):
            tried = u - rate * slope
            found, ascent = value_and_slope(tried)
            better = (found <= value) & ascent.isfinite().flatten(1).all(1)[:, None, None]
            # Barzilai & Borwein 1988: the step that fits the curvature met on the last one.
            way, change = -rate * slope, ascent - slope
            curvature = (way * change).sum((1, 2), keepdim=True)
            longer = torch.where(curvature > 0, way.square().sum((1, 2), keepdim=True) / curvature, 2 * rate)
            u, slope, value = (torch.where(better, new, old) for new, old in ((tried, u), (ascent, slope), (found, value)))
            rate = torch.where(better, longer, rate / 4)
        return x0_hat + self.back(deviation * u, x0_hat[0])

"""Long clips from short windows: what is local comes out as from one network for the whole clip."""

import pytest
import torch
from torch import Tensor

from ddpm.process.diffusion import Denoised
from ddpm.process.windows import Windows

SHAPES = [(7, 7, False), (8, 7, False), (40, 7, False), (33, 2, False), (7, 7, True), (12, 7, True), (41, 8, True)]


def pointwise(xt: Tensor, t: Tensor, cond: Tensor | None) -> Denoised:
    """What each frame says by itself, shifted by the condition of the clip."""
    shift = 0 if cond is None else cond[:, :1, None, None]
    return Denoised(xt.sin() + t[:, None, None, None] + shift, xt.cos())


@pytest.mark.parametrize(("length", "frames", "loop"), SHAPES)
def test_what_is_said_frame_by_frame_is_blended_to_itself(length: int, frames: int, loop: bool) -> None:
    """Which also says that the weights of a frame sum to 1, and that every frame is in a window."""
    xt = torch.randn(3, 2, 3, length, generator=torch.Generator().manual_seed(0)).double()
    t, cond = torch.tensor([5, 5, 5]), torch.arange(3.0)[:, None].double()
    windows = Windows(length, frames, loop)
    for batch_size in (1, 4, 1000):
        got, expected = windows.denoise(pointwise, xt, t, cond, batch_size), pointwise(xt, t, cond)
        torch.testing.assert_close(got.x0_hat, expected.x0_hat, rtol=0, atol=1e-6)
        torch.testing.assert_close(got.eps_hat, expected.eps_hat, rtol=0, atol=1e-6)


@pytest.mark.parametrize("loop", [False, True])
def test_the_cost_is_linear_in_the_length(loop: bool) -> None:
    """Twice as many frames as there are in a clip, whatever its length, are seen by the network."""
    for length in (64, 640, 6400):
        seen = len(Windows(length, 32, loop)) * 32
        assert 2 * length - 64 <= seen <= 2 * length


def test_every_window_has_a_condition_of_its_own() -> None:
    """At the middle of a window it counts most, and far from it nothing."""
    windows = Windows(64, 8)
    cond = torch.zeros(1, len(windows), 1)
    cond[0, 5] = 1.0
    zeros = torch.zeros(1, 1, 1, 64)
    said = windows.denoise(lambda xt, t, cond: pointwise(xt, t, cond), zeros, torch.tensor([0]), cond, 3).x0_hat[0, 0, 0]
    middle = int(windows.middles[5])
    assert said.argmax() in (middle, middle - 1) and said.max() > 0.7
    assert said.nonzero().flatten().tolist() == list(range(middle - 4, middle + 4))


def test_a_loop_has_no_beginning() -> None:
    """A clip that begins half a window later is the same loop, with a network that looks at neighbouring frames."""

    def neighbours(xt: Tensor, t: Tensor, cond: Tensor | None) -> Denoised:
        return Denoised(torch.cat([xt[..., 1:], xt[..., :1]], dim=-1), xt.cumsum(-1))

    windows = Windows(40, 8, loop=True)
    xt = torch.randn(2, 2, 3, 40, generator=torch.Generator().manual_seed(0))
    t = torch.zeros(2, dtype=torch.long)
    here, there = (windows.denoise(neighbours, x, t, None, 64) for x in (xt, xt.roll(12, -1)))
    torch.testing.assert_close(there.x0_hat, here.x0_hat.roll(12, -1))
    torch.testing.assert_close(there.eps_hat, here.eps_hat.roll(12, -1))


@pytest.mark.parametrize(("length", "frames"), [(6, 7), (5, 1), (0, 0)])
def test_windows_that_cannot_be_are_refused(length: int, frames: int) -> None:
    with pytest.raises(ValueError, match=f"windows of {frames} frames.*{length}"):
        Windows(length, frames)

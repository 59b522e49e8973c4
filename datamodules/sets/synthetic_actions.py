"""The actions of the synthetic set: each writes its control curves, see `Motion`, into a person who stands and breathes."""

from collections.abc import Callable
from itertools import pairwise

import numpy as np

from datamodules.sets.synthetic_body import SIDE, Motion


def _smooth(s: np.ndarray) -> np.ndarray:
    """Smoothstep: 0 below 0, 1 above 1, with zero slope at both."""
    s = np.clip(s, 0, 1)
    return s * s * (3 - 2 * s)


def _pulse(u: np.ndarray, start: float, high: float, low: float, end: float) -> np.ndarray:
    """Rise from 0 to 1 between ``start`` and ``high``, fall between ``low`` and ``end``; C1."""
    return _smooth((u - start) / (high - start)) * _smooth((end - u) / (end - low))


def _pair(left: np.ndarray | float, right: np.ndarray | float) -> np.ndarray:
    """``(N, 2)`` from a curve of each side; one of the two may be a number."""
    return np.stack(np.broadcast_arrays(left, right), -1)


def _keys(u: np.ndarray, *points: tuple) -> np.ndarray:
    """Periodic C1 cubic curve at places ``u`` in [0, 1), without overshoot, flat where two neighbours are equal.

    ``points`` are ``(place, value)`` or ``(place, value, slope)``, ascending from place 0, where the curve also ends; numbers or
    arrays that broadcast with ``u``.
    """
    points = (*points, (1.0, *points[0][1:]))
    rises = [(b[1] - a[1]) / (b[0] - a[0]) for a, b in pairwise(points)]
    slopes = []
    for i, point in enumerate(points):
        before, after = rises[i - 1], rises[i % len(rises)]
        same = before * after > 0
        mean = np.where(same, 2 * before * after, 0) / np.where(same, before + after, 1)  # harmonic: never overshoots
        slopes.append(point[2] if len(point) == 3 else mean)
    out = np.zeros_like(u)
    for i, (a, b) in enumerate(pairwise(points)):
        h = b[0] - a[0]
        s = (u - a[0]) / h
        bump = s * (1 - s) * h * (slopes[i] * (1 - s) - slopes[i + 1] * s)
        out = np.where(u >= a[0], a[1] + (b[1] - a[1]) * s * s * (3 - 2 * s) + bump, out)
    return out


def _steps(m: Motion, phase: np.ndarray, duty: float, lift: np.ndarray, off: float, mid: float, wait: float = 0.09) -> np.ndarray:
    """Lift the toes in turn, left first, and return how many steps each foot has advanced, ``(N, 2)``.

    A foot stands for the share ``duty`` of its cycle. In the first and last share ``wait`` of its swing, while it is close to the
    ground, it does not advance. ``off`` and ``mid`` are the extra pitch of the foot at toe-off and in mid-swing.
    """
    p = phase[:, None] + np.array([0.0, 0.5])
    count, u, lift = np.floor(p), p % 1, lift[:, None]
    a, b, c, d, e, f = (duty + share * (1 - duty) for share in (0.05, 0.3, 0.35, 0.62, 0.76, 0.94))
    m.toe_y = _keys(u, (0, 0), (duty, 0), (c, lift), (d, 0.75 * lift))
    m.heel = _keys(u, (0, 0), (0.6 * duty, 0), (a, off), (b, mid), (e, -0.12), (f, 0))  # the sole is level as it lands
    return count + _smooth(((u - duty) / (1 - duty) - wait) / (1 - 2 * wait))


def _locomote(m: Motion, phase: np.ndarray, duty: float, stride: np.ndarray, sway: float, arm: np.ndarray) -> None:
    """Pelvis, trunk and arms of a gait. ``stride`` is the forward way of one cycle, ``arm`` the swing of the arms."""
    here = 2 * np.pi * (phase - duty / 2)  # 0 in the middle of the left stance
    turn = 2 * np.pi * phase  # 0 when the left foot touches down
    m.z = m.z + stride * (phase - duty / 2)
    m.x = 0.3 * m.x + sway * np.cos(here)
    m.roll, m.bend = 0.05 * np.cos(here), -0.06 * np.cos(here)
    hips = 0.12 * np.tanh(stride) * np.cos(turn)  # the hip of the leading leg goes forward, the shoulder back
    m.yaw, m.twist, m.look = 0.3 * m.yaw - hips, 2 * hips, m.look - hips
    m.flex = m.flex - SIDE * (arm * np.cos(turn - 0.15))[:, None] + 0.15 * arm[:, None]
    m.elbow = m.elbow + (0.35 * arm)[:, None] * (1 - SIDE * np.cos(turn - 0.5)[:, None])


def _walk(m: Motion) -> None:
    duty, phase, stride = 0.6, m.phase(0.98, 1.3), m.draw(1.05, 1.45) * (m.body.thigh + m.body.shank)
    step = _steps(m, phase, duty, m.draw(0.055, 0.08), 0.75, 0.55)
    m.toe_z = m.toe_z + stride[:, None] * (step - np.array([0.0, 0.5]))
    m.toe_x = 0.75 * m.toe_x
    _locomote(m, phase, duty, stride, 0.025, m.draw(0.3, 0.55) * m.body.swing)
    m.y = -0.028 * stride * (1 - np.cos(4 * np.pi * (phase - duty / 2)))  # lowest with both feet down
    m.curvature = m.draw(-0.25, 0.25)


def _run(m: Motion) -> None:
    duty, phase, stride = 0.36, m.phase(0.66, 0.78), m.draw(1.75, 2.15) * (m.body.thigh + m.body.shank)
    step = _steps(m, phase, duty, m.draw(0.2, 0.3), 0.8, 1.3, wait=0.035)
    m.toe_z = m.toe_z + stride[:, None] * (step - np.array([0.0, 0.5]))
    m.toe_x = 0.6 * m.toe_x
    _locomote(m, phase, duty, stride, 0.012, m.draw(0.5, 0.75) * m.body.swing)
    m.y = -0.065 - 0.035 * np.cos(4 * np.pi * (phase - duty / 2))  # lowest in the middle of a stance
    m.elbow, m.flex, m.lean = m.elbow + 1.0, m.flex - 0.15, m.lean + m.draw(0.08, 0.18)
    m.inward, m.out = m.inward - 0.2, m.out + 0.12
    m.curvature = m.draw(-0.12, 0.12)


def _march(m: Motion) -> None:
    duty, phase = 0.52, m.phase(0.95, 1.25)
    _steps(m, phase, duty, m.draw(0.2, 0.34) * m.body.swing, 0.4, 0.5)
    _locomote(m, phase + (1 - duty) / 2, duty, np.zeros_like(phase), 0.0, m.draw(0.5, 0.8))  # the high knee leads
    stance = np.cos(2 * np.pi * (phase - duty / 2))
    m.x, m.roll, m.bend = m.x + 0.035 * stance, 0.04 * stance, -0.05 * stance
    m.y = -0.012 * (1 + np.cos(4 * np.pi * (phase - 0.02)))
    m.elbow = m.elbow + 0.3


def _side_step(m: Motion) -> None:
    duty, phase, stride = 0.6, m.phase(1.0, 1.4), m.draw(0.3, 0.5)
    step = _steps(m, phase, duty, m.draw(0.06, 0.1), 0.25, 0.3)
    m.toe_x = m.toe_x + stride[:, None] * (step + np.array([0.0, -1.0]))
    m.x = m.x + stride * (phase - 0.25 - duty / 2)
    m.y = -0.05 - 0.02 * np.cos(4 * np.pi * phase)
    m.bend, m.lean = m.bend + 0.05 * np.sin(2 * np.pi * phase), m.lean + 0.05
    spread = 0.25 * m.body.swing * (1 - np.cos(2 * np.pi * (phase - 0.05)))
    m.out, m.elbow, m.flex = m.out + spread[:, None], m.elbow + 0.35, m.flex + 0.2


def _jump(m: Motion) -> None:
    period, air, push, give = m.draw(1.95, 2.5), m.draw(0.36, 0.48), 0.3, 0.22
    phase = m.t / period + m.draw(0, 1)
    u, speed = phase % 1, 9.81 * air / 2
    # Crouch, take-off, highest point, landing, deepest give, upright: a parabola between spells of even force.
    low = 0.48 / period
    off, land = low + push / period, low + (push + air) / period
    top, soft, end = (off + land) / 2, land + give / period, land + (give + 0.4) / period
    crouch, rise, sink = 0.02 - speed * push / 2, speed * air / 4, 0.02 - speed * give / 2
    flight = (off, 0.02, speed * period), (top, 0.02 + rise), (land, 0.02, -speed * period)
    m.y = _keys(u, (0, 0), (low, crouch), *flight, (soft, sink), (end, 0))
    fold = 1.3 * m.y**2 / (0.1 + np.abs(m.y)) * (m.y < 0)  # no kink where the body straightens at full speed
    m.toe_y = m.toe_y + _keys(u, (0, 0), (off - 0.02 / period, 0), (top, rise + 0.06), (land, 0))[:, None]
    heel = _keys(u, (0, 0), (low + 0.4 * push / period, 0), (off, 0.75), (top, 0.75), (land, 0.35), (soft, 0))
    m.heel = m.heel + heel[:, None]
    ahead = m.draw(0, 0.45) * m.body.swing
    m.toe_z = m.toe_z + (ahead * (np.floor(phase) + _smooth(((u - off) / (land - off) - 0.2) / 0.65)))[:, None]
    m.z = m.z + ahead * (np.floor(phase) + _smooth((u - low) / (soft - low))) - 0.25 * fold
    m.pitch, m.lean, m.nod = 0.9 * fold, m.lean + 1.3 * fold, m.nod - fold
    back = (0.5 * low, -0.4), (low - 0.04 / period, -0.6)
    arms = _keys(u, (0, 0), *back, (off, 1.15), (top, 1.75), (land, 1.0), (soft + 0.1 / period, 0.1), (end, 0))
    m.flex = m.flex + (arms * m.body.swing)[:, None]
    m.elbow, m.out = m.elbow + 0.35 * np.sin(arms)[:, None] ** 2, m.out + 0.15 * np.sin(arms)[:, None] ** 2


def _squat(m: Motion) -> None:
    down = _pulse(m.phase(1.9, 2.8) % 1, 0, 0.42, 0.52, 0.92)
    drop = m.draw(0.5, 0.95) * m.body.thigh * down
    m.toe_x = m.toe_x + SIDE * m.draw(0.02, 0.1)[:, None]
    m.y, m.z = -drop, m.z - 0.32 * drop
    m.pitch, m.lean, m.nod = 0.9 * drop, m.lean + 1.1 * drop, m.nod - 1.1 * drop
    m.knee_out = m.knee_out + 0.35 * down
    m.flex = m.flex + (m.draw(1.1, 1.6) * down)[:, None]  # arms forward for balance
    m.elbow = m.elbow - 0.15 * down[:, None]


def _kick(m: Motion) -> None:
    u = m.phase(1.7, 2.3) % 1
    leg, high = m.body.thigh + m.body.shank, m.draw(0.45, 0.85) * m.body.swing
    over, back = _pulse(u, 0, 0.2, 0.72, 0.92), _pulse(u, 0.2, 0.34, 0.34, 0.46)
    front = _pulse(u, 0.32, 0.49, 0.55, 0.73)
    up = _keys(u, (0, 0), (0.18, 0), (0.34, 0.22), (0.49, high), (0.54, high), (0.73, 0.12), (0.86, 0))
    far = leg * np.sqrt(0.98**2 - (1 - high) ** 2) + 0.3 * m.body.foot  # the leg is nearly straight at that height
    m.toe_y = m.toe_y + _pair(0, leg * up)
    m.toe_z = m.toe_z + _pair(0, far * front - 0.5 * leg * back)
    m.toe_x = m.toe_x + _pair(0, 0.09 * _pulse(u, 0.3, 0.5, 0.5, 0.73))
    m.heel = m.heel + _pair(0, 1.1 * back + (0.1 - 0.5 * high) * front + 0.2 * up)
    m.x, m.y = m.x + over * 0.85 * np.abs(m.toe_x[:, 0]), -0.03 * over  # over the standing foot
    m.pitch, m.lean = 0.12 * back - 0.22 * front, m.lean + 0.1 * back - 0.12 * front
    m.yaw, m.twist = m.yaw - 0.2 * back + 0.3 * front, m.twist + 0.25 * back - 0.35 * front
    m.roll, m.look = m.roll + 0.06 * over, m.look - 0.1 * front
    m.flex = m.flex + _pair(0.7 * front - 0.35 * back, 0.45 * back - 0.65 * front) * m.body.swing[:, None]
    m.out, m.elbow = m.out + 0.35 * (over * m.body.swing)[:, None], m.elbow + 0.25 * over[:, None]


def _punch(m: Motion) -> None:
    u = m.phase(1.2, 1.8) % 1
    cross = _keys(u, (0, 0), (0.12, -0.15), (0.27, 1), (0.31, 1), (0.5, 0))
    jab = _keys(u, (0, 0), (0.52, 0), (0.6, -0.12), (0.74, 1), (0.78, 1), (0.95, 0))
    hit = _pair(jab, cross)
    m.toe_z = m.toe_z + SIDE * m.draw(0.14, 0.2)[:, None]
    m.toe_x = m.toe_x + SIDE * m.draw(0.02, 0.06)[:, None]
    m.y, m.z = -0.07 - 0.02 * (cross + jab), m.z + 0.05 * cross + 0.04 * jab
    m.yaw = m.yaw - 0.35 + 0.35 * cross - 0.05 * jab
    m.twist, m.look = m.twist - 0.1 + 0.5 * cross - 0.25 * jab, m.look + 0.4 - 0.75 * cross + 0.25 * jab
    m.lean, m.knee_out = m.lean + 0.08 + 0.08 * cross + 0.05 * jab, m.knee_out + 0.1
    m.flex = m.flex + 0.55 + (0.85 + m.draw(-0.1, 0.12)[:, None]) * hit
    m.out, m.inward = m.out + 0.1 - 0.1 * hit, m.inward - 0.05 + 0.3 * hit
    m.elbow, m.wrist = m.elbow + 1.75 - 1.75 * hit, m.wrist - 0.1


def _throw(m: Motion) -> None:
    u = m.phase(2.0, 2.7) % 1
    wind, go = _pulse(u, 0, 0.3, 0.36, 0.5), _pulse(u, 0.34, 0.52, 0.6, 0.88)
    step = _pulse(u, 0.23, 0.42, 0.72, 0.9)  # the other foot steps out and comes back
    way = m.draw(0.2, 0.38) * step
    m.toe_z = m.toe_z + _pair(way, 0)
    m.toe_y = m.toe_y + _pair(0.09 * _pulse(u, 0.2, 0.3, 0.36, 0.45) + 0.07 * _pulse(u, 0.69, 0.78, 0.84, 0.93), 0)
    m.heel = m.heel + _pair(0, 0.6 * _pulse(u, 0.4, 0.55, 0.64, 0.76))
    m.z, m.x = m.z - 0.06 * wind + 0.65 * way * go, m.x - 0.05 * wind + 0.03 * go
    m.y = -0.03 * wind - 0.05 * go
    m.yaw, m.twist = m.yaw - 0.45 * wind + 0.3 * go, m.twist - 0.45 * wind + 0.35 * go
    m.look = m.look + 0.75 * wind - 0.5 * go
    m.pitch, m.lean = -0.06 * wind + 0.12 * go, m.lean - 0.1 * wind + 0.3 * go
    cock = 2.2 * m.draw(0.9, 1.1)
    flex = _keys(u, (0, 0.05), (0.18, 0.9), (0.34, cock), (0.46, 1.9), (0.56, 0.7), (0.64, 0.4), (0.88, 0.05))
    out = _keys(u, (0, 0.15), (0.18, 0.7), (0.34, 1.3), (0.46, 0.75), (0.56, 0.0), (0.64, -0.05), (0.88, 0.15))
    elbow = _keys(u, (0, 0.35), (0.18, 1.2), (0.36, 1.6), (0.48, 0.35), (0.6, 0.3), (0.88, 0.35))
    m.flex = _pair(m.flex[:, 0] + 1.15 * wind - 0.25 * go, m.flex[:, 1] + flex)
    m.out = _pair(m.out[:, 0] + 0.3 * wind + 0.1 * go, out)
    m.elbow = _pair(m.elbow[:, 0] + 0.2 * wind + 0.5 * go, elbow)
    m.inward = _pair(m.inward[:, 0], 0.4 * (1 - wind))


def _wave(m: Motion) -> None:
    raised = 1 - _pulse(m.phase(3.6, 4.8) % 1, 0, 0.2, 0.25, 0.45)
    beat = np.sin(2 * np.pi * (m.t / m.draw(0.5, 0.75) + m.draw(0, 1))) * raised
    high = m.draw(1.2, 1.75)
    m.out = m.out + _pair(0, (high - 0.3) * raised)
    m.flex = m.flex + _pair(0, (1.2 + 0.12 * high) * raised)
    m.elbow = m.elbow + _pair(0, 1.05 * raised + m.draw(0.35, 0.6) * beat)
    m.inward, m.wrist = m.inward * _pair(1, 1 - raised), m.wrist + _pair(0, 0.3 * beat)
    m.x, m.bend, m.roll = m.x + 0.03 * raised, m.bend - 0.05 * raised + 0.02 * beat, m.roll + 0.03 * raised


def _clap(m: Motion) -> None:
    beat = 0.5 - 0.5 * np.cos(2 * np.pi * m.phase(0.5, 0.8))
    elbow, close = 1.45 + m.draw(-0.15, 0.15), 0.12  # ``close``: how far the upper arm stands out when the hands meet
    # The forearms turn in until the palms meet, a hand's thickness from the midline: solve for that turn on this body.
    gap = m.body.shoulder_width + m.body.upper_arm * np.sin(close) - 0.025
    turn = (gap / (m.body.forearm + m.body.hand) + np.cos(elbow) * np.sin(close)) / (np.sin(elbow) * np.cos(close))
    meet = np.arcsin(np.clip(turn, 0, 0.97))
    m.flex = m.flex + (m.draw(0.45, 0.8) + 0.08 * beat)[:, None]
    m.out = _pair(close + 0.22 * beat, close + 0.22 * beat)
    m.elbow = _pair(elbow - 0.12 * beat, elbow - 0.12 * beat)
    m.inward = np.zeros_like(m.inward) + (meet - 0.6 * m.body.swing * beat)[:, None]
    m.wrist = np.zeros_like(m.wrist)
    m.y, m.nod, m.twist = -0.008 * (1 - beat), m.nod + 0.04 * beat, m.twist + m.wander(0.1, 0.4)


def _bow(m: Motion) -> None:
    down = _pulse(m.phase(2.6, 3.6) % 1, 0, 0.38, 0.55, 0.92) * m.draw(0.7, 1.15)
    m.pitch, m.lean, m.nod, m.look = 0.6 * down, m.lean + 0.6 * down, m.nod + 0.15 * down, 0.4 * m.look
    m.z, m.y = m.z - 0.1 * down, -0.015 * down  # the hips go back so that the weight stays over the feet
    m.flex, m.elbow = m.flex + (m.draw(0.3, 0.9) * down)[:, None], m.elbow + 0.1 * down[:, None]


def _raise_arms(m: Motion) -> None:
    up = _pulse(m.phase(2.2, 3.4) % 1, 0, 0.4, 0.55, 0.95)
    sideways, high = m.draw(0, 1) < 0.5, m.draw(2.4, 2.85)
    m.flex = m.flex + np.where(sideways, 0, high * up)[:, None]
    m.out = m.out + np.where(sideways, (high - 0.15) * up, 0)[:, None]
    m.inward, m.elbow = m.inward * (1 - 0.8 * up[:, None]), m.elbow - 0.05 * up[:, None]
    m.pitch, m.lean, m.nod = -0.03 * up, m.lean - 0.1 * up, m.nod - 0.3 * up
    tiptoe = m.draw(0, 0.35) * up
    m.heel, m.y = m.heel + tiptoe[:, None], m.body.foot * 0.85 * tiptoe


ACTIONS: dict[str, Callable[[Motion], None]] = {
    "walk": _walk, "run": _run, "march": _march, "side_step": _side_step, "jump": _jump, "squat": _squat, "kick": _kick,
    "punch": _punch, "throw": _throw, "wave": _wave, "clap": _clap, "bow": _bow, "raise_arms": _raise_arms,
}  # fmt: skip

"""A synthetic motion set: labelled actions of Kinect-like people, computed from a seed.

An action writes control curves (angles, pelvis offsets, toe tracks), and ``_pose`` turns them into joints by forward kinematics;
legs follow the toes by two-bone inverse kinematics, so planted feet cannot slide. Local axes: x to the person's left, y up, z
forward. Arrays hold all N frames of one action, end to end; a last axis of 2 means (left, right). Units: m, radians, s.
"""

from collections.abc import Callable
from itertools import pairwise
from types import SimpleNamespace

import numpy as np

from datamodules.clip_set import ClipSet, Recording
from ddpm.memory import refuse_beyond_memory
from ddpm.skeleton import Skeleton

PERSONS = 24
SIDE = np.array([1.0, -1.0])  # sign of x on the left and on the right
TOE_HEIGHT = 0.025
STRAIGHT = 0.985  # hip-ankle distance of a standing leg, as a share of thigh + shank; people do not lock their knees
REACH = 0.996  # the most a leg may extend; below 1 because the knee would snap at full extension
DRAWS = 48  # uniform numbers for the motion of one recording; 6 more decide its length and place


def _people(rng: np.random.Generator) -> SimpleNamespace:
    """Bone lengths and habits of ``PERSONS`` people, 1.52 to 1.93 m tall; widths and drops are those of one side."""
    u = rng.random((PERSONS, 12)).T
    height = 1.52 + 0.41 * (rng.permutation(PERSONS) + u[0]) / PERSONS  # stratified: never all short or all tall
    leg, arm = height * (0.97 + 0.06 * u[1]), height * (0.96 + 0.08 * u[2])
    ankle, thigh, shank, hip_drop = 0.047 * height, 0.243 * leg, 0.238 * leg, 0.043 * height
    torso = 0.822 * height - ankle - STRAIGHT * (thigh + shank) - hip_drop  # a long-legged person has a short trunk
    return SimpleNamespace(
        ankle=ankle, foot=0.085 * height, shank=shank, thigh=thigh,
        hip_width=height * (0.044 + 0.012 * u[3]), hip_drop=hip_drop, waist=0.26 * torso, chest=0.74 * torso,
        neck=0.112 * height, shoulder_width=height * (0.095 + 0.018 * u[4]), shoulder_drop=0.03 * height,
        upper_arm=0.162 * arm, forearm=0.142 * arm, hand=0.048 * arm,
        lean=-0.01 + 0.08 * u[5], arm_out=0.12 + 0.12 * u[6], elbow=0.2 + 0.25 * u[7], toe_out=0.05 + 0.2 * u[8],
        swing=0.85 + 0.3 * u[9], tempo=0.9 + 0.2 * u[10],
    )  # fmt: skip


class _Motion:
    """Control curves of N frames, set to a person who stands and breathes; an action changes them.

    ``t`` is the ``(N,)`` time in each frame's recording, ``row`` the number of that recording, ``body`` has one value per frame,
    ``uniform`` is ``(recordings, DRAWS)`` in [0, 1).
    """

    def __init__(self, t: np.ndarray, row: np.ndarray, uniform: np.ndarray, body: SimpleNamespace) -> None:
        self.t, self.body, self._row, self._columns = t, body, row, iter(uniform.T)
        zero, pair = np.zeros_like(t), np.zeros((len(t), 2))
        # Pelvis: place relative to standing upright at the origin, and angles (pitch > 0 bends forward).
        self.x, self.z = self.wander(0.008, 0.3), self.wander(0.008, 0.3)
        self.y, self.yaw, self.pitch, self.roll = zero, self.wander(0.02, 0.25), zero, self.wander(0.012, 0.25)
        # Trunk relative to the pelvis, head relative to the trunk.
        breath = 0.012 * np.sin(2 * np.pi * (0.28 * t + self.draw(0, 1)))
        self.twist, self.lean, self.bend = self.wander(0.02, 0.3), body.lean + breath, self.wander(0.01, 0.3)
        self.look, self.nod = self.wander(0.15, 0.2), 0.1 + self.wander(0.05, 0.3)
        # Toes: ground track, height over rest, extra downward pitch of the foot (heel up), and how far the knees open.
        stance = 1.1 * body.hip_width + 0.5 * body.foot * np.sin(body.toe_out) + self.draw(0.0, 0.05)
        self.toe_x = SIDE * stance[:, None]
        self.toe_z = pair + (0.6 * body.foot)[:, None] + 0.5 * SIDE * self.draw(-0.05, 0.05)[:, None]
        self.toe_y, self.heel, self.knee_out = pair, pair, body.toe_out
        # Arms: swing forward, raise sideways, bend the elbow, turn the forearm inwards, bend the wrist.
        self.flex = np.stack([0.02 + self.wander(0.03, 0.4), 0.02 + self.wander(0.03, 0.4)], -1)
        self.out = pair + body.arm_out[:, None]
        self.elbow = pair + body.elbow[:, None] + breath[:, None]
        self.inward, self.wrist = pair + 0.4, pair + 0.15
        self.curvature = zero  # of the path, 1/m; > 0 turns left

    def draw(self, low: float, high: float) -> np.ndarray:
        """``(N,)`` one uniform number per recording, repeated over its frames."""
        return (low + (high - low) * next(self._columns))[self._row]

    def wander(self, size: float, hertz: float) -> np.ndarray:
        """``(N,)`` slow smooth noise within +-size."""
        a, b = self.draw(0, 1), self.draw(0, 1)
        slow = np.sin(2 * np.pi * (hertz * (0.7 + 0.6 * b) * self.t + a))
        return size * (0.6 * slow + 0.4 * np.sin(2 * np.pi * (1.7 * hertz * (0.7 + 0.6 * a) * self.t + b)))

    def phase(self, shortest: float, longest: float) -> np.ndarray:
        """``(N,)`` cycles since before the start, for a random period and start."""
        return self.t / (self.draw(shortest, longest) * self.body.tempo) + self.draw(0, 1)


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


def _steps(
    m: _Motion, phase: np.ndarray, duty: float, lift: np.ndarray, off: float, mid: float, wait: float = 0.09
) -> np.ndarray:
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


def _locomote(m: _Motion, phase: np.ndarray, duty: float, stride: np.ndarray, sway: float, arm: np.ndarray) -> None:
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


def _walk(m: _Motion) -> None:
    duty, phase, stride = 0.6, m.phase(0.98, 1.3), m.draw(1.05, 1.45) * (m.body.thigh + m.body.shank)
    step = _steps(m, phase, duty, m.draw(0.055, 0.08), 0.75, 0.55)
    m.toe_z = m.toe_z + stride[:, None] * (step - np.array([0.0, 0.5]))
    m.toe_x = 0.75 * m.toe_x
    _locomote(m, phase, duty, stride, 0.025, m.draw(0.3, 0.55) * m.body.swing)
    m.y = -0.028 * stride * (1 - np.cos(4 * np.pi * (phase - duty / 2)))  # lowest with both feet down
    m.curvature = m.draw(-0.25, 0.25)


def _run(m: _Motion) -> None:
    duty, phase, stride = 0.36, m.phase(0.66, 0.78), m.draw(1.75, 2.15) * (m.body.thigh + m.body.shank)
    step = _steps(m, phase, duty, m.draw(0.2, 0.3), 0.8, 1.3, wait=0.035)
    m.toe_z = m.toe_z + stride[:, None] * (step - np.array([0.0, 0.5]))
    m.toe_x = 0.6 * m.toe_x
    _locomote(m, phase, duty, stride, 0.012, m.draw(0.5, 0.75) * m.body.swing)
    m.y = -0.065 - 0.035 * np.cos(4 * np.pi * (phase - duty / 2))  # lowest in the middle of a stance
    m.elbow, m.flex, m.lean = m.elbow + 1.0, m.flex - 0.15, m.lean + m.draw(0.08, 0.18)
    m.inward, m.out = m.inward - 0.2, m.out + 0.12
    m.curvature = m.draw(-0.12, 0.12)


def _march(m: _Motion) -> None:
    duty, phase = 0.52, m.phase(0.95, 1.25)
    _steps(m, phase, duty, m.draw(0.2, 0.34) * m.body.swing, 0.4, 0.5)
    _locomote(m, phase + (1 - duty) / 2, duty, np.zeros_like(phase), 0.0, m.draw(0.5, 0.8))  # the high knee leads
    stance = np.cos(2 * np.pi * (phase - duty / 2))
    m.x, m.roll, m.bend = m.x + 0.035 * stance, 0.04 * stance, -0.05 * stance
    m.y = -0.012 * (1 + np.cos(4 * np.pi * (phase - 0.02)))
    m.elbow = m.elbow + 0.3


def _side_step(m: _Motion) -> None:
    duty, phase, stride = 0.6, m.phase(1.0, 1.4), m.draw(0.3, 0.5)
    step = _steps(m, phase, duty, m.draw(0.06, 0.1), 0.25, 0.3)
    m.toe_x = m.toe_x + stride[:, None] * (step + np.array([0.0, -1.0]))
    m.x = m.x + stride * (phase - 0.25 - duty / 2)
    m.y = -0.05 - 0.02 * np.cos(4 * np.pi * phase)
    m.bend, m.lean = m.bend + 0.05 * np.sin(2 * np.pi * phase), m.lean + 0.05
    spread = 0.25 * m.body.swing * (1 - np.cos(2 * np.pi * (phase - 0.05)))
    m.out, m.elbow, m.flex = m.out + spread[:, None], m.elbow + 0.35, m.flex + 0.2


def _jump(m: _Motion) -> None:
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


def _squat(m: _Motion) -> None:
    down = _pulse(m.phase(1.9, 2.8) % 1, 0, 0.42, 0.52, 0.92)
    drop = m.draw(0.5, 0.95) * m.body.thigh * down
    m.toe_x = m.toe_x + SIDE * m.draw(0.02, 0.1)[:, None]
    m.y, m.z = -drop, m.z - 0.32 * drop
    m.pitch, m.lean, m.nod = 0.9 * drop, m.lean + 1.1 * drop, m.nod - 1.1 * drop
    m.knee_out = m.knee_out + 0.35 * down
    m.flex = m.flex + (m.draw(1.1, 1.6) * down)[:, None]  # arms forward for balance
    m.elbow = m.elbow - 0.15 * down[:, None]


def _kick(m: _Motion) -> None:
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


def _punch(m: _Motion) -> None:
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


def _throw(m: _Motion) -> None:
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


def _wave(m: _Motion) -> None:
    raised = 1 - _pulse(m.phase(3.6, 4.8) % 1, 0, 0.2, 0.25, 0.45)
    beat = np.sin(2 * np.pi * (m.t / m.draw(0.5, 0.75) + m.draw(0, 1))) * raised
    high = m.draw(1.2, 1.75)
    m.out = m.out + _pair(0, (high - 0.3) * raised)
    m.flex = m.flex + _pair(0, (1.2 + 0.12 * high) * raised)
    m.elbow = m.elbow + _pair(0, 1.05 * raised + m.draw(0.35, 0.6) * beat)
    m.inward, m.wrist = m.inward * _pair(1, 1 - raised), m.wrist + _pair(0, 0.3 * beat)
    m.x, m.bend, m.roll = m.x + 0.03 * raised, m.bend - 0.05 * raised + 0.02 * beat, m.roll + 0.03 * raised


def _clap(m: _Motion) -> None:
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


def _bow(m: _Motion) -> None:
    down = _pulse(m.phase(2.6, 3.6) % 1, 0, 0.38, 0.55, 0.92) * m.draw(0.7, 1.15)
    m.pitch, m.lean, m.nod, m.look = 0.6 * down, m.lean + 0.6 * down, m.nod + 0.15 * down, 0.4 * m.look
    m.z, m.y = m.z - 0.1 * down, -0.015 * down  # the hips go back so that the weight stays over the feet
    m.flex, m.elbow = m.flex + (m.draw(0.3, 0.9) * down)[:, None], m.elbow + 0.1 * down[:, None]


def _raise_arms(m: _Motion) -> None:
    up = _pulse(m.phase(2.2, 3.4) % 1, 0, 0.4, 0.55, 0.95)
    sideways, high = m.draw(0, 1) < 0.5, m.draw(2.4, 2.85)
    m.flex = m.flex + np.where(sideways, 0, high * up)[:, None]
    m.out = m.out + np.where(sideways, (high - 0.15) * up, 0)[:, None]
    m.inward, m.elbow = m.inward * (1 - 0.8 * up[:, None]), m.elbow - 0.05 * up[:, None]
    m.pitch, m.lean, m.nod = -0.03 * up, m.lean - 0.1 * up, m.nod - 0.3 * up
    tiptoe = m.draw(0, 0.35) * up
    m.heel, m.y = m.heel + tiptoe[:, None], m.body.foot * 0.85 * tiptoe


ACTIONS: dict[str, Callable[[_Motion], None]] = {
    "walk": _walk, "run": _run, "march": _march, "side_step": _side_step, "jump": _jump, "squat": _squat, "kick": _kick,
    "punch": _punch, "throw": _throw, "wave": _wave, "clap": _clap, "bow": _bow, "raise_arms": _raise_arms,
}  # fmt: skip


def _axes(yaw: np.ndarray, pitch: np.ndarray, roll: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Left, up and forward unit vectors ``(N, 3)`` of a part turned by roll, then pitch, then yaw."""
    sy, cy, sp, cp, sr, cr = (f(a) for a in (yaw, pitch, roll) for f in (np.sin, np.cos))
    left = np.stack([cy * cr + sy * sp * sr, cp * sr, cy * sp * sr - sy * cr], -1)
    up = np.stack([sy * sp * cr - cy * sr, cp * cr, sy * sr + cy * sp * cr], -1)
    return left, up, np.stack([sy * cp, -sp, cy * cp], -1)


def _bend_path(x: np.ndarray, z: np.ndarray, k: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Carry (left, forward) offsets from a straight path onto an arc of curvature k: x, z and the heading there."""
    angle = k * z
    half = z * np.sinc(angle / (2 * np.pi))  # length of the chord, also for k = 0
    return half * np.sin(angle / 2) + x * np.cos(angle), half * np.cos(angle / 2) - x * np.sin(angle), angle


def _pose(m: _Motion) -> dict[str, np.ndarray]:
    """Joint name -> position ``(N, 3)``."""
    b = m.body
    x, z, heading = _bend_path(m.x, m.z, m.curvature)
    yaw = m.yaw + heading
    left, up, front = _axes(yaw, m.pitch, m.roll)
    hip = SIDE[:, None] * (b.hip_width[:, None] * left)[:, None] - (b.hip_drop[:, None] * up)[:, None]

    toe_x, toe_z, foot_yaw = _bend_path(m.toe_x, m.toe_z, m.curvature[:, None])
    foot_yaw = foot_yaw + SIDE * b.toe_out[:, None]
    tilt = np.arcsin((b.ankle - TOE_HEIGHT) / b.foot)[:, None] + m.heel
    toe = np.stack([toe_x, TOE_HEIGHT + m.toe_y, toe_z], -1)
    along = np.stack([np.cos(tilt) * np.sin(foot_yaw), -np.sin(tilt), np.cos(tilt) * np.cos(foot_yaw)], -1)
    ankle = toe - b.foot[:, None, None] * along

    # The pelvis sinks until both legs reach; a soft minimum keeps its speed continuous.
    leg = b.thigh + b.shank
    root = np.stack([x, b.ankle + STRAIGHT * leg + b.hip_drop + m.y, z], -1)
    span = ankle - root[:, None] - hip
    flat = span[..., 0] ** 2 + span[..., 2] ** 2
    limit = ankle[..., 1] - hip[..., 1] + np.sqrt(np.maximum((REACH * leg[:, None]) ** 2 - flat, 1e-3))
    heights = np.concatenate([root[:, 1:2], limit], -1)
    least, width = heights.min(-1), 0.012
    root[:, 1] = least - width * np.log(np.exp((least[:, None] - heights) / width).sum(-1))

    hip = root[:, None] + hip
    span = ankle - hip
    length = np.sqrt((span**2).sum(-1, keepdims=True))
    span = span / length
    # The knee turns about an axis that follows the pelvis, opened outwards; so it points forward whatever the leg does.
    opened = (SIDE * np.sin(m.knee_out)[:, None])[..., None] * front[:, None]
    hinge = np.cos(m.knee_out)[:, None, None] * left[:, None] - opened
    ahead = np.cross(span, hinge)
    ahead /= np.sqrt((ahead**2).sum(-1, keepdims=True))
    thigh, shank = b.thigh[:, None, None], b.shank[:, None, None]
    part = (thigh**2 - shank**2 + length**2) / (2 * length)
    knee = hip + part * span + np.sqrt(thigh**2 - part**2) * ahead

    pitch, roll = m.pitch + m.lean, m.roll + m.bend
    spine = root + b.waist[:, None] * _axes(yaw + 0.4 * m.twist, m.pitch + 0.4 * m.lean, m.roll + 0.4 * m.bend)[1]
    left, up, front = _axes(yaw + m.twist, pitch, roll)
    neck = spine + b.chest[:, None] * up
    head = neck + b.neck[:, None] * _axes(yaw + m.twist + m.look, 0.8 * pitch + m.nod, 0.5 * roll)[1]

    shoulder = neck[:, None] + SIDE[:, None] * (b.shoulder_width[:, None] * left)[:, None]
    shoulder -= (b.shoulder_drop[:, None] * up)[:, None]
    (sa, ca), (sb, cb), (si, ci) = ((np.sin(a), np.cos(a)) for a in (m.flex, m.out, m.inward))
    frame = np.stack([left, up, front], 1)  # rows are the axes of the trunk
    upper = np.stack([SIDE * sb, -cb * ca, cb * sa], -1) @ frame
    # The direction in which the elbow bends: forward on a hanging arm, turned towards the midline by ``inward``.
    curl = np.stack([-SIDE * si * cb, ci * sa - si * sb * ca, ci * ca + si * sb * sa], -1) @ frame

    def bent(angle: np.ndarray) -> np.ndarray:
        return np.cos(angle)[..., None] * upper + np.sin(angle)[..., None] * curl

    elbow = shoulder + b.upper_arm[:, None, None] * upper
    wrist = elbow + b.forearm[:, None, None] * bent(m.elbow)
    hand = wrist + b.hand[:, None, None] * bent(m.elbow + m.wrist)
    pairs = dict(shoulder=shoulder, elbow=elbow, wrist=wrist, hand=hand, hip=hip, knee=knee, ankle=ankle, foot=toe)
    sides = {f"{side}_{name}": value[:, i] for name, value in pairs.items() for i, side in enumerate(("left", "right"))}
    return {"hip_center": root, "spine": spine, "shoulder_center": neck, "head": head, **sides}


def synthetic(skeleton: Skeleton, n: int = 895, fps: float = 20.0, seed: int = 0) -> ClipSet:
    """``n`` labelled recordings of 2.5 to 5 seconds, floor at y = 0; balanced classes, and every subject performs every action.

    Recording k depends on (seed, k, fps) alone, not on n.

    Raises:
        ConfigError: more than memory holds.
        ValueError: a value below its least, or a skeleton that is not 3-D, y-up, with some joints of ``kinect20``, in any order.
    """
    if n < 1 or not 0 < fps < np.inf or seed < 0:
        raise ValueError(f"synthetic: n must be at least 1, fps positive and seed at least 0, got n={n}, fps={fps}, seed={seed}")
    refuse_beyond_memory(f"data.n={n} at data.fps={fps}", n * (500 + 4 * fps * 700), "make fewer")
    if skeleton.coords != 3 or skeleton.up != "y":
        raise ValueError(f"synthetic: needs a 3-D skeleton with up=y, got coords={skeleton.coords}, up={skeleton.up!r}")
    people = _people(np.random.default_rng([seed, 0]))
    uniform = np.random.default_rng([seed, 1]).random((n, DRAWS + 6))  # row k does not depend on n
    person = np.arange(n) // len(ACTIONS) % PERSONS
    frames = np.maximum(np.rint(fps * (2.5 + 2.5 * uniform[:, 0])), 1).astype(int)
    recordings: dict[int, Recording] = {}
    for a, (action, play) in enumerate(ACTIONS.items()):
        rows = np.arange(a, n, len(ACTIONS))
        if len(rows) == 0:
            break
        row = np.repeat(np.arange(len(rows)), frames[rows])
        ends = np.cumsum(frames[rows])
        t = (np.arange(ends[-1]) - (ends - frames[rows])[row]) / fps
        body = SimpleNamespace(**{name: value[person[rows][row]] for name, value in vars(people).items()})
        motion = _Motion(t, row, uniform[rows, 6:], body)
        play(motion)
        joints = _pose(motion)
        if spare := sorted(set(skeleton.names) - set(joints)):
            raise ValueError(f"synthetic: makes the 20 Kinect joints, the skeleton has {spare} besides; use skeleton=kinect20")
        positions = _place(joints, skeleton.names, uniform[rows, 1:5][row])
        for k, clip in zip(rows.tolist(), np.split(positions, ends[:-1]), strict=True):
            recordings[k] = Recording(clip, f"synthetic/{action}_{k:04d}", action, f"p{person[k]:02d}")
    return ClipSet.from_recordings([recordings[k] for k in range(n)], fps=fps, skeleton=skeleton)


def _place(joints: dict[str, np.ndarray], names: tuple[str, ...], uniform: np.ndarray) -> np.ndarray:
    """``(N, joints, 3)`` float32, mirrored, turned and moved by the ``(N, 4)`` random numbers of each frame's recording."""
    other = {"left": "right", "right": "left"}
    mirrored = ["_".join(other.get(word, word) for word in name.split("_")) for name in names]
    own, opposite = (np.stack([joints[name] for name in order], 1) for order in (names, mirrored))
    x, y, z = np.moveaxis(np.where(uniform[:, :1, None] < 0.4, opposite * [-1, 1, 1], own), -1, 0)
    sin, cos = np.sin(2 * np.pi * uniform[:, 1:2]), np.cos(2 * np.pi * uniform[:, 1:2])
    moved_x = cos * x + sin * z + 3 * uniform[:, 2:3] - 1.5
    moved_z = cos * z - sin * x + 3 * uniform[:, 3:] - 1.5
    return np.stack([moved_x, y, moved_z], -1).astype(np.float32)

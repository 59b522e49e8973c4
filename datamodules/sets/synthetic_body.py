"""The people of the synthetic set: their bodies, and control curves posed on them by forward kinematics.

Legs follow the toes by two-bone inverse kinematics, so planted feet cannot slide. Local axes: x to the person's left, y up, z
forward. Arrays hold all N frames of one action, end to end; a last axis of 2 means (left, right). Units: m, radians, s.
"""

from types import SimpleNamespace

import numpy as np

PERSONS = 24
SIDE = np.array([1.0, -1.0])  # sign of x on the left and on the right
TOE_HEIGHT = 0.025
STRAIGHT = 0.985  # hip-ankle distance of a standing leg, as a share of thigh + shank; people do not lock their knees
REACH = 0.996  # the most a leg may extend; below 1 because the knee would snap at full extension
DRAWS = 48  # uniform numbers for the motion of one recording


def people(rng: np.random.Generator) -> SimpleNamespace:
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


class Motion:
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


def pose(m: Motion) -> dict[str, np.ndarray]:
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

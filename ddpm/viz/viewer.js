"use strict";
// Plays the clips in the page's data. Lengths are metres, y is up; a `frame` is a time, and may lie between two frames.

const STRIP = 20; // pixels above a figure, for its title
const SMALLEST = 120; // pixels: where cells would be smaller, there are several pages of them
const ZOOM_OUT = 1.6; // a clip that needs more than this many times the typical space gets a scale of its own
const FADED = 0.35; // strength of a clip that has ended
const NOTHING = { reach: 0, top: 0, low: 0 }; // metres that a clip takes on the floor around its camera, above and below it
const SMOOTH = 8; // frames before and after, over which the path is averaged that the camera follows

function bytes(base64) {
  return Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
}

/** The clips of the data: `points` with three numbers a joint, NaN where unknown, and what else is drawn and followed. */
function decode(data) {
  const joints = data.joints.length, coords = data.flat ? 2 : 3, root = data.parents.indexOf(-1);
  return data.clips.map((entry, index) => {
    const points = new Float32Array(3 * entry.frames * joints);
    new Int16Array(bytes(entry.positions).buffer).forEach((number, k) => {
      const axis = k % coords, place = entry.middle[axis] + number * entry.step;
      points[3 * Math.floor(k / coords) + axis] = number === data.missing ? NaN : place;
    });
    const bits = entry.given ? bytes(entry.given) : [];
    const given = (frame, joint) => { // the joint after the last one stands for the path
      const k = frame * (joints + 1) + joint;
      return bits.length > 0 && ((bits[k >> 3] >> (7 - (k & 7))) & 1) === 1;
    };
    const whole = [...Array(entry.frames).keys()].filter((frame) => data.joints.every((_, joint) => given(frame, joint)));
    const clip = { ...entry, index, points, joints, root, given, whole };
    const pair = data.paired ? { group: index >> 1, real: index % 2 === 0 } : { group: index, real: false };
    return { ...clip, ...pair, edited: bits.some((byte) => byte > 0), finite: points.every(Number.isFinite), path: smoothPath(clip) };
  });
}

/** Where the root is over the ground, [x, z] a frame, without its swaying; its last known place where it is unknown. */
function smoothPath({ points, joints, root, frames, middle }) {
  let known = [middle[0], middle[2] ?? 0];
  const path = Array.from({ length: frames }, (_, frame) => {
    const k = 3 * (frame * joints + root);
    return (known = Number.isFinite(points[k]) ? [points[k], points[k + 2]] : known);
  });
  return path.map((_, frame) => {
    const wide = Math.min(SMOOTH, frame, frames - 1 - frame); // as far on both sides: at the ends nothing lags
    const near = path.slice(frame - wide, frame + wide + 1);
    return [0, 1].map((axis) => near.reduce((sum, place) => sum + place[axis], 0) / near.length);
  });
}

/** A frame is shown until the next one would begin. */
function ended(clip, frame) {
  return frame >= clip.frames;
}

/** The numbers at a time, given a frame's; after the last frame its own. */
function between(clip, frame, numbersOf) {
  const last = clip.frames - 1, first = Math.min(Math.floor(frame), last), share = first === last ? 0 : frame - first;
  const before = numbersOf(first), after = numbersOf(Math.min(first + 1, last));
  return before.map((value, k) => (share === 0 ? value : value + share * (after[k] - value)));
}

/** The pose at a time, three numbers a joint. */
function pose(clip, frame) {
  const width = 3 * clip.joints;
  return between(clip, frame, (whole) => clip.points.subarray(whole * width, (whole + 1) * width));
}

/** The point over which a camera stands, [x, z]: it goes along, or stands where a clip that has a cell to itself is around. */
function originOf(clip, frame, follow, alone) {
  if (follow) return between(clip, frame, (whole) => clip.path[whole]);
  return alone ? [clip.middle[0], clip.middle[2] ?? 0] : clip.path[0];
}

/** How far a clip gets from that point over the ground, and how high and low. */
function extentOf(clip, follow, alone) {
  let extent = NOTHING;
  for (let frame = 0; frame < clip.frames; frame++) {
    const [x, z] = originOf(clip, frame, follow, alone);
    for (let k = 3 * frame * clip.joints; k < 3 * (frame + 1) * clip.joints; k += 3) {
      const reach = Math.hypot(clip.points[k] - x, clip.points[k + 2] - z), height = clip.points[k + 1] - clip.ground;
      if (Number.isFinite(reach)) extent = merged(extent, { reach, top: height, low: height });
    }
  }
  return extent.reach + extent.top > 1e-3 ? extent : { reach: 0.5, top: 1, low: 0 };
}

function merged(a, b) {
  return { reach: Math.max(a.reach, b.reach), top: Math.max(a.top, b.top), low: Math.min(a.low, b.low) };
}

/** Pixels a metre that show all of an extent in a box from any side, leaving a margin. */
function scaleFor({ reach, top, low }, box, rise) {
  const height = (top - low) * Math.cos(rise) + 2 * reach * Math.sin(rise);
  return 0.94 * Math.min(box.w / Math.max(2 * reach, 1e-9), (box.h - STRIP) / Math.max(height, 1e-9));
}

/** One scale and floor for all, so that bodies can be compared; a clip that needs far more space than is typical has its own. */
function fittings(extents, box, rise) {
  const scales = extents.map((extent) => scaleFor(extent, box, rise));
  const typical = [...scales].sort((a, b) => b - a)[(scales.length - 1) >> 1];
  const usual = (_, i) => scales[i] * ZOOM_OUT >= typical;
  const common = extents.filter(usual).reduce(merged, NOTHING), scale = scaleFor(common, box, rise);
  return extents.map((extent, i) => (usual(extent, i) ? { ...common, scale } : { ...extent, scale: scales[i], smaller: true }));
}

/** A parallel projection, turned about the vertical and raised: rows of the camera's right, its up, and the way to it. */
function cameraAt(turn, rise) {
  const s = Math.sin(turn), c = Math.cos(turn), sr = Math.sin(rise), cr = Math.cos(rise);
  return [[c, 0, -s], [-sr * s, cr, -sr * c], [cr * s, sr, cr * c]];
}

/** Pixels to the right and down, and metres towards the camera, of a point. */
function project(view, x, y, z) {
  const dx = x - view.origin[0], dy = y - view.ground, dz = z - view.origin[1];
  const [right, up, depth] = view.camera.map((row) => row[0] * dx + row[1] * dy + row[2] * dz);
  return [view.x + view.scale * right, view.y - view.scale * up, depth];
}

function projectJoint(view, points, joint) {
  return project(view, points[3 * joint], points[3 * joint + 1], points[3 * joint + 2]);
}

/** Columns and rows of cells, as large as they can be; members of a group stay in one row. */
function layout(n, group, width, height) {
  let best = { size: 0 };
  for (let columns = group; columns < n + group; columns += group) {
    const rows = Math.ceil(n / columns), size = Math.min(width / columns, height / rows - STRIP);
    if (size > best.size) best = { columns, rows, size };
  }
  if (best.size >= SMALLEST || n <= group) return { columns: group, rows: 1, ...best };
  const columns = group * Math.max(1, Math.floor(width / SMALLEST / group));
  return { columns, rows: Math.max(1, Math.floor(height / (SMALLEST + STRIP))) };
}

/** A colour of the data, between paper (0) and itself (1). */
function tinted({ colours }, name, strength) {
  const mix = colours[name].map((value, k) => Math.round(colours.paper[k] + strength * (value - colours.paper[k])));
  return `rgb(${mix.join(",")})`;
}

function line(ctx, from, to, colour, width) {
  Object.assign(ctx, { strokeStyle: colour, lineWidth: width, lineCap: "round" });
  ctx.beginPath();
  ctx.moveTo(from[0], from[1]);
  ctx.lineTo(to[0], to[1]);
  ctx.stroke();
}

function disc(ctx, [x, y], radius, colour, flatness = 1) {
  ctx.fillStyle = colour;
  ctx.beginPath();
  ctx.ellipse(x, y, radius, radius * flatness, 0, 0, 2 * Math.PI);
  ctx.fill();
}

/** The floor within reach: a disc with squares, in 2-D a line with a dot at each of their corners. */
function drawFloor(ctx, { data, square }, view) {
  const { reach } = view, split = reach > 6 * square ? 1 : 5, ink = (name) => tinted(data, name, 1);
  const step = (square / split) * 10 ** Math.max(0, Math.ceil(Math.log10(reach / square / 60))); // at most 120 lines
  const at = (dx, dz) => project(view, view.origin[0] + dx, view.ground, view.origin[1] + dz);
  if (data.flat) line(ctx, at(-reach, 0), at(reach, 0), ink("line"), 2);
  else disc(ctx, at(0, 0), reach * view.scale, ink("floor"), view.camera[2][1]);
  for (const axis of data.flat ? [0] : [0, 1]) {
    for (let k = Math.ceil((view.origin[axis] - reach) / step); k * step <= view.origin[axis] + reach; k++) {
      const off = k * step - view.origin[axis], half = Math.sqrt(Math.max(reach ** 2 - off ** 2, 0)), whole = k % split === 0;
      const [from, to] = axis ? [at(-half, off), at(half, off)] : [at(off, -half), at(off, half)];
      if (!data.flat) line(ctx, from, to, ink(whole ? "shadow" : "line"), 1);
      else if (whole) disc(ctx, at(off, 0), 2.5, ink("shadow"));
    }
  }
}

/** On the floor: the shadow, and the path of the root up to now; a path that was given is there from the beginning. */
function drawShadow(ctx, { data, state }, { clip, view, points }) {
  if (data.flat) return;
  const ink = (name) => tinted(data, name, view.strength);
  const on = (from, k) => project(view, from[3 * k], view.ground, from[3 * k + 2]);
  data.parents.forEach((parent, joint) => {
    if (parent >= 0) line(ctx, on(points, joint), on(points, parent), ink("shadow"), view.limb);
  });
  for (let frame = 1; frame < clip.frames && state.trails > 0; frame++) {
    const given = clip.given(frame - 1, clip.joints) && clip.given(frame, clip.joints);
    const [from, to] = [frame - 1, frame].map((f) => on(clip.points, f * clip.joints + clip.root));
    if (given || frame <= state.frame) line(ctx, from, to, ink(given ? "given" : "trail"), given ? 2 : 1);
  }
}

/** Where hands, feet and whatever else ends a limb were during the last second. */
function drawTracks(ctx, { data, state }, { clip, view }) {
  const last = Math.min(Math.floor(state.frame), clip.frames - 1);
  for (let frame = Math.max(1, last - Math.round(data.fps)); frame <= last; frame++) {
    const strength = view.strength * (0.7 - (0.6 * (last - frame)) / data.fps);
    data.sides.forEach((side, joint) => {
      const [from, to] = [frame - 1, frame].map((f) => projectJoint(view, clip.points, f * clip.joints + joint));
      if (!data.parents.includes(joint)) line(ctx, from, to, tinted(data, side, strength), 1.5);
    });
  }
}

/** The bones of a pose, to be sorted by depth: in a colour, or in those of their sides, grey where both ends are `given`. */
function bonesOf({ data }, { clip, view }, points, { colour, given = () => false, halo = 0 }) {
  return data.parents.flatMap((parent, joint) => {
    const [from, to] = [joint, Math.max(parent, 0)].map((end) => projectJoint(view, points, end));
    if (parent < 0 || !Number.isFinite(from[0] + to[0])) return [];
    const held = [given(joint), given(parent)], side = clip.edited && data.sides[joint] === "centre" ? "made" : data.sides[joint];
    const [dots, own] = held[0] && held[1] ? [[], "given"] : [[from, to].filter((_, end) => held[end]), side];
    const bone = { from, to, dots, halo, colour: colour ?? own, depth: from[2] + to[2], width: view.limb, strength: view.strength };
    return [{ ...bone, head: joint === data.head }];
  });
}

function drawBone(ctx, { data }, { from, to, dots, halo, colour, width, strength, head }) {
  const ink = (name) => tinted(data, name, strength), length = Math.hypot(to[0] - from[0], to[1] - from[1]);
  if (halo) { // parts a limb from what lies behind it, but not from its joints
    const cut = Math.min((1.2 * width) / Math.max(length, 1e-9), 0.5), rim = [0, 1].map((k) => cut * (to[k] - from[k]));
    line(ctx, [from[0] + rim[0], from[1] + rim[1]], [to[0] - rim[0], to[1] - rim[1]], ink("paper"), width + halo);
    if (head) disc(ctx, from, 1.9 * width + halo / 2, ink("paper"));
  }
  line(ctx, from, to, ink(colour), width);
  if (head) disc(ctx, from, 1.9 * width, ink(colour));
  for (const dot of dots) disc(ctx, dot, 0.65 * width, ink("given"));
}

/** The names of the joints, those in front first; a name that would lie over another one is left out. */
function drawNames(ctx, { data }, { view, points }, box) {
  const taken = [], places = data.joints.map((name, joint) => [name, ...projectJoint(view, points, joint)]);
  Object.assign(ctx, { font: "11px system-ui, sans-serif", fillStyle: tinted(data, "ink", 1) });
  Object.assign(ctx, { strokeStyle: tinted(data, "paper", 1), lineWidth: 3, lineJoin: "round" });
  for (const [name, x, y] of places.filter(([, x]) => Number.isFinite(x)).sort((a, b) => b[3] - a[3])) {
    const width = ctx.measureText(name).width, left = Math.min(x + 7, box.x + box.w - width - 2);
    if (taken.some((other) => Math.abs(other.y - y) < 12 && left < other.right && other.left < left + width)) continue;
    taken.push({ y, left, right: left + width });
    ctx.strokeText(name, left, y + 4);
    ctx.fillText(name, left, y + 4);
  }
}

function shortened(ctx, text, width) {
  while (text.length > 1 && ctx.measureText(text).width > width) text = `${text.replace(/…$/, "").slice(0, -1)}…`;
  return text;
}

function drawCell(ctx, page, { cell, fits, x, y, w, h }) {
  const { state, data } = page, { frame, zoom } = state, alone = cell.length === 1, small = Math.min(w, h);
  ctx.save();
  ctx.beginPath();
  ctx.rect(x, y, w, h);
  ctx.clip();
  // What was edited lies over its source, so that one sees where they agree; others stand on one spot and face one way.
  const lead = cell.some((clip) => clip.edited) ? cell[0] : null;
  const { reach, top, low, scale, smaller } = fits.reduce((a, b) => (a.scale < b.scale ? a : b));
  const bodies = cell.map((clip) => {
    const { turn, ground } = lead ?? clip, camera = cameraAt(data.flat ? 0 : turn + data.camera[0] + state.turn, state.rise);
    const view = { camera, ground, reach, scale: scale * zoom, origin: originOf(lead ?? clip, frame, state.follow, alone) };
    view.x = x + w / 2 + state.pan[0];
    view.y = y + (h + STRIP) / 2 + ((top + low) / 2) * camera[1][1] * view.scale + state.pan[1];
    view.strength = ended(clip, frame) ? FADED : 1;
    view.limb = Math.min(Math.max(0.26 * clip.bone * view.scale, 0.007 * small), 0.026 * small * zoom);
    return { clip, view, points: pose(clip, frame) };
  });
  drawFloor(ctx, page, bodies[0].view);
  for (const body of bodies) drawShadow(ctx, page, body);
  if (state.trails === 2) for (const body of bodies) drawTracks(ctx, page, body);
  const bones = bodies.flatMap((body) => {
    const { clip, points } = body, now = Math.min(Math.floor(frame), clip.frames - 1), { whole } = clip;
    const keys = whole.includes(now) ? [] : [whole.findLast((key) => key < now), whole.find((key) => key > now)];
    for (const key of keys.filter((key) => key !== undefined)) { // ghosts: the nearest frames that were given
      for (const bone of bonesOf(page, body, pose(clip, key), { colour: "ghost" })) drawBone(ctx, page, bone);
    }
    const colour = clip.real && !alone ? "real" : null;
    return bonesOf(page, body, points, { colour, given: (joint) => clip.given(now, joint), halo: 0.014 * small });
  });
  for (const bone of bones.sort((a, b) => a.depth - b.depth)) drawBone(ctx, page, bone);
  if (state.names) drawNames(ctx, page, bodies.at(-1), { x, w });
  const over = cell.filter((clip) => ended(clip, frame)).length, strange = cell.some((clip) => !clip.finite);
  const title = cell.length > 2 ? `${cell.length} clips` : cell.map((clip) => clip.title).join(" over ");
  const seconds = alone && `${(cell[0].frames / data.fps).toFixed(2)} s`, end = over > 0 && (alone ? "ended" : `${over} ended`);
  const notes = [title, seconds, end, smaller && page.boxes.length > 1 && "drawn smaller", strange && "not finite"].filter(Boolean);
  Object.assign(ctx, { font: "12px system-ui, sans-serif", fillStyle: tinted(data, strange ? "warning" : "ink", 1) });
  ctx.fillText(shortened(ctx, notes.join(", "), w - 10), x + 5, y + 14);
  ctx.restore();
}

/** What is shown and how it changes: `draw` it, `press` a key, `seek` a frame, `drag`, `zoom`, `click`, or let seconds `pass`. */
function viewerOf(data, ctx) {
  const clips = decode(data), total = Math.max(...clips.map((clip) => clip.frames)), groups = 1 + clips.at(-1).group;
  const home = () => ({ turn: 0, rise: data.flat ? 0 : data.camera[1], zoom: 1, pan: [0, 0] });
  const state = {
    ...{ frame: 0, playing: true, speed: 1, page: 0, single: null, ...home() },
    ...{ follow: true, trails: 1, names: false, overlay: false, help: false },
  };
  const extents = {}; // by what they depend on
  const measured = (alone) => (extents[`${state.follow} ${alone}`] ??= clips.map((clip) => extentOf(clip, state.follow, alone)));
  const sizes = measured(true).map(({ reach, top, low }) => Math.max(2 * reach, top - low)).sort((a, b) => a - b);
  const square = 10 ** Math.floor(Math.log10(sizes[sizes.length >> 1]) + 0.35); // a metre under people, 0.1 m under hands
  const page = { data, clips, state, total, square, boxes: [], pages: 1 };

  /** What lies in each cell: a clip, or in overlay a clip and its real one, or all clips. */
  function cells() {
    const shown = clips.filter((clip) => state.single === null || clip.group === state.single);
    if (!state.overlay) return shown.map((clip) => [clip]);
    return data.paired ? shown.filter((clip) => clip.real).map((clip) => [clip, clips[clip.index + 1]]) : [shown];
  }
  page.draw = (width, height) => {
    const all = cells(), alone = all[0].length === 1, grid = state.single === null;
    const { columns, rows } = layout(all.length, data.paired && alone ? 2 : 1, width, height), each = columns * rows;
    page.pages = grid ? Math.ceil(all.length / each) : groups;
    state.page = Math.min(state.page, Math.ceil(all.length / each) - 1);
    const w = width / columns, h = height / rows, from = state.page * each, shown = all.flat();
    const fits = fittings(shown.map((clip) => measured(alone)[clip.index]), { w, h }, state.rise);
    page.boxes = all.slice(from, from + each).map((cell, i) => {
      const place = { x: (i % columns) * w, y: Math.floor(i / columns) * h, w, h };
      return { cell, fits: cell.map((clip) => fits[shown.indexOf(clip)]), ...place };
    });
    ctx.fillStyle = tinted(data, "paper", 1);
    ctx.fillRect(0, 0, width, height);
    for (const box of page.boxes) drawCell(ctx, page, box);
  };
  page.seek = (frame) => Object.assign(state, { playing: false, frame: Math.min(Math.max(frame, 0), total - 1) });
  page.pass = (seconds) => { state.frame = (state.frame + seconds * data.fps * state.speed) % total; };
  page.zoom = (factor) => { state.zoom = Math.min(Math.max(state.zoom * factor, 0.2), 20); };
  page.drag = (dx, dy, moves) => {
    if (moves || data.flat) state.pan = [state.pan[0] + dx, state.pan[1] + dy];
    else Object.assign(state, { turn: state.turn - 0.01 * dx, rise: Math.min(Math.max(state.rise + 0.01 * dy, 0), Math.PI / 2) });
  };
  page.click = (x, y) => {
    const hit = page.boxes.find((box) => x >= box.x && x < box.x + box.w && y >= box.y && y < box.y + box.h);
    state.single = state.single === null && hit && groups > 1 ? hit.cell[0].group : null;
  };
  const flip = (name) => () => { state[name] = !state[name]; };
  const turnTo = (by) => () => {
    const name = state.single === null ? "page" : "single";
    state[name] = (state[name] + by + page.pages) % page.pages;
  };
  page.keys = {
    " ": ["space      play, pause", flip("playing")],
    ArrowLeft: ["←          a frame back, with shift ten", (shift) => page.seek(Math.ceil(state.frame) - (shift ? 10 : 1))],
    ArrowRight: ["→          a frame on, with shift ten", (shift) => page.seek(Math.floor(state.frame) + (shift ? 10 : 1))],
    ArrowUp: ["↑          twice as fast", () => { state.speed = Math.min(2 * state.speed, 4); }],
    ArrowDown: ["↓          half as fast", () => { state.speed = Math.max(state.speed / 2, 0.125); }],
    o: ["o          one over the other, or side by side", flip("overlay")],
    f: ["f          the camera goes along, or stands", flip("follow")],
    t: ["t          path on the floor, tracks of the limbs too, or none", () => { state.trails = (state.trails + 1) % 3; }],
    n: ["n          names of the joints", flip("names")],
    r: ["r          camera as at first", () => Object.assign(state, home())],
    PageUp: ["page up    clips before", turnTo(-1)],
    PageDown: ["page down  further clips", turnTo(1)],
    Escape: ["escape     back", () => Object.assign(state, { single: null, help: false })],
    "?": ["?          this", flip("help")],
  };
  page.press = (key, shift = false) => {
    const found = page.keys[key] ?? page.keys[key.toLowerCase()];
    if (found) found[1](shift);
    return found !== undefined;
  };
  return page;
}

/** Connects a viewer with the elements of viewer.html. */
function start(window, document) {
  const $ = (id) => document.getElementById(id), all = (name) => [...document.querySelectorAll(`[data-${name}]`)];
  const canvas = $("canvas"), ctx = canvas.getContext("2d"), page = viewerOf(JSON.parse($("data").textContent), ctx);
  const { state, data } = page, pointers = new Map();
  let last = null, moved = 0, seen = "";

  function show() {
    $("play").textContent = state.playing ? "❚❚" : "▶";
    $("scrub").value = Math.min(state.frame, page.total - 1);
    $("time").textContent = `${(state.frame / data.fps).toFixed(2)} / ${(page.total / data.fps).toFixed(2)} s`;
    $("speed").value = state.speed;
    $("pages").hidden = page.pages === 1;
    $("number").textContent = `${(state.single ?? state.page) + 1} / ${page.pages}`;
    $("help").hidden = !state.help;
    const pressed = { o: state.overlay, f: state.follow, t: state.trails > 0, n: state.names, "?": state.help };
    for (const button of all("key")) {
      if (button.dataset.key in pressed) button.setAttribute("aria-pressed", pressed[button.dataset.key]);
    }
  }
  function tick(now) {
    if (state.playing && last !== null) page.pass(Math.min((now - last) / 1000, 0.1)); // what nobody sees stands still
    last = now;
    const ratio = window.devicePixelRatio || 1, width = canvas.clientWidth, height = canvas.clientHeight;
    const looks = JSON.stringify([state, width, height, ratio]);
    if (looks !== seen && width && height) {
      seen = looks;
      Object.assign(canvas, { width: Math.round(width * ratio), height: Math.round(height * ratio) });
      ctx.setTransform(ratio, 0, 0, ratio, 0, 0);
      page.draw(width, height);
      show();
    }
    window.requestAnimationFrame(tick);
  }

  for (const button of all("key")) {
    button.addEventListener("click", (event) => {
      page.press(button.dataset.key);
      if (event.detail) button.blur(); // after the mouse the space bar plays, after the keyboard it presses the button again
    });
  }
  const edited = page.clips.some((clip) => clip.edited), sided = data.sides.includes("left");
  const has = { left: sided, right: sided, centre: true, made: edited, given: edited, real: data.paired };
  for (const mark of all("colour")) {
    mark.hidden = !has[mark.dataset.colour];
    mark.style.color = tinted(data, mark.dataset.colour, 1);
  }
  $("note").textContent = `squares of ${page.square} m; drag, wheel or pinch; click enlarges; ? for the keys`;
  $("help").textContent = [...Object.values(page.keys).map(([text]) => text), "drag       turn; with shift, or two fingers, move",
    "wheel      zoom, as two fingers do", "click      one clip alone, and back"].join("\n");
  $("scrub").max = page.total - 1;
  $("scrub").addEventListener("input", () => page.seek(Number($("scrub").value)));
  $("speed").addEventListener("change", () => { state.speed = Number($("speed").value); });
  document.addEventListener("keydown", (event) => {
    const { tagName } = event.target, { key } = event;
    const own = tagName === "BUTTON" ? key === " " : tagName === "SELECT"; // these have keys of their own
    if (own || event.ctrlKey || event.metaKey || event.altKey) return;
    if (page.press(key, event.shiftKey)) event.preventDefault();
  });

  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    moved = pointers.size ? Infinity : 0;
    pointers.set(event.pointerId, [event.offsetX, event.offsetY]);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!pointers.has(event.pointerId)) return;
    const [x, y] = pointers.get(event.pointerId), dx = event.offsetX - x, dy = event.offsetY - y, two = pointers.size === 2;
    const gap = ([a, b]) => Math.max(Math.hypot(a[0] - b[0], a[1] - b[1]), 1), before = two ? gap([...pointers.values()]) : 1;
    pointers.set(event.pointerId, [event.offsetX, event.offsetY]);
    moved += Math.hypot(dx, dy);
    if (two) page.zoom(gap([...pointers.values()]) / before);
    page.drag(two ? dx / 2 : dx, two ? dy / 2 : dy, two || event.shiftKey || event.buttons === 2);
  });
  for (const name of ["pointerup", "pointercancel"]) {
    canvas.addEventListener(name, (event) => {
      if (pointers.delete(event.pointerId) && name === "pointerup" && moved < 5) page.click(event.offsetX, event.offsetY);
    });
  }
  canvas.addEventListener("contextmenu", (event) => event.preventDefault());
  canvas.addEventListener("wheel", (event) => {
    if (!document.hasFocus()) return; // in a report the page scrolls until one clicks here
    event.preventDefault();
    page.zoom(Math.exp(-0.0015 * event.deltaY * (event.deltaMode ? 16 : 1)));
  }, { passive: false });
  if (window.matchMedia("(prefers-reduced-motion: reduce)").matches) state.playing = false;
  window.requestAnimationFrame(tick);
}

if (typeof document !== "undefined") start(window, document);

// Runs the script of a page without a browser: node drive.js PAGE STEPS. Prints as JSON the clips that it read, and after each
// step what was drawn and what stands in the controls. A step is [element, event, its fields], [seconds] that pass, or ["eval", expression].
const fs = require("fs"), vm = require("vm");

const text = fs.readFileSync(process.argv[2], "utf8"), steps = JSON.parse(process.argv[3]);
const data = text.match(/<script id="data" type="application\/json">(.*?)<\/script>/s)[1];
const script = text.match(/<script>\n(.*?)<\/script>/s)[1];
const [WIDTH, HEIGHT] = (process.argv[4] ?? "800,600").split(",").map(Number);

let drawn, frame, now = 0;
const start = () => { drawn = { lines: [], texts: [], discs: [] }; };
start();
let from;
const context = {
  moveTo: (x, y) => { from = [x, y]; },
  lineTo: (x, y) => drawn.lines.push([...from, x, y, context.strokeStyle]),
  fillText: (words) => drawn.texts.push(words),
  ellipse: (x, y, radius) => drawn.discs.push([x, y, radius, context.fillStyle]),
  measureText: (words) => ({ width: 6 * words.length }),
  fillRect: start, // a new picture begins
};
for (const name of ["save", "restore", "beginPath", "rect", "clip", "stroke", "fill", "setTransform", "strokeText"]) context[name] = () => {};

function element(tag, dataset = {}) {
  const listeners = {};
  return {
    tagName: tag, dataset, style: {}, hidden: false, attributes: {}, clientWidth: WIDTH, clientHeight: HEIGHT,
    addEventListener: (name, act) => { listeners[name] = act; },
    fire: (name, fields) => listeners[name]({ preventDefault() {}, target: { tagName: "BODY" }, ...fields }),
    setAttribute(name, value) { this.attributes[name] = value; },
    getContext: () => context, setPointerCapture() {}, blur() {},
  };
}
const elements = {};
for (const [tag, id] of text.matchAll(/<(?:\w+)[^>]* id="(\w+)"/g)) elements[id] = element(tag);
elements.data.textContent = data;
const marked = (name) => [...text.matchAll(new RegExp(`data-${name}="([^"]+)"`, "g"))].map(([, value]) => element("", { [name]: value }));
const lists = { "[data-key]": marked("key"), "[data-colour]": marked("colour") };
const document = Object.assign(element("DOCUMENT"), {
  getElementById: (id) => elements[id], querySelectorAll: (selector) => lists[selector], hasFocus: () => true,
});
const window = { devicePixelRatio: 2, requestAnimationFrame: (tick) => { frame = tick; }, matchMedia: () => ({ matches: false }) };
const sandbox = vm.createContext({ document, window, atob });
vm.runInContext(script, sandbox);

const out = { clips: vm.runInContext("decode", sandbox)(JSON.parse(data)).map((clip) => [...clip.points]), seen: [], values: [] };
const look = () => {
  frame(now);
  const pressed = lists["[data-key]"].filter((button) => button.attributes["aria-pressed"]).map((button) => button.dataset.key);
  const { play, time, help, number, pages, note } = elements;
  const controls = { pressed, playing: play.textContent !== "▶", time: time.textContent, note: note.textContent };
  out.seen.push({ ...drawn, ...controls, help: !help.hidden, page: pages.hidden ? "" : number.textContent });
};
look();
for (const [what, event, fields] of steps) {
  if (event === undefined) {
    for (let passed = 0; passed < what - 1e-9; passed += 0.05) frame((now += 50));
  } else if (what === "eval") out.values.push(vm.runInContext(event, sandbox));
  else if (what === "key") document.fire("keydown", { key: event, ...fields });
  else if (what === "button") lists["[data-key]"].find((button) => button.dataset.key === event).fire("click", { detail: 1 });
  else {
    Object.assign(elements[what], fields.set);
    elements[what].fire(event, fields);
  }
  look();
}
console.log(JSON.stringify(out, (_, value) => (Number.isNaN(value) ? null : value)));

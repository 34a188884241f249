// Reads the data, draws what is in sight, and says what is under the pointer. Nothing is drawn that has no pixel of its own, so that the time
// for a picture depends on its size and not on the number of events.

const POLLED = 0, READY = 1, WAITS = 2;
const STATE = 18, SCOPE = 13, PAD = 7, AXIS = 24, MOST_LANES = 6, MOST_ARROWS = 400;

// ---- The model ----------------------------------------------------------------------------------------------------------------------------

/// The first index in `from..` whose value is above `value`; steps get longer, since it is near as a rule.
function above(values, value, from = 0) {
  let step = 1, low = from, high = from;
  while (high < values.length && values[high] <= value) { low = high + 1; high += step; step *= 2; }
  high = Math.min(high, values.length);
  while (low < high) {
    const middle = (low + high) >> 1;
    if (values[middle] <= value) low = middle + 1; else high = middle;
  }
  return low;
}

function read(data) {
  const tasks = data.tasks.map((task) => {
    const count = task.s.length / 6;
    const states = {
      count, kind: new Uint8Array(count), cut: new Uint8Array(count), begin: new Float64Array(count), end: new Float64Array(count),
      text: new Uint32Array(count), wake: new Int32Array(count), due: new Float64Array(count),
    };
    let at = 0, polls = 0, lanes = 0;
    const times = [0, 0, 0];
    for (let i = 0, j = 0; i < count; i++, j += 6) {
      const kind = task.s[j] & 3;
      at += task.s[j + 1];
      states.kind[i] = kind;
      states.cut[i] = task.s[j] >> 2;
      states.begin[i] = at;
      at += task.s[j + 2];
      states.end[i] = at;
      states.text[i] = task.s[j + 3];
      states.wake[i] = task.s[j + 4] - 1;
      states.due[i] = task.s[j + 5] - 1;
      times[kind] += task.s[j + 2];
      if (kind === POLLED) polls++;
    }
    const scopes = [];
    for (let j = 0; j < task.c.length; j += 6) {
      const [begin, length, text, cause, deadline, lane] = task.c.slice(j, j + 6);
      scopes.push({ begin, end: begin + length, text, cause: cause - 1, deadline: deadline - 1, lane });
      lanes = Math.max(lanes, Math.min(lane + 1, MOST_LANES));
    }
    return { id: task.i, name: task.n, place: task.p, begin: task.b, end: task.e, by: task.by, exited: task.x, states, scopes, lanes, polls, times };
  });
  const sources = data.sources.map((name) => ({ name, at: [], wakes: [] }));
  const count = data.wakes.length / 4;
  const wakes = { count, from: new Int32Array(count), at: new Float64Array(count), to: new Uint32Array(count), poll: new Uint32Array(count), seen: new Float64Array(count) };
  for (let i = 0, j = 0; i < count; i++, j += 4) {
    [wakes.from[i], wakes.at[i], wakes.to[i], wakes.poll[i]] = data.wakes.slice(j, j + 4);
    wakes.seen[i] = tasks[wakes.to[i]].states.begin[wakes.poll[i]];
    if (wakes.from[i] < 0) {
      const source = sources[-1 - wakes.from[i]];
      source.at.push(wakes.at[i]);
      source.wakes.push(i);
    }
  }
  // They come in the order of the polls.
  for (const source of sources) {
    source.wakes.sort((a, b) => wakes.at[a] - wakes.at[b]);
    source.at.sort((a, b) => a - b);
  }
  return { tasks, sources, wakes, texts: data.texts, length: Math.max(data.length, 1), dropped: data.dropped };
}

/// A length of time, as a person reads it.
function length(t) {
  const a = Math.abs(t);
  return a < 1e3 ? `${Math.round(t)} ns` : a < 1e6 ? `${+(t / 1e3).toFixed(2)} µs` : a < 1e9 ? `${+(t / 1e6).toFixed(3)} ms` : `${+(t / 1e9).toFixed(4)} s`;
}

/// Where lines of the scale are: 1, 2 or 5 times a power of ten apart.
function scaleStep(span, count) {
  const rough = span / Math.max(count, 1), power = 10 ** Math.floor(Math.log10(rough));
  return power * ([1, 2, 5, 10].find((step) => step * power >= rough) || 10);
}

const KINDS = [
  ["lock", /^(a lock|permits|a condition|others at a barrier)\b/], ["channel", /^(room in a channel|an item of a channel)\b/],
  ["io", /^(accept|connect|read from|write to)\b/], ["time", /^sleep\b/], ["children", /^(the children|a child to)\b/],
  ["foreign", /^something that is not/],
];

function kindOfWait(text) {
  const found = KINDS.find(([, pattern]) => pattern.test(text));
  return found ? found[0] : "other";
}

/// What it does who waits for that, as a person says it.
function does(text) {
  return /^sleep\b/.test(text) ? text.replace("sleep", "sleeps") : `waits ${/^(accept|connect|read|write)\b/.test(text) ? "to" : "for"} ${text}`;
}

const model = read(JSON.parse(document.getElementById("data").textContent));
const kinds = model.texts.map(kindOfWait);

// ---- What is seen -------------------------------------------------------------------------------------------------------------------------

const element = (id) => document.getElementById(id);
const view = element("view"), overview = element("overview"), scroll = element("scroll"), spacer = element("spacer"), tip = element("tip"), search = element("search");
const paint = view.getContext("2d"), paintOverview = overview.getContext("2d");
let from = 0, to = model.length, rows = [], rowOfTask = new Int32Array(model.tasks.length), rowOfSource = [], total = AXIS;
let width = 0, height = 0, left = 0, asked = false, colours = {}, bins = null;
let selected = null, hovered = null, range = null;

const scale = () => (width - left) / (to - from);
const x = (t) => left + (t - from) * scale();
const time = (px) => from + (px - left) / scale();
const name = (task) => `${task.name} (${task.place})`;
const whence = (code) => (code < 0 ? model.sources[-1 - code].name : name(model.tasks[code]));

/// The rows that the filter leaves, in order.
function arrange() {
  const words = search.value.trim().toLowerCase();
  let shown = model.tasks.map((_, index) => index);
  if (words) {
    const texts = model.texts.map((text) => text.toLowerCase().includes(words));
    shown = shown.filter((index) => {
      const task = model.tasks[index];
      return name(task).toLowerCase().includes(words) || task.states.text.some((text, i) => texts[text] && task.states.kind[i] === WAITS) || task.scopes.some((scope) => texts[scope.text] || (scope.cause >= 0 && texts[scope.cause]));
    });
  }
  const by = {
    seen: null, name: (a, b) => a.name.localeCompare(b.name, undefined, { numeric: true }), polled: (a, b) => b.times[POLLED] - a.times[POLLED],
    ready: (a, b) => b.times[READY] - a.times[READY], polls: (a, b) => b.polls - a.polls,
  }[element("order").value];
  if (by) shown.sort((a, b) => by(model.tasks[a], model.tasks[b]));
  rows = [];
  rowOfTask.fill(-1);
  let top = AXIS;
  model.sources.forEach((source, index) => {
    rowOfSource[index] = rows.length;
    rows.push({ source, top, height: 20 });
    top += 20;
  });
  for (const index of shown) {
    const task = model.tasks[index], tall = PAD + STATE + SCOPE * task.lanes;
    rowOfTask[index] = rows.length;
    rows.push({ task, index, top, height: tall });
    top += tall;
  }
  total = top + 8;
  const all = model.tasks.length;
  element("info").textContent = (shown.length < all ? `${shown.length.toLocaleString("en")} of ` : "") + `${all.toLocaleString("en")} task${all === 1 ? "" : "s"}, ${length(model.length)}`
    + (model.dropped ? `; ${model.dropped.toLocaleString("en")} earlier events are lost` : "");
  resize();
}

function leave() {
  hovered = null;
  tip.hidden = true;
}

function resize() {
  leave();
  spacer.style.height = "0";
  width = scroll.clientWidth;
  height = scroll.clientHeight;
  left = Math.round(Math.min(Math.max(width * 0.2, 90), 240));
  const dots = window.devicePixelRatio || 1;
  for (const [canvas, w, h] of [[view, width, height], [overview, overview.clientWidth, 40]]) {
    canvas.width = Math.round(w * dots);
    canvas.height = Math.round(h * dots);
    canvas.getContext("2d").setTransform(dots, 0, 0, dots, 0, 0);
  }
  view.style.width = `${width}px`;
  view.style.height = `${height}px`;
  spacer.style.height = `${Math.max(total - height, 0)}px`;
  bins = null;
  redraw();
}

/// The first row that ends below this.
function rowAt(y) {
  let low = 0, high = rows.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (rows[middle].top + rows[middle].height <= y) low = middle + 1; else high = middle;
  }
  return low;
}

function redraw() {
  if (!asked) {
    asked = true;
    requestAnimationFrame(() => { asked = false; draw(); });
  }
}

function clip(text, room) {
  const fits = Math.floor(room / 6.2);
  return fits < 3 ? "" : text.length <= fits ? text : `${text.slice(0, fits - 1)}…`;
}

/// The begin of a label, as much as there is room for.
function shorten(text, room) {
  if (paint.measureText(text).width <= room) return text;
  let fits = Math.min(text.length, Math.ceil(room / 3));
  while (fits > 1 && paint.measureText(`${text.slice(0, fits)}…`).width > room) fits--;
  return `${text.slice(0, fits)}…`;
}

function bar(x0, x1, y, tall, colour) {
  paint.fillStyle = colour;
  paint.fillRect(x0, y, Math.max(x1 - x0, 1.5), tall);
}

function drawStates(task, y) {
  const { kind, cut, begin, end, text, due, count } = task.states;
  let i = above(end, from);
  // One that is empty ends where it begins.
  while (i > 0 && end[i - 1] >= from) i--;
  while (i < count && begin[i] <= to) {
    const x0 = Math.max(x(begin[i]), left), x1 = Math.min(x(end[i]), width);
    if (x1 - x0 >= 1.5) {
      const wait = kind[i] === WAITS;
      const colour = wait ? (cut[i] ? colours.cutback : colours[kinds[text[i]]]) : kind[i] === POLLED ? colours.polled : colours.ready;
      const inset = wait ? 2 : 0;
      bar(x0, x1, y + inset, STATE - 2 * inset, colour);
      const label = kind[i] === WAITS ? model.texts[text[i]] : kind[i] === POLLED ? "polled" : "ready";
      const said = clip(label, x1 - x0 - 6);
      if (said) {
        paint.fillStyle = wait ? colours.text : kind[i] === POLLED ? colours.ontext : colours.onready;
        paint.fillText(said, x0 + 4, y + 13);
      }
      // It was due here.
      const at = x(begin[i] + due[i]);
      if (wait && due[i] >= 0 && at > x0 && at < x1 - 2) bar(at - 0.75, at + 0.75, y, STATE, colours.cut);
      if (wait && cut[i] && x(end[i]) <= width) bar(x1 - 2, x1, y, STATE, colours.cut);
      i++;
      continue;
    }
    // All that begin in this pixel, of which one that is polled counts most.
    const last = above(begin, time(Math.floor(x0) + 1.5), i);
    let polled = false, ready = false, red = false;
    for (let j = i; j < Math.min(last, i + 12); j++) {
      polled ||= kind[j] === POLLED;
      ready ||= kind[j] === READY;
      red ||= cut[j] === 1;
    }
    bar(x0, x0, y, STATE, red ? colours.cut : polled ? colours.polled : ready ? colours.ready : colours[kinds[text[i]]]);
    // The last one may go on beyond it.
    i = last - 1 > i && x(end[last - 1]) - x0 >= 1.5 ? last - 1 : Math.max(last, i + 1);
  }
}

function drawScopes(task, y) {
  // How far each lane is drawn already, in either colour: thousands that end in the same pixel are one.
  const plain = new Float64Array(MOST_LANES), cut = new Float64Array(MOST_LANES);
  for (const scope of task.scopes) {
    if (scope.end < from || scope.begin > to || scope.lane >= MOST_LANES) continue;
    const x0 = Math.max(x(scope.begin), left), x1 = Math.min(x(scope.end), width), at = y + SCOPE * scope.lane, red = scope.cause >= 0, drawn = red ? cut : plain;
    if (x1 <= drawn[scope.lane]) continue;
    drawn[scope.lane] = Math.max(x0 + 1, x1);
    bar(x0, x1, at, SCOPE - 2, red ? colours.cutback : colours.scope);
    paint.fillStyle = red ? colours.cut : colours.edge;
    paint.fillRect(x0, at + SCOPE - 3, Math.max(x1 - x0, 1.5), 1);
    if (red && scope.end <= to) bar(x1 - 2, x1, at, SCOPE - 2, colours.cut);
    // One that it was done before never came.
    if (scope.deadline >= Math.max(from, 0) && scope.deadline <= Math.min(to, scope.end)) bar(x(scope.deadline) - 0.5, x(scope.deadline) + 0.5, at - 1, SCOPE, colours.cut);
    const said = clip(model.texts[scope.text], x1 - x0 - 6);
    if (said) {
      paint.fillStyle = red ? colours.text : colours.dim;
      paint.fillText(said, x0 + 4, at + 9);
    }
  }
}

function drawSource(source, y) {
  let i = above(source.at, from - 1e-9);
  while (i < source.at.length && source.at[i] <= to) {
    const px = x(source.at[i]);
    bar(px - 0.75, px + 0.75, y + 3, 13, colours.wake);
    i = above(source.at, time(Math.floor(px) + 1), i + 1);
  }
}

const middle = (row) => (row.task ? row.top + row.height - PAD / 2 - STATE / 2 - 2 : row.top + 10) - scroll.scrollTop;

function drawArrow(wake, strong) {
  const { from: by, at, to: woken, seen } = model.wakes;
  const source = rows[by[wake] < 0 ? rowOfSource[-1 - by[wake]] : rowOfTask[by[wake]]], target = rows[rowOfTask[woken[wake]]];
  if (!source || !target || source === target) return;
  const x0 = x(at[wake]), y0 = middle(source), x1 = x(seen[wake]), y1 = middle(target);
  if ((y0 < 0 && y1 < 0) || (y0 > height && y1 > height) || (x0 > width && x1 > width) || x1 < left) return;
  paint.globalAlpha = strong ? 1 : 0.55;
  paint.strokeStyle = paint.fillStyle = colours.wake;
  paint.lineWidth = strong ? 2 : 1;
  paint.beginPath();
  paint.moveTo(x0, y0);
  if (x1 - x0 > 24) {
    const bend = Math.min((x1 - x0) / 2, 60);
    paint.bezierCurveTo(x0 + bend, y0, x1 - bend, y1, x1, y1);
    paint.stroke();
    paint.beginPath();
    paint.moveTo(x1 + 1, y1);
    paint.lineTo(x1 - 6, y1 - 3.5);
    paint.lineTo(x1 - 6, y1 + 3.5);
  } else {
    // From above, or from below.
    const side = y1 > y0 ? -1 : 1, edge = y1 + side * STATE / 2;
    paint.lineTo(x1, edge);
    paint.stroke();
    paint.beginPath();
    paint.moveTo(x1, edge);
    paint.lineTo(x1 - 3.5, edge + side * 6);
    paint.lineTo(x1 + 3.5, edge + side * 6);
  }
  paint.fill();
  paint.globalAlpha = 1;
}

/// The first wake whose poll is in sight, and how many are.
function wakesInSight() {
  const first = above(model.wakes.seen, from - 1e-9);
  return [first, above(model.wakes.seen, to, first) - first];
}

function drawArrows() {
  const mode = element("arrows").value;
  if (mode === "none") return;
  if (mode === "auto") {
    const [first, count] = wakesInSight();
    if (count <= MOST_ARROWS) for (let wake = first; wake < first + count; wake++) drawArrow(wake, false);
  }
  for (const what of [hovered, selected]) {
    if (!what || what.state === undefined) continue;
    const wake = model.tasks[what.task].states.wake[what.state];
    if (wake >= 0) drawArrow(wake, true);
    for (const next of wokenIn(what)) drawArrow(next, true);
  }
}

/// The wakes of others that happened in a poll.
function wokenIn(what, most = 20) {
  const task = model.tasks[what.task], { kind, begin, end } = task.states, found = [];
  if (kind[what.state] !== POLLED) return found;
  const { seen, at, from: by, to: woken, count } = model.wakes;
  for (let wake = above(seen, begin[what.state] - 1e-9), looks = 0; wake < count && found.length < most && looks < 20000; wake++, looks++) {
    if (by[wake] === what.task && woken[wake] !== what.task && at[wake] >= begin[what.state] && at[wake] <= end[what.state]) found.push(wake);
  }
  return found;
}

function draw() {
  const y0 = scroll.scrollTop;
  paint.fillStyle = colours.back;
  paint.fillRect(0, 0, width, height);
  paint.font = "11px system-ui, sans-serif";
  paint.textAlign = "left";
  const step = scaleStep(to - from, (width - left) / 110), ticks = [];
  for (let at = Math.ceil(from / step) * step; at <= to; at += step) ticks.push(at);
  const first = rowAt(y0 + AXIS), seen = [];
  for (let index = first; index < rows.length && rows[index].top < y0 + height; index++) seen.push(rows[index]);
  for (const row of seen) {
    if ((row.task && selected && selected.task === row.index) || (hovered && hovered.row === row)) {
      paint.fillStyle = colours.stripe;
      paint.fillRect(0, row.top - y0, width, row.height);
    }
    paint.fillStyle = colours.line;
    paint.fillRect(0, row.top + row.height - y0 - 0.5, width, 0.5);
  }
  paint.fillStyle = colours.line;
  for (const at of ticks) paint.fillRect(Math.round(x(at)), AXIS, 1, height);
  paint.save();
  paint.beginPath();
  paint.rect(left, AXIS, width - left, height - AXIS);
  paint.clip();
  for (const row of seen) {
    const top = row.top - y0;
    if (row.task) {
      drawScopes(row.task, top + 3);
      drawStates(row.task, top + 3 + SCOPE * row.task.lanes);
    } else {
      drawSource(row.source, top);
    }
  }
  const frame = (what) => {
    const row = what && rows[rowOfTask[what.task]];
    if (!row) return;
    const task = row.task, scope = what.scope !== undefined ? task.scopes[what.scope] : null;
    const [begin, end] = scope ? [scope.begin, scope.end] : [task.states.begin[what.state], task.states.end[what.state]];
    const top = row.top - y0 + 3 + SCOPE * (scope ? scope.lane : task.lanes), a = Math.max(x(begin), left - 4), b = Math.min(x(end), width + 4);
    paint.strokeStyle = colours.focus;
    paint.lineWidth = 2;
    paint.strokeRect(a - 1, top - 1, Math.max(b - a, 1.5) + 2, (scope ? SCOPE - 2 : STATE) + 2);
  };
  drawArrows();
  frame(selected);
  if (range) {
    paint.fillStyle = colours.focus;
    paint.globalAlpha = 0.15;
    paint.fillRect(Math.min(x(range[0]), x(range[1])), AXIS, Math.abs(x(range[1]) - x(range[0])), height);
    paint.globalAlpha = 1;
  }
  paint.restore();
  for (const row of seen) {
    const top = row.top - y0;
    paint.save();
    paint.beginPath();
    paint.rect(0, Math.max(top, AXIS), left - 8, row.height);
    paint.clip();
    paint.font = "12px system-ui, sans-serif";
    if (row.task) {
      const base = top + 3 + SCOPE * row.task.lanes + 13;
      paint.fillStyle = colours.text;
      const label = shorten(row.task.name, left - 18), shift = paint.measureText(label).width;
      paint.fillText(label, 10, base);
      paint.font = "10px system-ui, sans-serif";
      paint.fillStyle = colours.dim;
      if (left > 150) paint.fillText(row.task.place, 16 + shift, base);
    } else {
      paint.fillStyle = colours.wake;
      paint.fillText(shorten(row.source.name, left - 18), 10, top + 14);
    }
    paint.restore();
  }
  paint.fillStyle = colours.back;
  paint.fillRect(0, 0, width, AXIS);
  paint.fillStyle = colours.dim;
  paint.textAlign = "center";
  for (const at of ticks) if (x(at) > left - 1) paint.fillText(length(at), Math.max(Math.min(x(at), width - 24), left + 18), 15);
  paint.fillStyle = colours.edge;
  paint.fillRect(0, AXIS - 1, width, 1);
  paint.fillRect(left - 4, 0, 1, Math.min(total - y0, height));
  paint.textAlign = "left";
  if (rows.length === model.sources.length) {
    paint.fillStyle = colours.dim;
    paint.fillText(model.tasks.length ? "no task matches the filter" : "nothing was recorded", left + 12, AXIS + 20 + 20 * model.sources.length);
  }
  drawOverview();
}

/// How many polls begin in each part of the whole.
function countPolls(parts) {
  const counts = new Float64Array(parts), red = new Uint8Array(parts);
  const part = (at) => Math.min(parts - 1, Math.max(0, Math.floor(at / model.length * parts)));
  for (const task of model.tasks) {
    const { kind, begin, count } = task.states;
    for (let i = 0; i < count; i++) if (kind[i] === POLLED) counts[part(begin[i])]++;
    for (const scope of task.scopes) if (scope.cause >= 0) red[part(scope.end)] = 1;
  }
  return { counts, red, most: counts.reduce((a, b) => Math.max(a, b), 1) };
}

function drawOverview() {
  const across = width, px = (at) => left + Math.min(Math.max(at / model.length, 0), 1) * (across - left);
  bins ||= countPolls(Math.max(1, Math.floor((across - left) / 2)));
  paintOverview.fillStyle = colours.back;
  paintOverview.fillRect(0, 0, overview.clientWidth, 40);
  paintOverview.font = "11px system-ui, sans-serif";
  paintOverview.fillStyle = colours.dim;
  paintOverview.fillText("polls, all tasks", 10, 24);
  bins.counts.forEach((count, i) => {
    const tall = count ? Math.max(2, 34 * Math.sqrt(count / bins.most)) : 0;
    paintOverview.fillStyle = colours.polled;
    paintOverview.fillRect(left + 2 * i, 38 - tall, 2, tall);
    if (bins.red[i]) {
      paintOverview.fillStyle = colours.cut;
      paintOverview.fillRect(left + 2 * i, 0, 2, 5);
    }
  });
  paintOverview.globalAlpha = 0.18;
  paintOverview.fillStyle = colours.focus;
  paintOverview.fillRect(px(from), 0, Math.max(px(to) - px(from), 2), 40);
  paintOverview.globalAlpha = 1;
  paintOverview.fillRect(px(from), 0, 1, 40);
  paintOverview.fillRect(Math.max(px(to) - 1, px(from) + 1), 0, 1, 40);
}

// ---- What is said -------------------------------------------------------------------------------------------------------------------------

/// What it is, line by line.
function told(what) {
  const lines = [];
  if (what.wake !== undefined) {
    const { from: by, at, to: woken, seen } = model.wakes;
    lines.push(["", `${whence(by[what.wake])} wakes ${name(model.tasks[woken[what.wake]])}`], ["", `at ${length(at[what.wake])}; polled ${length(seen[what.wake] - at[what.wake])} later`]);
    return lines;
  }
  const task = model.tasks[what.task];
  lines.push(["", `${name(task)}${task.exited ? "" : ", not over"}`]);
  if (what.scope !== undefined) {
    const scope = task.scopes[what.scope];
    lines.push(["", model.texts[scope.text]], ["why", `${length(scope.end - scope.begin)}, from ${length(scope.begin)} on`]);
    if (scope.deadline >= 0) lines.push(["why", `its deadline: ${length(scope.deadline - scope.begin)} after its begin`]);
    if (scope.cause >= 0) lines.push(["cut", model.texts[scope.cause]]);
    return lines;
  }
  if (what.state === undefined) {
    lines.push(["why", `${task.polls.toLocaleString("en")} polls, ${length(task.times[POLLED])} in all; ready for ${length(task.times[READY])}` + (task.by === null ? "" : `; spawned by ${whence(task.by)}`)]);
    return lines;
  }
  const { kind, cut, begin, end, text, wake, due } = task.states, i = what.state;
  const says = model.texts[text[i]], lasts = `${length(end[i] - begin[i])}, from ${length(begin[i])} on`;
  if (kind[i] === WAITS) {
    lines.push(["", does(says)], ["why", lasts + (due[i] >= 0 ? `; due after ${length(due[i])}` : "")]);
    const late = end[i] - begin[i] - due[i];
    // What a machine does by itself is not worth a word.
    if (due[i] >= 0 && late > 1e6) lines.push(["cut", `${length(late)} late: the loop, or the machine, was busy`]);
    if (cut[i]) lines.push(["cut", "until it was cancelled"]);
  } else if (kind[i] === READY) {
    lines.push(["", "ready: it was woken, and waits for its turn"], ["why", lasts]);
    const next = i + 1 < task.states.count ? wake[i + 1] : -1;
    if (next >= 0) lines.push(["why", `woken by ${whence(model.wakes.from[next])}`]);
  } else {
    lines.push(["", `polled: ${lasts}`]);
    if (wake[i] >= 0) {
      const { from: by, at } = model.wakes;
      const itself = by[wake[i]] === what.task;
      lines.push(["why", `woken by ${itself ? "itself" : whence(by[wake[i]])}, ${length(begin[i] - at[wake[i]])} before`]);
    }
    if (says) lines.push([cut[i] ? "cut" : "why", says]);
  }
  return lines;
}

function select(what) {
  selected = what;
  const details = element("details"), lines = [];
  details.replaceChildren();
  if (what) {
    for (const [kind, text] of told(what)) {
      const line = document.createElement("p");
      line.className = kind;
      line.textContent = text;
      lines.push(line);
    }
    const buttons = document.createElement("p");
    const button = (text, act) => {
      const made = document.createElement("button");
      made.textContent = text;
      made.addEventListener("click", act);
      buttons.append(made);
    };
    if (whoWoke(what) !== null) button("who woke it (b)", goBack);
    if (what.state !== undefined && wokenIn(what, 1).length) button("whom it woke (n)", goOn);
    if (what.state !== undefined || what.scope !== undefined) button("zoom to it (f)", zoomTo);
    details.append(...lines, buttons);
  } else {
    const line = document.createElement("p");
    line.className = "why";
    line.textContent = "Click on what you see, or go there by the arrow keys. Ctrl and the wheel, or two fingers, zoom; drag to pan; ? for all keys.";
    details.append(line);
  }
  redraw();
}

/// The wake that a poll, or the time before it, is due to.
function whoWoke(what) {
  if (what.state === undefined) return null;
  const { kind, wake, count } = model.tasks[what.task].states;
  const poll = kind[what.state] === READY ? what.state + 1 : what.state;
  return poll < count && wake[poll] >= 0 ? wake[poll] : null;
}

function goBack() {
  const wake = selected && whoWoke(selected);
  if (wake === null || wake === undefined) return;
  const by = model.wakes.from[wake];
  if (by < 0) return show(model.wakes.at[wake], model.wakes.at[wake], rows[rowOfSource[-1 - by]]);
  const { begin } = model.tasks[by].states;
  let state = above(begin, model.wakes.at[wake]) - 1;
  // Of several that begin at that time, the poll.
  for (let i = state; i >= 0 && i > state - 3; i--) if (model.tasks[by].states.kind[i] === POLLED) { state = i; break; }
  if (state >= 0) goTo({ task: by, state });
}

function goOn() {
  if (!selected || selected.state === undefined) return;
  const [wake] = wokenIn(selected, 1);
  if (wake !== undefined) goTo({ task: model.wakes.to[wake], state: model.wakes.poll[wake] });
}

function goTo(what) {
  if (rowOfTask[what.task] < 0) {
    search.value = "";
    arrange();
  }
  select(what);
  const { begin, end } = model.tasks[what.task].states;
  show(begin[what.state], end[what.state], rows[rowOfTask[what.task]]);
}

/// Moves what is in sight as far as it takes.
function show(begin, end, row) {
  const span = to - from;
  if (end < from + span * 0.02 || begin > to - span * 0.02) place(begin - span / 2, begin + span / 2);
  if (row) {
    if (row.top - AXIS < scroll.scrollTop) scroll.scrollTop = row.top - AXIS;
    else if (row.top + row.height > scroll.scrollTop + height) scroll.scrollTop = row.top + row.height - height;
  }
  redraw();
}

function zoomTo() {
  if (!selected || selected.task === undefined) return;
  const task = model.tasks[selected.task];
  const [begin, end] = selected.scope !== undefined ? [task.scopes[selected.scope].begin, task.scopes[selected.scope].end]
    : selected.state !== undefined ? [task.states.begin[selected.state], task.states.end[selected.state]] : [task.begin, task.end];
  const around = Math.max((end - begin) * 0.15, 50);
  place(begin - around, end + around);
}

/// What is under the pointer.
function at(px, py) {
  if (py < AXIS) return null;
  const row = rows[rowAt(py + scroll.scrollTop)];
  if (!row || py + scroll.scrollTop < row.top) return null;
  const near = 3 / scale(), t = time(px);
  if (!row.task) {
    const i = above(row.source.at, t - near);
    return px > left && i < row.source.at.length && row.source.at[i] <= t + near ? { row, wake: row.source.wakes[i] } : { row, source: row.source };
  }
  if (px < left) return { row, task: row.index };
  const inside = py + scroll.scrollTop - row.top - 3, lane = Math.floor(inside / SCOPE), task = row.task;
  if (lane < task.lanes) {
    const scope = task.scopes.findIndex((one) => one.lane === lane && one.begin <= t + near && one.end >= t - near);
    return scope < 0 ? { row, task: row.index } : { row, task: row.index, scope };
  }
  const { kind, begin, end, count } = task.states;
  let state = above(end, t - near), found = -1;
  for (let i = state; i < count && i < state + 40 && begin[i] <= t + near; i++) {
    const inner = begin[i] <= t && end[i] >= t;
    // One that is hardly to be seen counts more than the wait beside it.
    if (kind[i] === POLLED && (end[i] - begin[i] < 2 * near || inner)) { found = i; break; }
    if (inner && found < 0) found = i;
  }
  return found < 0 ? { row, task: row.index } : { row, task: row.index, state: found };
}

function place(a, b) {
  leave();
  const span = Math.min(Math.max(b - a, 20), model.length * 1.2), spare = model.length * 0.1;
  const begin = Math.min(Math.max((a + b) / 2 - span / 2, -spare), model.length + spare - span);
  from = begin;
  to = begin + span;
  redraw();
}

function zoom(factor, around = (from + to) / 2) {
  place(around - (around - from) * factor, around + (to - around) * factor);
}

const pan = (part) => place(from + (to - from) * part, to + (to - from) * part);
const all = () => place(0, model.length);

// ---- Keys and pointers --------------------------------------------------------------------------------------------------------------------

function step(by) {
  if (!selected || selected.task === undefined) return selectFirst();
  const { count, begin } = model.tasks[selected.task].states;
  if (!count) return;
  let state = selected.state;
  if (state === undefined) state = Math.max(above(begin, Math.max(from, 0)) - 1, 0);
  else state = Math.min(Math.max(state + by, 0), count - 1);
  goTo({ task: selected.task, state });
}

function selectFirst() {
  const row = rows.slice(rowAt(scroll.scrollTop + AXIS)).find((one) => one.task);
  if (row) goNear(row);
}

/// What a task does at the time that is selected, or in the middle of what is in sight.
function goNear(row) {
  const before = selected && selected.state !== undefined ? model.tasks[selected.task].states.begin[selected.state] : (from + to) / 2;
  const { begin, count } = row.task.states;
  if (!count) return select({ task: row.index });
  goTo({ task: row.index, state: Math.max(above(begin, before) - 1, 0) });
}

function stepRow(by) {
  if (!selected || selected.task === undefined || rowOfTask[selected.task] < 0) return selectFirst();
  const row = rows[rowOfTask[selected.task] + by];
  if (row && row.task) goNear(row);
}

const acts = {
  w: () => zoom(0.7), s: () => zoom(1 / 0.7), a: () => pan(-0.2), d: () => pan(0.2), "+": () => zoom(0.7), "=": () => zoom(0.7), "-": () => zoom(1 / 0.7), "0": all,
  ArrowLeft: () => step(-1), ArrowRight: () => step(1), ArrowUp: () => stepRow(-1), ArrowDown: () => stepRow(1), Home: () => place(0, to - from),
  End: () => place(model.length - (to - from), model.length), b: goBack, n: goOn, f: zoomTo, Enter: zoomTo, t: changeTheme, "?": () => element("keys").showModal(),
  "/": () => { search.focus(); search.select(); }, Escape: () => select(null),
};

addEventListener("keydown", (event) => {
  const target = event.target, own = /^(INPUT|SELECT|TEXTAREA)$/.test(target.tagName || "");
  if (event.ctrlKey || event.metaKey || event.altKey || element("keys").open) return;
  if (own) {
    if (target === search && (event.key === "Enter" || event.key === "Escape")) {
      if (event.key === "Escape") { search.value = ""; arrange(); }
      view.focus();
      if (event.key === "Enter") selectFirst();
      event.preventDefault();
    }
    return;
  }
  if (target.tagName === "BUTTON" && (event.key === "Enter" || event.key === " ")) return;
  const act = acts[event.key] || acts[event.key.toLowerCase()];
  if (act) {
    event.preventDefault();
    leave();
    act();
  }
});

view.addEventListener("wheel", (event) => {
  const unit = event.deltaMode === 1 ? 16 : 1;
  if (event.ctrlKey || event.metaKey || (total <= height && !event.shiftKey && !event.deltaX)) {
    event.preventDefault();
    zoom(Math.exp(event.deltaY * unit * 0.002), Math.max(time(event.offsetX), from));
  } else if (event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY)) {
    event.preventDefault();
    pan((event.deltaX || event.deltaY) * unit / (width - left));
  }
}, { passive: false });

const pointers = new Map();
let grabbed = null;

/// Where they are in the middle, and how far two of them are apart.
function grasp() {
  const all = [...pointers.values()], [one, two] = all, middle = (i) => all.reduce((sum, at) => sum + at[i], 0) / all.length;
  return { x: middle(0), y: middle(1), apart: two ? Math.max(Math.hypot(one[0] - two[0], one[1] - two[1]), 10) : 0 };
}

view.addEventListener("pointerdown", (event) => {
  if (event.button) return;
  view.setPointerCapture(event.pointerId);
  pointers.set(event.pointerId, [event.offsetX, event.offsetY]);
  const second = pointers.size > 1;
  grabbed = { ...grasp(), moved: second };
  // A second finger makes a pinch of what the first one has begun.
  range = !second && event.offsetY < AXIS && event.offsetX > left ? [time(event.offsetX), time(event.offsetX)] : null;
});

view.addEventListener("pointermove", (event) => {
  const px = event.offsetX, py = event.offsetY;
  if (pointers.has(event.pointerId) && grabbed) {
    pointers.set(event.pointerId, [px, py]);
    if (pointers.size > 1) {
      // What was in the middle of the fingers stays there.
      const now = grasp(), span = (to - from) * grabbed.apart / now.apart, begin = time(grabbed.x) - span * (now.x - left) / (width - left);
      place(begin, begin + span);
      scroll.scrollTop += grabbed.y - now.y;
      grabbed = { ...now, moved: true };
    } else if (grabbed.moved || Math.hypot(px - grabbed.x, py - grabbed.y) > 3) {
      grabbed.moved = true;
      view.className = "grab";
      if (range) {
        range[1] = time(px);
        redraw();
      } else {
        const by = (grabbed.x - px) / scale();
        place(from + by, to + by);
        scroll.scrollTop += grabbed.y - py;
        [grabbed.x, grabbed.y] = [px, py];
      }
    }
    tip.hidden = true;
    return;
  }
  hovered = at(px, py);
  const said = hovered && !hovered.source ? told(hovered).map(([, text]) => text) : [];
  tip.hidden = !said.length;
  if (said.length) {
    tip.textContent = said.join("\n");
    const box = tip.getBoundingClientRect();
    tip.style.left = `${Math.max(4, Math.min(event.clientX + 14, innerWidth - box.width - 8))}px`;
    tip.style.top = `${event.clientY + 18 + box.height > innerHeight ? event.clientY - box.height - 10 : event.clientY + 18}px`;
  }
  redraw();
});

function letGo(event) {
  if (!pointers.delete(event.pointerId) || !grabbed) return;
  if (pointers.size) {
    // The finger that is left goes on from where it is.
    grabbed = { ...grasp(), moved: true };
    return;
  }
  if (range && grabbed.moved && event.type === "pointerup") place(Math.min(...range), Math.max(...range));
  else if (!grabbed.moved && event.type === "pointerup") {
    const what = at(event.offsetX, event.offsetY);
    select(what && what.task !== undefined ? { task: what.task, state: what.state, scope: what.scope } : what && what.wake !== undefined ? { task: model.wakes.to[what.wake], state: model.wakes.poll[what.wake] } : null);
  }
  grabbed = range = null;
  view.className = "";
  redraw();
}
view.addEventListener("pointerup", letGo);
view.addEventListener("pointercancel", letGo);
view.addEventListener("pointerleave", () => { leave(); redraw(); });
view.addEventListener("dblclick", zoomTo);

// By the first finger alone.
let dragged = null;
const timeInOverview = (event) => (event.offsetX - left) / (width - left) * model.length;
const isDragged = (now) => Math.abs(now - dragged.at) > 4 * model.length / overview.clientWidth;
overview.addEventListener("pointerdown", (event) => {
  if (event.button || dragged) return;
  overview.setPointerCapture(event.pointerId);
  dragged = { pointer: event.pointerId, at: timeInOverview(event) };
});
overview.addEventListener("pointermove", (event) => {
  const now = timeInOverview(event);
  if (dragged && dragged.pointer === event.pointerId && isDragged(now)) place(Math.min(dragged.at, now), Math.max(dragged.at, now));
});
overview.addEventListener("pointerup", (event) => {
  if (!dragged || dragged.pointer !== event.pointerId) return;
  const now = timeInOverview(event);
  if (!isDragged(now)) place(now - (to - from) / 2, now + (to - from) / 2);
  dragged = null;
});
overview.addEventListener("pointercancel", (event) => {
  if (dragged && dragged.pointer === event.pointerId) dragged = null;
});

// ---- Light, and the begin -----------------------------------------------------------------------------------------------------------------

const LEGEND = [
  ["polled", "polled"], ["ready", "ready: woken, not polled yet"], ["lock", "waits for a lock"], ["channel", "… a channel"], ["io", "… a descriptor"], ["time", "… a time"],
  ["children", "… children"], ["other", "… something else"], ["foreign", "… not of trefoil"], ["scope", "scope"], ["cut", "cancelled; as a line: a deadline"], ["wake", "who wakes whom"],
];

function setTheme(dark) {
  document.documentElement.classList.toggle("dark", dark);
  const style = getComputedStyle(document.documentElement);
  for (const key of ["back", "stripe", "text", "dim", "line", "edge", "focus", "cutback", "ontext", "onready", ...LEGEND.map(([key]) => key)]) colours[key] = style.getPropertyValue(`--${key}`).trim();
  redraw();
}

function changeTheme() {
  setTheme(!document.documentElement.classList.contains("dark"));
}

element("legend").append(...LEGEND.map(([key, text]) => {
  const item = document.createElement("li"), chip = document.createElement("span");
  chip.style.background = `var(--${key})`;
  item.append(chip, text);
  return item;
}));
const dark = matchMedia("(prefers-color-scheme: dark)");
dark.addEventListener("change", () => setTheme(dark.matches));
setTheme(dark.matches);
search.addEventListener("input", arrange);
element("order").addEventListener("change", arrange);
element("arrows").addEventListener("change", redraw);
element("in").addEventListener("click", () => zoom(0.7));
element("out").addEventListener("click", () => zoom(1 / 0.7));
element("all").addEventListener("click", all);
element("theme").addEventListener("click", changeTheme);
element("help").addEventListener("click", () => element("keys").showModal());
scroll.addEventListener("scroll", () => { leave(); redraw(); });
addEventListener("resize", resize);
new ResizeObserver(() => { if (scroll.clientHeight !== height || scroll.clientWidth !== width) resize(); }).observe(scroll);
select(null);
arrange();

// As much of a browser as the page needs, and nothing that is seen: what is written onto a canvas is kept, events are fired by the test.
const ids = new Map(), frames = [], written = [], handlers = [];

class Element {
  constructor(tagName) {
    Object.assign(this, { tagName, value: "", textContent: "", className: "", hidden: false, style: {}, children: [], open: false, scrollTop: 0, filled: [] });
    Object.assign(this, { clientWidth: 1200, clientHeight: 500 });
    this.classes = new Set();
    this.classList = { toggle: (name, on) => (on ? this.classes.add(name) : this.classes.delete(name)), contains: (name) => this.classes.has(name) };
  }
  append(...all) { this.children.push(...all); }
  replaceChildren(...all) { this.children = all; }
  addEventListener(type, act) { handlers.push([this, type, act]); }
  getBoundingClientRect() { return { width: 100, height: 30 }; }
  setPointerCapture() {}
  showModal() { this.open = true; }
  focus() {}
  select() {}
  get said() { return [this.textContent, ...this.children.map((one) => one.said ?? String(one))].join("\n"); }
  getContext() {
    return this.context ||= new Proxy({ measureText: (text) => ({ width: 6 * text.length }), fillText: (text, x, y) => { finite(x, y); written.push(text); }, fillRect: (...at) => { finite(...at); this.filled.push(at); } }, {
      get: (own, key) => own[key] ?? (() => {}),
      set: () => true,
    });
  }
}

function finite(...numbers) {
  if (!numbers.every(Number.isFinite)) throw new Error(`drawn at ${numbers}`);
}

globalThis.innerWidth = 1200;
globalThis.innerHeight = 700;
globalThis.window = globalThis;
globalThis.document = {
  documentElement: new Element("HTML"),
  createElement: (name) => new Element(name.toUpperCase()),
  // What the page does not have is not found here either.
  getElementById: (id) => ids.get(id) ?? null,
};
globalThis.getComputedStyle = () => ({ getPropertyValue: (key) => key });
globalThis.matchMedia = () => ({ matches: false, addEventListener() {} });
globalThis.ResizeObserver = class { observe() {} };
globalThis.requestAnimationFrame = (act) => frames.push(act);
globalThis.addEventListener = (type, act) => handlers.push([globalThis, type, act]);

globalThis.browser = {
  add(id, text) {
    const element = new Element(id.toUpperCase());
    element.textContent = text;
    ids.set(id, element);
    if (id === "order") element.value = "seen";
    if (id === "arrows") element.value = "auto";
  },
  /// Draws what is to be drawn, and returns what was written.
  frame() {
    written.length = 0;
    for (const element of ids.values()) element.filled.length = 0;
    while (frames.length) frames.shift()();
    return written.join("\n");
  },
  /// What of the whole is in sight: where it begins and ends on the overview, in pixels. The frame around that is drawn last.
  sight() {
    browser.fire("window", "resize", {});
    browser.frame();
    const [x, , w] = ids.get("overview").filled.at(-3);
    return [x, x + w];
  },
  /// Moves a pointer on the view, by number.
  point(type, pointerId, offsetX, offsetY) { browser.fire("view", type, { pointerId, offsetX, offsetY, clientX: offsetX, clientY: offsetY }); },
  fire(id, type, event) {
    const target = id === "window" ? globalThis : ids.get(id);
    const whole = { target: id === "window" ? ids.get("view") : target, type, button: 0, pointerId: 1, preventDefault() {}, ...event };
    let found = 0;
    for (const [of, kind, act] of handlers) if (of === target && kind === type) { act(whole); found++; }
    if (!found) throw new Error(`nobody hears of ${type} on ${id}`);
  },
  key(key) { browser.fire("window", "keydown", { key }); },
  keys(...all) { all.forEach(browser.key); },
  choose(id, type, value) { ids.get(id).value = value; browser.fire(id, type, {}); },
  said: (id) => ids.get(id).said,
};

// The only script of a page for labelling: it shows images, takes labels from keys, buttons and swipes, and saves them.
const $ = (id) => document.getElementById(id);
const facts = JSON.parse($("facts").textContent);
const sources = $("thumbnails").textContent.split("\n");
$("thumbnails").remove(); // or there would be two copies of them
const { images, names, served } = facts; // names of labels
const labels = [...facts.classes, ""]; // a blank label means unsure, as in the list
const kinds = ["zero", "one", "unsure"];

// A line is that of the list: [source_ref, label, reviewed_at, reviewer, note].
const kept = new Map(facts.kept.map((line) => [line[0], line])); // of the list, from before
const mine = new Map(); // given here, the newest last
const unsaved = new Set(); // the source_refs of lines that no file has
const undoable = []; // [position, its line of mine before]
let pending = []; // for the server
let storage = null;
let view = [...images.keys()]; // what the filter lets through
let at = 0;
let tiles = null;

const lineOf = ({ ref }) => mine.get(ref) ?? kept.get(ref) ?? [];
const whichOf = (position) => labels.indexOf(lineOf(images[position])[1]); // -1: no label
const kindOf = (position) => kinds[whichOf(position)] ?? "open";
const nameOf = (position) => names[whichOf(position)] ?? "no label";
const isOpen = (position) => whichOf(position) < 0;
const inGrid = () => !$("grid").hidden;
const say = (text) => ($("said").textContent = text);
const put = (id, text) => Object.assign($(id), { textContent: text, hidden: !text });

// Labels are kept by the browser, or by the server.

const stored = `twofold label ${facts.key}`;

function load() {
  const found = JSON.parse(storage.getItem(stored) ?? '{"lines": [], "unsaved": []}');
  mine.clear();
  unsaved.clear();
  for (const line of found.lines) {
    const old = kept.get(line[0]) ?? [];
    if (!(line[2] < old[2]) && `${line}` !== `${old}`) mine.set(line[0], line); // else the list has a newer one
  }
  for (const ref of found.unsaved) if (mine.has(ref)) unsaved.add(ref);
}

function store() {
  try {
    storage?.setItem(stored, JSON.stringify({ lines: [...mine.values()], unsaved: [...unsaved] }));
  } catch {
    storage = null; // it is full
  }
  if (!storage) put("notice", "Your browser does not keep labels for this page: save before you close it.");
}

async function send() {
  const body = JSON.stringify(pending);
  const sent = pending.length;
  let reason = "The command does not answer.";
  try {
    const [headers, signal] = [{ "Content-Type": "application/json" }, AbortSignal.timeout(10000)];
    const answer = await fetch("labels", { method: "POST", headers, body, signal });
    if (!answer.ok) throw (reason = await answer.text());
    pending = pending.slice(sent);
    put("notice", "");
    if (pending.length) send();
  } catch {
    put("notice", `Not saved. ${reason} Press s to download your labels.`);
    setTimeout(send, 1000);
  }
  count();
}

function change(position, line) {
  const { ref } = images[position];
  mine.delete(ref); // a new line comes last
  if (line) mine.set(ref, line);
  if (served) {
    pending.push(line ?? kept.get(ref) ?? [ref, null]);
    if (pending.length === 1) send();
  } else {
    line ? unsaved.add(ref) : unsaved.delete(ref);
    store();
  }
  mark(position);
  count();
}

function csv() {
  const cell = (text) => {
    const guarded = /^'*[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]/.test(text) ? `'${text}` : text;
    return /[",\r\n]/.test(guarded) ? `"${guarded.replaceAll('"', '""')}"` : guarded;
  };
  const counting = new Set(kept.values()); // of two lines about one image, the last
  const old = facts.kept.map((line) => (counting.has(line) && mine.get(line[0])) || line);
  const added = [...mine.values()].filter((line) => !kept.has(line[0]));
  return [facts.columns, ...old, ...added].map((line) => `${line.map(cell).join(",")}\n`).join("");
}

function save() {
  if (served && !pending.length) return say(`${facts.file} has all labels.`);
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([csv()], { type: "text/csv" }));
  link.download = facts.file;
  link.click();
  unsaved.clear();
  if (!served) store();
  count();
  say(`Saved as ${facts.file}.`);
}

// What is shown.

function draw() {
  const place = view.indexOf(at) + 1; // 0: the filter lets nothing through
  const { name, problem, said, score } = place ? images[at] : { name: "", problem: "No image. Choose others above." };
  const source = place ? sources[at] : "";
  if (source) $("image").src = source;
  $("image").hidden = !source;
  $("image").alt = name;
  put("problem", source ? "" : problem);
  put("name", name);
  put("place", place ? `${place} of ${view.length}` : "");
  put("model", said ? `The model says ${said}${score === undefined ? "" : `, ${score.toFixed(2)}`}` : "");
  for (const kind of kinds) {
    $(kind).disabled = !place;
    $(kind).setAttribute("aria-pressed", Boolean(place) && kindOf(at) === kind);
  }
  $("undo").disabled = !undoable.length;
}

function count() {
  const counts = { zero: 0, one: 0, unsure: 0, open: 0 };
  for (const position of images.keys()) counts[kindOf(position)]++;
  for (const kind in counts) document.querySelector(`#counts .${kind} b`).textContent = counts[kind];
  for (const bar of $("progress").children) bar.style.width = `${(100 * counts[bar.className]) / images.length}%`;
  $("progress").setAttribute("aria-valuenow", images.length - counts.open);
  const save = unsaved.size ? `Save (${unsaved.size})` : "Save";
  const saving = !pending.length ? "Saved" : $("notice").hidden ? "Saving" : save;
  $("saving").textContent = served ? saving : save;
}

function mark(position) {
  if (!tiles) return;
  const badge = tiles[position].lastChild;
  badge.textContent = isOpen(position) ? "" : nameOf(position);
  badge.className = kindOf(position);
  tiles[position].setAttribute("aria-label", `${images[position].name}, ${nameOf(position)}`);
}

function build() {
  const fill = ({ target, isIntersecting }) => {
    if (isIntersecting) target.src = sources[target.parentNode.dataset.position];
    else target.removeAttribute("src");
  };
  const watcher = new IntersectionObserver((entries) => entries.forEach(fill), { rootMargin: "800px" });
  tiles = images.map(({ name, problem }, position) => {
    const tile = document.createElement("button");
    const image = document.createElement(sources[position] ? "img" : "span");
    tile.append(image, document.createElement("b"));
    image.alt = ""; // the button has the name
    tile.dataset.position = position;
    tile.title = name;
    tile.tabIndex = -1;
    if (sources[position]) watcher.observe(image);
    else image.textContent = problem;
    $("tiles").appendChild(document.createElement("li")).append(tile);
    return tile;
  });
  images.forEach((_, position) => mark(position));
  sieve();
}

function sieve() {
  const through = new Set(view);
  tiles?.forEach((tile, position) => (tile.parentNode.hidden = !through.has(position)));
}

function filter() {
  const wanted = $("filter").value;
  view = [...images.keys()].filter((position) => wanted === "all" || wanted === kindOf(position));
  sieve();
  go(view.find(isOpen) ?? view[0] ?? at);
  say(`${view.length} shown`);
}

function toggle() {
  const single = inGrid();
  $("grid").hidden = single;
  $("single").hidden = !single;
  $("view").setAttribute("aria-pressed", !single);
  if (!tiles) build();
  go(at);
  if (single) $("caption").focus();
}

// Moves and labels.

function go(position) {
  if (tiles) tiles[at].tabIndex = -1;
  at = position;
  if (tiles) tiles[at].tabIndex = 0;
  if (inGrid()) tiles[at].focus();
  draw();
}

const step = (by) => go(view[view.indexOf(at) + by] ?? at);

function nextOpen() {
  const from = view.indexOf(at) + 1;
  return [...view.slice(from), ...view.slice(0, from)].find(isOpen);
}

function give(which) {
  if (!view.includes(at)) return;
  const { ref, name } = images[at];
  const wasOpen = isOpen(at);
  const when = new Date().toISOString().replace(/\.\d+/, "");
  undoable.push([at, mine.get(ref)]);
  change(at, [ref, labels[which], when, "", kept.get(ref)?.[4] ?? ""]);
  const done = `${name}: ${nameOf(at)}.`;
  const next = wasOpen ? nextOpen() : view[view.indexOf(at) + 1];
  go(next ?? at);
  say(next === undefined ? `${done} It was the last one.` : `${done} Next: ${images[at].name}`);
}

function undo() {
  if (!undoable.length) return say("There is nothing to undo.");
  const [position, before] = undoable.pop();
  change(position, before);
  if (!view.includes(position)) $("filter").value = "all", filter();
  go(position);
  say(`Undone: ${images[position].name} has ${nameOf(position)}.`);
}

// Keys, buttons and swipes.

const actions = {
  zero: () => give(0),
  one: () => give(1),
  unsure: () => give(2),
  undo,
  back: () => step(-1),
  forward: () => step(1),
  next: () => (nextOpen() === undefined ? say("Every image here has a label.") : go(nextOpen())),
  view: toggle,
  save,
  ask: () => $("help").showModal(),
  up: () => step(-columns()),
  down: () => step(columns()),
};
const columns = () => getComputedStyle($("tiles")).gridTemplateColumns.split(" ").length;
const keys = {
  1: "zero", 2: "one", 3: "unsure", Backspace: "undo", u: "undo", n: "next", g: "view", s: "save", "?": "ask",
};
const keysOfOne = {
  ArrowLeft: "zero", ArrowRight: "one", ArrowUp: "unsure", ArrowDown: "forward",
  "Shift ArrowLeft": "back", "Shift ArrowRight": "forward",
};
const keysOfGrid = { ArrowLeft: "back", ArrowRight: "forward", ArrowUp: "up", ArrowDown: "down" };

document.onkeydown = (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("select, input")) return;
  if ($("help").open || !$("keys").checked) return;
  const key = event.shiftKey && event.key.startsWith("Arrow") ? `Shift ${event.key}` : event.key;
  const action = (inGrid() ? keysOfGrid : keysOfOne)[key] ?? keys[key];
  if (!action) return;
  event.preventDefault();
  if (!event.repeat || !kinds.includes(action)) actions[action](); // a key that is held labels one image
};
for (const button of document.querySelectorAll("button[id]")) button.onclick = actions[button.id];
$("filter").onchange = filter;
$("tiles").onclick = (event) => {
  const tile = event.target.closest("button");
  if (!tile) return;
  go(Number(tile.dataset.position));
  toggle();
};

let start = null; // of a swipe

function pull(event, isEnd) {
  if (!start) return;
  const [x, y] = [event.clientX - start.clientX, event.clientY - start.clientY];
  const isAcross = Math.abs(x) > Math.abs(y);
  const which = (isAcross ? Math.abs(x) : -y) < 70 ? -1 : isAcross ? Number(x > 0) : 2;
  const isCalm = matchMedia("(prefers-reduced-motion: reduce)").matches;
  $("image").style.transform = isEnd || isCalm ? "" : `translate(${x}px, ${Math.min(y, 0)}px)`;
  put("stamp", isEnd || which < 0 ? "" : names[which]);
  $("stamp").className = kinds[which] ?? "";
  if (isEnd) start = null;
  if (event.type === "pointerup" && which >= 0) give(which);
}

const stage = $("stage");
stage.onpointerdown = (event) => {
  if (event.pointerType === "mouse") return;
  if (!event.isPrimary) return pull(event, true); // two fingers zoom
  start = event;
  stage.setPointerCapture(event.pointerId);
};
stage.onpointermove = (event) => pull(event, false);
stage.onpointerup = stage.onpointercancel = (event) => pull(event, true);

onbeforeunload = (event) => {
  if (pending.length || (unsaved.size && !storage)) event.preventDefault();
};
onstorage = () => {
  if (!storage) return;
  load(); // what was said in another tab
  images.forEach((_, position) => mark(position));
  count();
  draw();
};

if (!served) {
  try {
    storage = localStorage;
    load();
  } catch {
    storage = null; // for a page that is a file, some browsers keep nothing
  }
  store();
  for (const ref of mine.keys()) undoable.push([images.findIndex((image) => image.ref === ref), undefined]);
}
count();
at = view.find(isOpen) ?? 0;
draw();

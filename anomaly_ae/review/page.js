"use strict";
/* The page asks the server for whatever it shows: numbers, order and pictures by the number of a row. */
const CARD = { width: 172, height: 208 }, CHUNK = 100, POLL = 2000, RESTS = 200, GLANCE = 1000, SMALL = 64;
const KINDS = {
  all: "all", anomalous: "anomalous", normal: "normal", unmarked: "not marked", marked: "marked", good: "marked good",
  bad: "marked bad", undecided: "undecided", lost: "changed since they were marked",
  contradicting: "copies marked good and bad", errors: "without a score",
};
const BY_MARK = new Set(["unmarked", "marked", "good", "bad", "undecided", "lost", "contradicting"]);
const $ = id => document.getElementById(id);
const digits = value => value === null ? "–" : Number(value.toPrecision(4)).toString();
const percent = value => `${(100 * value).toFixed(1)} %`;
const count = value => value.toLocaleString("en");
const counted = (value, noun) => `${count(value)} ${noun}${value === 1 ? "" : "s"}`;
const make = (tag, name, text = "") => Object.assign(document.createElement(tag), { className: name, textContent: text });

let about, at, threshold, total = 0, generation = 0, items = new Map(), cards = new Map(), asked = new Map();
let focused = 0, opened = null, undone = [];

async function ask(path, body) {
  const options = body && { method: "POST", body: JSON.stringify(body), headers: { "Content-Type": "application/json" } };
  let answer;
  try { answer = await fetch(path, options); }
  catch { return trouble("failed", "the server does not answer; was it stopped? Marks that the page shows are kept."); }
  const content = await answer.json();
  if (!answer.ok) return trouble(body ? "refused" : "failed", content.error || `the server refused (${answer.status})`);
  tell("failed", "");
  if (body) tell("refused", "");
  return content;
}
class Told extends Error {}  // what the page has told already
function trouble(kind, text) {
  tell(kind, text);
  throw new Told(text);
}
const told = { refused: "", failed: "" };  // the one until the next mark is taken, the other until the next answer
function tell(kind, text) {
  if (!text && !told[kind]) return;
  told[kind] = text;
  $("trouble").textContent = Object.values(told).filter(Boolean).join(" · ");
  $("trouble").hidePopover();
  if ($("trouble").textContent) $("trouble").showPopover();  // over an image that is open, too
}
addEventListener("unhandledrejection", event => { if (event.reason instanceof Told) event.preventDefault(); });
/* Runs a task again when it was asked for while it ran, and no more often: the newest state is what counts. */
function latest(task) {
  let running = null, again = false;
  const run = async () => { try { while (again) { again = false; await task(); } } finally { running = null; } };
  return () => {
    again = true;
    running ??= run();
    return running;
  };
}

/* ---- the threshold ---- */
const along = score => about.axis.logarithmic
  ? Math.log(Math.max(score, about.axis.low) / about.axis.low) / Math.log(about.axis.high / about.axis.low)
  : (score - about.axis.low) / (about.axis.high - about.axis.low);
const scoreAt = share => about.axis.logarithmic
  ? about.axis.low * (about.axis.high / about.axis.low) ** share
  : about.axis.low + share * (about.axis.high - about.axis.low);

const measure = latest(async () => {
  const before = at && at.version;
  at = await ask(`at?threshold=${threshold}`);
  showThreshold();
  if (before !== undefined && before !== at.version) await reload();
});
let resting;
function moveTo(value) {
  if (!Number.isFinite(value)) return;
  threshold = value;
  $("kept").textContent = "";
  measure();
  clearTimeout(resting);
  resting = setTimeout(reload, RESTS);
}
function share(marked, what) {
  if (!marked.marked) return "none yet";
  const [low, high] = marked.interval;
  return `${count(marked.above)} of ${count(marked.marked)} ${what}: ${percent(marked.above / marked.marked)}`
    + ` (95 %: ${percent(low)} to ${percent(high)})`;
}
function showThreshold() {
  const { held, marks } = at;
  if (document.activeElement !== $("number")) $("number").value = digits(at.threshold);
  if (document.activeElement !== $("slider")) $("slider").value = 10000 * along(at.threshold);
  $("counts").textContent = `${count(at.anomalous)} of ${counted(at.anomalous + at.normal, "image")}`;
  $("held").textContent = `${digits(held.rate)} of new normal images (${held.guarantee}; at most `
    + `${digits(held.at_most)} ${held.by})`;
  $("detected").textContent = share(at.detected, "detected");
  const changed = number => `for ${number === 1 ? "its file has" : "their files have"} changed`;
  const lost = marks.lost ? `; ${counted(marks.lost, "mark")} lost, ${changed(marks.lost)}` : "";
  const old = marks.changed ? `; ${count(marks.changed)} left out, ${changed(marks.changed)} since the folder was scored` : "";
  const copies = marks.contradicting ? `; ${count(marks.contradicting)} left out, for copies of one image are marked good and bad` : "";
  $("alarms").textContent = share(at.false_alarms, "false alarms") + lost + old + copies;
  const place = 100 * along(at.threshold), edge = $("histogram").querySelector(".edge");
  edge.setAttribute("x1", place); edge.setAttribute("x2", place);
  for (const bar of $("histogram").querySelectorAll(".bar")) bar.classList.toggle("above", bar.dataset.middle > place);
  for (const [position, card] of cards) colour(card, items.get(position));
}
function draw(svg, name, attributes) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  svg.append(made);
  return made;
}
function drawHistogram() {
  const svg = $("histogram"), width = 100 / about.folder_bins.length;
  const most = Math.sqrt(Math.max(...about.folder_bins, ...about.calibration_bins)) || 1;
  const height = value => 38 * Math.sqrt(value) / most;  // square roots, so that few images are seen beside many
  const element = (name, attributes) => draw(svg, name, attributes);
  svg.setAttribute("viewBox", "0 0 100 40");
  about.folder_bins.forEach((value, i) => {
    const bar = element("rect", { x: i * width, y: 40 - height(value), width, height: height(value), class: "bar" });
    bar.dataset.middle = (i + 0.5) * width;
  });
  const steps = about.calibration_bins.map((value, i) => `V${40 - height(value)}H${(i + 1) * width}`).join("");
  element("path", { d: `M0 40${steps}V40`, class: "calibration" });
  element("line", { y1: 0, y2: 40, class: "edge" });
  const scale = about.axis.logarithmic ? "logarithmic" : "straight";
  $("axis").textContent = `(${counted(about.calibration_images, "image")}) · scores from ${digits(about.axis.low)} to `
    + `${digits(about.axis.high)}, ${scale}; heights are square roots of shares`;
}

/* ---- the wall: cards for what is in view, and a little more ---- */
const columns = () => Math.max(1, Math.floor($("wall").clientWidth / CARD.width));
const path = start => `items?threshold=${at.threshold}&sort=${$("sort").value}&kind=${$("kind").value}`
  + `&folder=${encodeURIComponent($("folder").value)}&start=${start}&count=${CHUNK}`;

function fetchChunk(chunk) {
  if (!asked.has(chunk)) asked.set(chunk, takeChunk(chunk, generation));
  return asked.get(chunk);
}
async function takeChunk(chunk, mine) {
  const answer = await ask(path(chunk * CHUNK));
  if (mine === generation) take(chunk, answer);
}
function take(chunk, answer) {
  total = answer.total;
  answer.items.forEach((item, i) => {
    items.set(chunk * CHUNK + i, item);
    if (opened !== null && item.index === showing.index) show(item);
  });
  layOut();
}
/* What is there stays until the answer is, so that nothing flickers and every key finds its image. */
const reload = latest(async () => {
  if (!at) return;  // what was chosen before the page was ready is asked for when it is
  const chunk = Math.floor(firstVisible() / CHUNK), answer = await ask(path(chunk * CHUNK));
  generation += 1;  // whatever else is on its way is of a list that is no more
  items = new Map();
  asked = new Map([[chunk, Promise.resolve()]]);
  take(chunk, answer);
});
async function itemAt(position) {
  for (let tries = 0; tries < 3 && !items.has(position); tries += 1) await fetchChunk(Math.floor(position / CHUNK));
  return items.get(position);
}
const firstVisible = () => {
  const above = Math.max(0, -$("wall").getBoundingClientRect().top);
  return Math.min(Math.floor(above / CARD.height) * columns(), Math.max(0, total - 1));
};
function layOut() {
  if (!at) return;
  const across = columns(), first = Math.max(0, firstVisible() - across);
  const last = Math.min(total, first + across * (Math.ceil(innerHeight / CARD.height) + 3));
  $("wall").style.height = `${Math.ceil(total / across) * CARD.height}px`;
  $("total").textContent = counted(total, "image");
  for (const [position, card] of cards) {
    if (position < first || position >= last) { card.remove(); cards.delete(position); }
  }
  for (let position = first; position < last; position += 1) {
    const item = items.get(position);
    if (!item) { fetchChunk(Math.floor(position / CHUNK)); continue; }
    if (!cards.has(position)) cards.set(position, $("wall").appendChild(blankCard(position)));
    const card = cards.get(position);
    card.style.left = `${(position % across) * CARD.width}px`;
    card.style.top = `${Math.floor(position / across) * CARD.height}px`;
    fillCard(card, item);
  }
}
function blankCard(position) {
  const card = make("button", "card"), picture = make("img", "thumb"), line = make("span", "about");
  picture.alt = "";
  picture.onload = () => card.classList.toggle("small", picture.naturalWidth <= SMALL);
  for (const event of ["load", "error"]) picture.addEventListener(event, () => opened === null && see(picture));
  line.append(make("span", "score"), make("span", "badge"));
  card.append(picture, line, make("span", "name"));
  card.onclick = () => open(position);
  card.onfocus = () => { focused = position; };
  return card;
}
/* A file that has changed has another address, so that what is marked is what is seen. */
const address = (kind, item) => `${kind}/${item.index}?${item.state}`;
/* The state of each file that was shown last: its picture is there, or cannot be. */
const seen = new Map();
function see(picture) {
  const { complete, naturalWidth, item } = picture;
  if (complete && (naturalWidth || item.error)) seen.set(item.index, item.state);
}
function fillCard(card, item) {
  const picture = card.firstChild, source = address("thumbnail", item);
  picture.item = item;
  if (picture.getAttribute("src") !== source) picture.src = source;
  card.title = item.error ? `${item.path}: ${item.error}` : item.path;
  card.querySelector(".name").textContent = item.path;
  card.querySelector(".score").textContent = item.error ? "no score" : digits(item.score);
  badge(card.querySelector(".badge"), item);
  colour(card, item);
}
function badge(element, item) {
  const mark = item.lost || item.mark === "none" ? "" : item.mark;
  element.textContent = [mark, item.lost || item.changed ? "changed" : ""].filter(Boolean).join(", ");
  element.className = `badge ${mark}`;
}
const isAnomalous = item => item && item.score !== null && item.score > at.threshold;
const colour = (card, item) => card.classList.toggle("above", Boolean(isAnomalous(item)));

/* ---- one image, large ---- */
async function open(position) {
  if (position < 0 || position >= total) return;
  const item = await itemAt(position);
  if (!item) return;
  opened = focused = position;
  if (!$("large").open) $("large").showModal();
  show(item);
}
/* What is shown is what a key marks, wherever the list has it by now. */
function show(item) {
  const same = isShowing(item);
  showing = item;
  showItem(item);
  if (same) return;
  $("unreadable").hidden = true;
  $("regions").replaceChildren();
  $("picture").item = item;
  for (const id of ["picture", "heat", "rebuilt"]) $(id).removeAttribute("src");
  $("neighbors").replaceChildren();
  $("why").textContent = "";
  $("picture").src = address("picture", item);
  clearTimeout(staying);
  staying = setTimeout(() => showWhatItMakes(item), RESTS);  // not for images that one only passes
}
let staying, showing = { index: -1 };
const isShowing = item => item.index === showing.index && item.state === showing.state;
function showWhatItMakes(item) {
  $("heat").hidden = !about.has_maps;
  if (about.has_maps) $("heat").src = address("heat", item);
  $("rebuilt").src = address("rebuilt", item);
  showNeighbors(item);
}
function showItem(item) {
  $("name").textContent = item.path;
  $("score").textContent = item.score === null ? "none" : `${digits(item.score)}, ${isAnomalous(item) ? "anomalous" : "normal"}`;
  $("score").classList.toggle("alarm", Boolean(isAnomalous(item)));
  $("p").textContent = item.changed ? `${digits(item.p_value)}, of what the file was when it was scored` : digits(item.p_value);
  $("mark").textContent = item.lost ? `${item.mark}, lost: the file has changed since` : item.mark;
  $("previous").disabled = opened === 0;
  $("next").disabled = opened === total - 1;
  $("undo").disabled = !undone.length;
}
/* Boxes over the picture, which are shares of it; the SVG fits into the stage as the picture does. */
function drawRegions() {
  const svg = $("regions"), { naturalWidth: width, naturalHeight: height, item: { regions } } = $("picture");
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.replaceChildren();
  for (const { box: [x, y, w, h] } of regions) {
    draw(svg, "rect", { x: x * width, y: y * height, width: w * width, height: h * height });
  }
}
async function showNeighbors(item) {
  $("why").textContent = "looking for them …";
  let found;
  try {
    const answer = await fetch(address("neighbors", item));
    found = await answer.json();
    if (!answer.ok) throw new Error(found.error);
  } catch (error) { found = []; if (isShowing(item)) $("why").textContent = error.message; }
  if (!isShowing(item)) return;
  if (found.length) $("why").textContent = "by distance of their latents";
  $("neighbors").replaceChildren(...found.map(each => {
    const figure = make("figure"), picture = make("img");
    picture.src = `training/${each.index}`;
    picture.alt = each.name;
    picture.onload = () => picture.classList.toggle("small", picture.naturalWidth <= SMALL);
    figure.title = `${each.name}, at a distance of ${digits(each.distance)}`;
    figure.append(picture, make("figcaption", "", each.name.split("/").pop()));
    return figure;
  }));
}

/* ---- marks: one after the other, however fast the keys ---- */
let turn = Promise.resolve(), refusedAt = -GLANCE;
function inTurn(task) {
  const run = () => performance.now() - refusedAt > GLANCE && task();  // keys that follow a refused one were meant for others
  turn = turn.then(run, run);
}
/* place: where the focus was when a key was pressed, for it may be elsewhere by now */
async function setMark(mark, place = focused) {
  const position = opened ?? place, item = opened === null ? await itemAt(position) : showing;
  if (!item || item.mark === mark && !item.lost) return step(position, item);
  const { index, path } = item, state = seen.get(index);
  if (state === undefined) {
    refusedAt = performance.now();
    trouble("refused", `${path} is not shown yet, and is not marked; look again`);
  }
  await post(index, mark, state);
  undone.push({ index, before: item.lost ? "none" : item.mark, position, state });
  await step(position, item);
}
async function post(index, mark, state) {
  const changed = await ask("mark", { index, mark, seen: state }).catch(lookAgain);
  for (const [position, each] of items) if (each.index === index) items.set(position, changed);
  at = await ask(`at?threshold=${threshold}`);
  showThreshold();
  if (BY_MARK.has($("kind").value)) await reload(); else layOut();
}
/* Shows what is there by now, in place of what was seen and could not be marked. */
async function lookAgain(error) {
  if (opened !== null) show(await ask(`item/${showing.index}`));
  await reload();
  refusedAt = performance.now();
  throw error;
}
/* Goes on to the next image; where the list has lost the marked one, that has its place already. */
async function step(position, item) {
  if (opened === null) return;
  const there = items.get(position);
  if (!total) $("large").close();
  else await open(Math.min(there && item && there.index === item.index ? position + 1 : position, total - 1));
}
async function undo() {
  if (!undone.length) return;
  const { index, before, position, state } = undone.at(-1), now = await ask(`item/${index}`);
  await post(index, now.state === state ? before : "none", state);  // a file that has changed cannot have its old mark
  undone.pop();
  if (opened !== null) await open(Math.min(position, total - 1));
}

/* ---- keys and buttons ---- */
const MARK_OF = { g: "good", b: "bad", u: "undecided" };
function focusOn(position) {
  focused = Math.min(Math.max(position, 0), total - 1);
  const top = $("wall").offsetTop + Math.floor(focused / columns()) * CARD.height, bar = document.querySelector("nav").offsetHeight;
  if (top < scrollY + bar) scrollTo(0, top - bar - 8);
  if (top + CARD.height > scrollY + innerHeight) scrollTo(0, top + CARD.height - innerHeight + 8);
  layOut();
  cards.get(focused)?.focus({ preventScroll: true });
}
document.addEventListener("keydown", event => {
  const typing = event.target.matches("select, input[type=number], input[type=range]");
  if (event.ctrlKey || event.metaKey || event.altKey || typing) return;
  const across = opened === null ? columns() : 1;
  const moves = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -across, ArrowDown: across };
  const mark = MARK_OF[event.key], place = focused;
  if (mark) inTurn(() => setMark(mark, place));
  else if (event.key === "z") inTurn(undo);
  else if (event.key === "m") for (const id of ["heat", "regions"]) $(id).style.visibility = $(id).style.visibility ? "" : "hidden";
  else if (moves[event.key]) opened === null ? focusOn(focused + moves[event.key]) : open(opened + moves[event.key]);
  else return;
  event.preventDefault();
});
$("large").addEventListener("close", () => {
  const last = opened;
  opened = null;
  if (last !== null) focusOn(last);
  for (const card of cards.values()) see(card.firstChild);
});
$("previous").onclick = () => open(opened - 1);
$("next").onclick = () => open(opened + 1);
$("close").onclick = () => $("large").close();
$("undo").onclick = () => inTurn(undo);
for (const button of document.querySelectorAll("[data-mark]")) button.onclick = () => inTurn(() => setMark(button.dataset.mark));
$("opacity").oninput = () => { $("heat").style.opacity = $("opacity").value / 100; };
$("picture").onerror = () => { $("unreadable").textContent = "this file cannot be shown"; $("unreadable").hidden = false; };
for (const id of ["picture", "rebuilt"]) {
  $(id).addEventListener("load", () => $(id).classList.toggle("small", $(id).naturalWidth <= SMALL));
}
for (const event of ["load", "error"]) $("picture").addEventListener(event, () => see($("picture")));
$("picture").addEventListener("load", drawRegions);
$("slider").oninput = () => moveTo(scoreAt($("slider").value / 10000));
$("number").oninput = () => moveTo($("number").valueAsNumber);
$("reset").onclick = () => { document.activeElement.blur(); moveTo(about.threshold); };
$("keep").onclick = async () => {
  $("keep").disabled = true;
  $("kept").textContent = "keeping it …";
  try {
    const kept = await ask("keep", { threshold });
    $("kept").textContent = `kept as run ${kept.run_id}; score with it: ${kept.command}`;
  } catch { $("kept").textContent = "it was not kept"; } finally { $("keep").disabled = false; }
};
for (const id of ["sort", "kind", "folder"]) $(id).onchange = () => { scrollTo(0, Math.min(scrollY, $("wall").offsetTop)); reload(); };
addEventListener("scroll", layOut, { passive: true });
addEventListener("resize", layOut);

/* ---- to begin ---- */
(async () => {
  about = await ask("about");
  threshold = about.threshold;
  document.title = `Review of ${about.output.split("/").pop()}`;
  $("title").textContent = document.title;
  $("title").title = about.output;
  $("said").textContent = `${about.source} · ${about.detector} · ${about.model}`;
  $("before").textContent = digits(about.threshold);
  $("fade").hidden = !about.has_maps;
  $("heat").style.opacity = 0.6;
  $("kind").append(...Object.entries(KINDS).map(([value, text]) => new Option(text, value)));
  $("folder").append(...Object.entries(about.folders).map(([name, number]) => new Option(`${name} (${count(number)})`, name)));
  $("folders").hidden = !Object.keys(about.folders).length;
  drawHistogram();
  await measure();
  await reload();
  setInterval(() => { if (!document.hidden) measure(); }, POLL);
})();

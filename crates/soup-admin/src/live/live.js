// Shows what /events says. Everything that others have named is put in as text, never as markup.
"use strict";

const TRIALS_MAX = 2000, NOTES_MAX = 200;
const SVG = "http://www.w3.org/2000/svg";
const at = (id) => document.getElementById(id);
let run = null, names = [], trials = [], accepted = new Set(), facts = new Map();

const number = (value) => (value === null || value === undefined ? "–" : Number(value).toPrecision(5));
// What a trial scored, or what it could have scored at best where its verdict was certain before all samples were judged.
const score = ({ value, early }) =>
  early ? `at best ${number(value)}, after ${early.judged} of ${early.of}` : number(value);
const bytes = (value) => {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) { value /= 1024; unit += 1; }
  return `${value.toFixed(value < 10 && unit ? 1 : 0)} ${units[unit]}`;
};

function row(cells, classes = []) {
  const tr = document.createElement("tr");
  cells.forEach((text, index) => {
    const td = document.createElement("td");
    td.textContent = text;
    if (classes[index]) td.className = classes[index];
    tr.append(td);
  });
  return tr;
}

function fact(name, value) {
  facts.set(name, value);
  at("facts").replaceChildren(...[...facts].map(([key, text]) => {
    const div = document.createElement("div"), dt = document.createElement("dt"), dd = document.createElement("dd");
    dt.textContent = key;
    dd.textContent = text;
    div.append(dt, dd);
    return div;
  }));
}

function note(text, bad) {
  const li = document.createElement("li");
  li.textContent = text;
  if (bad) li.className = "bad";
  at("notes").prepend(li);
  while (at("notes").childElementCount > NOTES_MAX) at("notes").lastChild.remove();
}

function progress(done, of) {
  at("progress").hidden = !of;
  at("progress").value = of ? done / of : 0;
}

function begin(name) {
  [run, names, trials, accepted, facts] = [name, [], [], new Set(), new Map()];
  at("run").textContent = name;
  for (const id of ["trials", "notes", "plot", "facts"]) at(id).replaceChildren();
  at("figure").hidden = true;
  at("count").textContent = "";
}

function mark(kind, attributes) {
  const element = document.createElementNS(SVG, kind);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}

// Scores of trials by their number, or what they could have been, and the bar each had to reach as a line of steps.
function plot() {
  const known = trials.filter((trial) => trial.value !== null && trial.bar !== null);
  at("figure").hidden = known.length < 2;
  if (known.length < 2) return;
  const values = known.flatMap((trial) => [trial.value, trial.bar]);
  const low = Math.min(...values), high = Math.max(...values), span = high - low || 1;
  const x = (index) => 56 + (index / Math.max(known.length - 1, 1)) * 568;
  const y = (value) => 184 - ((value - low) / span) * 168;
  const bar = known.map((trial, index) => `${index ? "H" : "M"}${x(index)}${index ? "V" : " "}${y(trial.bar)}`).join("");
  const parts = [mark("path", { d: bar, class: "bar" })];
  known.forEach((trial, index) => {
    const dot = mark("circle", { cx: x(index), cy: y(trial.value), r: 3.5, class: trial.accepted ? "accepted" : "rejected" });
    const title = mark("title", {});
    title.textContent = `trial ${trial.trial}: ${score(trial)}, bar ${number(trial.bar)}`;
    dot.append(title);
    parts.push(dot);
  });
  for (const [value, place] of [[high, 20], [low, 188]]) {
    const label = mark("text", { x: 6, y: place });
    label.textContent = number(value);
    parts.push(label);
  }
  at("plot").replaceChildren(...parts);
}

let drawn = false;
function drawSoon() {
  if (drawn) return;
  drawn = true;
  requestAnimationFrame(() => { drawn = false; plot(); });
}

const show = {
  view(view) {
    if (view.run && view.run !== run) begin(view.run);
    at("state").textContent = view.run ? `in progress: ${view.phase}` : run ? "the run has ended" : "waiting for a run";
    at("many").textContent = view.workers.length;
    at("workers").replaceChildren(...view.workers.map((worker) =>
      row([worker.name + (worker.leaving ? " (leaving)" : ""), worker.address, worker.slots, bytes(worker.device_bytes + worker.capacity_bytes), worker.shards])));
    at("queued").replaceChildren(...view.queued.map((name) => {
      const li = document.createElement("li");
      li.textContent = name;
      return li;
    }));
  },
  queued: (event) => fact("runs ahead", event.ahead),
  planned(event) {
    names = event.ingredients;
    fact("ingredients", names.length);
    fact("parameters of each", Number(event.parameters).toLocaleString("en"));
    fact("bytes of each", bytes(event.bytes));
    fact("datasets", event.datasets.join(", ") || "none");
  },
  loading(event) {
    fact("shards loaded", `${event.resident} of ${event.shards}`);
    progress(event.resident, event.shards);
  },
  scored: (event) => fact(`last score, ${event.dataset}`, number(event.value)),
  trial(event) {
    trials.push(event);
    if (trials.length > TRIALS_MAX) trials.shift();
    const verdict = event.accepted ? "accepted" : "rejected";
    at("trials").prepend(row(
      [event.trial, names[event.candidate] ?? event.candidate, score(event), number(event.bar), verdict], ["", "", "", "", verdict]));
    if (at("trials").childElementCount > TRIALS_MAX) at("trials").lastChild.remove();
    if (event.accepted) accepted.add(event.trial);
    at("count").textContent = `${event.trial}, ${accepted.size} accepted`;
    drawSoon();
  },
  // Trials that are taken back are told again once they are decided.
  retracted(event) {
    note(event.text);
    const remains = (number) => number <= event.trials;
    trials = trials.filter((trial) => remains(trial.trial));
    accepted = new Set([...accepted].filter(remains));
    const rows = at("trials");
    while (rows.firstChild && !remains(Number(rows.firstChild.firstChild.textContent))) rows.firstChild.remove();
    at("count").textContent = `${event.trials}, ${accepted.size} accepted`;
    drawSoon();
  },
  writing: (event) => progress(event.written, event.files),
  step(event) {
    fact("steps", `${event.step} of ${event.steps}`);
    fact("loss", number(event.loss));
    progress(event.step, event.steps);
  },
  underway(event) {
    fact(event.what, `${event.done} of ${event.of}`);
    progress(event.done, event.of);
  },
  note: (event) => note(event.text),
  finished(event) {
    fact("output", event.output);
    fact("sha256", event.sha256);
    fact("chosen", event.ingredients.join(", "));
    progress(0, 0);
  },
  failed(event) { note(event.text, true); progress(0, 0); },
};

const events = new EventSource("events");
events.onopen = () => { begin("no run"); run = null; at("state").className = ""; };
events.onmessage = (message) => {
  const event = JSON.parse(message.data);
  show[event.type]?.(event);
};
events.onerror = () => {
  at("state").textContent = "the process does not answer; looking for it";
  at("state").className = "bad";
};

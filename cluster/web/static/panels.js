// Below the tasks: learner, replay, workers and events; and with several runs what differs in their
// settings.

import { AXES, shown } from "./address.js";
import { Chart, colour } from "./chart.js";
import { line } from "./curves.js";
import { bytes, count, duration, fill, h, number, percent, plain } from "./format.js";
import { placeOf } from "./groups.js";

export const PREFIXES = [
  "learner/loss", "learner/accuracy", "learner/tokens per s", "learner/gradient norm", "tasks/iqm",
  "replay/inserted tokens per s", "replay/read tokens per s", "workers/env steps per s",
  "workers/weights age p50 s", "workers/weights age p95 s",
];
const MOST_LINES = 8;
const short = (s) => (s < 10 ? `${s.toFixed(1)} s` : duration(s));
const ALARMING = /died|fail|refused|restarted|no answer|lost|problem|no progress|rejected|dead/;

function panel(name, title, ...children) {
  return h("section", { class: `panel ${name}`, "aria-labelledby": `of-${name}` }, h("h2", { id: `of-${name}` }, title), ...children);
}

function small(title, options) {
  const plot = h("div", {}), value = h("span", { class: "quiet" });
  const element = h("figure", {}, h("figcaption", {}, h("span", {}, title), value), plot);
  return { element, value, chart: new Chart(plot, options) };
}

export class Panels {
  constructor() {
    this.loss = small("loss");
    this.accuracy = small("accuracy of tokens", { format: percent });
    this.rate = small("tokens/s", { format: count });
    this.norm = small("gradient norm");
    this.tokens = small("tokens/s in and out", { format: count });
    this.steps = small("environment steps/s", { format: count });
    this.ages = small("age of the weights", { format: short });
    this.facts = Object.fromEntries(["learner", "split", "replay", "fill", "workers", "table", "events", "differ"].map((name) => [name, h("div", { class: name === "split" ? "time" : name })]));
    this.differ = panel("settings", "Settings that differ", this.facts.differ);
    this.element = h("div", { class: "panels" },
      this.differ,
      panel("learner", "Learner", this.facts.learner, this.facts.split, charts(this.loss, this.accuracy, this.rate, this.norm)),
      h("div", { class: "column" },
        panel("replay", "Replay", this.facts.replay, this.facts.fill, charts(this.tokens)),
        panel("events", "Events", this.facts.events)),
      panel("workers", "Workers", this.facts.workers, charts(this.steps, this.ages), this.facts.table));
    this.settings = new Map();
  }

  update(runs) {
    const [run] = runs;
    if (!run?.now) return;
    this.#curves(this.loss, runs, "learner/loss", number(run.now.learner.loss));
    this.#curves(this.accuracy, runs, "learner/accuracy", "");
    this.#curves(this.rate, runs, "learner/tokens per s", count(run.now.learner.tokens_per_s));
    this.#curves(this.norm, runs, "learner/gradient norm", "");
    this.#several(this.tokens, runs, { "in": "replay/inserted tokens per s", "out": "replay/read tokens per s" });
    this.#curves(this.steps, runs, "workers/env steps per s", count(run.now.env_steps_per_s));
    this.#several(this.ages, runs, { "p50": "workers/weights age p50 s", "p95": "workers/weights age p95 s" });
    fill(this.facts.learner, learnerFacts(run.now));
    fill(this.facts.split, splitOf(run.now.learner));
    fill(this.facts.replay, replayFacts(run.now));
    fill(this.facts.fill, fillOf(run.now));
    fill(this.facts.workers, workerFacts(run.now));
    fill(this.facts.table, workerTable(run.now));
    fill(this.facts.events, eventList(runs));
    this.#differences(runs);
  }

  /** A line of each run or, of one run, of each task or part. */
  #curves(figure, runs, name, value) {
    this.#set(figure, runs, [name], value, () => {
      const all = runs.flatMap((run, i) => line(run, name, placeOf(run.name, i), runs.length > 1 ? run.name : "all"));
      if (runs.length > 1) return all;
      const names = [...runs[0].lines.keys()].filter((other) => other.startsWith(`${name}/`)).sort();
      const some = names.length <= MOST_LINES ? names : [];
      return [...some.flatMap((other, i) => thin(line(runs[0], other, i + 1, plain(other.slice(name.length + 1))))), ...all];
    });
  }

  #several(figure, runs, names) {
    this.#set(figure, runs, Object.values(names), "", () => Object.entries(names).flatMap(([label, name], k) =>
      runs.flatMap((run, i) => line(run, name, runs.length > 1 ? placeOf(run.name, i) : k, runs.length > 1 ? `${run.name} ${label}` : label))));
  }

  #set(figure, runs, names, value, make) {
    figure.value.textContent = value;
    const marks = [shown.x, ...runs.flatMap((run) => names.map((name) => run.mark(name)))];
    figure.chart.setOnce(marks.join("|"), () => {
      const curves = make(), caption = figure.element.querySelector("figcaption > span").textContent;
      figure.element.hidden = !curves.length;
      return { x: shown.x, xLabel: AXES[shown.x].label, curves, label: `${caption} ${value}` };
    });
  }

  async #differences(runs) {
    this.differ.hidden = runs.length < 2;
    if (this.differ.hidden) return;
    for (const { name } of runs) {
      if (this.settings.has(name)) continue;
      this.settings.set(name, null);
      const answer = await fetch(`/api/runs/${name}/settings`).catch(() => null);
      if (answer?.ok) this.settings.set(name, await answer.json());
      else this.settings.delete(name);
    }
    const known = runs.map(({ name }) => this.settings.get(name)).filter(Boolean);
    if (known.length !== runs.length) return;
    const paths = [...new Set(known.flatMap(Object.keys))].filter((path) => path !== "name" && path !== "about"
      && new Set(known.map((settings) => JSON.stringify(settings[path]))).size > 1);
    const rows = paths.map((path) => h("tr", {}, h("th", { scope: "row" }, path),
      ...known.map((settings) => h("td", {}, plain(JSON.stringify(settings[path]) ?? "–")))));
    const head = h("tr", {}, h("th", { scope: "col" }, "setting"), ...runs.map(({ name }) => h("th", { scope: "col" }, name)));
    fill(this.facts.differ, paths.length ? h("table", {}, h("thead", {}, head), h("tbody", {}, ...rows))
      : h("p", { class: "quiet" }, "All settings are the same."));
  }
}

function charts(...figures) {
  return h("div", { class: "charts" }, ...figures.map(({ element }) => element));
}

function thin(curves) {
  return curves.map(({ low, high, ...curve }) => ({ ...curve, width: 1.2 }));
}

function facts(entries) {
  const shownEntries = entries.filter(([, value]) => value !== null && value !== undefined && value !== "–");
  return h("dl", { class: "facts" }, ...shownEntries.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))));
}

function learnerFacts({ learner }) {
  const dash = (value, text) => (value === null || value === undefined ? "–" : text(value));
  return facts([
    ["update", learner.num_updates ? `${count(learner.step)} of ${count(learner.num_updates)}` : "–"],
    ["version", dash(learner.version, plain)],
    ["loss", number(learner.loss)],
    ["tokens/s", count(learner.tokens_per_s)],
    ["MFU", learner.mfu ? percent(learner.mfu) : "–"],
    ["learning rate", dash(learner.learning_rate, (v) => v.toPrecision(3))],
    ["memory", learner.memory_bytes ? bytes(learner.memory_bytes) : "–"],
    ["waits for data", percent(learner.wait_fraction)],
  ]);
}

/** Where the learner's time goes, as one bar. */
function splitOf({ seconds = {} }) {
  const all = Object.values(seconds).reduce((a, b) => a + b, 0);
  const spent = Object.entries(seconds).filter(([, s]) => s > 0);
  if (!spent.length || !all) return [];
  const text = spent.map(([name, s]) => `${name} ${percent(s / all)}`).join(", ");
  const bar = h("div", { class: "split", role: "img", "aria-label": `The learner's time: ${text}` });
  const legend = h("div", { class: "legend" });
  spent.forEach(([name, s], i) => {
    const part = h("span", { title: `${name} ${percent(s / all)}` });
    part.style.flexGrow = String(s / all);
    part.style.background = colour(i);
    bar.append(part);
    const mark = h("i", {});
    mark.style.background = colour(i);
    legend.append(h("span", {}, mark, `${name} ${percent(s / all)}`));
  });
  return [bar, legend];
}

function replayFacts({ replay }) {
  if (!replay.capacity_bytes) return h("p", { class: "quiet" }, "No episode yet.");
  const episodes = Object.values(replay.episodes).reduce((a, b) => a + b, 0);
  const rejected = Object.entries(replay.refused || {}).map(([why, n]) => `${count(n)} × ${plain(why)}`).join(", ");
  return [
    facts([
      ["episodes", count(episodes)], ["steps", count(replay.steps)],
      ["tokens in", count(replay.inserted_tokens)], ["tokens out", count(replay.read_tokens)],
      ["limiter", replay.paused ? "paused" : plain(replay.who_waits || "–")],
      ["evicted", replay.evicted ? count(replay.evicted) : "–"],
    ]),
    rejected ? h("p", { class: "warn" }, `rejected: ${rejected}`) : null,
  ];
}

function meter(share, text, label) {
  const bar = h("i", {});
  bar.style.width = `${Math.min(100, Math.max(0, 100 * share)).toFixed(1)}%`;
  return h("div", { class: "meter" }, h("span", {}, label), h("span", { class: "bar" }, bar), h("span", { class: "quiet" }, text));
}

function fillOf({ replay }) {
  if (!replay.capacity_bytes) return [];
  const rows = [meter(replay.fill, `${bytes(replay.stored_bytes)} of ${bytes(replay.capacity_bytes)}`, "all")];
  const all = Object.values(replay.episodes).reduce((a, b) => a + b, 0) || 1;
  for (const [task, episodes] of Object.entries(replay.episodes)) {
    const sources = Object.entries(replay.sources?.[task] || {}).map(([name, amount]) => `${plain(name)} ${count(amount.episodes)}`);
    rows.push(meter(episodes / all, [`${count(episodes)} episodes`, ...sources].join(" · "), plain(task)));
  }
  return rows;
}

function workerFacts(now) {
  const ages = now.weights_age, age = (name) => `${short(ages[`age ${name} s`])} (${count(ages[`age ${name} versions`])} versions)`;
  return facts([
    ["workers", `${count(now.num_workers)}${now.num_gone ? `, ${count(now.num_gone)} silent` : ""}`],
    ["environment steps/s", count(now.env_steps_per_s)],
    ["weights' age, median", "age p50 s" in ages ? age("p50") : "–"],
    ["95th percentile", "age p95 s" in ages ? age("p95") : "–"],
  ]);
}

function workerTable({ workers, num_workers: all }) {
  if (!workers.length) return h("p", { class: "quiet" }, "No worker has reported lately.");
  const hasNodes = workers.some(({ node }) => node), isNumber = { class: "n" };
  const head = ["worker", ...(hasNodes ? ["node"] : []), "role", "task", "weights", "steps/s", "waits", "last fault"];
  const rows = workers.map((worker) => h("tr", {},
    h("th", { scope: "row" }, plain(worker.id)), hasNodes ? h("td", {}, plain(worker.node || "–")) : null,
    h("td", {}, plain(worker.role), worker.assignment_s ? h("span", { class: "quiet" }, ` for ${short(worker.assignment_s)}`) : null), h("td", {}, plain(worker.task)),
    h("td", {}, worker.version ? plain(worker.version) : "teacher", worker.age_versions ? h("span", { class: "warn" }, ` −${worker.age_versions} (${short(worker.age_s)})`) : null),
    h("td", isNumber, count(worker.env_steps_per_s)), h("td", isNumber, percent(worker.wait_fraction)),
    h("td", { class: "fault" }, plain(worker.fault || Object.entries(worker.refused).map(([why, n]) => `${n} × ${why}`).join(", ") || ""))));
  const more = all > workers.length ? h("p", { class: "quiet" }, `and ${count(all - workers.length)} more`) : null;
  const table = h("table", {}, h("thead", {}, h("tr", {}, ...head.map((name) => h("th", { scope: "col", class: /steps|waits/.test(name) ? "n" : null }, name)))), h("tbody", {}, ...rows));
  return [h("div", { class: "scrolls", tabindex: "0", role: "region", "aria-label": "Workers" }, table), more];
}

function eventList(runs) {
  const events = runs.flatMap((run) => run.events.map((event) => ({ ...event, run: run.name })));
  events.sort((a, b) => b.time_s - a.time_s);
  if (!events.length) return h("p", { class: "quiet" }, "Nothing happened yet.");
  const rows = events.slice(0, 100).map(({ kind, text, time_s: at, run }) => {
    const time = new Date(1000 * at);
    return h("li", {}, h("time", { datetime: time.toISOString(), title: time.toLocaleString() }, time.toLocaleTimeString("en-GB")),
      h("span", { class: ALARMING.test(kind) ? "warn" : "kind" }, plain(runs.length > 1 ? `${run}: ${kind}` : kind)), h("span", {}, plain(text)));
  });
  return h("ol", { class: "scrolls", tabindex: "0", "aria-label": "Events, the newest first" }, ...rows);
}

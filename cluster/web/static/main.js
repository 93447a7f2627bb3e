// The page: its head, its two tabs, and the feed that keeps them up to date.

import { AXES, onShow, show, shown } from "./address.js";
import { colour, redrawAll } from "./chart.js";
import { Feed } from "./feed.js";
import { duration, fill, h, plain } from "./format.js";
import { onGroups, placeOf } from "./groups.js";
import { Metrics } from "./metrics.js";
import { Overview } from "./overview.js";
import { Steer } from "./steer.js";

const DRAW_MS = 200;
const STATES = { running: "good", starting: "warn", stopping: "warn", failed: "bad", dead: "bad" };
let known = [];
let scheduled = false;
let drawn = null;
let drawnAt = 0;

const feed = new Feed(later);
const views = { overview: new Overview(feed), metrics: new Metrics(feed) };
const steer = new Steer();
const main = document.getElementById("main");
const runChips = h("div", { class: "runs" });
const state = h("span", { class: "state" });
const trouble = h("p", { class: "trouble", role: "status", hidden: true });

function select(id, label, options, value, onchange) {
  const element = h("select", { id, "aria-label": label, onchange: () => onchange(element.value) }, ...options.map(([name, text]) => h("option", { value: name }, text)));
  element.value = value;
  return element;
}

const axis = select("axis", "Axis of the curves", Object.entries(AXES).map(([name, { label }]) => [name, label]), shown.x, (x) => show({ x }));
const measure = select("measure", "Returns", [["return", "return"], ["norm", "normalised"]], shown.y, (y) => show({ y }));
const averager = h("input", { type: "checkbox", id: "average", onchange: () => show({ g: averager.checked }) });
const average = h("label", { class: "average", for: "average", title: "Runs whose settings are equal but for the seed as one: the interquartile mean, with a 95 % interval over seeds" }, averager, "average seeds");
const adder = h("select", { "aria-label": "Show another run", onchange: () => { if (adder.value) show({ runs: [...shown.runs, adder.value] }); } });
const tabs = h("nav", { "aria-label": "Views" }, ...Object.keys(views).map((name) => h("a", { href: "#main", "data-view": name, onclick: (event) => { event.preventDefault(); show({ view: name }); } }, name[0].toUpperCase() + name.slice(1))));
const theme = h("button", { type: "button", title: "Light or dark", "aria-label": "Light or dark", onclick: changeTheme }, "◐");
const steering = h("button", { type: "button", onclick: () => feed.runs.size && steer.open(feed.runs.values().next().value) }, "Steer");

document.getElementById("head").append(
  h("div", { class: "bar" }, h("a", { class: "name", href: "/" }, "gato"), runChips, state, tabs,
    h("div", { class: "tools" }, average, h("label", { for: "axis" }, "over"), axis, measure, steering, theme)), trouble);

function changeTheme() {
  const isDark = document.documentElement.dataset.theme
    ? document.documentElement.dataset.theme === "dark"
    : matchMedia("(prefers-color-scheme: dark)").matches;
  const chosen = isDark ? "light" : "dark";
  document.documentElement.dataset.theme = chosen;
  localStorage.setItem("gato-theme", chosen);
  drawnTheme();
}

function drawnTheme() {
  redrawAll();
  later();
}
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawnTheme);

/** Draw soon, at most every `DRAW_MS`. Hidden tabs have no frames: they draw when they are looked at. */
function later() {
  if (scheduled) return;
  scheduled = true;
  const draws = () => requestAnimationFrame(() => { scheduled = false; drawnAt = Date.now(); draw(); });
  const wait = drawnAt + DRAW_MS - Date.now();
  if (wait > 0) setTimeout(draws, wait);
  else draws();
}

function draw() {
  const runs = shown.runs.map((name) => feed.runs.get(name)).filter(Boolean);
  for (const link of tabs.children) {
    if (link.dataset.view === shown.view) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  axis.value = shown.x;
  averager.checked = shown.g;
  average.hidden = shown.runs.length < 2;
  measure.value = shown.y;
  drawHead(runs);
  const isReady = runs.some((run) => run.now);
  if (isReady && drawn !== shown.view) {
    main.replaceChildren(views[shown.view].element);
    drawn = shown.view;
  }
  if (isReady) views[shown.view].update(runs);
}

function drawHead(runs) {
  const [first] = runs, now = first?.now;
  const isOver = ["finished", "stopped", "failed"].includes(now?.state) && feed.problem.startsWith("the page's server");
  const says = isOver ? `the run is ${now.state}, and its page with it; gato watch --web ${first.name} shows it again` : feed.problem;
  fill(trouble, says ? plain(says) : "");
  trouble.hidden = !says;
  const several = shown.runs.length > 1;
  runChips.replaceChildren(...shown.runs.map((name, i) => {
    const chip = h("span", { class: "chip" }, plain(name));
    if (several) {
      chip.style.setProperty("--of", colour(placeOf(name, i)));
      chip.append(h("button", { type: "button", "aria-label": `Hide ${name}`, onclick: () => show({ runs: shown.runs.filter((other) => other !== name) }) }, "×"));
    }
    return chip;
  }), adder);
  const others = known.filter(({ name }) => !shown.runs.includes(name));
  adder.hidden = !others.length;
  fill(adder, h("option", { value: "" }, "+ compare"), ...others.map(({ name, state: said }) => h("option", { value: name }, `${name} (${said})`)));
  state.className = `state ${STATES[now?.state] || ""}`;
  state.textContent = now && !several ? `${now.state} · ${duration(now.age_s)}` : "";
  document.title = now ? `${plain(first.name)} · ${now.state} · gato` : "gato";
}

async function list() {
  try {
    const answer = await (await fetch("/api/runs")).json();
    known = answer.runs;
    if (!shown.runs.length) show({ runs: [answer.first] }, true);
    later();
  } catch {
    setTimeout(list, 2000);
  }
}

onGroups(later);
onShow(() => {
  feed.follow(shown.runs);
  later();
});
feed.follow(shown.runs);
await list();
setInterval(list, 30000);

// A tile for each task: its curve, who it is compared with, the newest number and the newest clip.

import { AXES, shown } from "./address.js";
import { Chart, colour } from "./chart.js";
import { references, returns, scaleOf } from "./curves.js";
import { averages } from "./groups.js";
import { count, fill, h, number, parts, percent, plain } from "./format.js";

export class Tiles {
  constructor() {
    this.element = h("section", { class: "tiles", "aria-label": "Tasks" });
    this.tiles = new Map();
  }

  update(runs, groups) {
    const tasks = [...new Set(runs.flatMap((run) => run.tasks()))];
    for (const [task, tile] of this.tiles) {
      if (tasks.includes(task)) continue;
      tile.chart.remove();
      tile.element.remove();
      this.tiles.delete(task);
    }
    for (const task of tasks) {
      let tile = this.tiles.get(task);
      if (!tile) {
        this.tiles.set(task, (tile = makeTile(task)));
        this.element.append(tile.element);
      }
      updateTile(tile, task, runs, groups);
    }
  }
}

function makeTile(task) {
  const [group, name] = parts(task);
  const head = h("header", {}, h("h3", { title: plain(task) }, h("span", { class: "group" }, group), name));
  const value = h("div", { class: "value" });
  const plot = h("div", {}), clip = h("div", { class: "clip" }), foot = h("footer", {});
  head.append(value);
  const body = h("div", { class: "body" }, plot, clip);
  const element = h("article", { class: "tile", "data-task": task }, head, body, foot);
  return { element, value, clip, foot, chart: new Chart(plot, { sync: "tasks" }) };
}

function updateTile(tile, task, runs, groups) {
  const first = runs.find((run) => run.now?.tasks[task]);
  const facts = first?.now.tasks[task];
  tile.element.classList.toggle("several", runs.length > 1);
  const averaged = groups && averages(groups, task, facts);
  fill(tile.value, averaged ? averaged.map(lastOf) : runs.map((run, i) => valueOf(run.now?.tasks[task], runs.length > 1 ? colour(i) : null)));
  const changes = groups ? [`averages ${groups.mark}`] : runs.map((run) => run.mark(`returns/${task}`));
  const marks = [shown.x, shown.y, facts?.return, facts?.teacher_return, ...changes];
  tile.chart.setOnce(marks.join("|"), () => ({
    x: shown.x,
    xLabel: AXES[shown.x].label,
    curves: averaged || runs.map((run, i) => returns(run, task, i, runs.length > 1 ? run.name : "return")).filter(({ x }) => x.length),
    lines: references(facts),
    label: facts?.return == null ? `${plain(task)}: no evaluation yet` : `Returns of ${plain(task)}: now ${number(facts.return)}`,
  }));
  fill(tile.foot, runs.length > 1 ? [] : footOf(first, task, facts));
  updateClip(tile, first, task);
}

/** Where a curve over seeds ends, with its interval. */
export function lastOf({ y, low, high, colour: of }) {
  const text = h("b", {}, number(y.at(-1)));
  text.style.color = of;
  return h("span", {}, text, low ? h("span", { class: "quiet" }, ` [${number(low.at(-1))}, ${number(high.at(-1))}]`) : null);
}

function valueOf(facts, of) {
  if (!facts) return null;
  if (facts.return === null) {
    const text = facts.last_failure ? "failed" : "waiting";
    return h("span", { class: facts.last_failure ? "bad" : "quiet" }, text);
  }
  const scale = scaleOf(facts);
  const mean = scale ? scale(facts.return) : facts.return;
  const std = scale ? scale(facts.random_return + facts.return_std) : facts.return_std;
  const norm = facts.normalised;
  const badge = norm === null || scale ? null
    : h("span", { class: `norm ${gradeOf(norm)}`, title: "0: random, 1: the teacher" }, norm.toFixed(2));
  const text = h("b", {}, number(mean));
  if (of) text.style.color = of;
  return h("span", {}, text, h("span", { class: "quiet" }, ` ± ${number(std)}`), badge ? " " : null, badge);
}

function gradeOf(norm) {
  return norm >= 0.9 ? "best" : norm >= 0.5 ? "good" : norm >= 0.1 ? "fair" : "poor";
}

function footOf(run, task, facts) {
  if (!facts) return [];
  const { loss_by_task: losses = {}, accuracy_by_task: accuracies = {} } = run.now.learner;
  const says = [];
  if (facts.version) says.push(`v${facts.version} · ${count(facts.episodes)} episodes`);
  if (losses[task] !== undefined && losses[task] !== null) says.push(`loss ${number(losses[task])}`);
  if (typeof facts.success === "number") says.push(`${percent(facts.success)} solved`);
  if (accuracies[task] !== undefined) says.push(`acc. ${percent(accuracies[task])}`);
  if (facts.env_steps_per_s) says.push(`${count(facts.env_steps_per_s)}/s`);
  const lines = [h("span", {}, says.join(" · "))];
  if (facts.failed) {
    const text = `${facts.failed} failed${facts.last_failure ? `: ${plain(facts.last_failure)}` : ""}`;
    lines.push(h("span", { class: facts.last_failure ? "bad" : "quiet", title: text }, text));
  }
  for (const warning of facts.warnings) lines.push(h("span", { class: "warn", title: plain(warning) }, plain(warning)));
  return lines;
}

function updateClip(tile, run, task) {
  const clip = run?.now.clips[task];
  const mark = clip ? `${run.name} ${clip.mark}` : "";
  if (tile.clip.dataset.mark === mark) return;
  tile.clip.dataset.mark = mark;
  if (!clip) return void tile.clip.replaceChildren();
  const path = task.split("/").map(encodeURIComponent).join("/");
  const url = `/clips/${run.name}/${path}?mark=${clip.mark}`;
  const says = `${plain(task)}, version ${clip.version}: an episode with return ${number(clip.return)}`;
  if (clip.file.endsWith(".gif")) return void tile.clip.replaceChildren(h("img", { src: url, alt: says, loading: "lazy" }));
  const film = h("video", { src: url, muted: true, loop: true, playsinline: true, preload: "metadata", tabindex: "-1", "aria-hidden": "true" });
  film.muted = true;
  const button = h("button", { class: "film", title: says, "aria-label": `Play ${says}`, onclick: () => (film.paused ? film.play() : film.pause()) }, film);
  film.addEventListener("play", () => button.classList.add("plays"));
  film.addEventListener("pause", () => button.classList.remove("plays"));
  tile.clip.replaceChildren(button, h("span", { class: "quiet" }, `v${clip.version}: ${number(clip.return)}`));
}

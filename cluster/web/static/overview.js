// The first tab: one look says whether the agent gets better, on what, and who waits for whom.

import { AXES, shown } from "./address.js";
import { Chart, colour, token } from "./chart.js";
import { line } from "./curves.js";
import { averages, groupsOf, placeOf } from "./groups.js";
import { bytes, count, fill, h, number, percent, plain } from "./format.js";
import { Panels, PREFIXES } from "./panels.js";
import { Tiles, lastOf } from "./tiles.js";

export class Overview {
  constructor(feed) {
    this.feed = feed;
    this.tiles = new Tiles();
    this.panels = new Panels();
    this.waits = h("p", { class: "waits", "aria-live": "polite" });
    this.strip = h("dl", { class: "strip" });
    const plot = h("div", {});
    this.iqm = { value: h("div", { class: "value" }), chart: new Chart(plot), element: null, foot: null };
    this.iqm.foot = h("footer", {});
    this.iqm.element = h("article", { class: "tile iqm" },
      h("header", {}, h("h3", { title: "Interquartile mean of normalised returns" }, "IQM over tasks"), this.iqm.value), h("div", { class: "body" }, plot),
      this.iqm.foot);
    this.tiles.element.prepend(this.iqm.element);
    this.element = h("div", { class: "overview" }, h("h1", { class: "hidden" }, "Overview"), this.waits, this.strip, h("h2", { class: "hidden" }, "Returns"), this.tiles.element, this.panels.element);
  }

  update(runs) {
    const ready = runs.filter((run) => run.now);
    for (const run of ready) this.feed.need(run.name, PREFIXES);
    if (!ready.length) return;
    fill(this.waits, ready.flatMap((run) => waitsOf(run, ready.length > 1)));
    const groups = groupsOf(ready);
    fill(this.strip, groups ? groupLegend(groups) : ready.length > 1 ? legendOf(ready) : stripOf(ready[0]));
    this.#iqm(ready, groups);
    this.tiles.update(ready, groups);
    this.panels.update(ready);
  }

  #iqm(runs, groups) {
    const aggregates = runs.map((run) => run.now.aggregate.teacher);
    this.iqm.element.hidden = !aggregates.some((over) => over && over.num_tasks > 1);
    if (this.iqm.element.hidden) return;
    this.iqm.element.classList.toggle("several", runs.length > 1);
    const averaged = groups && averages(groups, "");
    fill(this.iqm.foot, `0 random · 1 teacher · 95 % interval over ${averaged ? "seeds" : "episodes"}`);
    fill(this.iqm.value, averaged ? averaged.map(lastOf) : aggregates.map((over, i) => {
      if (!over) return null;
      const value = h("b", {}, over.iqm.toFixed(2));
      if (runs.length > 1) value.style.color = colour(i);
      return h("span", {}, value, over.low === null ? null : h("span", { class: "quiet" }, ` [${over.low.toFixed(2)}, ${over.high.toFixed(2)}]`));
    }));
    const marks = [shown.x, JSON.stringify(aggregates), groups ? `averages ${groups.mark}` : "", ...runs.map((run) => run.mark("tasks/iqm"))];
    this.iqm.chart.setOnce(marks.join("|"), () => ({
      x: shown.x, xLabel: AXES[shown.x].label,
      curves: averaged || runs.flatMap((run, i) => withInterval(run, i, runs.length > 1 ? run.name : "IQM")),
      lines: [{ label: "teacher", value: 1, colour: token("--teacher"), isInside: true }, { label: "random", value: 0, colour: token("--random"), isInside: true }],
      label: `Interquartile mean over tasks: ${aggregates.map((over) => over?.iqm.toFixed(2)).join(", ")}`,
    }));
  }
}

/** The mean over tasks and, behind it, its interval at the times for which it was computed. */
function withInterval(run, i, label) {
  const [mean] = line(run, "tasks/iqm", i, label), [low] = line(run, "tasks/iqm/low", i, ""), [high] = line(run, "tasks/iqm/high", i, "");
  if (!mean) return [];
  const { low: _, high: __, ...bare } = mean;
  if (!low || low.x.length !== high?.x.length) return [bare];
  const now = run.now.aggregate.teacher, end = bare.x.at(-1), isNewer = now && now.low !== null && end > low.x.at(-1);
  const more = (values, value) => (isNewer ? [...values, value] : values);
  const x = more(low.x, end);
  return [{ label: "95 %", colour: bare.colour, x, y: x.map(() => null), low: more(low.y, now?.low), high: more(high.y, now?.high) }, bare];
}

function waitsOf({ now, name }, isNamed) {
  const text = now.problem || now.waits || "nothing was said yet";
  const label = () => (isNamed ? h("b", {}, `${plain(name)}: `) : null);
  const alerts = now.alerts.map((alert) => h("span", { class: "warn" }, label(), h("b", {}, `${plain(alert.kind)} `), plain(alert.text)));
  return [h("span", { class: now.problem ? "warn" : null }, label(), plain(text)), ...alerts];
}

function legendOf(runs) {
  return runs.map((run, i) => {
    const mark = h("i", {}), { learner } = run.now;
    mark.style.background = colour(i);
    return h("div", { class: "stat run" }, h("dt", {}, mark, plain(run.name)), h("dd", {}, `${count(learner.step)} updates`));
  });
}

function groupLegend({ list }) {
  return list.map(({ label, runs, settings }, i) => {
    const mark = h("i", {}), differing = Object.entries(settings).map(([path, value]) => `${path}=${plain(value)}`).join(" ");
    mark.style.background = colour(i);
    return h("div", { class: "stat run" }, h("dt", {}, mark, `${label}: ${runs.map(plain).join(", ")}`), h("dd", {}, h("small", { title: differing }, differing || "the same settings")));
  });
}

function stripOf({ now }) {
  const { learner, replay } = now;
  const done = learner.num_updates ? learner.step / learner.num_updates : null;
  const stats = [
    ["updates", done === null ? "–" : count(learner.step), done === null ? "" : `of ${count(learner.num_updates)}`, done],
    ["loss", number(learner.loss), ""],
    ["tokens/s", count(learner.tokens_per_s), learner.mfu ? `MFU ${percent(learner.mfu)}` : ""],
    ["env steps/s", count(now.env_steps_per_s), ""],
    ["workers", count(now.num_workers), now.num_gone ? `${now.num_gone} silent` : ""],
    ["replay", replay.capacity_bytes ? percent(replay.fill) : "–", replay.capacity_bytes ? `of ${bytes(replay.capacity_bytes)}` : "", replay.fill],
  ];
  return stats.map(([name, value, more, share]) => {
    const bar = share === null || share === undefined ? null : h("i", {});
    if (bar) bar.style.width = `${Math.min(100, 100 * share).toFixed(1)}%`;
    return h("div", { class: "stat" }, h("dt", {}, name), h("dd", {}, value, more ? h("small", {}, ` ${more}`) : null, bar ? h("span", { class: "bar" }, bar) : null));
  });
}

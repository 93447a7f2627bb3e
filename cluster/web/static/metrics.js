// The second tab: every series, with a filter, and smoothed with the raw line behind.

import { AXES, show, shown } from "./address.js";
import { Chart } from "./chart.js";
import { line, returns, smooth } from "./curves.js";
import { bytes, count, h, number, percent, plain } from "./format.js";
import { placeOf } from "./groups.js";

export class Metrics {
  constructor(feed) {
    this.feed = feed;
    this.charts = new Map();
    this.runs = [];
    const filter = h("input", { type: "search", id: "filter", placeholder: "loss, hopper, tokens …", value: shown.q, oninput: () => show({ q: filter.value.trim() }, true) });
    const amount = h("output", { for: "smooth" }, String(shown.s));
    const slider = h("input", { type: "range", id: "smooth", min: "0", max: "0.98", step: "0.02", value: String(shown.s), oninput: () => { amount.textContent = slider.value; show({ s: Number(slider.value) }, true); } });
    this.none = h("p", { class: "quiet" });
    this.groups = h("div", {});
    this.element = h("div", { class: "metrics" }, h("h1", { class: "hidden" }, "Metrics"),
      h("div", { class: "controls" }, h("label", { for: "filter" }, "Filter"), filter, h("label", { for: "smooth" }, "Smoothing"), slider, amount), this.none, this.groups);
    this.seen = new IntersectionObserver((entries) => {
      for (const { target, isIntersecting } of entries) if (isIntersecting) this.#need(target.dataset.name);
    }, { rootMargin: "400px" });
    this.wanted = new Set();
  }

  update(runs) {
    this.runs = runs.filter((run) => run.now);
    const names = [...new Set(this.runs.flatMap((run) => [...run.names, ...[...run.curves.keys()].map((task) => `returns/${task}`)]))].sort(byGroup);
    const kept = names.filter((name) => matches(name, shown.q));
    const layout = kept.join("\n");
    if (layout !== this.layout) this.#lay(kept);
    this.layout = layout;
    this.none.textContent = kept.length ? "" : names.length ? `No series has all of “${shown.q}” in its name.` : "No series yet.";
    for (const [name, { chart, value }] of this.charts) this.#draw(name, chart, value);
  }

  #lay(names) {
    for (const [name, { chart, element }] of this.charts) {
      if (names.includes(name)) continue;
      chart.remove();
      this.seen.unobserve(element);
      this.charts.delete(name);
    }
    const groups = new Map();
    for (const name of names) {
      if (!this.charts.has(name)) this.charts.set(name, this.#make(name));
      const group = name.startsWith("tasks/") ? "returns" : name.split("/")[0];
      if (!groups.has(group)) groups.set(group, []);
      groups.get(group).push(this.charts.get(name).element);
    }
    this.groups.replaceChildren(...[...groups].map(([group, elements]) => h("section", {}, h("h2", {}, group, h("span", { class: "quiet" }, ` ${elements.length}`)), h("div", { class: "series" }, ...elements))));
  }

  #make(name) {
    const plot = h("div", {}), value = h("span", { class: "quiet" });
    const element = h("figure", { "data-name": name }, h("figcaption", {}, h("span", { title: plain(name) }, titleOf(name)), value), plot);
    this.seen.observe(element);
    return { element, value, chart: new Chart(plot, { format: formatOf(name), sync: "series" }) };
  }

  #need(name) {
    if (name.startsWith("returns/")) return;
    this.wanted.add(name);
    clearTimeout(this.timer);
    this.timer = setTimeout(() => {
      const names = [...this.wanted];
      this.wanted.clear();
      for (const run of this.runs) this.feed.need(run.name, names.filter((one) => run.names.has(one)));
    }, 50);
  }

  #draw(name, chart, value) {
    const marks = [shown.x, shown.y, shown.s, ...this.runs.map((run) => run.mark(name))];
    chart.setOnce(marks.join("|"), () => {
      const curves = this.runs.flatMap((run, i) => (name.startsWith("returns/") ? this.#returns(run, name.slice(8), placeOf(run.name, i)) : line(run, name, placeOf(run.name, i), run.name, shown.s)));
      const newest = curves.length ? formatOf(name)(curves[0].y.at(-1)) : "";
      value.textContent = newest;
      return { x: shown.x, xLabel: AXES[shown.x].label, curves, label: `${plain(name)}: ${newest}` };
    });
  }

  #returns(run, task, i) {
    const curve = returns(run, task, i, run.name);
    if (!curve.x.length) return [];
    if (!shown.s) return [curve];
    const { low: _, high: __, ...bare } = curve;
    return [{ ...bare, faint: true }, { ...bare, y: smooth(bare.y, shown.s), width: 2 }];
  }
}

function titleOf(name) {
  const title = name.slice(name.indexOf("/") + 1);
  return plain(name.startsWith("tasks/") ? title.replace("iqm", "IQM over tasks") : title);
}

function byGroup(a, b) {
  const order = ["tasks", "returns", "records", "learner", "replay", "workers"];
  const [one, other] = [a, b].map((name) => order.indexOf(name.split("/")[0]));
  return one - other || (a < b ? -1 : a > b ? 1 : 0);
}

function matches(name, text) {
  const low = name.toLowerCase();
  return text.toLowerCase().split(/\s+/).every((word) => low.includes(word));
}

function formatOf(name) {
  if (/^records\//.test(name)) return /per byte$/.test(name) ? number : percent;
  if (/bytes$/.test(name)) return bytes;
  if (/learner\/(waits|blocked|mfu|time\/)|accuracy|replay\/fill|workers\/waits/.test(name)) return percent;
  if (/per s$|steps$|episodes|version|number|tokens/.test(name)) return count;
  return number;
}

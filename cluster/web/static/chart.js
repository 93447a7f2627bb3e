// A chart with uPlot: lines, bands, dashed lines of reference, and what the pointer is at.

import { clock, count, number } from "./format.js";

const WHOLE = Array.from({ length: 16 }, (_, i) => [1, 2, 5].map((n) => n * 10 ** i)).flat();
const TIMES = [1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400, 21600, 43200, ...[1, 2, 5, 10, 20, 50].map((n) => n * 86400)];
const dirty = new Set();
let scheduled = false;
const onScreen = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    const chart = entry.target.chart;
    if (!chart) continue;
    chart.isVisible = entry.isIntersecting;
    if (chart.isVisible && chart.isStale) later(chart);
  }
}, { rootMargin: "200px" });
const sized = new ResizeObserver((entries) => {
  for (const { target } of entries) {
    if (!target.chart) continue;
    target.chart.isResized = true;
    later(target.chart);
  }
});

/** The colours of curves, one for each run or part, as the theme has them. */
export function colour(index) {
  return token(`--series-${index % 10}`);
}

const tokens = new Map(); // of the present theme; to ask for one makes the browser settle all styles

export function token(name) {
  if (!tokens.get(name)) tokens.set(name, getComputedStyle(document.documentElement).getPropertyValue(name).trim());
  return tokens.get(name);
}

export function withAlpha(hex, alpha) {
  return hex + Math.round(alpha * 255).toString(16).padStart(2, "0");
}

function later(chart) {
  dirty.add(chart);
  if (scheduled) return;
  scheduled = true;
  requestAnimationFrame(() => {
    scheduled = false;
    const charts = [...dirty];
    dirty.clear();
    for (const one of charts) one.measure(); // all before the first is drawn: then the page is laid out once
    for (const one of charts) one.draw();
    performance.mark("gato-drawn");
  });
}

/** Draw all charts anew, in the colours of another theme. */
export function redrawAll() {
  tokens.clear();
  for (const element of document.querySelectorAll(".chart")) element.chart?.rebuild(); // with the next content
}

export class Chart {
  /** Draws into `element`. `format` makes text of a value. */
  constructor(element, { format = number, min = null, max = null, sync = null } = {}) {
    this.element = element;
    this.options = { format, min, max, sync };
    this.content = null;
    this.plot = null;
    this.isVisible = false;
    element.classList.add("chart");
    element.setAttribute("role", "img");
    element.chart = this;
    onScreen.observe(element);
    sized.observe(element);
  }

  /**
   * What to show. `curves`: [{label, colour, x, y, low?, high?, faint?}], each with its own x in
   * order; `lines`: [{label, value, colour}] across; `x`: the axis; `label`: for those who hear.
   */
  set(content) {
    this.content = content;
    this.element.setAttribute("aria-label", content.label || "chart");
    this.isStale = true;
    if (this.isVisible) later(this);
  }

  /** `set` what `make` returns, unless it was made for the same `mark` before. */
  setOnce(mark, make) {
    if (mark === this.mark) return;
    this.mark = mark;
    this.set(make());
  }

  measure() {
    this.size = [this.element.clientWidth, this.element.clientHeight];
  }

  /** In the size that was measured last. */
  draw() {
    if (!this.content || !this.isVisible || !this.element.isConnected) return;
    const [width, height] = this.size;
    if (!width || !height) return;
    const shape = JSON.stringify([
      this.content.x,
      this.content.curves.map(({ label, colour, low, faint, width: w }) => [label, colour, !!low, faint, w]),
    ]);
    const data = aligned(this.content.curves);
    if (this.plot && shape === this.shape) {
      if (this.isResized) this.plot.setSize({ width, height });
      this.plot.setData(data);
    } else {
      this.plot?.destroy();
      this.plot = new uPlot(this.#describe(width, height), data, this.element);
      this.shape = shape;
    }
    this.isStale = this.isResized = false;
    this.element.dataset.points = String(data[0].length);
  }

  rebuild() {
    this.mark = this.shape = null;
  }

  remove() {
    onScreen.unobserve(this.element);
    sized.unobserve(this.element);
    this.plot?.destroy();
    this.plot = null;
    this.element.chart = null;
  }

  #describe(width, height) {
    const { format, sync } = this.options;
    const grid = { stroke: token("--grid"), width: 1 };
    const axis = { stroke: token("--muted"), font: "11px system-ui, sans-serif", grid, ticks: { show: false } };
    const series = [{}], bands = [];
    for (const { label, colour: stroke, low, faint, width: lineWidth } of this.content.curves) {
      if (low) {
        const hidden = { stroke: "transparent", width: 0, spanGaps: true, points: { show: false } };
        series.push({ ...hidden, label: "" }, { ...hidden, label: "" });
        bands.push({ series: [series.length - 2, series.length - 1], fill: withAlpha(stroke, 0.16) });
      }
      series.push({
        label, stroke: faint ? withAlpha(stroke, 0.3) : stroke, width: faint ? 1 : lineWidth || 1.6,
        spanGaps: true, points: { show: (plot) => plot.data[0].length < 3, size: 5, fill: stroke },
      });
    }
    return {
      width, height, series, bands, padding: [this.content.lines?.length ? 14 : 8, 16, 0, 0],
      legend: { show: false },
      cursor: { y: false, points: { size: 6 }, drag: { x: false, y: false }, sync: sync ? { key: sync } : undefined },
      scales: { x: { time: false, range: wide }, y: { range: (plot, low, high) => this.#range(low, high) } },
      axes: [
        { ...axis, size: 22, gap: 3, space: 60, incrs: this.content.x === "time" ? TIMES : WHOLE, values: (_, at) => at.map(this.content.x === "time" ? clock : (v) => trimmed(count(v))) },
        { ...axis, size: 46, gap: 4, space: 26, values: (_, at) => at.map((v) => trimmed(format(v))) },
      ],
      hooks: { drawAxes: [(plot) => this.#drawLines(plot)], setCursor: [(plot) => this.#point(plot)] },
    };
  }

  #range(low, high) {
    const values = (this.content.lines || []).filter((line) => line.isInside).map((line) => line.value);
    let bottom = Math.min(low ?? Infinity, ...values), top = Math.max(high ?? -Infinity, ...values);
    if (!Number.isFinite(bottom) || !Number.isFinite(top)) [bottom, top] = [0, 1];
    const span = top - bottom, size = Math.max(Math.abs(top), Math.abs(bottom));
    const room = (span > 1e-6 * size ? span : size || 1) * 0.06; // a constant has no shape to show
    return [this.options.min ?? bottom - room, this.options.max ?? top + room];
  }

  #drawLines(plot) {
    const { ctx } = plot, ratio = devicePixelRatio, { left, top, width, height } = plot.bbox;
    ctx.save();
    ctx.font = `${10 * ratio}px system-ui, sans-serif`;
    ctx.textAlign = "left";
    ctx.textBaseline = "alphabetic";
    const said = []; // where names are: [x after the name, y]
    for (const { label, value, colour: stroke } of this.content.lines || []) {
      const y = Math.round(plot.valToPos(value, "y", true));
      if (!(y >= top - 1 && y <= top + height + 1)) continue;
      ctx.strokeStyle = stroke;
      ctx.lineWidth = ratio;
      ctx.setLineDash([4 * ratio, 3 * ratio]);
      ctx.beginPath();
      ctx.moveTo(left, y);
      ctx.lineTo(left + width, y);
      ctx.stroke();
      // Curves begin low on the left: there is room for names, and for the lowest one on the right.
      const isLow = y + 20 * ratio > top + height, text = y - 3 * ratio, room = ctx.measureText(label).width;
      const beside = said.filter(([, other]) => Math.abs(other - text) < 11 * ratio).map(([end]) => end);
      const x = isLow ? left + width - room - 3 * ratio : Math.max(left + 4 * ratio, ...beside.map((end) => end + 6 * ratio));
      if (!isLow) said.push([x + room, text]);
      ctx.fillStyle = token("--surface");
      ctx.fillRect(x - ratio, text - 8 * ratio, room + 2 * ratio, 10 * ratio);
      ctx.fillStyle = stroke;
      ctx.fillText(label, x, text);
    }
    ctx.restore();
  }

  #point(plot) {
    const tip = document.getElementById("tip"), { idx, left } = plot.cursor;
    if (idx === null || idx === undefined || left < 0 || !plot.over.matches(":hover")) {
      if (tip.owner === this) tip.hidden = true;
      return;
    }
    const x = plot.data[0][idx];
    const rows = [this.content.x === "time" ? clock(x) : `${count(x)} ${this.content.xLabel || ""}`];
    let place = 0;
    for (const { label, low, colour: stroke, faint } of this.content.curves) {
      const [above, below] = low ? [plot.data[place + 1][idx], plot.data[place + 2][idx]] : [];
      place += low ? 3 : 1;
      const value = plot.data[place][idx];
      if (value === null || value === undefined || faint) continue;
      const row = document.createElement("div");
      const spread = low ? ` (${this.options.format(below)} … ${this.options.format(above)})` : "";
      row.textContent = `${label} ${this.options.format(value)}${spread}`;
      row.style.setProperty("--of", stroke);
      rows.push(row);
    }
    tip.owner = this;
    tip.replaceChildren(...rows);
    tip.hidden = false;
    const over = plot.over.getBoundingClientRect();
    const at = over.left + left;
    tip.style.left = `${Math.max(4, Math.min(innerWidth - tip.offsetWidth - 4, at + (at > innerWidth / 2 ? -tip.offsetWidth - 10 : 10)))}px`;
    tip.style.top = `${Math.max(4, over.top - 4)}px`;
  }
}

/** Without the zeros that only a table needs: 0.500 is 0.5 on an axis. */
function trimmed(text) {
  return text.replace(/(\.\d*?)0+(?=$|[^\d])/, "$1").replace(/\.(?=$|[^\d])/, "");
}

/** A range of one place gets some room, so that a single point is in the middle. */
function wide(plot, low, high) {
  if (low === null || low === undefined) return [0, 1];
  return low === high ? [low - 1, high + 1] : [low, high];
}

/** The curves' columns on one x: theirs if all have the same, else all of theirs in order. */
function aligned(curves) {
  if (!curves.length) return [[]];
  const tables = curves.map(({ x, y, low, high }) => [x, ...(low ? [high, low] : []), y]);
  const first = tables[0][0];
  const isSame = tables.every(([x]) => x === first || (x.length === first.length && x.every((v, i) => v === first[i])));
  if (isSame) return [first, ...tables.flatMap(([, ...columns]) => columns)];
  return uPlot.join(tables.map((table) => (increasing(table[0]) ? table : grouped(table))));
}

function increasing(x) {
  for (let i = 1; i < x.length; i += 1) if (!(x[i] > x[i - 1])) return false;
  return true;
}

/** Of points at the same place the last. */
function grouped([x, ...columns]) {
  const kept = x.map((_, i) => i).filter((i) => i === x.length - 1 || x[i + 1] > x[i]);
  return [x, ...columns].map((column) => kept.map((i) => column[i]));
}

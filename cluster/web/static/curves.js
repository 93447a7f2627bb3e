// From what a run's state has to what a chart draws.

import { shown } from "./address.js";
import { colour, token } from "./chart.js";

const ROW = { step: 0, time: 1, tokens: 2, env: 3 };

/** Normalised as the terminal does: 0 is random, 1 the teacher. */
export function scaleOf(task) {
  if (shown.y !== "norm" || task?.teacher_return === null || task?.random_return === null || !task) return null;
  const span = task.teacher_return - task.random_return;
  return span ? (value) => (value - task.random_return) / span : null;
}

/** The returns of a task in one run, with the band over episodes. */
export function returns(run, task, index, label) {
  const rows = sorted(run.curves.get(task) || [], ROW[shown.x]);
  const scale = scaleOf(run.now?.tasks[task]) || ((value) => value);
  return {
    label,
    colour: colour(index),
    x: rows.map((row) => row[ROW[shown.x]]),
    y: rows.map((row) => scale(row[4])),
    low: rows.map((row) => scale(Math.min(row[4] - row[5], row[6]))),
    high: rows.map((row) => scale(Math.max(row[4] + row[5], row[7]))),
  };
}

/** Who is compared with: teacher, expert, human, random, as lines across. */
export function references(task) {
  if (!task) return [];
  const scale = scaleOf(task) || ((value) => value);
  const named = [
    ["teacher", task.teacher_return, "--teacher", true],
    ["expert", task.expert_return === task.teacher_return ? null : task.expert_return, "--expert", false],
    ["human", task.human_return, "--human", false],
    ["random", task.random_return, "--random", true],
  ];
  return named
    .filter(([, value]) => value !== null && value !== undefined)
    .map(([label, value, name, isInside]) => ({ label, value: scale(value), colour: token(name), isInside }));
}

/** A measured line; with smoothing also the raw one behind it. */
export function line(run, name, index, label, smoothing = 0) {
  const columns = run.lines.get(name);
  if (!columns?.step.length) return [];
  const order = orderOf(columns[shown.x]);
  const pick = (column) => (order ? order.map((i) => column[i]) : column);
  const x = pick(columns[shown.x]), y = pick(columns.mean);
  const isMerged = columns.low.some((low, i) => low !== columns.high[i]);
  const band = isMerged ? { low: pick(columns.low), high: pick(columns.high) } : {};
  const curve = { label, colour: colour(index), x, y };
  if (!smoothing) return [{ ...curve, ...band }];
  return [{ ...curve, label: `${label} (raw)`, faint: true }, { ...curve, y: smooth(y, smoothing), width: 2 }];
}

/** An exponential mean, without the pull of its beginning to zero. */
export function smooth(values, weight) {
  let sum = 0, total = 0;
  return values.map((value) => {
    sum = weight * sum + (1 - weight) * value;
    total = weight * total + (1 - weight);
    return sum / total;
  });
}

function orderOf(x) {
  for (let i = 1; i < x.length; i += 1) {
    if (x[i] < x[i - 1]) return x.map((_, k) => k).sort((a, b) => x[a] - x[b] || a - b);
  }
  return null;
}

function sorted(rows, column) {
  for (let i = 1; i < rows.length; i += 1) {
    if (rows[i][column] < rows[i - 1][column]) return [...rows].sort((a, b) => a[column] - b[column]);
  }
  return rows;
}

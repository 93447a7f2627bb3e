// Runs that differ in their seeds alone, averaged: what the server computed of the runs that are
// shown, and which group each of them is of.

import { shown } from "./address.js";
import { colour } from "./chart.js";
import { scaleOf } from "./curves.js";

const EVERY_MS = 3000;
let known = { of: "", list: null, mark: 0 }; // of: the runs and the axis; mark: differs with each answer
let asked = "", askedAt = 0, isAsking = false, onNews = () => {};

export function onGroups(listener) {
  onNews = listener;
}

/** The groups of the runs that are shown; null while runs are shown apart, or nothing is known. */
export function groupsOf(runs) {
  if (!shown.g || runs.length < 2) return null;
  const of = `${shown.x} ${runs.map(({ name }) => name).join()}`;
  ask(runs, of);
  return known.of === of ? known : null;
}

/** The place of a run's colour: that of its group, if runs are averaged. */
export function placeOf(name, place) {
  const found = shown.g && known.list ? known.list.findIndex(({ runs }) => runs.includes(name)) : -1;
  return found < 0 ? place : found;
}

/** The mean over seeds of one task, with its interval of 95 %; "" for all tasks. */
export function averages({ list }, task, facts) {
  // The server's values are normalised where a task has a scale.
  const scale = scaleOf(facts) ? (value) => value : rawOf(facts);
  return list.flatMap(({ label, bands }, i) => {
    const band = bands[task];
    if (!band) return [];
    const spread = band.seeds > 1 ? { low: band.low.map(scale), high: band.high.map(scale) } : {};
    return [{ label: `${label}, ${band.seeds} seed${band.seeds > 1 ? "s" : ""}`, colour: colour(i), x: band.x, y: band.y.map(scale), ...spread }];
  });
}

function rawOf(facts) {
  const isScaled = typeof facts?.teacher_return === "number" && typeof facts.random_return === "number";
  if (!isScaled) return (value) => value;
  return (value) => facts.random_return + value * (facts.teacher_return - facts.random_return);
}

async function ask(runs, of) {
  const key = `${of} ${runs.map(({ last }) => last).join()}`;
  const wait = known.of === of ? askedAt + EVERY_MS - Date.now() : 0;
  if (key === asked || isAsking) return;
  if (wait > 0) return void setTimeout(onNews, wait);
  [asked, askedAt, isAsking] = [key, Date.now(), true];
  const query = new URLSearchParams({ runs: runs.map(({ name }) => name).join(), x: shown.x });
  const answer = await fetch(`/api/averages?${query}`).then((got) => (got.ok ? got.json() : null), () => null);
  isAsking = false;
  if (answer) known = { of, list: answer.groups, mark: known.mark + 1 };
  else asked = "";
  setTimeout(onNews, answer ? 0 : EVERY_MS);
}

// One run as this tab knows it: curves of tasks, lines of everything else, events, and how it stands.

const MAX_ROWS = 1400; // more than the server keeps: time for another snapshot, which is shorter
const COLUMNS = ["step", "time", "tokens", "env", "mean", "low", "high"];

export class RunState {
  constructor(name) {
    this.name = name;
    this.last = -1; // number of the newest entry that is in here; -1: no snapshot yet
    this.now = null;
    this.curves = new Map(); // task: rows of step, time, tokens, env, mean, std, low, high, episodes
    this.lines = new Map(); // name: {last, step: [], time: [], …}
    this.names = new Set(); // of all lines
    this.events = [];
    this.prefixes = new Set(); // of lines that are wanted
    this.isLong = false;
    this.touched = new Map(); // task, or group of lines: how often it changed
    this.generation = 0;
  }

  /** Differs whenever the curve of a task, or a line of the group of `name`, has changed. */
  mark(name) {
    return `${this.name} ${this.generation} ${this.touched.get(groupOf(name)) || 0}`;
  }

  #touch(name) {
    this.touched.set(groupOf(name), (this.touched.get(groupOf(name)) || 0) + 1);
  }

  takeSnapshot(snapshot) {
    this.last = snapshot.last;
    this.now = snapshot.now;
    this.curves = new Map(Object.entries(snapshot.curves));
    this.names = new Set(Object.keys(snapshot.names));
    this.events = snapshot.events;
    this.isLong = false;
    this.generation += 1;
  }

  takeLines(answer) {
    for (const [name, columns] of Object.entries(answer.lines)) {
      this.lines.set(name, { ...columns, last: answer.last });
      this.#touch(name);
    }
  }

  /** Changes of entries `after` to `last`. False if some before these are missing. */
  takeChanges({ after, last, changes }) {
    if (this.last < 0 || after > this.last) return false;
    for (const change of changes) {
      if (change.task !== undefined && change.id > this.last) this.#addPoint(change.task, change.point);
      if (change.values) this.#addValues(change);
      if (change.event && change.id > this.last) this.events = [...this.events, change.event].slice(-300);
    }
    this.last = Math.max(this.last, last);
    return true;
  }

  #addPoint(task, point) {
    let rows = this.curves.get(task);
    if (!rows) this.curves.set(task, (rows = []));
    let place = rows.length;
    while (place > 0 && rows[place - 1][0] >= point[0]) place -= 1;
    const isKnown = place < rows.length && rows[place][0] === point[0];
    rows.splice(place, isKnown ? 1 : 0, point);
    this.#touch(`returns/${task}`);
    this.isLong ||= rows.length > MAX_ROWS;
  }

  #addValues({ id, at, values }) {
    for (const [name, value] of Object.entries(values)) {
      this.names.add(name);
      let line = this.lines.get(name);
      if (!line) {
        if (!this.wants(name)) continue;
        this.lines.set(name, (line = { last: -1, ...Object.fromEntries(COLUMNS.map((c) => [c, []])) }));
      }
      if (id <= line.last) continue;
      line.last = id;
      this.#touch(name);
      const row = [...at, value, value, value];
      COLUMNS.forEach((column, i) => line[column].push(row[i]));
      this.isLong ||= line.step.length > MAX_ROWS;
    }
  }

  wants(name) {
    for (const prefix of this.prefixes) if (name === prefix || name.startsWith(`${prefix}/`)) return true;
    return false;
  }

  tasks() {
    return Object.keys(this.now?.tasks || {});
  }
}

/** learner/loss of learner/loss/mujoco/hopper; a task's returns are a group of their own. */
function groupOf(name) {
  return name.startsWith("returns/") ? name : name.split("/", 2).join("/");
}

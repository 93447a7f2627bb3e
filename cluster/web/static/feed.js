// Runs kept up to date. A browser opens six connections to a server at most, so that of all tabs one,
// which holds a lock, has the event stream, and tells the others.

import { RunState } from "./store.js";

const POINTS = 240;
const HEARD_MS = 150000; // hidden tabs have slow clocks
const me = Math.random().toString(36).slice(2);

export class Feed {
  constructor(onChange) {
    this.runs = new Map();
    this.problem = "";
    this.onChange = onChange;
    this.loading = new Map(); // run: messages that came while its snapshot was loaded
    this.fetched = new Map(); // run: when its snapshot was asked for
    this.wants = new Map(); // of the leader: tab: {runs, heard}
    this.source = null;
    this.isShared = "locks" in navigator && "BroadcastChannel" in window;
    if (!this.isShared) {
      document.addEventListener("visibilitychange", () => this.#open());
      return;
    }
    this.channel = new BroadcastChannel("gato-feed");
    this.channel.onmessage = ({ data }) => this.#hear(data);
    navigator.locks.request("gato-stream", () => new Promise(() => this.#lead()));
    setInterval(() => this.#want(), 10000);
    addEventListener("pagehide", () => this.channel.postMessage({ kind: "gone", tab: me }));
  }

  /** Follow these runs, and no others. */
  follow(names) {
    for (const name of this.runs.keys()) if (!names.includes(name)) this.runs.delete(name);
    for (const name of names) {
      if (this.runs.has(name)) continue;
      this.runs.set(name, new RunState(name));
      this.#load(name);
    }
    this.#want();
  }

  /** Have all lines of a run that begin with one of `prefixes`. */
  async need(name, prefixes) {
    const run = this.runs.get(name);
    const fresh = prefixes.filter((prefix) => !run?.prefixes.has(prefix));
    if (!run || !fresh.length) return;
    for (const prefix of fresh) run.prefixes.add(prefix);
    await this.#loadAll(run, fresh);
  }

  /** In requests whose addresses are not too long for a server. */
  async #loadAll(run, prefixes) {
    let some = [], length = 0;
    for (const prefix of [...prefixes, null]) {
      const more = prefix === null ? Infinity : encodeURIComponent(prefix).length + 8;
      if (some.length && length + more > 4000) {
        await this.#loadLines(run, some);
        [some, length] = [[], 0];
      }
      some.push(prefix);
      length += more;
    }
  }

  async #loadLines(run, prefixes) {
    const query = new URLSearchParams([["points", POINTS], ...prefixes.map((prefix) => ["prefix", prefix])]);
    const answer = await ask(`/api/runs/${run.name}/lines?${query}`);
    if (!answer) return;
    run.takeLines(answer);
    this.onChange();
  }

  async #load(name) {
    if (this.loading.has(name)) return;
    this.loading.set(name, []);
    const wait = (this.fetched.get(name) || 0) + 1500 - Date.now();
    if (wait > 0) await new Promise((done) => setTimeout(done, wait));
    this.fetched.set(name, Date.now());
    const snapshot = await ask(`/api/runs/${name}?points=${POINTS}`, (problem) => (this.problem = problem));
    const queued = this.loading.get(name);
    this.loading.delete(name);
    const run = this.runs.get(name);
    if (!run) return;
    if (!snapshot) return void setTimeout(() => this.runs.has(name) && this.#load(name), 2000);
    this.problem = "";
    run.takeSnapshot(snapshot);
    this.#loadAll(run, run.prefixes);
    for (const message of queued) this.#take(message);
    this.#want();
    this.onChange();
  }

  #take({ type, data }) {
    const run = this.runs.get(data.run);
    if (!run) return;
    if (type === "now") {
      run.now = data.now;
      return void this.onChange();
    }
    if (this.loading.has(data.run)) return void this.loading.get(data.run).push({ type, data });
    if (type === "reset" || !run.takeChanges(data)) return void this.#load(data.run);
    if (run.isLong && Date.now() - (this.fetched.get(data.run) || 0) > 30000) this.#load(data.run);
    this.onChange();
  }

  // Between tabs.

  #hear(message) {
    if (message.kind === "event") this.#take(message);
    else if (message.kind === "problem") this.#say(message.text);
    else if (message.kind === "who") this.#want();
    else if (message.kind === "gone") this.wants.delete(message.tab);
    else if (message.kind === "want" && this.isLeader) {
      this.wants.set(message.tab, { runs: message.runs, heard: Date.now() });
      this.#open();
    }
  }

  #want() {
    const runs = [...this.runs.keys()];
    if (!this.isShared || this.isLeader) this.#open();
    else this.channel.postMessage({ kind: "want", tab: me, runs });
  }

  #lead() {
    this.isLeader = true;
    this.channel.postMessage({ kind: "who" });
    this.#open();
  }

  #union() {
    for (const [tab, { heard }] of this.wants) if (Date.now() - heard > HEARD_MS) this.wants.delete(tab);
    const others = [...this.wants.values()].flatMap(({ runs }) => runs);
    return [...new Set([...this.runs.keys(), ...others])].slice(0, 8);
  }

  /** Open the stream, unless the one that is open has all runs. */
  #open() {
    if (!this.isShared && document.hidden) return void this.#close();
    const names = this.#union();
    if (!names.length || (this.source && names.every((name) => this.streamed.includes(name)))) return;
    this.#close();
    this.streamed = names;
    const places = names.map((name) => `${name}:${Math.max(0, this.runs.get(name)?.last ?? 0)}`);
    const url = `/api/stream?runs=${places.join(",")}`;
    const source = (this.source = new EventSource(url));
    for (const type of ["changes", "now", "reset"]) {
      source.addEventListener(type, ({ data }) => this.#share({ kind: "event", type, data: JSON.parse(data) }));
    }
    source.onopen = () => this.#share({ kind: "problem", text: "" });
    source.onerror = () => this.#lost(source, url);
  }

  async #lost(source, url) {
    if (source !== this.source) return;
    this.#share({ kind: "problem", text: "the page's server does not answer; trying again" });
    if (source.readyState !== EventSource.CLOSED) return; // the browser tries again by itself
    this.#close();
    const refused = await fetch(url).catch(() => null);
    const text = refused && !refused.ok ? await refused.text() : "";
    refused?.body?.cancel().catch(() => {});
    if (text) this.#share({ kind: "problem", text });
    setTimeout(() => this.#open(), text ? 5000 : 1000);
  }

  #close() {
    this.source?.close();
    this.source = null;
  }

  #share(message) {
    this.channel?.postMessage(message);
    if (message.kind === "event") this.#take(message);
    else this.#say(message.text);
  }

  #say(problem) {
    if (this.problem === problem) return;
    this.problem = problem;
    this.onChange();
  }
}

async function ask(url, tell = () => {}) {
  try {
    const answer = await fetch(url);
    if (answer.ok) return await answer.json();
    tell(await answer.text());
  } catch {
    tell("the page's server does not answer; trying again");
  }
  return null;
}

// What is shown, as the page's address says it: ?runs=a,b&view=metrics&x=time&y=norm&g=1&q=loss&s=0.6

export const AXES = {
  step: { label: "updates", unit: "" },
  time: { label: "wall clock", unit: "" },
  tokens: { label: "tokens", unit: "" },
  env: { label: "environment steps", unit: "" },
};
const listeners = new Set();

export const shown = read();

function read() {
  const query = new URLSearchParams(location.search);
  const s = Number(query.get("s"));
  return {
    runs: (query.get("runs") || "").split(",").filter((name) => /^[A-Za-z0-9][\w.-]{0,63}$/.test(name)).slice(0, 6),
    view: query.get("view") === "metrics" ? "metrics" : "overview",
    x: Object.hasOwn(AXES, query.get("x")) ? query.get("x") : "step",
    y: query.get("y") === "norm" ? "norm" : "return",
    g: query.get("g") === "1", // runs of equal settings are averaged
    q: query.get("q") || "",
    s: s > 0 && s < 1 ? s : 0,
  };
}

/** Change what is shown, and the address with it. `quiet`: without a step back in the history. */
export function show(changes, quiet = false) {
  Object.assign(shown, changes);
  const query = new URLSearchParams();
  query.set("runs", shown.runs.join(","));
  if (shown.view !== "overview") query.set("view", shown.view);
  if (shown.x !== "step") query.set("x", shown.x);
  if (shown.y !== "return") query.set("y", shown.y);
  if (shown.g) query.set("g", "1");
  if (shown.q) query.set("q", shown.q);
  if (shown.s) query.set("s", String(shown.s));
  history[quiet ? "replaceState" : "pushState"](null, "", `?${query.toString().replaceAll("%2C", ",")}`);
  for (const listener of listeners) listener();
}

export function onShow(listener) {
  listeners.add(listener);
}

addEventListener("popstate", () => {
  Object.assign(shown, read());
  for (const listener of listeners) listener();
});

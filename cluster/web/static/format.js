// Short text for numbers, times and names, as the terminal has them.

const COUNTS = [[1e12, "T"], [1e9, "B"], [1e6, "M"], [1e3, "k"]];

/** Names come from files that anybody may have made: what does not print is shown as its escape. */
export function plain(text) {
  return String(text).replace(/[\p{C}\u2028\u2029]/gu, (c) => {
    const code = c.codePointAt(0).toString(16);
    return code.length > 2 ? `\\u${code.padStart(4, "0")}` : `\\x${code.padStart(2, "0")}`;
  });
}

/** About three significant digits: 0.12, 12.3, 3,210, 135k. */
export function number(value) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  const size = Math.abs(value);
  if (!size) return "0";
  if (size >= 99999.5) return count(value);
  if (size >= 100) return Math.round(value).toLocaleString("en");
  if (size > 0 && size < 0.001) return value.toExponential(1);
  return value.toFixed(size >= 10 ? 1 : size >= 1 ? 2 : 3);
}

/** Whole up to 9,999, then 12.3k, 4.5M. */
export function count(value) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  if (Math.abs(value) < 9999.5) return Math.round(value).toLocaleString("en");
  for (const [size, letter] of COUNTS) {
    if (Math.abs(value) >= 0.99995 * size) {
      const scaled = value / size;
      return (Math.abs(scaled) >= 99.95 ? scaled.toFixed(0) : scaled.toFixed(1)) + letter;
    }
  }
  return String(value);
}

export function percent(share) {
  if (share === null || share === undefined || !Number.isFinite(share)) return "–";
  const value = 100 * share;
  return `${Math.abs(value) > 0 && Math.abs(value) < 9.95 ? value.toFixed(1) : value.toFixed(0)}%`;
}

export function bytes(value) {
  for (const [size, unit] of [[1e12, "TB"], [1e9, "GB"], [1e6, "MB"], [1e3, "kB"]]) {
    if (value >= size) return `${(value / size).toFixed(1)} ${unit}`;
  }
  return `${Math.round(value)} B`;
}

/** 45 s, 3 min 05 s, 2 h 07 min, 3 d 04 h. */
export function duration(seconds) {
  const s = Math.max(0, Math.floor(seconds));
  const two = (n) => String(n).padStart(2, "0");
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${two(s % 60)} s`;
  if (s < 172800) return `${Math.floor(s / 3600)} h ${two(Math.floor((s % 3600) / 60))} min`;
  return `${Math.floor(s / 86400)} d ${two(Math.floor((s % 86400) / 3600))} h`;
}

/** A place on an axis of time: 40s, 3:05, 2:07:00, in few characters. */
export function clock(seconds) {
  const s = Math.round(seconds);
  const two = (n) => String(n).padStart(2, "0");
  if (s < 60) return `${s}s`;
  if (s < 3600) return `${Math.floor(s / 60)}:${two(s % 60)}`;
  if (s < 172800) return `${Math.floor(s / 3600)}:${two(Math.floor((s % 3600) / 60))}h`;
  return `${(s / 86400).toFixed(1)}d`;
}

/** The part of a task's name before its last slash, and the rest. */
export function parts(task) {
  const at = task.lastIndexOf("/");
  return [plain(task.slice(0, at + 1)), plain(task.slice(at + 1))];
}

/** An element; text is always text. `on…` are listeners, `class` and others attributes. */
export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

/** Put `children` in the place of what `element` holds, unless they say the same. */
export function fill(element, ...children) {
  const draft = document.createElement("div");
  draft.append(...children.flat().filter((child) => child !== null && child !== undefined));
  if (draft.innerHTML !== element.innerHTML) element.replaceChildren(...draft.childNodes);
}

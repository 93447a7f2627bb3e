// Stop, scale and roles, for those who have the run's token. It is sent in a header and forgotten with
// the tab.

import { fill, h, plain } from "./format.js";

const ROLES = ["evaluate", "generate", "relabel", "demonstrate"];

export class Steer {
  constructor() {
    this.token = h("input", { type: "password", id: "token", autocomplete: "off", value: sessionStorage.getItem("gato-token") || "", oninput: () => sessionStorage.setItem("gato-token", this.token.value.trim()) });
    this.workers = h("input", { type: "number", id: "workers", min: "0", step: "1", value: "1" });
    this.shares = Object.fromEntries(ROLES.map((role) => [role, h("input", { type: "number", id: `role-${role}`, min: "0", max: "1", step: "0.05", placeholder: "as it is" })]));
    this.title = h("h2", { id: "steer-title" });
    this.answer = h("p", { role: "status" });
    const row = (label, id, ...children) => h("div", { class: "row" }, h("label", { for: id }, label), ...children);
    const act = (name, listener) => h("button", { type: "button", onclick: listener }, name);
    const form = h("form", { onsubmit: (event) => event.preventDefault() }, this.title,
      h("p", { class: "quiet" }, "Whoever looks may read. To change the run, give the token in the file page/token of its folder."),
      row("Token", "token", this.token),
      row("Workers", "workers", this.workers, act("Scale", () => this.#ask("scale", { workers: Number(this.workers.value) }))),
      ...ROLES.map((role) => row(`Share: ${role}`, `role-${role}`, this.shares[role])),
      h("div", { class: "row" }, h("span", {}), act("Set shares", () => this.#ask("roles", this.#given()))),
      h("div", { class: "row" }, h("span", {}), h("button", { type: "button", class: "danger", onclick: () => this.#stop() }, "Stop the run")),
      this.answer,
      h("div", { class: "row end" }, act("Close", () => this.dialog.close())));
    this.dialog = h("dialog", { "aria-labelledby": "steer-title" }, form);
    document.body.append(this.dialog);
  }

  open(run) {
    this.run = run;
    this.title.textContent = `Steer ${plain(run.name)}`;
    this.workers.value = String(run.now?.num_workers ?? 1);
    fill(this.answer);
    this.dialog.showModal();
  }

  #given() {
    const given = ROLES.filter((role) => this.shares[role].value !== "");
    return Object.fromEntries(given.map((role) => [role, Number(this.shares[role].value)]));
  }

  #stop() {
    if (confirm(`Stop ${this.run.name}? Its learner saves; gato resume goes on with it.`)) this.#ask("stop", {});
  }

  async #ask(word, body) {
    fill(this.answer, "asked …");
    let text;
    try {
      const answer = await fetch(`/api/runs/${this.run.name}/${word}`, {
        method: "POST",
        headers: { Authorization: `Bearer ${this.token.value.trim()}`, "Content-Type": "application/json" },
        body: JSON.stringify(body),
      });
      text = answer.ok ? (await answer.json()).said : await answer.text();
    } catch {
      text = "the page's server does not answer";
    }
    fill(this.answer, plain(text));
  }
}

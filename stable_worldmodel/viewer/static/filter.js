// Which episodes the list shows, and in which order.

import { byId, make } from "./dom.js";

export class Filters {
  constructor(onChange) {
    this.onChange = onChange;
    this.fields = {}; // name -> one number per episode
    byId("sort").addEventListener("change", onChange);
    byId("descending").addEventListener("change", onChange);
    byId("add-condition").addEventListener("click", () => this.add());
    byId("filters").addEventListener("submit", (event) => event.preventDefault());
  }

  // fields: name -> one number per episode. What was chosen stays chosen as far as it is still there.
  use(fields) {
    this.fields = fields;
    for (const select of [byId("sort"), ...document.querySelectorAll(".condition select")]) {
      const before = select.value;
      select.replaceChildren(...Object.keys(fields).map((name) => make("option", { textContent: name })));
      if (before in fields) select.value = before;
    }
  }

  clear() {
    byId("conditions").replaceChildren();
    byId("descending").checked = false;
  }

  add() {
    const names = Object.keys(this.fields);
    const field = make("select", { ariaLabel: "Filter by" }, ...names.map((name) => make("option", { textContent: name })));
    field.value = ["success", "return", "length"].find((name) => names.includes(name)) ?? names[0];
    const low = make("input", { type: "number", step: "any", placeholder: "from", ariaLabel: "From" });
    const high = make("input", { type: "number", step: "any", placeholder: "to", ariaLabel: "To" });
    const remove = make("button", { type: "button", textContent: "×", ariaLabel: "Remove this filter" });
    const line = make("div", { className: "condition" }, field, low, high, remove);
    for (const input of [field, low, high]) input.addEventListener("input", this.onChange);
    remove.addEventListener("click", () => {
      line.remove();
      this.onChange();
    });
    byId("conditions").append(line);
    low.focus();
  }

  // The episodes that all filters let through, sorted.
  apply(count) {
    let kept = Array.from({ length: count }, (_, episode) => episode);
    for (const line of document.querySelectorAll(".condition")) {
      const [low, high] = [...line.querySelectorAll("input")].map((input) => input.value);
      const values = this.fields[line.querySelector("select").value];
      if (!values || (low === "" && high === "")) continue;
      kept = kept.filter((episode) => {
        const value = values[episode];
        return value !== null && (low === "" || value >= Number(low)) && (high === "" || value <= Number(high));
      });
    }
    const order = this.fields[byId("sort").value];
    const sign = byId("descending").checked ? -1 : 1;
    // Episodes without the number come last.
    const key = (episode) => (order[episode] === null ? Infinity : sign * order[episode]);
    return order ? kept.sort((a, b) => key(a) - key(b) || a - b) : kept;
  }
}

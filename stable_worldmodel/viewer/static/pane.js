// One episode: its pictures, plots and factors, at one row.

import { frameAddress, getColumns } from "./api.js";
import { format, make } from "./dom.js";
import { Plot } from "./plot.js";

const AHEAD = 8; // frames fetched before they are shown

export class Pane {
  constructor(data, episode, { onSeek, onClose }) {
    this.data = data;
    this.episode = episode;
    this.onSeek = onSeek;
    this.length = data.lengths[episode];
    this.plots = [];
    this.pictures = [];
    const close = make("button", { type: "button", textContent: "×", ariaLabel: "Close this episode" });
    close.addEventListener("click", onClose);
    this.header = make("header", {}, make("h2", { textContent: `Episode ${data.numbers[episode]}` }));
    this.views = make("div", { className: "views" });
    this.curves = make("div");
    this.factors = make("details", { className: "factors" }, make("summary", { textContent: "This episode" }));
    this.element = make("article", { className: "pane" }, this.header, this.views, this.curves, this.factors);
    if (onClose) this.header.append(close);
    this.describe();
  }

  // What is known of the episode as a whole; comes later than the pictures.
  describe() {
    const { summary } = this.data;
    this.header.querySelectorAll("span").forEach((span) => span.remove());
    const facts = [make("span", { className: "muted", textContent: `${this.length} rows` })];
    const success = summary?.success?.[this.episode];
    if (success !== undefined && success !== null) {
      facts.push(make("span", { className: success ? "good" : "bad", textContent: success ? "success" : "failure" }));
    }
    if (summary?.return) facts.push(make("span", { textContent: `return ${format(summary.return[this.episode])}` }));
    this.header.querySelector("h2").after(...facts);
    const rows = Object.entries(summary ?? {}).map(([name, values]) =>
      make("tr", {}, make("td", { textContent: name }), make("td", { textContent: format(values[this.episode]) })),
    );
    this.factors.querySelector("table")?.remove();
    this.factors.append(make("table", {}, make("tbody", {}, ...rows)));
    this.factors.hidden = rows.length === 0;
  }

  // Shows these images and plots these columns, keeping plots that are there already.
  async choose(images, columns) {
    this.pictures = images.map((name) => ({ name, element: make("img", { alt: `${name}, episode ${this.episode}` }) }));
    this.views.replaceChildren(
      ...this.pictures.map(({ name, element }) =>
        make("figure", {}, element, make("figcaption", { textContent: name })),
      ),
    );
    const wanted = (this.wanted = columns.join("\n"));
    const values = await getColumns(this.data.source, this.episode, columns);
    if (wanted !== this.wanted) return; // chosen anew meanwhile
    this.plots = columns.map((name) => new Plot(name, values[name], this.onSeek));
    this.curves.replaceChildren(...this.plots.map((plot) => plot.element));
  }

  // Goes to a row; resolves when its pictures are there.
  async seek(row) {
    const at = Math.min(row, this.length - 1);
    for (const plot of this.plots) plot.seek(at);
    await Promise.all(
      this.pictures.map(async ({ name, element }) => {
        element.src = frameAddress(this.data.source, name, this.episode, at);
        element.dataset.row = at;
        await element.decode().catch(() => {}); // replaced by a later row
      }),
    );
  }

  prefetch(row) {
    for (const { name } of this.pictures) {
      for (let t = row + 1; t <= Math.min(row + AHEAD, this.length - 1); t++) {
        new Image().src = frameAddress(this.data.source, name, this.episode, t);
      }
    }
  }
}

// One column over the rows of an episode, with a cursor at the row that is shown.

import { format, make, makeSvg } from "./dom.js";

const WIDTH = 1000, HEIGHT = 100, MARGIN = 6; // of the drawing, which is stretched to its place
const COLORS = 4;

export class Plot {
  // lines: one array of numbers or nulls per value of the column.
  constructor(name, lines, onSeek) {
    this.lines = lines;
    this.length = lines[0]?.length ?? 0;
    const known = lines.flat().filter((value) => value !== null);
    this.low = known.reduce((a, b) => Math.min(a, b), Infinity);
    this.high = known.reduce((a, b) => Math.max(a, b), -Infinity);
    this.values = make("output");
    this.cursor = makeSvg("line", { class: "cursor", y1: 0, y2: HEIGHT });
    const svg = makeSvg(
      "svg",
      { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img", "aria-label": name },
      ...lines.flatMap((line, k) => this.polylines(line, k)),
      this.cursor,
    );
    const seek = (event) => {
      const box = svg.getBoundingClientRect();
      const share = Math.min(Math.max((event.clientX - box.left) / box.width, 0), 1);
      onSeek(Math.round(share * (this.length - 1)));
    };
    svg.addEventListener("pointerdown", seek);
    svg.addEventListener("pointermove", (event) => event.buttons && seek(event));
    const range = known.length ? [format(this.low), format(this.high)] : ["no numbers", ""];
    this.element = make(
      "div",
      { className: "plot" },
      make("div", { className: "head" }, make("span", { textContent: name }), this.values),
      svg,
      make("div", { className: "range" }, make("span", { textContent: range.join(" to ").replace(/ to $/, "") })),
    );
  }

  x(row) {
    return this.length > 1 ? (row / (this.length - 1)) * WIDTH : WIDTH / 2;
  }

  y(value) {
    const span = this.high - this.low;
    const share = span ? (value - this.low) / span : 0.5;
    return HEIGHT - MARGIN - share * (HEIGHT - 2 * MARGIN);
  }

  // A line is broken where values are missing.
  polylines(line, k) {
    const parts = [[]];
    line.forEach((value, row) => {
      if (value === null) parts.push([]);
      else parts.at(-1).push(`${this.x(row).toFixed(1)},${this.y(value).toFixed(1)}`);
    });
    return parts
      .filter((points) => points.length)
      .map((points) => makeSvg("polyline", { class: `s${(k % COLORS) + 1}`, points: points.join(" ") }));
  }

  seek(row) {
    const at = Math.min(row, this.length - 1);
    this.cursor.setAttribute("x1", this.x(at));
    this.cursor.setAttribute("x2", this.x(at));
    this.values.replaceChildren(
      ...this.lines.map((line, k) =>
        make("span", { className: `v${(k % COLORS) + 1}`, textContent: `${format(line[at])} ` }),
      ),
    );
  }
}

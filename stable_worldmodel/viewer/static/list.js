// The list of episodes: only the rows on screen exist, whatever the number of episodes.

import { stripAddress } from "./api.js";
import { byId, format, make } from "./dom.js";

const HEIGHT = 76; // px of a row, as in style.css
const SPARE = 4; // rows above and below the screen
const THUMBNAILS = 7, THUMBNAIL_HEIGHT = 44;
const REST = 60; // ms without scrolling until pictures are asked for

export class EpisodeList {
  constructor(onChoose) {
    this.box = byId("list");
    this.rows = byId("rows");
    this.onChoose = onChoose;
    this.shown = []; // episodes in the order of the list
    this.elements = new Map(); // by place in the list
    this.data = null;
    this.box.addEventListener("scroll", () => this.draw());
    this.box.addEventListener("keydown", (event) => this.step(event));
    new ResizeObserver(() => this.draw()).observe(this.box);
  }

  // data: {source, image, lengths, numbers, summary}
  show(data, shown) {
    this.data = data;
    this.shown = shown;
    this.rows.style.height = `${shown.length * HEIGHT}px`;
    this.clear();
    this.draw();
  }

  choose(first, second) {
    this.chosen = [first, second];
    for (const [place, element] of this.elements) this.mark(element, this.shown[place]);
  }

  reveal(episode) {
    const place = this.shown.indexOf(episode);
    if (place < 0) return;
    const top = place * HEIGHT;
    if (top < this.box.scrollTop) this.box.scrollTop = top;
    if (top + HEIGHT > this.box.scrollTop + this.box.clientHeight) {
      this.box.scrollTop = top + HEIGHT - this.box.clientHeight;
    }
  }

  clear() {
    for (const element of this.elements.values()) element.remove();
    this.elements.clear();
  }

  draw() {
    if (!this.data) return;
    const first = Math.max(0, Math.floor(this.box.scrollTop / HEIGHT) - SPARE);
    const last = Math.min(this.shown.length, Math.ceil((this.box.scrollTop + this.box.clientHeight) / HEIGHT) + SPARE);
    for (const [place, element] of this.elements) {
      if (place >= first && place < last) continue;
      element.remove();
      this.elements.delete(place);
    }
    for (let place = first; place < last; place++) {
      if (this.elements.has(place)) continue;
      const element = this.row(this.shown[place], place);
      this.elements.set(place, element);
      this.rows.append(element);
    }
    clearTimeout(this.resting);
    this.resting = setTimeout(() => this.fetchPictures(), REST);
  }

  fetchPictures() {
    for (const element of this.elements.values()) {
      const picture = element.querySelector("img[data-address]");
      if (!picture) continue;
      picture.src = picture.dataset.address;
      delete picture.dataset.address;
    }
  }

  row(episode, place) {
    const { source, image, lengths, numbers, summary } = this.data;
    const facts = make("div", { className: "facts" }, make("b", { textContent: numbers[episode] }));
    facts.append(make("span", { className: "muted", textContent: `${lengths[episode]} rows` }));
    const success = summary?.success?.[episode];
    if (success !== undefined && success !== null) {
      facts.append(make("span", { className: success ? "good" : "bad", textContent: success ? "success" : "failure" }));
    }
    if (summary?.return) facts.append(make("span", { textContent: `return ${format(summary.return[episode])}` }));
    const beside = make("button", { type: "button", textContent: "beside", title: "Show beside the other episode" });
    beside.addEventListener("click", (event) => {
      event.stopPropagation();
      this.onChoose(episode, true);
    });
    facts.append(beside);
    const row = make("div", { className: "row", role: "option" }, facts);
    row.dataset.episode = episode;
    row.style.top = `${place * HEIGHT}px`;
    if (image) {
      const picture = make("img", { alt: "" });
      picture.dataset.address = stripAddress(source, image, episode, THUMBNAILS, THUMBNAIL_HEIGHT);
      row.append(picture);
    }
    row.addEventListener("click", (event) => this.onChoose(episode, event.shiftKey));
    this.mark(row, episode);
    return row;
  }

  mark(element, episode) {
    const chosen = Boolean(this.chosen?.includes(episode));
    element.classList.toggle("chosen", chosen);
    element.setAttribute("aria-selected", chosen);
  }

  step(event) {
    const by = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!by || !this.shown.length) return;
    event.preventDefault();
    const place = this.shown.indexOf(this.chosen?.[0]) + by;
    this.onChoose(this.shown[Math.min(Math.max(place, 0), this.shown.length - 1)], false);
  }
}

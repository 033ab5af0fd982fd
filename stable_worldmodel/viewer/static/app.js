// The page: which source, which episodes, which row. What is shown is in the address, so that it can be shared.

import { getEpisodes, getSources, getSummary } from "./api.js";
import { byId, make } from "./dom.js";
import { Filters } from "./filter.js";
import { EpisodeList } from "./list.js";
import { Pane } from "./pane.js";

const PLOTTED = ["reward", "action"]; // at first, if they are there

const state = { sources: [], source: null, data: null, chosen: [], row: 0, playing: false, images: [], columns: [] };
let panes = [];
const list = new EpisodeList((episode, beside) => attempt(() => choose(episode, beside)));
const filters = new Filters(() => filter());

function say(error) {
  byId("message").textContent = error ? `${error.message ?? error}` : "";
  byId("message").hidden = !error;
}

async function attempt(work) {
  try {
    say("");
    await work();
  } catch (error) {
    say(error);
  }
}

async function open(name) {
  pause();
  const source = state.sources.find((candidate) => candidate.name === name) ?? state.sources[0];
  const { length, number } = await getEpisodes(source.name);
  state.source = source;
  state.chosen = [];
  state.images = source.images.slice(0, 1);
  state.columns = PLOTTED.filter((column) => source.columns.includes(column));
  const data = { source: source.name, image: source.images[0], lengths: length, numbers: number, summary: null };
  state.data = data;
  byId("title").textContent = source.title;
  byId("source").value = source.name;
  document.title = `${source.title} · episodes`;
  filters.clear();
  filters.use({ number, length });
  drawChips();
  filter();
  const wanted = readAddress();
  const first = wanted.source === source.name ? wanted.chosen : [];
  const valid = first.filter((episode) => episode >= 0 && episode < length.length);
  if (length.length) await show(valid.length ? valid : [0], valid.length ? wanted.row : 0);
  const summary = await getSummary(source.name); // needs whole columns, so it comes last
  if (state.data !== data) return; // another source was opened meanwhile
  data.summary = summary;
  filters.use({ number, length, ...summary });
  filter();
  for (const pane of panes) pane.describe();
}

function filter() {
  if (!state.data) return;
  const kept = filters.apply(state.data.lengths.length);
  const total = state.data.lengths.length.toLocaleString("en");
  byId("count").textContent = kept.length === state.data.lengths.length ? `${total} episodes`
    : `${kept.length.toLocaleString("en")} of ${total} episodes`;
  list.show(state.data, kept);
}

async function choose(episode, beside) {
  pause();
  const [first] = state.chosen;
  await show(beside && first !== undefined && first !== episode ? [first, episode] : [episode], beside ? state.row : 0);
}

async function show(chosen, row) {
  state.chosen = chosen;
  panes = chosen.map((episode) => new Pane(state.data, episode, {
    onSeek: (at) => { pause(); seek(at); },
    onClose: chosen.length < 2 ? null : () => attempt(() => show(chosen.filter((other) => other !== episode), state.row)),
  }));
  byId("panes").replaceChildren(...panes.map((pane) => pane.element));
  byId("scrub").max = lastRow();
  list.choose(...chosen);
  list.reveal(chosen[0]);
  state.row = row;
  await drawPanes();
}

async function drawPanes() {
  await Promise.all(panes.map((pane) => pane.choose(state.images, state.columns)));
  await seek(state.row); // which may be another one than when the columns were asked for
}

const lastRow = () => Math.max(0, ...panes.map((pane) => pane.length - 1));

function seek(row) {
  state.row = Math.min(Math.max(row, 0), lastRow());
  byId("scrub").value = state.row;
  byId("position").textContent = `${state.row} / ${lastRow()}`;
  writeAddress();
  return Promise.all(panes.map((pane) => pane.seek(state.row)));
}

function drawChips() {
  const chip = (name, kind) => {
    const box = make("input", { type: "checkbox", checked: state[kind].includes(name), value: name });
    box.addEventListener("change", () => {
      const others = state[kind].filter((other) => other !== name);
      state[kind] = box.checked ? [...others, name] : others;
      attempt(drawPanes);
    });
    return make("label", { className: "check" }, box, name);
  };
  const { images, columns } = state.source;
  byId("chips").replaceChildren(
    ...images.map((name) => chip(name, "images")),
    ...columns.map((name) => chip(name, "columns")),
  );
}

// -- playing

function pause() {
  state.playing = false;
  byId("play").textContent = "▶";
  byId("play").ariaLabel = "Play";
}

async function play() {
  state.playing = true;
  byId("play").textContent = "❚❚";
  byId("play").ariaLabel = "Pause";
  if (state.row >= lastRow()) await seek(0);
  let due = performance.now();
  while (state.playing && state.row < lastRow()) {
    due = Math.max(due + 1000 / Number(byId("fps").value), performance.now() - 100);
    await seek(state.row + 1); // a slow frame delays the next one, none is left out
    for (const pane of panes) pane.prefetch(state.row);
    await new Promise((resolve) => setTimeout(resolve, Math.max(0, due - performance.now())));
  }
  if (state.playing) pause();
}

// -- the address: #source=dataset&episodes=3,7&row=12

function readAddress() {
  const given = new URLSearchParams(location.hash.slice(1));
  const episodes = (given.get("episodes") ?? "").split(",").filter(Boolean).map(Number).slice(0, 2);
  return { source: given.get("source"), chosen: episodes.filter(Number.isInteger), row: Number(given.get("row")) || 0 };
}

function writeAddress() {
  const now = new URLSearchParams({ source: state.source.name, episodes: state.chosen.join(","), row: state.row });
  history.replaceState(null, "", `#${now.toString().replaceAll("%2C", ",")}`);
}

// -- controls

byId("play").addEventListener("click", () => (state.playing ? pause() : attempt(play)));
byId("scrub").addEventListener("input", (event) => { pause(); seek(Number(event.target.value)); });
byId("source").addEventListener("change", (event) => attempt(() => open(event.target.value)));
document.addEventListener("keydown", (event) => {
  if (event.target.closest("input, select, button, summary, #list") || event.ctrlKey || event.metaKey) return;
  const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (by) { pause(); seek(state.row + by); }
  if (event.key === " ") { event.preventDefault(); byId("play").click(); }
});

attempt(async () => {
  state.sources = await getSources();
  byId("source").replaceChildren(...state.sources.map(({ name }) => make("option", { textContent: name })));
  byId("source").hidden = state.sources.length < 2;
  await open(readAddress().source);
});

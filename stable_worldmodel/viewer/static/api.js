// What the server knows. Addresses of pictures hold the number of its run, so that browsers may keep them.

let run = "";

async function get(path) {
  const answer = await fetch(path);
  const body = await answer.json();
  if (!answer.ok) throw new Error(body.error);
  return body;
}

const base = (source) => `/api/${encodeURIComponent(source)}`;

export async function getSources() {
  const found = await get("/api/sources");
  run = found.run;
  return found.sources;
}

export const getEpisodes = (source) => get(`${base(source)}/episodes`);

export const getSummary = (source) => get(`${base(source)}/summary`);

export function getColumns(source, episode, names) {
  const query = names.map((name) => `name=${encodeURIComponent(name)}`).join("&");
  return names.length ? get(`${base(source)}/columns/${episode}?${query}`) : Promise.resolve({});
}

export const frameAddress = (source, column, episode, row) =>
  `${base(source)}/frame/${encodeURIComponent(column)}/${episode}/${row}.jpg?run=${run}`;

export const stripAddress = (source, column, episode, count, height) =>
  `${base(source)}/strip/${encodeURIComponent(column)}/${episode}.jpg?count=${count}&height=${height}&run=${run}`;

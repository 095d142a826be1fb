// A job as it runs: its stages, its time, its curve; the page is loaded again once it has ended.
import { ask, at, attempt, knows, language, percent, showState, svg, t, visible } from "./common.js";

const job = at("job").dataset;
const path = `/v1/jobs/${job.id}`;

function clock() {
  const seconds = Math.max(0, Math.floor((Date.now() - new Date(job.started)) / 1000));
  at("clock").textContent = `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;
}

const stages = new Map();
/** What is being done, and with what: "without transfer: classical", "minilm: features", "minilm: probe on 60 rows". */
function named(stage) {
  const cut = stage.lastIndexOf(": ");
  const parts = cut < 0 ? [stage] : [stage.slice(0, cut), stage.slice(cut + 2)];
  const what = (part) => part.replace(/ on [\d,]+ rows$/, "");
  for (const part of [stage, ...parts]) {
    if (!knows(`stage.${what(part)}`)) continue;
    const about = visible(parts.find((one) => part !== stage && one !== part) ?? "");
    return [t(`stage.${what(part)}`), about.replace(/^fold (\d+) of (\d+)/, (_, done, total) => t("unit.folds", { done, total }))];
  }
  return [visible(stage), ""];
}

function progress({ stage, done, total, unit, note }) {
  const [name, about] = named(stage);
  const now = about ? `${name} · ${about}` : name;
  if (!stages.has(name)) {
    for (const line of stages.values()) line.className = "";
    const line = document.createElement("li");
    const what = document.createElement("span");
    what.textContent = name;
    line.append(at("tick").content.cloneNode(true), what);
    stages.set(name, line);
    at("stages").append(line);
    if (stages.size > 12) at("stages").firstElementChild.remove();
  }
  for (const [other, line] of stages) line.className = other === name ? "now" : "";
  if (at("stage").textContent !== now) at("stage").textContent = now;
  const unitKey = knows(`unit.${unit}`) ? `unit.${unit}` : "unit.other";
  at("much").textContent = total ? t(unitKey, { done, total }) : "";
  at("bar").title = note ? visible(note) : "";
  if (total) { at("bar").max = total; at("bar").value = Math.min(done, total); } else at("bar").removeAttribute("value");
}

const H = 240, LEFT = 46, BOTTOM = 26, TOP = 8;
const points = [];
function draw() {
  const said = points.flatMap((one) => [one.loss, one.validation]).filter(Number.isFinite);
  if (!said.length) return;
  at("curve").hidden = false;
  const chart = at("curve").querySelector("svg");
  const W = chart.clientWidth;  // drawn in true pixels, so that its letters stay as large as all others
  chart.setAttribute("viewBox", `0 0 ${W} ${H}`);
  at("held-out").hidden = !points.some((one) => Number.isFinite(one.validation));
  const epochs = points.map((one) => one.epoch);
  const first = Math.min(...epochs), last = Math.max(...epochs, first + 1);
  const most = Math.max(...said), least = Math.min(0, ...said);
  const x = (epoch) => LEFT + ((W - LEFT - 8) * (epoch - first)) / (last - first);
  const y = (value) => TOP + ((H - BOTTOM - TOP) * (most - value)) / (most - least || 1);
  const shown = [];
  const write = (text, place) => { const label = svg("text", place); label.textContent = text; shown.push(label); };
  for (let i = 0; i <= 3; i++) {
    const value = least + ((most - least) * i) / 3;
    shown.push(svg("line", { class: "grid", x1: LEFT, x2: W, y1: y(value), y2: y(value) }));
    write(value.toLocaleString(language, { maximumSignificantDigits: 2 }), { x: LEFT - 8, y: y(value) + 4, "text-anchor": "end" });
  }
  for (const epoch of new Set([first, last])) write(epoch.toLocaleString(language, { maximumFractionDigits: 1 }), { x: x(epoch), y: H - 4, "text-anchor": epoch === last ? "end" : "start" });
  for (const [name, kind] of [["loss", ""], ["validation", "second"]]) {
    const line = points.filter((one) => Number.isFinite(one[name]));
    if (!line.length) continue;
    shown.push(svg("polyline", { class: kind, points: line.map((one) => `${x(one.epoch)},${y(one[name])}`).join(" ") }));
    const end = line.at(-1);
    shown.push(svg("circle", { class: kind, cx: x(end.epoch), cy: y(end[name]), r: 3.5 }));
  }
  chart.replaceChildren(...shown);
}
addEventListener("resize", draw);

const TERMINAL = new Set(["succeeded", "failed", "cancelled"]);
const heard = {
  progress,
  curve(one) { points.push(one); draw(); },
  state({ state }, when) {
    if (state === "running" && when) job.started = when;
    if (TERMINAL.has(state)) { source.close(); location.reload(); return; }
    at("stage").textContent = t(`now.${state}`);
    showState(at("state").firstElementChild, state);
    if (state === "cancelling" && at("cancel")) at("cancel").disabled = true;
    if (state === "queued") at("bar").removeAttribute("value");
  },
  remark(one) {
    const line = document.createElement("li"), text = document.createElement("span");
    text.textContent = visible(one.text ?? one.remark ?? one.detail ?? "");
    if (!text.textContent) return;
    line.append(at("remark").content.cloneNode(true), text);
    at("remarks").append(line);
  },
  score(one) {
    if (!Number.isFinite(one.value)) return;
    at("interim").hidden = false;
    at("interim-said").textContent = t("interim", { metric: t(`metric.${one.metric}`), value: percent(one.value) });
  },
};

let source;
function listen() {
  source = new EventSource(`${path}/events`);
  const take = (event) => {
    const said = JSON.parse(event.data);
    const kind = said.kind ?? event.type;
    heard[kind]?.(said.data ?? said, said.at);
  };
  for (const kind of [...Object.keys(heard), "message"]) source.addEventListener(kind, take);
  source.onerror = async () => {
    at("stage").textContent = t("lost");
    if (source.readyState !== EventSource.CLOSED) return;  // the browser tries again by itself
    try { if ((await ask("GET", path)).is_terminal) return location.reload(); } catch (error) { if (error.status === 404 || error.status === 401) return location.reload(); }
    setTimeout(listen, 3000);
  };
}

if (!job.terminal) {
  listen();
  clock();
  setInterval(clock, 1000);
  at("cancel")?.addEventListener("click", () => attempt(null, at("job-wrong"), async () => {
    at("cancel").disabled = true;
    at("stage").textContent = t("now.cancelling");
    try { const now = await ask("POST", `${path}/cancel`); if (now?.is_terminal) location.reload(); } catch (error) { at("cancel").disabled = false; throw error; }
  }));
}

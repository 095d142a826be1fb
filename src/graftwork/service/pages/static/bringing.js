// What both the start page and the list of models need: the bar of an upload, and models brought as a zip.
import { ask, at, attempt, size, t, upload, visible } from "./common.js";

/** The bar below a drop: what is done, how much of it; share null where nobody knows. what null hides it. */
export function busy(what, much = "", share = null) {
  at("busy").hidden = what === null;
  if (what === null) return;
  if (at("busy-what").textContent !== what) at("busy-what").textContent = what;
  at("busy-much").textContent = much;
  if (share === null) at("busy-bar").removeAttribute("value"); else at("busy-bar").value = share;
}
export const isBusy = () => !at("busy").hidden;

/** What only a change is worth being read aloud: not each step of the bar. */
export function announce(what) { at("busy-said").textContent = what; }

const TAIL = 65_536;
/** Whether a file is a zip of a model: the list of its entries, at its end, names the parts of one. */
export async function isModel(file) {
  if (!/\.zip$/i.test(file.name)) return false;
  const end = await file.slice(Math.max(0, file.size - TAIL)).text();
  return end.includes("manifest.json") && end.includes("head.safetensors");
}

/** Upload a model's zip and go to the job that takes it in. */
export async function bringModel(file, where) {
  const what = t("uploading", { name: visible(file.name) });
  announce(what);
  const done = await attempt(null, where, async () => {
    busy(what);
    const kept = await upload(file, (bytes) => busy(what, `${size(Math.min(bytes, file.size))} / ${size(file.size)}`, Math.min(1, bytes / file.size)));
    const job = await ask("POST", "/v1/jobs", { kind: "import", file: kept.id });
    location.assign(`/jobs/${job.id}`);
  });
  if (!done) busy(null);
}

// Bringing data: one archive or table, a folder of class folders, or files picked class by class.
import { ask, at, attempt, Refused, size, t, takes, tell, upload, visible } from "./common.js";
import { announce, bringModel, busy, isBusy, isModel } from "./bringing.js";

const ALONE = /\.(zip|csv|tsv|xlsx|xlsm|xls|ods|jsonl|ndjson|json|parquet|pq)$/i;
const SHEET = /\.(xlsb|et|numbers)$/i;
const TOGETHER = 4;  // uploads at once
const drop = at("drop");

/** Upload all, then make a dataset of them and go there. files: [{file, label or null}]. */
async function bring(name, files, where, button) {
  if (isBusy()) return;
  const done = await attempt(button, where, async () => {
    const total = files.reduce((sum, one) => sum + one.file.size, 0) || 1;
    const sent = new Array(files.length).fill(0);
    let finished = 0;
    const told = () => {
      const sum = sent.reduce((a, b) => a + b, 0);
      const what = files.length === 1 ? t("uploading", { name: visible(files[0].file.name) }) : t("uploading.many", { done: finished, total: files.length });
      busy(what, `${size(Math.min(sum, total))} / ${size(total)}`, Math.min(1, sum / total));
    };
    announce(files.length === 1 ? t("uploading", { name: visible(files[0].file.name) }) : t("uploading.many", { done: 0, total: files.length }));
    const kept = new Array(files.length);
    let next = 0;
    told();
    await Promise.all(Array.from({ length: Math.min(TOGETHER, files.length) }, async () => {
      while (next < files.length) {
        const i = next++;
        const file = await upload(files[i].file, (bytes) => { sent[i] = Math.min(bytes, files[i].file.size); told(); });
        sent[i] = files[i].file.size; finished++;
        kept[i] = files[i].label === null ? { file: file.id } : { file: file.id, label: files[i].label };
        told();
      }
    }));
    busy(t("checking"));
    announce(t("checking"));
    const made = await ask("POST", "/v1/datasets", { ...(name ? { name } : {}), files: kept });
    location.assign(`/datasets/${made.id}`);
  });
  if (!done) busy(null);
}

const slip = (key, values) => tell(at("drop-wrong"), new Refused(0, { detail: t(key, values) }));

function readAll(reader) {
  return new Promise((resolve, reject) => {
    const found = [];
    const more = () => reader.readEntries((some) => { if (some.length) { found.push(...some); more(); } else resolve(found); }, reject);
    more();
  });
}

/** Files under a dropped folder, each with its folder's name. */
async function walk(entry, folder, found) {
  if (entry.name.startsWith(".")) return;
  if (entry.isFile) found.push({ file: await new Promise((resolve, reject) => entry.file(resolve, reject)), label: folder });
  else for (const one of await readAll(entry.createReader())) await walk(one, entry.name, found);
}

takes(drop, async (files, dragged) => {
  tell(at("drop-wrong"), null);
  const entries = dragged ? [...dragged.items].map((one) => one.webkitGetAsEntry?.()).filter(Boolean) : [];
  const folders = entries.filter((one) => one.isDirectory);
  if (folders.length) {
    const found = [];
    for (const one of folders) await walk(one, one.name, found);
    const labels = new Set(found.map((one) => one.label));
    if (labels.size < 2) return slip("drop.mixed");
    return bring(folders.length === 1 ? folders[0].name : null, found, at("drop-wrong"), null);
  }
  if (files.length > 1) {
    if (files.every((file) => ALONE.test(file.name))) return slip("drop.mixed");
    at("classes").open = true;
    return slip("drop.unsorted");
  }
  const [file] = files;
  if (!file) return;
  if (!file.size) return slip("drop.empty", { name: visible(file.name) });
  if (!ALONE.test(file.name)) {
    if (/^(image|audio)\//.test(file.type)) { at("classes").open = true; return slip("drop.unsorted"); }
    if (SHEET.test(file.name)) return slip("drop.sheet", { name: visible(file.name) });
    return slip("drop.type", { name: visible(file.name) });
  }
  if (isBusy()) return;
  if (await isModel(file)) return bringModel(file, at("drop-wrong"));
  bring(null, [{ file, label: null }], at("drop-wrong"), null);
});

const THUMBS = 10;
const rows = [];

function show(row) {
  const shown = row.files.slice(0, THUMBS).map((file) => {
    if (!file.type.startsWith("image/")) {
      const name = document.createElement("span");
      name.className = "file"; name.textContent = visible(file.name);
      return name;
    }
    const picture = new Image(44, 44);
    picture.alt = visible(file.name); picture.src = URL.createObjectURL(file);
    picture.onload = picture.onerror = () => URL.revokeObjectURL(picture.src);
    return picture;
  });
  const count = document.createElement("span");
  count.textContent = row.files.length ? t("files", { n: row.files.length }) : "";
  row.thumbs.replaceChildren(...shown, count);
}

function addRow() {
  const made = at("class-row").content.firstElementChild.cloneNode(true);
  const row = { name: made.querySelector(".class-name"), thumbs: made.querySelector(".thumbs"), files: [] };
  const picker = made.querySelector("input[type=file]");
  const take = (files) => {
    const known = new Set(row.files.map((file) => `${file.name} ${file.size}`));
    row.files.push(...files.filter((file) => file.size && !known.has(`${file.name} ${file.size}`)));
    show(row);
  };
  picker.addEventListener("change", () => { take([...picker.files]); picker.value = ""; });
  made.addEventListener("dragover", (event) => event.preventDefault());
  made.addEventListener("drop", (event) => { event.preventDefault(); take([...event.dataTransfer.files]); });
  rows.push(row);
  at("class-rows").append(made);
  return row;
}

addRow(); addRow();
at("class-more").addEventListener("click", () => addRow().name.focus());
at("class-form").addEventListener("input", () => tell(at("class-wrong"), null));
at("class-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const where = at("class-wrong");
  const wrong = (row, key, values) => { tell(where, new Refused(0, { detail: t(key, values) })); row?.name.focus(); };
  const used = rows.filter((row) => row.name.value.trim() || row.files.length);
  const seen = new Set();
  for (const row of used) {
    const name = row.name.value.trim();
    if (!name) return wrong(row, "classes.unnamed", { n: row.files.length });
    if (!row.files.length) return wrong(row, "classes.files", { name });
    if (seen.has(name)) return wrong(row, "classes.same", { name });
    seen.add(name);
  }
  if (used.length < 2) return wrong(rows.find((row) => !row.name.value.trim()), "classes.two");
  const files = used.flatMap((row) => row.files.map((file) => ({ file, label: row.name.value.trim() })));
  bring(at("set-name").value.trim(), files, where, at("class-go"));
});

// What all pages share: words, the API, small pieces of the document.
const words = JSON.parse(document.getElementById("words").textContent);
const csrf = document.querySelector("meta[name=csrf]")?.content;
export const language = document.documentElement.lang;
export const at = (id) => document.getElementById(id);

/** A word of the page's language, its {places} filled in. */
export function t(key, values = {}) {
  const one = values.n === 1 ? words[`${key}.one`] : undefined;
  const word = one ?? words[key] ?? key;
  return word.replace(/\{(\w+)\}/g, (_, name) => {
    const value = values[name];
    return typeof value === "number" ? value.toLocaleString(language) : String(value ?? "");
  });
}
export const knows = (key) => key in words;

/** A request that the API refused: message is the problem's detail, code its code. */
export class Refused extends Error {
  constructor(status, problem) {
    super(problem?.detail ?? (status === 401 ? t("signed_out") : t("offline")));
    this.status = status;
    this.code = problem?.code ?? "";
    this.pointers = problem?.errors ?? [];
  }
}

const headersOf = (more) => ({ ...(csrf ? { "X-CSRF-Token": csrf } : {}), ...more });

function refusalOf(status, text) {
  if (status === 401) return new Refused(401, null);
  try { return new Refused(status, JSON.parse(text)); } catch { return new Refused(status, null); }
}

/** Ask /v1; the answer's JSON, or null where it has none. Throws Refused. */
export async function ask(method, path, body, headers = {}) {
  const isJson = body !== undefined && !(body instanceof Blob) && typeof body !== "string";
  let answer;
  try {
    answer = await fetch(path, {
      method, headers: headersOf({ Accept: "application/json", ...(isJson ? { "Content-Type": "application/json" } : {}), ...headers }),
      body: isJson ? JSON.stringify(body) : body,
    });
  } catch { throw new Refused(0, null); }
  const text = await answer.text();
  if (!answer.ok) throw refusalOf(answer.status, text);
  return text ? JSON.parse(text) : null;
}

/** Upload one file; told(bytes) is called as it goes. Resolves to the file's JSON. */
export function upload(file, told = () => {}) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();  // fetch does not tell how far an upload is
    request.open("POST", `/v1/files?name=${encodeURIComponent(file.name)}`);
    for (const [name, value] of Object.entries(headersOf({ Accept: "application/json", "Content-Type": file.type || "application/octet-stream" }))) request.setRequestHeader(name, value);
    request.upload.onprogress = (event) => told(event.loaded);
    request.onerror = () => reject(new Refused(0, null));
    request.onload = () => request.status < 300 ? resolve(JSON.parse(request.responseText)) : reject(refusalOf(request.status, request.responseText));
    request.send(file);
  });
}

/** Say below `where` what went wrong; null wipes it. */
export function tell(where, error) {
  where.replaceChildren();
  if (!error) return;
  if (knows(`problem.${error.code}`)) {
    const title = document.createElement("p"), bold = document.createElement("b");
    bold.textContent = t(`problem.${error.code}`);
    title.append(bold); where.append(title);
  }
  const help = `problem.${error.code}.help`;
  if (knows(help)) {
    const line = document.createElement("p");
    line.textContent = t(help);
    where.append(line);
  }
  const said = document.createElement("p");
  said.textContent = error.message ?? String(error);
  if (knows(help)) said.className = "small quiet";
  if (error.code !== "not-found") where.append(said);  // of which a program alone has any use
  for (const one of (error.pointers ?? []).slice(0, 5)) {
    if (said.textContent.includes(one.detail)) continue;
    const line = document.createElement("p");
    line.className = "small quiet";
    line.textContent = `${one.pointer}: ${one.detail}`;
    where.append(line);
  }
  if (error.status === 401) {
    const line = document.createElement("p"), link = document.createElement("a");
    link.href = `/sign-in?to=${encodeURIComponent(location.pathname + location.search)}`; link.textContent = t("problem.unauthorized");
    line.append(link); where.append(line);
  }
  where.scrollIntoView({ block: "nearest" });
  if (!(error instanceof Refused) && error instanceof Error) console.error(error);
}

/** Do it with the button asleep; a refusal is told in `where`. Resolves to whether it went well. */
export async function attempt(button, where, work) {
  tell(where, null);
  if (button) button.disabled = true;
  try { await work(); return true; } catch (error) { tell(where, error); return false; } finally { if (button) button.disabled = false; }
}

const SVG = "http://www.w3.org/2000/svg";
export function svg(name, attributes = {}) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

export function percent(share) {
  return share.toLocaleString(language, { style: "percent", minimumFractionDigits: 1, maximumFractionDigits: 1 });
}

/** A probability; none that is estimated is said to be 0 or 100. */
export function chance(share) {
  if (share < 0.0005) return `< ${percent(0.001)}`;
  return share > 0.9995 ? `> ${percent(0.999)}` : percent(share);
}

export function size(bytes) {
  for (const [unit, amount] of [["GB", 1e9], ["MB", 1e6], ["kB", 1e3]]) if (bytes >= amount) return `${(bytes / amount).toLocaleString(language, { maximumFractionDigits: 1 })} ${unit}`;
  return `${bytes} B`;
}

/** Characters that act unseen (bidirectional controls and the like) written out, as the server does. */
export function visible(text) {
  return String(text).replace(/[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/gu, (one) => {
    if ("\t\n\r".includes(one)) return " ";
    if ("\u200c\u200d".includes(one)) return one;
    return `‹U+${one.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}›`;
  });
}

/** Files dropped onto, or picked with the input of, `form`. */
export function takes(form, taken) {
  const input = form.querySelector("input[type=file]");
  input.addEventListener("change", () => { if (input.files.length) taken([...input.files], null); input.value = ""; });
  for (const kind of ["dragenter", "dragover"]) form.addEventListener(kind, (event) => { event.preventDefault(); form.classList.add("over"); });
  for (const kind of ["dragleave", "drop"]) form.addEventListener(kind, () => form.classList.remove("over"));
  form.addEventListener("drop", (event) => { event.preventDefault(); taken([...event.dataTransfer.files], event.dataTransfer); });
  form.addEventListener("submit", (event) => event.preventDefault());
}

function toast(text) {
  const said = document.createElement("div");
  said.className = "toast"; said.role = "status"; said.textContent = text;
  document.body.append(said);
  setTimeout(() => said.remove(), 1800);
}

async function copy(text) {
  try { await navigator.clipboard.writeText(text); } catch {  // no clipboard without https: the old way
    const area = document.createElement("textarea");
    area.value = text; document.body.append(area); area.select(); document.execCommand("copy"); area.remove();
  }
  toast(t("copied"));
}

/** What a dialog's danger button does: work() may throw, which is told in the dialog. */
export function confirms(id, work) {
  const dialog = at(id);
  if (!dialog) return;
  const yes = dialog.querySelector("[data-yes]");
  const typed = dialog.querySelector("[data-typed]");
  typed?.addEventListener("input", () => { yes.disabled = typed.value.trim().toLowerCase() !== typed.dataset.typed.toLowerCase(); });
  yes.addEventListener("click", (event) => { event.preventDefault(); attempt(yes, dialog.querySelector(".wrong"), work); });
  dialog.querySelector("form").addEventListener("submit", (event) => {
    if (event.submitter === yes || !event.submitter) return;
    dialog.close();
  });
}

function localise(root = document) {
  const shape = new Intl.DateTimeFormat(language, { dateStyle: "medium", timeStyle: "short" });
  const since = new Intl.RelativeTimeFormat(language, { numeric: "auto" });
  for (const one of root.querySelectorAll("time[datetime]")) {
    const then = new Date(one.dateTime);
    const minutes = Math.round((then - Date.now()) / 60000);
    one.title = shape.format(then);
    one.textContent = minutes > -60 ? since.format(Math.min(0, minutes), "minute") : minutes > -1440 ? since.format(Math.round(minutes / 60), "hour") : shape.format(then);
  }
}

const COLOURS = { queued: "mid", cancelling: "mid", running: "live", succeeded: "good", failed: "bad", cancelled: "" };

/** Write a job's state into the chip that shows it. */
export function showState(chip, state) {
  chip.textContent = t(`state.${state}`);
  chip.className = `chip ${COLOURS[state]}`;
}

/** Lines of jobs at work follow what becomes of them. */
async function follow(lines) {
  for (let left = [...lines]; left.length;) {
    await new Promise((resolve) => setTimeout(resolve, 3000));
    if (document.hidden) continue;
    for (const line of left) {
      try {
        const job = await ask("GET", `/v1/jobs/${line.dataset.follows}`);
        showState(line.querySelector(".chip"), job.state);
        if (job.is_terminal) left = left.filter((one) => one !== line);
      } catch { return; }
    }
  }
}

document.addEventListener("click", (event) => {
  const button = event.target.closest?.("[data-opens], [data-copies]");
  if (button?.dataset.opens) at(button.dataset.opens)?.showModal();
  if (button?.dataset.copies) copy(at(button.dataset.copies).textContent);
});
// a place for files opens by Enter as by Space, as all buttons do; browsers would send the form
document.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || !event.target.matches?.("input[type=file]")) return;
  event.preventDefault();
  event.target.click();
});
// a file dropped beside its place must not replace the page
for (const kind of ["dragover", "drop"]) window.addEventListener(kind, (event) => event.preventDefault());
localise();
follow(document.querySelectorAll("[data-follows]"));

// A model: ask it, see how sure it is, say what is right, learn again.
import { ask, at, attempt, chance, confirms, knows, Refused, svg, t, takes, tell, upload, visible } from "./common.js";
import { record } from "./recording.js";

const model = at("model").dataset;
const labels = JSON.parse(at("labels").textContent);
const SHOWN = 5;
const why = (error) => knows(`device.${error.name}`) ? t(`device.${error.name}`) : error.message;
const wrong = at("try-wrong");
let asked = null;  // {text} or {file}
let latest = 0;

function bars(probabilities, all) {
  const sorted = Object.entries(probabilities).sort((a, b) => b[1] - a[1]);
  const shown = all ? sorted : sorted.slice(0, SHOWN);
  at("probabilities").replaceChildren(...shown.map(([label, share], i) => {
    const line = document.createElement("li"), name = document.createElement("bdi"), number = document.createElement("span");
    name.textContent = visible(label); name.title = name.textContent; name.className = i ? "" : "best";
    number.textContent = chance(share); number.className = "number";
    const track = svg("svg", { class: "track", width: "100%", height: 10, "aria-hidden": "true" });
    track.append(svg("rect", { width: `${100 * share}%`, height: "100%", class: i ? "rest" : "" }));
    line.append(name, track, number);
    return line;
  }));
  const more = at("all-labels");
  more.hidden = sorted.length <= SHOWN;
  more.textContent = t(all ? "fewer" : "all");
  more.onclick = () => bars(probabilities, !all);
}

function show(answer) {
  at("not-yet").hidden = true;
  at("reply").hidden = false;
  at("unknown").hidden = !answer.unknown;
  at("answer-is").textContent = t(answer.unknown ? "answer.unknown" : "answer");
  at("answer").textContent = visible(answer.label);
  bars(answer.probabilities, false);
  if (at("correct")) { at("correct").reset(); tell(at("correct-wrong"), null); }
}

/** Ask about `what`: {text} or {file}. Only the answer to what was asked last is shown. */
async function predict(what, button) {
  const mine = ++latest;
  asked = what;
  tell(wrong, null);
  at("not-yet").hidden = false; at("reply").hidden = true;
  at("not-yet").textContent = t("asking");
  if (button) button.disabled = true;
  try {
    const body = what.text ?? what.file;
    const type = what.text === undefined ? what.file.type || "application/octet-stream" : "text/plain; charset=utf-8";
    const said = await ask("POST", `/v1/predict?model=${encodeURIComponent(model.id)}`, body, { "Content-Type": type });
    if (mine !== latest) return;
    const [answer] = said.answers;
    if (answer.error) throw new Refused(422, { detail: answer.error });
    show(answer);
  } catch (error) {
    if (mine !== latest) return;
    at("not-yet").textContent = "";
    tell(wrong, error.code === "unsupported-type" ? new Refused(0, { detail: t(`try.type.${model.kind}`) }) : error);
  } finally { if (button) button.disabled = false; }
}

function display(file) {
  const old = at("shown").firstElementChild;
  if (old?.src) URL.revokeObjectURL(old.src);
  const isSound = model.kind === "audio";
  const shown = document.createElement(isSound ? "audio" : "img");
  shown.src = URL.createObjectURL(file);
  if (isSound) shown.controls = true;
  else {
    shown.className = "shown"; shown.alt = visible(file.name);
    shown.onload = () => { if (shown.naturalWidth < 80 && shown.naturalHeight < 80) shown.classList.add("small-one"); };
    shown.onerror = () => shown.remove();
  }
  at("shown").replaceChildren(shown);
}

function take(file) { if (file) { display(file); predict({ file }, null); } }

if (at("drop")) takes(at("drop"), ([file]) => take(file));

at("ask-text")?.addEventListener("submit", (event) => {
  event.preventDefault();
  const text = at("sentence").value.trim();
  if (text) predict({ text }, event.submitter);
});
at("sentence")?.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) at("ask-text").requestSubmit();
});

const capture = at("capture");
capture?.addEventListener("change", () => { take(capture.files[0]); capture.value = ""; });
// phones open their own camera from the picker; elsewhere it is shown in the page
if (at("camera") && navigator.mediaDevices?.getUserMedia && !matchMedia("(pointer: coarse)").matches) {
  at("snap").hidden = true;
  at("camera").hidden = false;
  let stream = null;
  const off = () => { stream?.getTracks().forEach((one) => one.stop()); stream = null; at("viewer").hidden = true; };
  at("camera").addEventListener("click", async () => {
    tell(wrong, null);
    try {
      stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
      at("video").srcObject = stream;
      at("viewer").hidden = false;
      await at("video").play();
    } catch (error) { off(); tell(wrong, new Refused(0, { detail: t("refused.camera", { reason: why(error) }) })); }
  });
  at("camera-off").addEventListener("click", off);
  at("shoot").addEventListener("click", () => {
    const video = at("video"), canvas = document.createElement("canvas");
    canvas.width = video.videoWidth; canvas.height = video.videoHeight;
    canvas.getContext("2d").drawImage(video, 0, 0);
    canvas.toBlob((blob) => { off(); take(new File([blob], "photo.jpg", { type: "image/jpeg" })); }, "image/jpeg", 0.92);
  });
}

if (at("record")) {
  if (!navigator.mediaDevices?.getUserMedia) at("record").hidden = true;
  let running = null;
  const label = at("record").querySelector("span");
  const stop = async () => {
    const ended = running;
    if (!ended) return;
    running = null;
    label.textContent = t("record"); at("level").toggleAttribute("hidden", true); at("recorded").textContent = "";
    take(await ended.stop());
  };
  at("record").addEventListener("click", async () => {
    if (running) return stop();
    tell(wrong, null);
    try {
      running = await record(model.recorder, (seconds, level) => {
        at("recorded").textContent = `${seconds.toFixed(1)} s`;
        at("level").firstElementChild.setAttribute("width", `${Math.round(100 * Math.min(1, level))}%`);
      }, stop);
      label.textContent = t("stop"); at("level").toggleAttribute("hidden", false);
    } catch (error) { running = null; tell(wrong, new Refused(0, { detail: t("refused.microphone", { reason: why(error) }) })); }
  });
}

at("correct")?.addEventListener("submit", (event) => {
  event.preventDefault();
  const said = at("truth").value.trim();
  // what is known only apart from case or space is meant to be the known one
  const label = labels.find((one) => visible(one) === said) ?? labels.find((one) => one.trim().toLowerCase() === said.toLowerCase()) ?? said;
  const about = asked;
  if (!label || !about) return;
  attempt(event.submitter, at("correct-wrong"), async () => {
    const row = { label };
    if (about.text === undefined) row.file = (await upload(about.file)).id; else row.text = about.text;
    await ask("POST", `/v1/datasets/${model.dataset}/rows`, row);
    const { corrections } = await ask("GET", `/v1/datasets/${model.dataset}`);
    at("again").hidden = false;
    at("again-said").textContent = `${t("corrected", { label: visible(label) })} ${t("corrections", { n: corrections })}`;
    at("correct").reset();
    at("refit").focus();
  });
});

at("refit")?.addEventListener("click", (event) => attempt(event.currentTarget, wrong, async () => {
  const job = await ask("POST", "/v1/jobs", JSON.parse(model.refit));
  location.assign(`/jobs/${job.id}`);
}));

const path = `/v1/models/${encodeURIComponent(model.id)}`;
confirms("delete", async () => { await ask("DELETE", path); location.replace("/models"); });
confirms("rename", async () => { await ask("PATCH", path, { name: at("new-name").value.trim() }); location.reload(); });

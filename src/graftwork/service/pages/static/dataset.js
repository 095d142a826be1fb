// A dataset: wait for its inspection, choose columns, start a fit.
import { ask, at, attempt, confirms, knows, t } from "./common.js";

const data = at("dataset").dataset;
const path = `/v1/datasets/${data.id}`;

function say(what) { if (at("looking").textContent !== what) at("looking").textContent = what; }

async function wait() {
  for (let pause = 300; ; pause = Math.min(2000, pause * 1.3)) {
    await new Promise((resolve) => setTimeout(resolve, pause));
    try {
      const now = await ask("GET", path);
      if (now.state !== "inspecting") return location.reload();
      if (!data.job) continue;
      const { state, progress } = await ask("GET", `/v1/jobs/${data.job}`);
      if (state === "queued") say(t("now.queued"));
      if (!progress) continue;
      if (knows(`stage.${progress.stage}`)) say(t(`stage.${progress.stage}`));
      if (progress.total) { at("looking-bar").max = progress.total; at("looking-bar").value = progress.done; }
    } catch (error) {
      if (error.status === 404 || error.status === 401) return location.reload();
    }
  }
}
if (data.state === "inspecting") wait();

at("columns")?.addEventListener("submit", (event) => {
  event.preventDefault();
  const form = event.target;
  attempt(event.submitter, at("columns-wrong"), async () => {
    const options = {};
    for (const [role, column] of new FormData(form)) if (column.trim()) options[role] = column.trim();
    const made = await ask("POST", "/v1/datasets", { name: data.name, files: JSON.parse(form.dataset.files), options });
    await ask("DELETE", path).catch(() => {});  // the one that could not be read; its files stay for the new one
    location.replace(`/datasets/${made.id}`);
  });
});

// quick is answered in seconds, so it waits for no network from scratch
const PLANS = { quick: { strategy: "probe", baselines: "classical" }, "5m": { strategy: "auto", budget: "5m" }, "30m": { strategy: "auto", budget: "30m" } };
at("fit")?.addEventListener("submit", (event) => {
  event.preventDefault();
  const said = Object.fromEntries(new FormData(event.target));
  const asked = { kind: "fit", dataset: data.id, name: said.name.trim(), source: said.source.trim() || "auto", ...PLANS[said.budget] };
  if (said.strategy) asked.strategy = said.strategy;
  if (said.metric) asked.metric = said.metric;
  attempt(event.submitter, at("fit-wrong"), async () => {
    const job = await ask("POST", "/v1/jobs", asked);
    location.assign(`/jobs/${job.id}`);
  });
});

at("compare")?.addEventListener("click", (event) => attempt(event.currentTarget, at("fit-wrong"), async () => {
  const job = await ask("POST", "/v1/jobs", { kind: "rank", dataset: data.id });
  location.assign(`/jobs/${job.id}`);
}));

confirms("delete", async () => { await ask("DELETE", path); location.replace("/datasets"); });

// Keys, owners, and the end of everything.
import { ask, at, attempt, confirms, t, visible } from "./common.js";

at("new-key")?.addEventListener("submit", (event) => {
  event.preventDefault();
  attempt(event.submitter, at("key-wrong"), async () => {
    const made = await ask("POST", "/v1/keys", { name: at("key-name").value.trim(), scope: at("key-scope").value });
    at("secret").textContent = made.key;
    at("new-key").hidden = true;
    at("made").hidden = false;
    at("secret").focus();
  });
});

let leaving = null;  // the button of the key or owner that is about to go
for (const button of document.querySelectorAll("[data-revokes]")) {
  button.addEventListener("click", () => { leaving = button; at("revoke").showModal(); });
}
confirms("revoke", async () => {
  await ask("DELETE", `/v1/keys/${leaving.dataset.revokes}`);
  leaving.closest("tr").remove();
  at("revoke").close();
});

/** A one-time link for an owner, shown to be handed on. */
async function invite(id, name) {
  const { link } = await ask("POST", `/v1/owners/${id}/links`);
  at("invited-title").textContent = t("owners.made", { name: visible(name) });
  at("invitation").textContent = `${location.origin}/sign-in/${link}`;
  at("invited").hidden = false;
  at("invited").focus();
}
at("new-owner")?.addEventListener("submit", (event) => {
  event.preventDefault();
  const name = at("owner-name").value.trim();
  attempt(event.submitter, at("owner-wrong"), async () => {
    const made = await ask("POST", "/v1/owners", { name });
    await invite(made.id, made.name);
    at("new-owner").hidden = true;
  });
});
for (const button of document.querySelectorAll("[data-links]")) {
  button.addEventListener("click", () => attempt(button, at("owners-wrong"), () => invite(button.dataset.links, button.dataset.name)));
}
for (const button of document.querySelectorAll("[data-removes]")) {
  button.addEventListener("click", () => {
    leaving = button;
    at("remove-title").textContent = t("owners.remove", { name: button.dataset.name });
    at("remove").showModal();
  });
}
confirms("remove", async () => {
  await ask("DELETE", `/v1/owners/${leaving.dataset.removes}`);
  location.reload();
});

confirms("wipe", async () => { await ask("DELETE", "/v1/owners/me/data"); location.assign("/"); });

// Keys, and the end of everything.
import { ask, at, attempt, confirms } from "./common.js";

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

let leaving = null;  // the button of the key that is about to go
for (const button of document.querySelectorAll("[data-revokes]")) {
  button.addEventListener("click", () => { leaving = button; at("revoke").showModal(); });
}
confirms("revoke", async () => {
  await ask("DELETE", `/v1/keys/${leaving.dataset.revokes}`);
  leaving.closest("tr").remove();
  at("revoke").close();
});

confirms("wipe", async () => { await ask("DELETE", "/v1/owners/me/data"); location.assign("/"); });

// The list of models: one that was fitted elsewhere is brought here.
import { at, Refused, t, tell, visible } from "./common.js";
import { bringModel, isBusy, isModel } from "./bringing.js";

const picker = at("model-file");
picker.addEventListener("change", async () => {
  const [file] = picker.files, where = at("import-wrong");
  if (!file || isBusy()) return;
  if (await isModel(file)) await bringModel(file, where);
  else tell(where, new Refused(0, { detail: t("import.not", { name: visible(file.name) }) }));
  picker.value = "";
});

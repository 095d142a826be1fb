"""SetFit at its defaults on one task, for few_labels.py: JSON on stdin and stdout, in its own environment."""

import json
import os
import sys
import tempfile
import time
import warnings
from importlib.metadata import version


def main() -> None:
    os.environ["HF_HUB_OFFLINE"] = "1"
    warnings.filterwarnings("ignore")
    from datasets import Dataset
    from setfit import SetFitModel, Trainer, TrainingArguments

    asked = json.load(sys.stdin)
    rows = Dataset.from_dict({"text": asked["texts"], "label": asked["labels"]})
    with tempfile.TemporaryDirectory() as folder:
        # what is written and shown is switched off; all that shapes the training is left as it is
        quiet = {"report_to": "none", "show_progress_bar": False, "save_strategy": "no"}
        settings = TrainingArguments(output_dir=folder, seed=asked["seed"], **quiet)
        started = time.perf_counter()
        model = SetFitModel.from_pretrained(asked["source"])
        Trainer(model=model, args=settings, train_dataset=rows).train()
        seconds = time.perf_counter() - started
    answers = [int(answer) for answer in model.predict(asked["questions"])]
    versions = {name: version(name) for name in ("setfit", "sentence-transformers", "transformers", "torch")}
    print(json.dumps({"answers": answers, "seconds": seconds, "versions": versions}))


if __name__ == "__main__":
    main()

"""The server that people write: FastAPI, Pillow, transformers, one fine-tuned copy of the network a task.

RIVAL names the folder of the copies; with RIVAL_MODEL one of them is loaded for good, else the one that a
request names is loaded in place of the last. Run by serve_rivals.py: `uvicorn rival_server:app`.
"""

import io
import os
import threading
from pathlib import Path
from typing import Annotated, Any

import torch
from fastapi import Body, FastAPI
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForImageClassification

app = FastAPI()
copies = Path(os.environ["RIVAL"])
fixed = os.environ.get("RIVAL_MODEL")
lock = threading.Lock()
held: dict[str, Any] = {}
if "RIVAL_THREADS" in os.environ:
    torch.set_num_threads(int(os.environ["RIVAL_THREADS"]))


def load(name: str) -> tuple[Any, Any]:
    if name not in held:
        held.clear()
        processor = AutoImageProcessor.from_pretrained(copies / name)
        held[name] = processor, AutoModelForImageClassification.from_pretrained(copies / name).eval()
    return held[name]  # type: ignore[no-any-return]


if fixed is not None:
    load(fixed)


@app.post("/predict/{name}")
def predict(name: str, photo: Annotated[bytes, Body(media_type="image/jpeg")]) -> dict[str, Any]:
    image = Image.open(io.BytesIO(photo)).convert("RGB")
    with lock:
        processor, model = load(name)
        inputs = processor(images=image, return_tensors="pt")
        with torch.inference_mode():
            probabilities = model(**inputs).logits.softmax(-1)[0].tolist()
    labels = [model.config.id2label[i] for i in range(len(probabilities))]
    best = max(range(len(labels)), key=probabilities.__getitem__)
    return {"label": labels[best], "probabilities": dict(zip(labels, probabilities, strict=True))}

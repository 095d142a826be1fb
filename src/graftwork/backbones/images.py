"""Image encoders of transformers: decoded as their own processor would, pooled, run by the engine."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from io import BytesIO
from typing import Any, ClassVar

import numpy as np
import PIL
from numpy.typing import NDArray
from PIL import Image

from graftwork import images, paths
from graftwork.backbones import engine
from graftwork.backbones.ahead import in_order
from graftwork.backbones.base import BackboneState, Examples, Options
from graftwork.backbones.loading import load_encoder
from graftwork.backbones.pretrained import Pretrained, on_this_machine, room
from graftwork.backbones.quiet import quiet
from graftwork.backbones.served import Prepared, Reading
from graftwork.errors import ArtefactError, RequestError, Unreadable
from graftwork.records import Notify, Progress, silent
from graftwork.rows import Column, Contents, Kind, Rows
from graftwork.sources import Source

Pixels = NDArray[np.uint8]
POOLINGS = ("auto", "pooled", "cls", "mean", "flatten")
RESIZES = ("crop", "fit")
_SMALL = 32
"""Side of the blank picture that a convolutional network's stem may see where its answer is not used."""


@dataclass(frozen=True)
class Framing:
    """How a picture becomes the network's input: height x width x 3 bytes.

    resize: (height, width) to stretch to, or one number for the short side; None leaves the size.
    fit: the whole picture inside height x width, the rest filled with `fill`.
    """

    height: int
    width: int
    resize: tuple[int, int] | int | None
    resample: int
    fit: bool
    fill: tuple[int, int, int]

    def __call__(self, content: bytes) -> Prepared:
        """See `Reading`."""
        return Prepared.single(self.apply(content)[None])

    def apply(self, content: bytes) -> Pixels:
        """Raises Unreadable where `content` is no whole picture."""
        picture = images.decode(content, self._wanted())
        return np.asarray(self._fitted(picture) if self.fit else self._cropped(picture))

    def _wanted(self) -> int | None:
        """Pixels needed on the short side: a JPEG may then be decoded at a fraction of its size."""
        if self.fit:
            return max(self.height, self.width)
        return self.resize if self.resize is None or isinstance(self.resize, int) else max(self.resize)

    def _cropped(self, picture: Image.Image) -> Image.Image:
        if self.resize is not None:
            width, height = picture.size
            if isinstance(self.resize, int):
                short, long = sorted(picture.size)
                stretched = int(self.resize * long / short)
                size = (self.resize, stretched) if width <= height else (stretched, self.resize)
            else:
                size = (self.resize[1], self.resize[0])
            picture = picture.resize(size, self.resample)
        left = (picture.width - self.width) // 2
        top = (picture.height - self.height) // 2
        if (left, top) == (0, 0) and picture.size == (self.width, self.height):
            return picture
        return picture.crop((left, top, left + self.width, top + self.height))

    def _fitted(self, picture: Image.Image) -> Image.Image:
        scale = min(self.width / picture.width, self.height / picture.height)
        size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
        canvas = Image.new("RGB", (self.width, self.height), self.fill)
        canvas.paste(
            picture.resize(size, self.resample), ((self.width - size[0]) // 2, (self.height - size[1]) // 2)
        )
        return canvas


class Images(Pretrained):
    """Frozen image encoder."""

    family: ClassVar[str] = "images"
    kind: ClassVar[Kind] = "image"
    version: ClassVar[int] = 1
    reader: ClassVar[str] = f"pillow {PIL.__version__}"

    @property
    def framing(self) -> Framing:
        found = self.config["preprocessing"]["framing"]
        resize = found["resize"]
        return Framing(
            **{
                **found,
                "resize": tuple(resize) if isinstance(resize, list | tuple) else resize,
                "fill": tuple(found["fill"]),
            }
        )

    def _key(self) -> Mapping[str, Any]:
        return {
            "weights": self.source.weights_sha256,
            "config": self.source.files["config.json"],
            "pooling": self.config["pooling"],
            "mean": self.config["preprocessing"]["mean"],
            "std": self.config["preprocessing"]["std"],
            "size": [self.framing.height, self.framing.width],
        }

    def batches(self, rows: Rows, unreadable: dict[int, str]) -> Iterator[engine.Batch]:
        size = engine.CUDA_ROWS if self.config.get("runtime") == "cuda" else 1
        pixels: list[Pixels] = []
        positions: list[int] = []
        for i, found in decoded(rows.column, self.framing.apply):
            if isinstance(found, str):
                unreadable[i] = found
                continue
            positions.append(i)
            pixels.append(found)
            if len(pixels) == size:
                yield np.array(positions), (np.stack(pixels),)
                pixels, positions = [], []
        if pixels:
            yield np.array(positions), (np.stack(pixels),)

    def reading(self) -> Reading:
        """See `ReadApart`."""
        return self.framing

    def examples(self, rows: Rows, notify: Notify = silent) -> Examples:
        """See `Tunable.examples`; all pixels lie in one file, mapped where they are many."""
        from graftwork.backbones.examples import Pictures

        framing = self.framing
        pixels = room((len(rows), framing.height, framing.width, 3), np.uint8)
        for i, found in decoded(rows.column, framing.apply):
            if isinstance(found, str):
                raise Unreadable(f"{rows.names[i]} {found}; remove or replace it, then run again")
            pixels[i] = found
            if i % 64 == 0:
                notify(Progress("reading", i, len(rows)))
        return Pictures(pixels)

    def synthetic(self) -> Rows:
        """Smooth coloured noise, as PNG."""
        rng = np.random.default_rng(0)
        contents = []
        for i in range(16):
            coarse = Image.fromarray(rng.integers(0, 256, (2 + i, 2 + i, 3), dtype=np.uint8))
            buffer = BytesIO()
            coarse.resize((256, 256), Image.Resampling.BICUBIC).save(buffer, "PNG")
            contents.append(buffer.getvalue())
        return Rows([f"made-up {i}" for i in range(16)], {"image": Contents("image", contents)})

    def _example(self) -> engine.Arrays:
        return (np.zeros((1, self.framing.height, self.framing.width, 3), np.uint8),)

    def blanks(self) -> list[NDArray[Any]]:
        return [np.zeros((1, *size, 3), np.float32) for size in ((_SMALL, _SMALL), self._size())]

    def _size(self) -> tuple[int, int]:
        return self.framing.height, self.framing.width

    def _build(self) -> Any:
        from graftwork.backbones.pooling import ImageNetwork

        # a pooler beside the cut that is taken may lack weights; nothing else may
        pooled = self.config["pooling"] == "pooled"
        module = load_encoder(self.source, lambda name: pooled or "pooler" not in name)
        preprocessing = self.config["preprocessing"]
        return ImageNetwork(module, self.config["pooling"], preprocessing["mean"], preprocessing["std"])


def open_source(source: Source, sample: Rows | None, options: Options, notify: Notify) -> "Images":
    runtime = engine.check_runtime(options.runtime)
    return open_images(
        source, sample, pooling=options.pooling, resize=options.resize, runtime=runtime, notify=notify
    )


def open_images(
    source: Source,
    sample: Rows | None = None,
    *,
    pooling: str | None = None,
    resize: str | None = None,
    runtime: engine.Runtime | None = None,
    notify: Notify = silent,
) -> Images:
    """The backbone of an image source; `sample` rows decide which path this machine takes, once."""
    pooling = "auto" if pooling is None else pooling
    resize = "crop" if resize is None else resize
    if pooling not in POOLINGS:
        raise RequestError(f"no pooling {pooling!r} for pictures; expected one of {', '.join(POOLINGS)}")
    if resize not in RESIZES:
        raise RequestError(f"no resize {resize!r}; expected crop or fit")
    preprocessing = preprocessing_of(source, fit=resize == "fit")
    config = {"pooling": pooling, "resize": resize, "preprocessing": preprocessing}
    bare = Images(source, config)
    return Images(source, bare.settled(sample, runtime, notify))


def restore(state: BackboneState) -> Images:
    """A saved image backbone, with the path it was saved with where this machine can take it."""
    if state.source is None:
        raise ArtefactError("this image backbone names no source; restore the artefact from a copy")
    saved = Images(state.source, state.config, state.arrays)
    return replace(saved, config=on_this_machine(saved))


def decoded(column: Column, frame: Callable[[bytes], Pixels]) -> Iterator[tuple[int, Pixels | str]]:
    """(position, pixels or the reason why there are none) of every row, in order, decoded in threads.

    Looks a bounded number of pictures ahead, so memory does not grow with the number of rows.
    """

    def one(i: int) -> Pixels | str:
        try:
            return frame(column.read(i))
        except Unreadable as error:
            return str(error)

    return enumerate(in_order(len(column), one))


def preprocessing_of(source: Source, *, fit: bool) -> dict[str, Any]:
    """The source's preprocessing as plain JSON: framing, and mean and std in units of a byte."""
    stated = source.json("preprocessor_config.json")
    processor = stated if _complete(stated) else _asked(source, stated)
    scale = float(processor.get("rescale_factor", 1 / 255)) if processor.get("do_rescale", True) else 1.0
    normalise = processor.get("do_normalize", True)
    shift = 1.0 if processor.get("rescale_offset") else 0.0
    means = [float(m) for m in processor["image_mean"]] if normalise else [0.0] * 3
    stds = [float(s) for s in processor["image_std"]] if normalise else [1.0] * 3
    if processor.get("include_top"):  # EfficientNet's: divided by the deviation once more
        stds = [one * float(s) for one, s in zip(stds, processor["image_std"], strict=True)]
    mean, std = [(m + shift) / scale for m in means], [s / scale for s in stds]
    if len(mean) != 3 or source.json("config.json").get("num_channels", 3) != 3:
        raise RequestError(f"source {source.name!r} does not take RGB pictures; choose another source")
    framing = _framing(source, processor, fit, tuple(round(min(255.0, max(0.0, m))) for m in mean))
    return {"framing": framing, "mean": mean, "std": std}


def _framing(
    source: Source, processor: Mapping[str, Any], fit: bool, fill: tuple[int, ...]
) -> dict[str, Any]:
    size, crop = processor["size"], processor.get("crop_size")
    resize: list[int] | int | None = None
    if processor.get("do_resize", True):
        if "height" in size and "width" in size:
            resize = [size["height"], size["width"]]
        elif set(size) == {"shortest_edge"}:
            resize = size["shortest_edge"]
    final = [crop["height"], crop["width"]] if processor.get("do_center_crop") and crop else resize
    if processor.get("crop_pct") is not None and isinstance(resize, int):
        # ConvNeXT's rule: below 384 enlarge and crop, from 384 on stretch to a square
        final = [resize, resize]
        resize = int(resize / processor["crop_pct"]) if resize < 384 else final
    if fit and isinstance(final, int):
        final = [final, final]
    if not isinstance(final, list):
        raise RequestError(
            f"source {source.name!r} takes pictures of varying size ({size}); expected one fixed size; "
            "try: --resize fit"
        )
    return {
        "height": final[0],
        "width": final[1],
        "resize": resize,
        "resample": int(processor.get("resample", 2)),
        "fit": fit,
        "fill": list(fill),
    }


def _complete(stated: Mapping[str, Any]) -> bool:
    """Whether the file alone says everything; older ones leave part of it to their class's defaults."""
    needed = {"do_resize", "size", "resample", "do_rescale", "rescale_factor", "do_normalize"}
    whole = needed | {"image_mean", "image_std", "do_center_crop", "crop_size"}
    return (
        whole <= stated.keys() and isinstance(stated["size"], dict) and isinstance(stated["crop_size"], dict)
    )


def _asked(source: Source, stated: Mapping[str, Any]) -> dict[str, Any]:
    """What transformers makes of an incomplete file; kept, since asking costs seconds."""

    def ask() -> dict[str, Any]:
        with quiet():
            from transformers import AutoImageProcessor

            try:
                processor = AutoImageProcessor.from_pretrained(  # type: ignore[no-untyped-call]
                    source.folder, backend="pil", trust_remote_code=False, local_files_only=True
                )
            except (ValueError, KeyError, OSError, ImportError) as error:
                raise RequestError(
                    f"the preprocessor_config.json of {source.name!r} names no processor that the installed "
                    "transformers knows; try: pip install -U transformers, or another source"
                ) from error
        found = processor.to_dict()
        return {key: _plain(value) for key, value in found.items()}

    from importlib.metadata import version

    key = {"stated": dict(stated), "config": source.files["config.json"], "by": version("transformers")}
    return paths.kept("processors", key, ask)


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return list(value)
    return dict(value) if isinstance(value, Mapping) else value

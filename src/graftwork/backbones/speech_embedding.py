"""Google's speech embedding (Lin et al. 2020, "Training keyword spotters with limited and synthesized
speech data"): a log-mel front end chained to a small convolutional network, both ONNX files.

The front end takes samples times 32767 at 16 kHz and gives a frame of 32 bands every 10 ms; the network
takes windows of 76 frames (about 0.78 s) of mel / 10 + 2, one every 8 frames, and gives 96 numbers each.

Silence is put on both sides of a recording, so that every window that touches it is heard, whether it is
a word of 0.2 s or a minute: what is said then stands at every place of a window, and the mean over the
windows does not depend on where in the file it was said. Chosen on training rows of spoken_digits, one
training speaker left out at a time: accuracy 0.966, against 0.89 to 0.90 with the recording at the end of
a window, in its middle or repeated, and 0.951 for the largest value instead of the mean.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftwork.backbones.hearing import MOST_SECONDS, WINDOW_SECONDS
from graftwork.backbones.onnx_inputs import Given
from graftwork.errors import RequestError
from graftwork.rows import Column
from graftwork.sounds import RATE, windows

FRAMES, BANDS, STEP, HOP = 76, 32, 8, 160
SILENCE = (FRAMES - STEP) * HOP
"""Samples on each side: the outermost windows hold one step of sound."""
SETTINGS: dict[str, Any] = {
    "form": "windows", "rate": RATE, "frames": FRAMES, "step": STEP, "silence": SILENCE,
    "seconds": WINDOW_SECONDS, "most": round(MOST_SECONDS / WINDOW_SECONDS),
}  # fmt: skip

Array = NDArray[np.float32]


@dataclass(frozen=True)
class SpeechEmbedding:
    """Recordings -> windows (n, 76, 32, 1) of mel frames. front: (1, samples) -> mel frames of any shape."""

    name: str
    front: Callable[[Array], Array] = field(repr=False)
    settings: Mapping[str, Any]

    def of(self, column: Column, i: int) -> Iterator[Given]:
        with column.open(i) as file:
            heard = windows(file, *(self.settings[one] for one in ("rate", "seconds", "most")))
        for samples in heard:
            yield self._given(samples)

    def example(self) -> Given:
        return self._given(np.zeros(self.settings["rate"] // 2, np.float32))

    def _given(self, samples: Array) -> Given:
        padded = np.pad(samples, self.settings["silence"])
        mel = self.front(padded[None] * np.float32(32767))
        if mel.size % BANDS:
            raise RequestError(f"the mel front end gives {mel.shape}; expected frames of {BANDS} bands")
        mel = mel.reshape(-1, BANDS) / np.float32(10) + np.float32(2)
        pieces = np.lib.stride_tricks.sliding_window_view(mel, self.settings["frames"], axis=0)[
            :: self.settings["step"]
        ]
        return Given({self.name: np.ascontiguousarray(pieces.transpose(0, 2, 1)[..., None])})

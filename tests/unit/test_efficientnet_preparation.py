"""EfficientNet prepares pictures in a way of its own, and what goes into the network is just that."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tiny
from fake_hub import source
from graftwork import sources
from graftwork.backbones.images import Images, preprocessing_of


@pytest.mark.parametrize(
    "stated",
    [
        {},
        {"include_top": False},
        {"rescale_offset": True, "rescale_factor": 1 / 127.5},
        {"do_normalize": False, "rescale_offset": True},
    ],
)
def test_pixels_are_those_of_the_model_s_own_processor(tmp_path: Path, stated: dict[str, Any]) -> None:
    from transformers import EfficientNetImageProcessorPil

    processor = EfficientNetImageProcessorPil(size={"height": 40, "width": 40}, **stated)
    folder = source(tmp_path / "net", model_type="efficientnet")
    tiny.write(folder / "preprocessor_config.json", processor.to_dict())
    (picture,) = tiny.pictures(1)
    prepared = preprocessing_of(sources.find(str(folder)), fit=False)
    ours = Images(sources.find(str(folder)), {"preprocessing": prepared}).framing.apply(tiny.encoded(picture))
    found = (ours.astype(np.float64) - prepared["mean"]) / prepared["std"]
    expected = processor(picture, return_tensors="np")["pixel_values"][0].transpose(1, 2, 0)
    np.testing.assert_allclose(found, expected, atol=1e-5)

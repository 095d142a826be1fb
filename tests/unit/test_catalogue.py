"""The packaged table of sources: what it covers, that its figures are true, how it is filtered."""

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from graftwork import catalogue
from graftwork.errors import UnknownName
from graftwork.sources import PACKAGED

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def recipe() -> ModuleType:
    spec = importlib.util.spec_from_file_location("measure", ROOT / "recipes" / "catalogue" / "measure.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_table_covers_three_kinds_three_sizes_and_the_domains_people_ask_for() -> None:
    listed = catalogue.entries()
    assert 25 <= len(listed) <= 40
    for kind in ("image", "text", "audio"):
        assert {one.size for one in catalogue.entries(kind)} == {"small", "medium", "large"}, kind  # type: ignore[arg-type]
    domains = {one.domain for one in listed}
    assert {
        "photos",
        "birds",
        "histology",
        "satellite",
        "documents",
        "code",
        "biomedical",
        "finance",
    } <= domains
    assert {"speech", "music", "sounds"} <= domains and not any("face" in one for one in domains)
    languages = {language for one in catalogue.entries("text") for language in one.languages}
    assert {"en", "zh", "code", "multilingual"} <= languages


def test_every_entry_has_one_name_and_one_address() -> None:
    listed = catalogue.entries()
    assert len({one.name for one in listed}) == len({one.hub for one in listed}) == len(listed)
    assert [one.name for one in listed if one.hub is None] == ["glyphs"]
    assert set(PACKAGED) <= {one.name for one in listed}
    for one in listed:
        assert "/" not in one.name and len(one.name) <= 20
        assert one.hub is None or one.hub.count("/") == 1
        assert one.revision is None or len(one.revision) == 40
        assert catalogue.entry(one.name) == one and (one.hub is None or catalogue.entry(one.hub) == one)
        assert (one.licence or "") == (one.licence or "").lower()


def test_every_architecture_is_one_that_transformers_opens_as_an_encoder() -> None:
    from transformers.models.auto.modeling_auto import MODEL_MAPPING_NAMES

    for one in catalogue.entries():
        assert one.architecture == "graftwork-compact" or one.architecture in MODEL_MAPPING_NAMES, one.name
        assert one.architecture not in {"clip", "siglip", "t5", "bart", "vision-encoder-decoder"}


@pytest.mark.parametrize(
    ("name", "millions", "giga"),
    [  # as published with each model: parameters of the encoder and multiply-adds at its input's size
        ("resnet-18", 11.18, 1.82), ("resnet-50", 23.51, 4.09), ("mobilenet-v2", 2.22, 0.30),
        ("convnextv2-tiny", 27.9, 4.47), ("vit-base", 85.8, 17.58), ("dinov2-large", 304.4, None),
        ("modernbert", 149.0, None), ("distilhubert", 23.49, None), ("wav2vec2", 94.4, None),
        ("xls-r", 315.4, None), ("whisper-tiny", 8.2, None),
    ],
)  # fmt: skip
def test_figures_are_those_published(name: str, millions: float, giga: float | None) -> None:
    found = catalogue.entry(name)
    assert found is not None and found.parameters is not None and found.operations is not None
    assert found.parameters / 1e6 == pytest.approx(millions, rel=0.005)
    assert giga is None or found.operations / 1e9 == pytest.approx(giga, rel=0.02)


@pytest.mark.parametrize("name", ["resnet-18", "minilm", "distilhubert", "whisper-tiny"])
def test_the_recipe_counts_what_the_table_says(recipe: Any, name: str) -> None:
    found = catalogue.entry(name)
    assert found is not None
    entry = {key: getattr(found, key) for key in ("name", "kind", "architecture", "input_size")}
    if found.input_size is not None:
        entry["input_size"] = int(found.input_size)
    counted = recipe.measure(entry)
    assert counted == {key: getattr(found, key) for key in ("parameters", "operations", "width")}


def test_the_recipe_knows_no_name_that_the_table_does_not(recipe: Any) -> None:
    assert set(recipe.CONFIGS) == {one.name for one in catalogue.entries()} - {"glyphs"}


@pytest.mark.parametrize(
    ("licence", "allowed"),
    [
        ("apache-2.0", True), ("Apache-2.0", True), ("mit", True), ("bsd-3-clause", True),
        ("cc-by-4.0", True), ("cc-by-sa-4.0", True), ("cc0-1.0", True), ("openrail", True),
        ("cc-by-nc-4.0", False), ("cc-by-nc-sa-4.0", False), ("CC BY-NC 4.0", False),
        ("owkin-non-commercial", False), ("noncommercial", False), ("msrla", False), ("research-only", False),
        ("other", None), (None, None), ("cc-by-nd-4.0", None), ("submitted", None), ("unlicensed?", None),
        ("dinov3-license", None), ("once-in-a-while", None),
    ],
)  # fmt: skip
def test_commercial_use_is_told_by_the_licence_s_name_or_not_at_all(
    licence: str | None, allowed: bool | None
) -> None:
    assert catalogue.commercial_use(licence) is allowed
    assert catalogue.forbids_commercial_use(licence) is (allowed is False)
    assert catalogue.fits_licence(licence, "commercial") is (allowed is True)
    assert (catalogue.licence_note("x", licence) is not None) is (allowed is False)


def test_filters_narrow_together() -> None:
    chinese = {one.name for one in catalogue.entries("text", language="zh")}
    # a multilingual one speaks it too
    assert chinese == {"bge-small-zh", "bert-chinese", "e5-small", "e5-large"}
    assert {one.name for one in catalogue.entries("text", language="zh", size="small")} == {"bge-small-zh"}
    free = catalogue.entries(licence="commercial")
    assert free and not {"finance-bge", "phikon-v2", "mobilenet-v2", "codeberta"} & {one.name for one in free}
    assert {one.licence for one in catalogue.entries(licence="MIT")} == {"mit"}
    with pytest.raises(UnknownName, match="did you mean 'small'"):
        catalogue.entries(size="smal")


def test_sizes_are_told_by_parameters() -> None:
    sizes = [catalogue.size_class(n) for n in (None, 0, 49_999_999, 50_000_000, 199_999_999, 200_000_000)]
    assert sizes == [None, "small", "small", "medium", "medium", "large"]


def test_a_near_miss_is_named_whatever_its_case() -> None:
    assert catalogue.near("resnet18", ["resnet-18", "vit"]) == ", did you mean 'resnet-18'?"
    assert catalogue.near("BAAI/BGE-small-zh", ["baai/bge-small-ZH-v1.5"]).endswith(
        "'baai/bge-small-ZH-v1.5'?"
    )
    assert catalogue.near("qqq", ["resnet-18"]) == ""


def test_the_input_is_said_in_its_own_unit() -> None:
    said = [
        catalogue.input_in_words(*one)
        for one in (("image", 224.0), ("text", 512), ("audio", 10.24), ("audio", None))
    ]
    assert said == ["224 x 224 pixels", "at most 512 tokens", "10.24 seconds", None]

"""What a fit gives back: a model and all that was found out about it, ready to be saved."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from graftwork import artefact, wire
from graftwork.model import Model
from graftwork.records import Result, Verdict
from graftwork.rows import Rows
from graftwork.running import Run


@dataclass(frozen=True)
class Outcome:
    """What `fit` gives back: a model, all that was found out about it, and the rows of its probe.

    run: the folder that the run kept its checkpoints in, which goes when the artefact is saved.
    """

    model: Model
    result: Result
    probe: Rows = field(repr=False)
    run: Run | None = field(default=None, repr=False)

    @property
    def verdict(self) -> Verdict | None:
        """Did the transfer help? None where no baseline was asked for."""
        return self.result.verdict

    @property
    def scores(self) -> Mapping[str, Any]:
        """metric -> Score on rows that no strategy saw."""
        return self.result.assessment.scores

    def report(self, *, examples: bool = True) -> str:
        """The report as one HTML page; without `examples` no row's name or content is in it."""
        from graftwork.report import render

        return render(self.result if examples else _without_examples(self.result))

    def save(
        self, folder: str | Path, *, examples: bool = True, bundle: bool = False, places: bool = True
    ) -> Path:
        """Write the artefact (see artefact.save) and return its folder."""
        result = self.result if examples else _without_examples(self.result)
        saved = artefact.save(
            self.model,
            Path(folder),
            strategy=result.strategy,
            result=wire.result(result),
            versions=result.versions,
            created=result.created,
            report=self.report(examples=examples),
            probe=self.probe if examples else artefact.synthetic_rows(self.model.backbone.kind),
            examples=examples,
            bundle=bundle,
            places=places,
        )
        if self.run is not None:
            self.run.remove()
        return saved


def _without_examples(result: Result) -> Result:
    """The same result with nothing of any row: no names, pictures or texts."""
    data = replace(result.dataset, unreadable={}, notes=())
    return replace(result, dataset=data, mistakes=())

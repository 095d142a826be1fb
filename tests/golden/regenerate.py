"""Write the golden artefact of today's schema version: python tests/golden/regenerate.py

Only for a new schema version, under a new name: the older ones stay, as users' artefacts do.
"""

import os
import tempfile
from importlib.resources import files
from pathlib import Path

FOLDER = Path(__file__).parent / "plain_v1"


def main() -> None:
    with tempfile.TemporaryDirectory() as home:
        os.environ["GRAFT_HOME"] = home
        import graftwork as gw

        messages = str(files("graftwork") / "packaged" / "messages.csv")
        outcome = gw.fit(messages, strategy="classical", baselines="none")
        print(outcome.save(FOLDER, examples=False))
        for text in ("I want my money back for this invoice", "the parcel never arrived"):
            print(repr(text), outcome.model.top([text], k=1))


if __name__ == "__main__":
    main()

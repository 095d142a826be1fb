"""A server on PostgreSQL as a process: the whole path, the server killed on the way."""

import signal
from contextlib import closing
from pathlib import Path

import pytest

from graftwork import Client
from graftwork.errors import RequestError
from graftwork.service.database import Database
from graftwork.service.database.connect import ALONE
from graftwork.service.settings import Settings
from tiny_server import running

ROWS = [("lovely and quick", "praise"), ("rude and late", "complaint")]


@pytest.mark.parametrize("empty_url", ["postgresql"], indirect=True)
def test_a_fit_that_was_acknowledged_ends_after_the_server_was_killed(settings: Settings, home: Path) -> None:
    table = "\n".join(["text,label", *(f"{text} {i},{label}" for i in range(15) for text, label in ROWS)])
    options = {"database": settings.database, "workers": 1}
    with running(settings.root, home, **options) as server, Client(server.url, server.key) as client:
        data = client.dataset(client.upload(table.encode(), "opinions.csv"))
        job = client.fit(data, name="opinions", strategy="classical", baselines="none")
        server.end(signal.SIGKILL)
    with running(settings.root, home, **options) as server, Client(server.url, server.key) as client:
        assert client.job(job.id).wait().state == "succeeded"
        answers = client.predict("opinions", [text for text, _ in ROWS])
        assert [answer.label for answer in answers] == [label for _, label in ROWS]
        assert server.end() == 0


@pytest.mark.parametrize("empty_url", ["postgresql"], indirect=True)
def test_a_database_has_one_server(empty_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(Database(empty_url)) as one, closing(Database(empty_url)) as other:
        with one.alone(), monkeypatch.context() as patch:
            patch.setitem(ALONE, "lock_timeout", "10ms")
            with pytest.raises(RequestError, match="a server already"), other.alone():
                pass
        with other.alone():  # it ends with its server
            pass

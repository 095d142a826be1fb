"""A client of the service (`graft serve`): the same verbs, over HTTP."""

from graftwork.client.client import Client
from graftwork.client.records import Answer, Dataset, Event, File, Job, Model
from graftwork.client.transport import Refused

__all__ = ["Answer", "Client", "Dataset", "Event", "File", "Job", "Model", "Refused"]

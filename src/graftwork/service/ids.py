"""Names of what the service keeps: a prefix that says what it is, the time, and chance."""

import re
import secrets
import time
from typing import Literal

What = Literal["own", "key", "file", "data", "row", "job", "model"]


def new(what: What) -> str:
    """Such as job_0193b6f2c4d1_9f86d081884c7d65: sorted by time, and not to be guessed."""
    return f"{what}_{time.time_ns() // 1_000_000:012x}_{secrets.token_hex(8)}"


def is_one(said: str, what: What) -> bool:
    """Whether `said` has the form that `new` gives; nothing else is ever looked for."""
    return re.fullmatch(rf"{what}_[0-9a-f]{{12}}_[0-9a-f]{{16}}", said) is not None

"""Addresses and commands as they may be shown and kept: without what lets others in."""

import re
import shlex
from collections.abc import Iterable

# A user's name and password end at the last @ before the path, whatever they are made of.
_USER = re.compile(r"(?<=://)[^/]*@")
# Values of fields whose names say that they are secret, in a query or, as some cameras have them,
# in the path. `pas` and `pw` are in loginpas, password, passwd, pwd.
_SECRET = re.compile(
    r"([\w.-]*(?:pas|pw|psw|token|key|secret|auth|sig|credential)[\w.-]*=)[^&;#]*", re.IGNORECASE
)
_MASK = r"\1***"


def shown_address(address: str) -> str:
    """Return an address without user name, password and secret fields; other text as it is."""
    scheme, separator, rest = _USER.sub("", address).partition("://")
    return scheme + separator + _SECRET.sub(_MASK, rest)


def shown_command(words: Iterable[str]) -> str:
    """Return the words behind ``hrnet`` as one line that repeats them, secrets left out."""
    return shlex.join(["hrnet", *map(shown_address, words)])

"""The login that Python and the command line share."""

from __future__ import annotations

import os
import sys
from typing import Optional, Tuple

from . import _native
from ._remote import SERVER
from .exception import ServiceError


def login(
    server: Optional[str] = None,
    token: Optional[str] = None,
    *,
    force: bool = False,
    interactive: Optional[bool] = None,
) -> None:
    """Logs in to a server: `fit` runs there from now on, in other programs of this user too, until `logout`.

    The key is `token`, else `FINETUNER_TOKEN`, else the stored one; without any, or with `force=True`, an address and a code
    are shown, for somebody with a key to approve in a browser. `interactive` is the original's and without effect: both are
    printed everywhere.
    """
    server = server or os.environ.get("FINETUNER_SERVER") or None
    token = token or (None if force else os.environ.get("FINETUNER_TOKEN") or None)
    stored = None if force or token else _stored(server)
    address, key = stored or (server or SERVER, token)
    address = address.rstrip("/")
    if not address.startswith(("http://", "https://")):
        raise ServiceError(f"`{address}` is no server's address; expected one such as `{SERVER}`")
    if key is None:
        key = _native.log_in(address, _show)
    owner = _native.Client(address, key).owner()
    _native.save_login(address, key)
    print(f"logged in to {address} as {owner}; the key is in {_native.login_file()}", file=sys.stderr)


def notebook_login(force: bool = False) -> None:
    """`login` from a notebook, as the original had it."""
    login(force=force, interactive=True)


def logout() -> bool:
    """Forgets the stored login: `fit` runs in this process again. Gives whether there was one."""
    return _native.remove_login()


def get_token() -> str:
    """The key of the login."""
    found = _native.stored_login(os.environ.get("FINETUNER_SERVER") or None)
    if found is None:
        raise ServiceError("nobody has logged in; call `finetuner.login(server)` first")
    return found[1]


def _stored(server: Optional[str]) -> Optional[Tuple[str, str]]:
    """The stored login, if it is one of this server."""
    try:
        return _native.stored_login(server)
    except ServiceError:
        return None


def _show(address: str, code: str) -> None:
    print(f"open {address} and approve the code {code}", file=sys.stderr, flush=True)

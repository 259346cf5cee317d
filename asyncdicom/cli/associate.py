"""How the client commands associate."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

from anyio import move_on_after

from .. import Association, PresentationContext, connect
from ..exceptions import (
    DataSetError,
    DicomNetworkError,
    LocalProtocolError,
    NoPresentationContext,
    StatusError,
)
from .arguments import client_identity, client_ssl, client_timeouts
from .interrupt import Interrupt
from .outcome import CommandError, Exit

__all__ = ["associate", "connection_options"]

logger = logging.getLogger("asyncdicom.cli")

#: Seconds that a release may take when the user has interrupted us.
_PATIENCE = 3.0


def connection_options(options: argparse.Namespace) -> dict[str, Any]:
    """Return the arguments of ``connect`` that the command line says; made once, for files are read."""
    return {
        "calling": options.calling,
        "ssl": client_ssl(options),
        "timeouts": client_timeouts(options),
        "user_identity": client_identity(options),
    }


@asynccontextmanager
async def associate(
    options: argparse.Namespace,
    contexts: Iterable[str | PresentationContext],
    interrupt: Interrupt,
    **arguments: Any,
) -> AsyncIterator[Association]:
    """Associate with the peer that the command line names.

    What was done is done, so a peer that does not answer to the release is no failure.

    :raises CommandError: there is no association; its exit status says so.
    """
    try:
        connection = connect(options.address, contexts=contexts, **arguments)
        association = await connection.__aenter__()
    except LocalProtocolError as exc:
        raise CommandError(str(exc), Exit.USAGE) from exc
    except DicomNetworkError as exc:
        text = str(exc)
        where = "" if options.address.host in text else f"{options.address}: "
        raise CommandError(f"{where}{text}", Exit.NO_ASSOCIATION) from exc
    try:
        yield association
    except (CommandError, DataSetError, NoPresentationContext, StatusError):
        # The operation failed, the association did not: it ends as it should.
        await _release(connection, interrupt)
        raise
    except BaseException:
        await connection.__aexit__(*sys.exc_info())
        raise
    await _release(connection, interrupt)


async def _release(connection: connect, interrupt: Interrupt) -> None:
    """Release, or abort if that does not succeed; soon, if the user wants to leave."""
    with move_on_after(None if interrupt.signal is None else _PATIENCE):
        try:
            await connection.__aexit__(None, None, None)
        except DicomNetworkError as exc:
            logger.info("the association was not released: %s", exc)

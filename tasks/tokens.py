"""Tasks that change token balances."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tasks.app import app
from tasks.delivery import deliver
from tasks.pool_task import WriteTask

__all__ = ["update_available_tokens"]


@app.task(base=WriteTask, bind=True, name="tasks.tokens.update_available_tokens")
def update_available_tokens(
    self: WriteTask,
    user_id: str,
    tokens: Mapping[str, Any] | Sequence[str],
    account_id: str = "default",
    complete: bool = False,  # noqa: FBT001, FBT002 - a message's arguments have names only by convention
    **about: Any,
) -> dict[str, Any]:
    """Take a venue's snapshot of free balances `{asset: amount}`, or a list of tradable assets."""
    command = {
        "op": "update_tokens",
        "user_id": user_id,
        "tokens": tokens,
        "account_id": account_id,
        "complete": complete,
    }
    return deliver(app, self.envelope(), [{**command, **about}])[0]

"""What takes a client's commands to the fleet: the spool, its two threads, and their connections."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence

from tradepool.broker import ChangeSender
from tradepool.client.confirmation import Confirmation
from tradepool.client.confirming import Confirming
from tradepool.client.pending import Pending
from tradepool.client.sending import Pace, Sending
from tradepool.client.spool import NewEntry, Spool
from tradepool.client.spool_folder import Siblings
from tradepool.errors import Misconfigured, StoreUnavailable
from tradepool.settings import Settings
from tradepool.store.connection import Client, connect
from tradepool.store.keys import Keys
from tradepool.store.redis_store import RedisStore

__all__ = ["Delivery"]


class Delivery:
    """Takes commands from `spool` to the fleet until the pool has them.

    Owns the spool from here on, and takes over what `siblings` that have died left in theirs, at first
    and now and then. No server need be there yet. Threads may call everything.
    """

    def __init__(
        self, settings: Settings, spool: Spool, pace: Pace, siblings: Siblings | None = None
    ) -> None:
        self.pending = Pending(spool, resend_s=pace.resend_s)
        self._settings = settings
        self._client: Client | None = None
        self._connecting = threading.Lock()
        self._sender = ChangeSender(settings)
        self._pid = os.getpid()
        self._connect_if_there()
        sending = Sending(self.pending, self._sender, pace, siblings)
        sending.take_over(patience_s=0.0)
        confirming = Confirming(self.pending, self.confirmation)
        self._threads = [
            threading.Thread(target=sending.run, name="tradepool-send", daemon=True),
            threading.Thread(target=confirming.run, name="tradepool-confirm", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def give(self, entries: Sequence[NewEntry]) -> None:
        """Keep commands and send them soon.

        Raises: StoreUnavailable when the spool is full, Misconfigured in a forked child; none is kept then.
        """
        if self.is_a_parents:
            raise Misconfigured("this client is a parent process's; connect another one after the fork")
        self.pending.give(entries)

    @property
    def is_a_parents(self) -> bool:
        """Whether this is what a forked child has of its parent's: no threads, and locks that may be held."""
        return os.getpid() != self._pid

    def confirmation(self) -> Confirmation:
        """A reader of the store for the calling thread. Raises: StoreUnavailable, where a cluster is away."""
        with self._connecting:
            client = self._client = self._client or connect(self._settings)
        return Confirmation(client, RedisStore(client, Keys(self._settings.shard_count), self._settings))

    def stop(self) -> None:
        """End the threads and close everything; what is unfinished stays in the spool's file.

        Waits for a call to the broker or the store that is under way: its socket timeouts at most.
        """
        self.pending.stop()
        for thread in self._threads:
            thread.join()
        self._sender.close()
        if self._client is not None:
            self._client.close()
        self.pending.spool.close()

    def _connect_if_there(self) -> None:
        """A cluster is asked for its nodes at once, and if it is away again as soon as something was sent.

        Raises: Misconfigured.
        """
        try:
            self._client = connect(self._settings)
        except StoreUnavailable as problem:
            self.pending.confirming.failed(problem)

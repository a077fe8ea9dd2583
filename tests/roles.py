"""Servers with the users of ops/redis/users.acl, and settings that log in as one of them."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import redis

from tests.servers import PASSWORD, Server
from tests.tidy.source_tree import ROOT
from tradepool.settings import Settings

__all__ = ["ADMIN", "RoleServers", "made_users", "role_servers", "with_an_admin"]

ADMIN = {"username": "default", "password": PASSWORD}
"""Who looks what happened; no such user is in the file."""


def made_users(folder: Path) -> Path:
    """`folder`, with the passwords and ACL files that an operator makes."""
    subprocess.run([ROOT / "ops" / "redis" / "make-users", folder], check=True)
    return folder


def with_an_admin(file: Path) -> Path:
    """The same ACL file, with a user who may do everything in place of the one who may nothing."""
    text = file.read_text(encoding="ascii")
    assert "user default off\n" in text
    everything = f"user default on >{PASSWORD} ~* &* +@all\n"
    file.write_text(text.replace("user default off\n", everything), encoding="ascii")
    return file


class RoleServers:
    """A store and a broker, perhaps one and the same."""

    def __init__(self, store: Server, broker: Server | None, folder: Path) -> None:
        self.store = store
        self.broker = broker or store
        self._is_one = broker is None
        self._folder = folder

    def settings(self, role: str, **options: object) -> Settings:
        """Settings that log in as `role`, the password from its file."""
        file = self._folder / "users" / f"{role}_password"
        where: dict[str, object] = {
            "redis_url": f"redis://127.0.0.1:{self.store.port}/0",
            "redis_username": role,
            "redis_password_file": file,
        }
        if not self._is_one:
            where["broker_url"] = f"redis://127.0.0.1:{self.broker.port}/0"
            where |= {"broker_username": role, "broker_password_file": file}
        return Settings(data_dir=self._folder / "pool", shard_count=4, **where | options)

    def client(self, role: str) -> redis.Redis:
        """A client of the store as `role`; the caller closes it."""
        return redis.Redis(port=self.store.port, username=role, password=self.password(role), protocol=2)

    def password(self, role: str) -> str:
        """What `role` logs in with."""
        return (self._folder / "users" / f"{role}_password").read_text(encoding="ascii")

    def refusals(self, command: str) -> int:
        """How often `command` was refused on the broker, to whomever."""
        with self.broker.client() as admin:
            told = admin.info("commandstats").get(f"cmdstat_{command}", {})
        return int(told.get("rejected_calls", 0))

    def denied(self) -> list[tuple[str, str, str]]:
        """Who was denied what since the last call: user, reason, object."""
        found = []
        for server in dict.fromkeys((self.store, self.broker)):
            with server.client() as admin:
                found += [(line["username"], line["reason"], line["object"]) for line in admin.acl_log()]
                admin.acl_log_reset()
        return [tuple(map(str, one)) for one in found]


@contextmanager
def role_servers(folder: Path, *, two: bool) -> Iterator[RoleServers]:
    """Running servers whose users are those of the template: one for everything, or two."""
    users = made_users(folder / "users")
    with ExitStack() as running:

        def started(name: str, file: str) -> Server:
            acl = with_an_admin(users / f"{file}.acl")
            return running.enter_context(Server(folder / name, f"aclfile {acl}"))

        store = started("store", "store" if two else "both")
        yield RoleServers(store, started("broker", "broker") if two else None, folder)

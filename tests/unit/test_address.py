"""Where a URL leads, and how its options and the settings beside it come together."""

from __future__ import annotations

import pytest

from tradepool.errors import Misconfigured
from tradepool.settings import Settings
from tradepool.store.address import Address, Topology, broker_address, shown, store_address


def address_of(url: str, **settings: object) -> Address:
    return store_address(Settings(redis_url=url, **settings))


@pytest.mark.parametrize(
    ("url", "topology", "nodes"),
    [
        ("redis://h", Topology.SERVER, (("h", 6379),)),
        ("redis://[::1]:7/2", Topology.SERVER, (("::1", 7),)),
        ("unix:///tmp/s.sock?db=1", Topology.SERVER, ()),
        ("redis+cluster://h:1,i", Topology.CLUSTER, (("h", 1), ("i", 6379))),
        ("rediss+cluster://ann:pw@h:1/0", Topology.CLUSTER, (("h", 1),)),
        ("redis+sentinel://h,[::1]:2/pool/3", Topology.SENTINEL, (("h", 26379), ("::1", 2))),
    ],
)
def test_a_url_names_its_nodes(url, topology, nodes):
    address = address_of(url)
    assert (address.topology, address.nodes) == (topology, nodes)


def test_a_sentinels_url_names_service_and_database():
    address = address_of("redis+sentinel://:pw@h:1/pool/3")
    assert (address.service, address.db, address.login) == ("pool", 3, {"password": "pw"})
    assert address_of("redis+sentinel://h:1/pool").db == 0


@pytest.mark.parametrize(
    "url",
    [
        "redis+sentinel://h:1",
        "redis+sentinel://h:1/pool/x",
        "redis+cluster://h:1/2",
        "redis+cluster://h:port",
        "memcached://h",
        "redis",
    ],
)
def test_a_url_that_leads_nowhere_is_refused(url):
    with pytest.raises(Misconfigured, match="TRADEPOOL_REDIS_URL"):
        address_of(url)


def test_tls_is_asked_for_by_the_scheme_alone(tmp_path):
    authority = tmp_path / "ca.pem"
    authority.touch()
    assert address_of("redis://h", redis_ca_file=authority).tls is None
    assert address_of("rediss://h", redis_ca_file=authority).tls == {"ssl_ca_certs": str(authority)}
    assert address_of("rediss+cluster://h?ssl_check_hostname=false").tls == {"ssl_check_hostname": False}


def test_other_options_of_the_url_reach_the_connections():
    assert address_of("redis://h?client_name=me").options == {"client_name": "me"}


def test_the_broker_is_the_stores_server_unless_another_is_named():
    assert broker_address(Settings(redis_url="redis://h:1/2")).celery_url == "redis://h:1/2"
    assert broker_address(Settings(redis_url="redis://h:1/2", broker_url="redis://i/0")).nodes == (
        ("i", 6379),
    )


def test_what_is_shown_of_a_url_has_no_credentials():
    assert shown("redis+cluster://ann:pw@h:1,i:2?password=pw") == "redis+cluster://h:1,i:2"

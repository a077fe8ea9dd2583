"""Several commands in one round trip, on a real server."""

from __future__ import annotations

import pytest
import redis

from tradepool.store import asking
from tradepool.store.asking import ask_all


def test_answers_come_in_the_order_of_the_commands(redis_client):
    commands = [("SET", f"key:{{{n}}}", n) for n in range(20)]
    commands += [("GET", f"key:{{{n}}}") for n in range(20)]
    answers = ask_all(redis_client, commands)
    assert [int(answer) for answer in answers[20:]] == list(range(20))
    assert ask_all(redis_client, commands[20:21]) == [b"0"]
    assert ask_all(redis_client, []) == []


def test_a_command_that_is_refused_is_told_when_all_are_done_and_nothing_is_left_behind(redis_client):
    redis_client.set("key:{a}", "text")
    commands = [("INCR", "number:{a}"), ("INCR", "key:{a}"), ("INCR", "number:{a}"), ("HGET", "key:{a}", "b")]
    with pytest.raises(redis.ResponseError, match="not an integer"):
        ask_all(redis_client, commands)
    assert redis_client.get("number:{a}") == b"2"
    assert ask_all(redis_client, [("GET", "number:{a}")]) == [b"2"]


def test_what_is_sent_in_several_pieces_is_done_once_and_in_order(redis_client):
    piece = b"x" * (asking._CHUNK_BYTES // 2 + 1)
    appended = ask_all(redis_client, [("APPEND", "text:{a}", piece)] * 5)
    assert appended == [len(piece) * times for times in range(1, 6)]
    assert ask_all(redis_client, [("STRLEN", "text:{a}")]) == [5 * len(piece)]


def test_a_lost_connection_is_made_anew(redis_client):
    def lose():
        if isinstance(redis_client, redis.Redis):
            with redis.Redis.from_pool(other_pool(redis_client)) as other:
                other.client_kill_filter(_type="normal", skipme=True)

    redis_client.set("key:{a}", "1")
    lose()
    assert ask_all(redis_client, [("GET", "key:{a}"), ("GET", "key:{a}")]) == [b"1", b"1"]


def other_pool(client):
    pool = client.connection_pool
    return redis.ConnectionPool(connection_class=pool.connection_class, **pool.connection_kwargs)


def test_who_is_interrupted_leaves_no_answers_for_the_next_one(redis_client, monkeypatch):
    if not isinstance(redis_client, redis.Redis):
        pytest.skip("redis-py's own pipeline")

    def interrupted(connection, commands):
        connection.send_packed_command(connection.pack_commands(commands))
        connection.read_response()
        raise KeyboardInterrupt

    redis_client.set("key:{a}", "1")
    with monkeypatch.context() as patch:
        patch.setattr(asking, "_exchange", interrupted)
        with pytest.raises(KeyboardInterrupt):
            ask_all(redis_client, [("GET", "key:{a}"), ("TIME",)])
    assert ask_all(redis_client, [("GET", "key:{a}")]) == [b"1"]

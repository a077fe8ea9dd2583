-- How long a shard's outbox is and when its first commit was made, without reading that commit.
--
-- KEYS    1 the outbox, a stream
-- ARGV    none
-- RETURNS its length, and the id of its first entry ('' when it is empty)
--
-- Atomic because a server runs one script at a time: length and id are of one moment. An entry may hold
-- 200 records, so it stays on the server.

local first = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)[1]
return { redis.call('XLEN', KEYS[1]), first and first[1] or '' }

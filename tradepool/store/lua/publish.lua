#!lua flags=allow-oom
-- Publishes the journal's positions, unless another writer has the journal's place by now.
--
-- KEYS    1 the journal's hash
--         2 the bell: a stream that keeps one entry, for those who wait for the positions to move
--         3 the hash with the generation
-- ARGV    1 the field of the epoch
--         2 the caller's epoch
--         3 the field of the generation
--         then pairs of field and value, few enough for unpack
-- RETURNS the generation ('' for none); nil when the epoch is another's, then nothing was written.
--
-- Atomic because a writer that has just lost its place must not move the watermark, and because who hears
-- of the positions takes them for the generation's. A server without memory takes this too: it is a line for each
-- shard, and nothing leaves the outboxes before.

if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return false end
redis.call('HSET', KEYS[1], unpack(ARGV, 4))
redis.call('XADD', KEYS[2], 'MAXLEN', 1, '*', 'moved', '')
return redis.call('HGET', KEYS[3], ARGV[3]) or ''

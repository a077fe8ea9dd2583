-- Publishes the journal's positions, unless another writer has the journal's place by now.
--
-- KEYS    1 the journal's hash
-- ARGV    1 the field of the epoch
--         2 the caller's epoch
--         then pairs of field and value, few enough for unpack
-- RETURNS 1, or 0 when the epoch is another's; then nothing was written.
--
-- Atomic because a writer that has just lost its place must not move the watermark.

if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[1], unpack(ARGV, 3))
return 1

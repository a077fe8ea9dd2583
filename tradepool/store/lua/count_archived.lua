-- Counts a user's archived trades, unless he has some counted already.
--
-- KEYS    1 the hash of what the user's archived trades make up
--         2 the hash of all that is counted of the user
-- ARGV    pairs of field and integer
-- RETURNS 1, or 0 when the first hash is there; then nothing was written.
--
-- Atomic because a client sends a command again whose answer was lost, and a sum must not be added twice.

if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
for i = 1, #ARGV, 2 do
  redis.call('HINCRBY', KEYS[1], ARGV[i], ARGV[i + 1])
  redis.call('HINCRBY', KEYS[2], ARGV[i], ARGV[i + 1])
end
return 1

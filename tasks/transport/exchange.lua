#!lua
-- Acknowledges messages of one consumer and takes new ones for it, each noted as unacknowledged at once.
--
-- KEYS    1 the hash of unacknowledged messages
--         2 their sorted set, by when they were taken
--         then the lists of the queues, for each priority, the highest first
-- ARGV    1 how many messages to take at most
--         2 the beginning of their tags; the n-th message is noted under <beginning>-<n>
--         3 how many queues there are
--         then for each queue the end of a note, in JSON: exchange and key that lead back to this very queue;
--         empty for a queue whose messages are not acknowledged, so they are not noted
--         then the tags of messages to forget
-- RETURNS message, place of its list in KEYS; message, place; …
--
-- Atomic because a message must be on its queue or among the unacknowledged ones at any moment, whoever
-- dies. The layout is kombu's, so a worker with kombu's own transport puts back what one with this took.
-- Without flags the server refuses the whole script while it is out of memory or may not write. Lists that
-- were found empty are read last: a connection that tracks what it reads is then told of the next message.

local call = redis.call
local room, beginning, queues = tonumber(ARGV[1]), ARGV[2], tonumber(ARGV[3])

-- The tag '' is nobody's: a key of another type ends the script here, before anything is taken.
call('HDEL', KEYS[1], '', unpack(ARGV, 4 + queues))
call('ZREM', KEYS[2], '', unpack(ARGV, 4 + queues))

local time = call('TIME')
local now = time[1] .. '.' .. string.format('%06d', time[2])
local taken, count = {}, 0

local function take(place, ending)
  local message = call('RPOP', KEYS[place])
  if not message then return false end
  count = count + 1
  if ending ~= '' then
    local tag = beginning .. '-' .. count
    call('HSET', KEYS[1], tag, '[' .. message .. ending)
    call('ZADD', KEYS[2], now, tag)
  end
  taken[2 * count - 1], taken[2 * count] = message, place
  return true
end

for level = 3, #KEYS, queues do
  -- One from each queue in turn, so that a long one holds up no other.
  local found = true
  while found and count < room do
    found = false
    for queue = 0, queues - 1 do
      if count < room and take(level + queue, ARGV[4 + queue]) then found = true end
    end
  end
end

if count < room then
  for place = 3, #KEYS do call('LLEN', KEYS[place]) end
end
return taken

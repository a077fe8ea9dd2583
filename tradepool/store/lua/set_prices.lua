-- Stores prices, but for symbols whose stored price is of a later time.
--
-- KEYS    1 the hash of prices
-- ARGV    1 the time in µs, in digits, as wide as every stored one
--         then pairs of symbol and price, few enough for unpack
-- RETURNS how many were stored.
--
-- Atomic because several feeds may send the same symbol, and the later time must win whoever is first.
-- The clock of this server is the one that all feeds share: a time ahead of it counts as now, and a stored
-- one gives way, else one wrong clock would keep everybody else's prices out.

local clock = redis.call('TIME')
local now = string.format('%0' .. #ARGV[1] .. '.0f', clock[1] * 1000000 + clock[2])
local at = ARGV[1] > now and now or ARGV[1]
local symbols = {}
for i = 2, #ARGV, 2 do symbols[#symbols + 1] = ARGV[i] end
local stored = redis.call('HMGET', KEYS[1], unpack(symbols))
local taken = {}
for i = 1, #symbols do
  local before = stored[i] and string.sub(stored[i], 1, #at) or ''
  -- What is no time, written by somebody else, gives way too.
  if #before < #at or string.find(before, '%D') or before <= at or before > now then
    taken[#taken + 1] = symbols[i]
    taken[#taken + 1] = at .. ' ' .. ARGV[2 * i + 1]
  end
end
if #taken > 0 then redis.call('HSET', KEYS[1], unpack(taken)) end
return #taken / 2

-- Mends keys of one shard: looks whether all is as it was seen, then writes everything or nothing.
--
-- KEYS    every key that is looked at or written; all carry the shard's hash tag. The plan names them
--         by their place in KEYS.
-- ARGV    1 the plan, then values, which the plan names by their place in ARGV: they may be any bytes.
--         The plan is one MessagePack array:
--           looks     { {command, key, arguments, expected}, ... }
--                     A command that reads must answer what is expected; 0 = it must answer nothing.
--           writes    { {command, key, arguments}, ... }
--           recounts  { {sums, records, bucket}, ... }
--                     The bucket's field of the hash `sums` becomes XOR and number of the digests in
--                     the headers of `records`; it goes where there is none.
--           dry       whether recounts are only worked out
-- RETURNS the fields of the recounts in turn, as they were and as they are now ('' = absent); or
--         the number of the first look that was not as expected, or minus that of a recount whose
--         records have no digest. Then nothing was written.
--
-- Atomic because a server runs one script at a time: what was looked at is what is replaced, and a sum
-- is that of one moment. Every record of the bucket passes through here, some thousands at most.

local call, sub = redis.call, string.sub
local looks, writes, recounts, dry = unpack(cmsgpack.unpack(ARGV[1]), 1, 4)

local function values(places)
  local found = {}
  for i = 1, #places do found[i] = ARGV[places[i]] end
  return unpack(found)
end

local function text(answer)
  if type(answer) == 'table' then return answer.ok end
  return answer and tostring(answer)
end

for l = 1, #looks do
  local found = text(call(looks[l][1], KEYS[looks[l][2]], values(looks[l][3])))
  if (found or 0) ~= (ARGV[looks[l][4]] or 0) then return l end
end

local sums = {}
for r = 1, #recounts do
  local high, low, count = 0, 0, 0
  local records = call('HVALS', KEYS[recounts[r][2]])
  for i = 1, #records do
    local h, l = tonumber(sub(records[i], 9, 16), 16), tonumber(sub(records[i], 17, 24), 16)
    if not (h and l) then return -r end
    high, low, count = bit.bxor(high, h), bit.bxor(low, l), count + 1
  end
  sums[r] = count > 0 and bit.tohex(high) .. bit.tohex(low) .. ':' .. string.format('%.0f', count) or ''
end

for w = 1, #writes do
  call(writes[w][1], KEYS[writes[w][2]], values(writes[w][3]))
end

local told = {}
for r = 1, #recounts do
  local hash, bucket = KEYS[recounts[r][1]], recounts[r][3]
  told[2 * r - 1], told[2 * r] = call('HGET', hash, bucket) or '', sums[r]
  if not dry then
    if sums[r] == '' then call('HDEL', hash, bucket) else call('HSET', hash, bucket, sums[r]) end
  end
end
return told

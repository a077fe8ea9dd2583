-- Takes a tick of the clock for one message, unless another message has it, or a later tick was taken.
--
-- KEYS    1 the entry's string: `<due> <token>` of the tick that was taken last
-- ARGV    1 when the tick is due, in ms
--         2 the token of the message that carries it
--         3 for how long the entry's last tick is remembered, in ms
-- RETURNS 1 where the message may be run, also when it comes again; 0 otherwise.
--
-- Atomic because two workers may hold a message each of one tick.

local due, token = string.match(redis.call('GET', KEYS[1]) or '', '^(%d+) (.+)$')
if due then
    if tonumber(due) > tonumber(ARGV[1]) then return 0 end
    if tonumber(due) == tonumber(ARGV[1]) and token ~= ARGV[2] then return 0 end
end
redis.call('SET', KEYS[1], ARGV[1] .. ' ' .. ARGV[2], 'PX', ARGV[3])
return 1

-- attempts returns a stretch of a subscription's attempts, oldest first.
-- KEYS: subscription, attempts
-- ARGV: the number before which they are wanted, 0 for the newest; most of them
-- Returns the number of the last one and the texts.
local last = tonumber(redis.call('HGET', KEYS[1], 'h') or 0)
local skip, before = 0, tonumber(ARGV[1])
if before > 0 then skip = math.max(0, last - before + 1) end
return {last - skip, redis.call('LRANGE', KEYS[2], -skip - tonumber(ARGV[2]), -skip - 1)}

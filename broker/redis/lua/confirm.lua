-- confirm sets when a subscription is due, now that it waits for its channels,
-- unless it was stored again meanwhile.
-- KEYS: subscription, due
-- ARGV: term, version, name, ms until it is due (-1: never)
if redis.call('HGET', KEYS[1], 'v') ~= ARGV[2] then return 0 end
local ms = tonumber(ARGV[4])
if ms < 0 then
  redis.call('ZREM', KEYS[2], '.' .. ARGV[3])
else
  redis.call('ZADD', KEYS[2], int(now('') + ms), '.' .. ARGV[3])
end
return 1

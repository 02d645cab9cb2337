-- wait makes a subscription due as soon as a log is no longer at a cursor.
-- KEYS: meta, waiting, due
-- ARGV: term, name, version, epoch, offset, PUBLISH or SPUBLISH, topic of what is
-- due
local m = redis.call('HMGET', KEYS[1], 'e', 'h')
if m[1] == ARGV[4] and tonumber(m[2]) <= tonumber(ARGV[5]) then
  redis.call('HSET', KEYS[2], ARGV[2], ARGV[3])
else
  redis.call('ZADD', KEYS[3], now(''), '+' .. ARGV[2])
  redis.call(ARGV[6], ARGV[7], '')
end
return 1

-- wait makes a subscription due as soon as a log is no longer at a cursor.
-- KEYS: meta, waiting, due
-- ARGV: term, channel, name, version, epoch, offset, PUBLISH or SPUBLISH, topic
-- of what is due
local m = redis.call('HMGET', KEYS[1], 'e', 'h')
if m[1] == ARGV[5] and tonumber(m[2]) <= tonumber(ARGV[6]) then
  -- A store that lost a race may come late: the greater version stays.
  if not waitNoMore(KEYS[2], ARGV[2], ARGV[3], tonumber(ARGV[4])) then
    redis.call('ZADD', KEYS[2], 0, table.concat({ARGV[2], ARGV[3], ARGV[4], ARGV[5] .. '-' .. ARGV[6]}, '\0'))
  end
else
  redis.call('ZADD', KEYS[3], now(''), '+' .. ARGV[3])
  redis.call(ARGV[7], ARGV[8], '')
end
return 1

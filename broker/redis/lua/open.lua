-- open returns a log's state, making the log if there is none: one that stays
-- empty is collected when nobody follows it any more.
-- KEYS: meta, log, changed, counter, names, visits
-- ARGV: run id, an epoch in case one is needed, channel, ms until it is visited,
-- time or ''
-- Returns epoch, first, head, bytes, forks, the bucket's sequence and the name
-- of its incarnation.
if redis.call('HSETNX', KEYS[1], 'e', ARGV[2]) == 1 then
  redis.call('HSET', KEYS[1], 't', reign(ARGV[1]), 'h', 0, 'a', 0, 'b', 0, 'z', 0, 'n', 1)
  redis.call('UNLINK', KEYS[2])
  redis.call('ZADD', KEYS[5], 0, ARGV[3])
  note(KEYS[3], KEYS[4], ARGV[3], ARGV[2])
  redis.call('ZADD', KEYS[6], int(now(ARGV[5]) + tonumber(ARGV[4])), ARGV[3])
else
  redis.call('HDEL', KEYS[1], 'u')
end
local s = state(KEYS[1])
s[6] = redis.call('GET', KEYS[4]) or '0'
s[7] = redis.call('ZRANGE', KEYS[3], -1, -1)[1] or ''
return s

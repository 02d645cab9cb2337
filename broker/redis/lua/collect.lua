-- collect removes a log to which nothing was ever appended, once nobody followed
-- it when it was visited twice in a row.
-- KEYS: meta, log, changed, names, visits, following
-- ARGV: term, channel, 1 if somebody listens, ms until the next visit, time or ''
-- Returns 1 if it is gone.
if redis.call('HGET', KEYS[1], 'h') ~= '0' then return 0 end
local lonely = ARGV[3] ~= '1' and redis.call('EXISTS', KEYS[6]) == 0
if lonely and redis.call('HGET', KEYS[1], 'u') then
  redis.call('UNLINK', KEYS[1], KEYS[2])
  for _, key in ipairs({KEYS[3], KEYS[4], KEYS[5]}) do redis.call('ZREM', key, ARGV[2]) end
  return 1
end
redis.call('ZADD', KEYS[5], int(now(ARGV[5]) + tonumber(ARGV[4])), ARGV[2])
if lonely then redis.call('HSET', KEYS[1], 'u', 1) else redis.call('HDEL', KEYS[1], 'u') end
return 0

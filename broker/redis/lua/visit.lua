-- visit makes one node at a time the janitor of a bucket, and tells it which
-- channels there is something to do for.
-- KEYS: janitor, changed, visits, trimmed, repaired
-- ARGV: term, who, ms, most of each kind, time or ''
-- Returns 1 if that is who now, 0 if not; then 1 if this master's bucket was
-- repaired, the channels that changed since the last visit with their
-- sequences, and those whose time has come.
local present = redis.call('GET', KEYS[1])
if present and present ~= ARGV[2] then return {0} end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return {1, redis.call('GET', KEYS[5]) == ARGV[1] and 1 or 0,
  redis.call('ZRANGEBYSCORE', KEYS[2], '(' .. (redis.call('GET', KEYS[4]) or '0'), '(inf', 'WITHSCORES', 'LIMIT', 0, ARGV[4]),
  redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', now(ARGV[5]), 'LIMIT', 0, ARGV[4])}

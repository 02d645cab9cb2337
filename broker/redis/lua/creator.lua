-- creator indexes a subscription of before format 2 by who created it.
-- KEYS: subscription, what its creator created
-- ARGV: term, name
-- Returns 1.
if redis.call('HEXISTS', KEYS[1], 'v') == 1 and redis.call('HEXISTS', KEYS[1], 'm') == 0 then
  redis.call('HSET', KEYS[1], 'm', KEYS[2])
  redis.call('ZADD', KEYS[2], 0, ARGV[2])
end
return 1

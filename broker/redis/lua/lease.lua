-- lease makes a node known, or keeps it alive.
-- KEYS: nodes, leases
-- ARGV: term, node, ms, what is told of it (join) or nothing (renew)
-- Returns 1, or 0 if its lease has ended.
local clock = now('')
if ARGV[4] then
  redis.call('HSET', KEYS[1], ARGV[2], ARGV[4])
else
  local till = redis.call('ZSCORE', KEYS[2], ARGV[2])
  if not till or tonumber(till) <= clock then return 0 end
end
redis.call('ZADD', KEYS[2], int(clock + tonumber(ARGV[3])), ARGV[2])
return 1

-- leave forgets a node.
-- KEYS: nodes, leases
-- ARGV: term, node
redis.call('HDEL', KEYS[1], ARGV[2])
redis.call('ZREM', KEYS[2], ARGV[2])
return 1

-- mark enters a subscription among those that follow a channel.
-- KEYS: following
-- ARGV: term, name, version
redis.call('HSET', KEYS[1], ARGV[2], ARGV[3])
return 1

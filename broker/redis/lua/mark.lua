-- mark enters a subscription among those that follow a channel.
-- KEYS: following
-- ARGV: term, name, version
-- A store that lost a race may come late: the greater version stays.
local present = redis.call('HGET', KEYS[1], ARGV[2])
if not present or tonumber(present) < tonumber(ARGV[3]) then redis.call('HSET', KEYS[1], ARGV[2], ARGV[3]) end
return 1

-- unmark removes a subscription from those that follow a channel, unless it was
-- entered by a later version.
-- KEYS: following
-- ARGV: term, name, version
local version = redis.call('HGET', KEYS[1], ARGV[2])
if version and tonumber(version) <= tonumber(ARGV[3]) then redis.call('HDEL', KEYS[1], ARGV[2]) end
return 1

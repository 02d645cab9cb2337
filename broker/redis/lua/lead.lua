-- lead makes one node at a time the janitor.
-- KEYS: janitor
-- ARGV: term, who, ms
-- Returns 1 if that is who now.
local present = redis.call('GET', KEYS[1])
if present and present ~= ARGV[2] then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1

-- waits returns a subscription's version and the channels it waits for, if any,
-- then its position's fields and values.
-- KEYS: subscription, position
local m = redis.call('HMGET', KEYS[1], 'v', 'w')
if not m[1] or m[2] == '' then return nil end
local list = {m[1], m[2]}
for _, v in ipairs(redis.call('HGETALL', KEYS[2])) do list[#list + 1] = v end
return list

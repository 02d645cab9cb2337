-- waits returns a subscription's version, the channels it waits for and those it
-- follows, then its position's fields and values; nil if there is none.
-- KEYS: subscription, position
local m = redis.call('HMGET', KEYS[1], 'v', 'w', 'c')
if not m[1] then return nil end
local list = {m[1], m[2] or '', m[3] or ''}
for _, v in ipairs(redis.call('HGETALL', KEYS[2])) do list[#list + 1] = v end
return list

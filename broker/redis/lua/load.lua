-- load returns a subscription: version, record, number of letters and of those
-- to be delivered again, then the position's fields and values; nil if there is
-- none.
-- KEYS: subscription, position, order of letters, those to be delivered again
local m = redis.call('HMGET', KEYS[1], 'v', 'r')
if not m[1] then return nil end
local list = {m[1], m[2], redis.call('ZCARD', KEYS[3]), redis.call('SCARD', KEYS[4])}
for _, v in ipairs(redis.call('HGETALL', KEYS[2])) do list[#list + 1] = v end
return list

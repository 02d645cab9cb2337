-- delete removes a subscription with all that belongs to it in its bucket.
-- KEYS: subscription, position, subscriptions, due, owned, both of its letters,
-- note, letters to be delivered again, greatest version of those that are gone, attempts
-- ARGV: term, version, name
-- Returns GONE, CONFLICT, or OK, the channels it waited for and followed, and
-- what prune returns of its partitions.
local m = redis.call('HMGET', KEYS[1], 'v', 'n', 'w', 'c', 'm')
if not m[1] then return {'GONE'} end
if m[1] ~= ARGV[2] then return {'CONFLICT'} end
redis.call('UNLINK', KEYS[1], KEYS[2], KEYS[6], KEYS[7], KEYS[8], KEYS[9], KEYS[11])
-- One of this name that is made later must not be taken for this one.
if tonumber(m[1]) > tonumber(redis.call('GET', KEYS[10]) or 0) then redis.call('SET', KEYS[10], m[1]) end
redis.call('ZREM', KEYS[3], ARGV[3])
redis.call('ZREM', KEYS[4], '.' .. ARGV[3])
redis.call('ZREM', KEYS[5], m[2] .. '\0' .. ARGV[3])
if m[5] and m[5] ~= '' then redis.call('ZREM', m[5], ARGV[3]) end
local answer = {'OK', m[3], m[4]}
for _, text in ipairs(prune(ARGV[3], {KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[10]})) do answer[#answer + 1] = text end
return answer

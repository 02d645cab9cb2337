-- store makes a subscription what an update says, in its own bucket.
-- KEYS: subscription, position, subscriptions, due, owned, greatest version of
-- those that are gone; what its creator created, if there is one
-- ARGV: term, version to replace, name, generation, record, node, channels,
-- channels it waits for, ms until it is due (-1: never), PUBLISH or SPUBLISH,
-- topic of what is due, by how much the version grows, the new version if
-- changed channels were entered with it (0: they were not), 1 if its partitions
-- go, 2 if they leave what they have acknowledged, number of cursors to set; then
-- channel and cursor of each; then channels to forget.
-- Returns CONFLICT; CHANNELS, the old ones and the version before, if they
-- change and were not entered with a greater one; or OK, the channels it waited
-- for and followed before, the new version, and what prune returns. Only OK
-- changed anything.
local key, position, owned = KEYS[1], KEYS[2], KEYS[5]
local name, node = ARGV[3], ARGV[6]
local m = redis.call('HMGET', key, 'v', 'n', 'c', 'w', 'm')
local version, old, channels, waited, created = m[1] or '0', m[2] or '', m[3] or '', m[4] or '', m[5] or ''
if version ~= ARGV[2] then return {'CONFLICT'} end
local last = tonumber(m[1] or redis.call('GET', KEYS[6]) or 0)
local next = tonumber(ARGV[13])
if channels ~= ARGV[7] and next <= last then return {'CHANNELS', channels, int(last)} end
if next <= last then next = last + ARGV[12] end

redis.call('HSET', key, 'v', int(next), 'r', ARGV[5], 'n', node, 'c', ARGV[7], 'w', ARGV[8], 'm', KEYS[7] or '')
redis.call('HSET', position, '', ARGV[4])
local sets = tonumber(ARGV[15])
for i = 16, 15 + 2 * sets, 2 do redis.call('HSET', position, ARGV[i], ARGV[i + 1]) end
for i = 16 + 2 * sets, #ARGV do redis.call('HDEL', position, ARGV[i]) end
if not m[1] then redis.call('ZADD', KEYS[3], 0, name) end
if old ~= node then
  if old ~= '' then redis.call('ZREM', owned, old .. '\0' .. name) end
  if node ~= '' then redis.call('ZADD', owned, 0, node .. '\0' .. name) end
end
if created ~= (KEYS[7] or '') then
  if created ~= '' then redis.call('ZREM', created, name) end
  if KEYS[7] then redis.call('ZADD', KEYS[7], 0, name) end
end
local ms = tonumber(ARGV[9])
if ms < 0 then
  redis.call('ZREM', KEYS[4], '.' .. name)
else
  redis.call('ZADD', KEYS[4], int(now('') + ms), '.' .. name)
  if ms == 0 then redis.call(ARGV[10], ARGV[11], '') end
end
local answer = {'OK', waited, channels, int(next)}
if ARGV[14] == '2' then
  for i = 16, 15 + 2 * sets, 2 do
    local at = least(name, KEYS, ARGV[i], ARGV[i + 1])
    if at then redis.call('HSET', position, ARGV[i], at) end
  end
end
if ARGV[14] ~= '0' then
  for _, text in ipairs(prune(name, KEYS)) do answer[#answer + 1] = text end
end
return answer

-- partitions are the names of a subscription's partitions.
local function partitions(name, keys)
  return redis.call('ZRANGEBYLEX', keys[3], '[' .. name .. '/', '(' .. name .. '0')
end

-- least is the least of the partitions' cursors in a channel, if all are of one
-- epoch with cursor and it lies beyond that; else nil. keys are as for prune.
local function least(name, keys, channel, cursor)
  local epoch, from = string.match(cursor, '^(.*)%-(%d+)$')
  local offset
  for _, part in ipairs(partitions(name, keys)) do
    local at = redis.call('HGET', keys[2] .. string.sub(part, #name + 1), channel)
    local e, o = string.match(at or '', '^(.*)%-(%d+)$')
    if e ~= epoch then return nil end
    if not offset or tonumber(o) < tonumber(offset) then offset = o end
  end
  if offset and tonumber(offset) > tonumber(from) then return epoch .. '-' .. offset end
end

-- prune removes a subscription's partitions with all that belongs to them in its
-- bucket. keys: subscription, position, subscriptions, due, owned, greatest
-- version of those that are gone.
-- Returns name, version and the channels it followed of each.
local function prune(name, keys)
  local gone = {}
  for _, part in ipairs(partitions(name, keys)) do
    local suffix = string.sub(part, #name + 1)
    local m = redis.call('HMGET', keys[1] .. suffix, 'v', 'n', 'c')
    redis.call('UNLINK', keys[1] .. suffix, keys[2] .. suffix)
    redis.call('ZREM', keys[3], part)
    redis.call('ZREM', keys[4], '.' .. part)
    redis.call('ZREM', keys[5], (m[2] or '') .. '\0' .. part)
    if m[1] then
      if tonumber(m[1]) > tonumber(redis.call('GET', keys[6]) or 0) then redis.call('SET', keys[6], m[1]) end
      gone[#gone + 1], gone[#gone + 2], gone[#gone + 3] = part, m[1], m[3] or ''
    end
  end
  return gone
end

-- prune removes a subscription's partitions with all that belongs to them in its
-- bucket. keys: subscription, position, subscriptions, due, owned, greatest
-- version of those that are gone.
-- Returns name, version and the channels it followed of each.
local function prune(name, keys)
  local gone = {}
  for _, part in ipairs(redis.call('ZRANGEBYLEX', keys[3], '[' .. name .. '/', '(' .. name .. '0')) do
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

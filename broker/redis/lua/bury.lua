-- bury keeps dead letters and moves the position.
-- KEYS: subscription, position, order of letters, texts of letters
-- ARGV: term, generation, most letters, time before which they are too old (ms),
-- number of cursors; channel, epoch and offset of each; then id, time (ms) and
-- data of each letter
-- A text is "mark time data", the mark + for a letter to be delivered again.
-- Returns how many letters fell out, or -1 if the generation is not the present
-- one.
local key, order, texts = KEYS[1], KEYS[3], KEYS[4]
if redis.call('HGET', KEYS[2], '') ~= ARGV[2] then return -1 end
local cursors = tonumber(ARGV[5])
redis.call('HINCRBY', key, 'q', 0) -- the first write, which may be refused
advance(KEYS[2], 6, cursors)
local function unmarked(text)
  if text and string.sub(text, 1, 1) == '+' then redis.call('HINCRBY', key, 'y', -1) end
end
for i = 6 + 3 * cursors, #ARGV, 3 do
  local id = ARGV[i]
  unmarked(redis.call('HGET', texts, id))
  if not redis.call('ZSCORE', order, id) then
    redis.call('ZADD', order, redis.call('HINCRBY', key, 'q', 1), id)
  end
  redis.call('HSET', texts, id, '- ' .. ARGV[i + 1] .. ' ' .. ARGV[i + 2])
end
local dropped = 0
local function drop(id)
  unmarked(redis.call('HGET', texts, id))
  redis.call('HDEL', texts, id)
  redis.call('ZREM', order, id)
  dropped = dropped + 1
end
for _, id in ipairs(redis.call('ZRANGE', order, 0, -tonumber(ARGV[3]) - 1)) do drop(id) end
while true do
  local id = redis.call('ZRANGE', order, 0, 0)[1]
  local time = id and string.match(redis.call('HGET', texts, id), '^. (%d+)')
  if not time or tonumber(time) >= tonumber(ARGV[4]) then break end
  drop(id)
end
return dropped

-- take hides subscriptions that are due. Where there are fewer than are wanted
-- it first looks at some that wait for a channel that was woken.
-- KEYS: due, waiting, woken, moves
-- ARGV: term, ms to hide them, how many are wanted, how many of those that wait
-- to look at
-- Returns 1 if more may be due, 0 if not; then each entry with the time it is
-- hidden until. Those times are never whole, so that none is taken for the time
-- something became due.
--
-- Who waits for a woken channel is passed over in byte order, some at a time.
-- Under channel and a zero byte moves says how far the pass is, and what the
-- channel was at when it began: if it changed since, another pass follows, since
-- those that were passed may wait again.
local due, waiting, woken, moves = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local clock, wanted, room = now(''), tonumber(ARGV[3]), tonumber(ARGV[4])

local function ready() return redis.call('ZRANGEBYSCORE', due, '-inf', clock, 'LIMIT', 0, wanted + 1) end

local function pass(channel)
  local at = redis.call('HGET', moves, channel) or '-0'
  local began, from = string.match(redis.call('HGET', moves, channel .. '\0') or '', '^([^ ]+) (.*)$')
  began, from = began or at, from and '(' .. from or '[' .. channel .. '\0'
  local epoch, head = string.match(began, '^(.*)%-(%d+)$')
  local some = redis.call('ZRANGEBYLEX', waiting, from, '(' .. channel .. '\1', 'LIMIT', 0, room)
  for _, member in ipairs(some) do
    local name, e, offset = string.match(member, '^%Z+%z(%Z+)%z%d+%z(.*)%-(%d+)$')
    if e ~= epoch or tonumber(offset) < tonumber(head) then
      redis.call('ZADD', due, clock, '+' .. name)
      redis.call('ZREM', waiting, member)
    end
  end
  if #some == room then
    redis.call('HSET', moves, channel .. '\0', began .. ' ' .. some[room])
  elseif began == at then
    redis.call('ZREM', woken, channel)
    redis.call('HDEL', moves, channel, channel .. '\0')
  else
    redis.call('HDEL', moves, channel .. '\0')
  end
  room = room - math.max(1, #some)
end

local entries = ready()
while #entries < wanted and room > 0 do
  local channel = redis.call('ZRANGE', woken, 0, 0)[1]
  if not channel then break end
  pass(channel)
  entries = ready()
end
local till = int(clock + tonumber(ARGV[2])) .. '.5'
local taken = {(#entries > wanted or redis.call('EXISTS', woken) == 1) and 1 or 0}
for i = 1, math.min(wanted, #entries) do
  redis.call('ZADD', due, till, entries[i])
  taken[#taken + 1] = entries[i]
  taken[#taken + 1] = till
end
return taken

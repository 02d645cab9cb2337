-- Positions: a hash of channel → "epoch-offset", and '' → the generation.

-- advance moves cursors forward: channel, epoch and offset from ARGV[i] on, n
-- of them.
local function advance(position, i, n)
  for k = i, i + 3 * (n - 1), 3 do
    local channel, epoch, offset = ARGV[k], ARGV[k + 1], ARGV[k + 2]
    local present = redis.call('HGET', position, channel)
    local at = present and string.match(present, '^' .. epoch .. '%-(%d+)$')
    if not at or tonumber(at) < tonumber(offset) then
      redis.call('HSET', position, channel, epoch .. '-' .. offset)
    end
  end
end

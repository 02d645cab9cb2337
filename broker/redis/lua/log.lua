-- What a log is on Redis, and what several scripts do with it. This text stands
-- before each script.
--
-- meta, a hash: e epoch, t reign of the last append, h head, a time of the last
-- append (ms), b bytes, n first offset, z size of the largest event ever,
-- f forks as "epoch:head,epoch:head", oldest first; b0 what bytes counts of it,
-- u that it is empty and nobody followed it when it was last visited.
-- The log, a stream: <offset>-0 → t (ms), d (the event).

local function int(n) return string.format('%d', n) end

-- now is the time in ms: Redis's own unless one is given.
local function now(given)
  if given ~= '' then return tonumber(given) end
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end

-- reign names the time for which this server is master: its run, and its
-- replication ID, which is drawn anew with each start and each promotion. The
-- server is asked each time: a connection outlives a demotion and a promotion,
-- between which the server may have taken over a copy that lacks its last writes.
local function reign(run)
  local info = redis.call('INFO', 'replication')
  local _, before = string.find(info, 'master_replid:', 1, true)
  return string.sub(run, 1, 20) .. (before and string.sub(info, before + 1, before + 20) or '')
end

-- note writes down that channel changed and returns the bucket's sequence.
-- The member with an infinite score names the bucket's incarnation: who looks
-- for changes always gets it, and sees by it that Redis was emptied.
local function note(changed, counter, channel, seed)
  local seq = redis.call('INCR', counter)
  if seq == 1 then redis.call('ZADD', changed, 'inf', '!' .. seed) end
  redis.call('ZADD', changed, seq, channel)
  return seq
end

-- wake notes that a channel changed for which somebody waits, however many
-- there are, and tells the nodes; take.lua moves them to what is due.
-- waiting, a sorted set in byte order: channel, name, version and cursor of each
-- that waits, a zero byte between them. woken, a sorted set of channels by the
-- sequence at which they were woken. moves, a hash: channel → "epoch-head" as of
-- its last change.
local function wake(waiting, woken, moves, channel, seq, epoch, head, topic, publish)
  if not redis.call('ZRANGEBYLEX', waiting, '[' .. channel .. '\0', '(' .. channel .. '\1', 'LIMIT', 0, 1)[1] then return end
  redis.call('HSET', moves, channel, epoch .. '-' .. head)
  if redis.call('ZADD', woken, 'NX', seq, channel) == 1 then redis.call(publish, topic, '') end
end

-- waitNoMore takes a subscription from those that wait for a channel, if it was
-- entered by a version up to this one. It returns whether a later one did.
local function waitNoMore(waiting, channel, name, version)
  local prefix, later = channel .. '\0' .. name, false
  for _, member in ipairs(redis.call('ZRANGEBYLEX', waiting, '[' .. prefix .. '\0', '(' .. prefix .. '\1')) do
    if tonumber(string.match(member, '^%d+', #prefix + 2)) > version then
      later = true
    else
      redis.call('ZREM', waiting, member)
    end
  end
  return later
end

-- state returns epoch, first, head, bytes and forks; nil if there is no log.
local function state(meta)
  local m = redis.call('HMGET', meta, 'e', 'n', 'h', 'b', 'f')
  if not m[1] then return nil end
  return {m[1], m[2], m[3], m[4], m[5] or ''}
end

-- before returns the offset of the last event appended before ms, or first-1.
local function before(log, first, head, ms)
  local lo, hi = first, head + 1
  while lo < hi do
    local mid = math.floor((lo + hi) / 2)
    local got = redis.call('XRANGE', log, int(mid) .. '-0', '+', 'COUNT', 1)
    if got[1] and tonumber(got[1][2][2]) < ms then lo = mid + 1 else hi = mid end
  end
  return lo - 1
end

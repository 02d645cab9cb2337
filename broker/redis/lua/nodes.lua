-- nodes returns what is told of each node, with 1 if it is alive.
-- KEYS: nodes, leases
local clock, list = now(''), {}
local all = redis.call('HGETALL', KEYS[1])
for i = 1, #all, 2 do
  local till = redis.call('ZSCORE', KEYS[2], all[i])
  list[#list + 1] = all[i + 1]
  list[#list + 1] = till and tonumber(till) > clock and 1 or 0
end
return list

-- claim hides subscriptions that are due.
-- KEYS: due
-- ARGV: term, ms to hide them; then the entries
-- Returns each entry that was still due, with the time it is hidden until. Those
-- times are never whole, so that none is taken for the time something became
-- due.
local clock, claimed = now(''), {}
local till = int(clock + tonumber(ARGV[2])) .. '.5'
for i = 3, #ARGV do
  local at = redis.call('ZSCORE', KEYS[1], ARGV[i])
  if at and tonumber(at) <= clock then
    redis.call('ZADD', KEYS[1], till, ARGV[i])
    claimed[#claimed + 1] = ARGV[i]
    claimed[#claimed + 1] = till
  end
end
return claimed

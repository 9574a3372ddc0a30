-- The accounts of quotas in Redis or Valkey: the lines of the program that must happen at one moment for everybody.
--
-- A key is one of a level, {PREFIX}:LEVEL:KEY, and holds all its accounts, packed: {{unit, window in seconds, used,
-- entries, told}, ...}. `entries` are those of window.py, rule for rule: at most 60, exact until there are more, and
-- never less counted than what passed; oldest first, each SIZE bytes, when it was last added to and how much it is.
-- `told` is percent, time, percent, time ...: what somebody was warned of. Times are microseconds since the epoch, by
-- this server's clock. Numbers are exact up to 2^53, which is as far as Lua counts.
--
-- KEYS: the names. ARGV[1]: what to do. ARGV[2]: in JSON, {now, until, charges}; `now` is 0 but for tests. A charge is
-- {index of its key, unit, window, limit, amount, enforced, percents}.

local MOST, SPAN, SKEW, SECOND = 60, 30, 60000000, 1000000
local ENTRY, SIZE = '<I7I7', 14
local verb, request = ARGV[1], cjson.decode(ARGV[2])
local now, charges = request[1], request[3] or {}
local states, changed = {}, {}

if now == 0 then
  local time = redis.call('TIME')
  now = time[1] * SECOND + time[2]
end

local function entry(account, nth)
  return struct.unpack(ENTRY, account.entries, (nth - 1) * SIZE + 1)
end

-- Every time and every amount, as two lists; for what is done rarely.
local function spread(account)
  local times, amounts = {}, {}
  for nth = 1, account.count do times[nth], amounts[nth] = entry(account, nth) end
  return times, amounts
end

local function gather(account, times, amounts)
  local packed = {}
  for nth = 1, #times do packed[nth] = struct.pack(ENTRY, times[nth], amounts[nth]) end
  account.entries, account.count = table.concat(packed), #times
end

-- What was joined lay in the future, so that the clock was stepped back: it counts for one window more from now on, and
-- that must be kept, or else the window would never end.
local function redated(account)
  local times, amounts = spread(account)
  for nth = 1, #times do times[nth] = math.min(times[nth], now) end
  gather(account, times, amounts)
  changed[account.key] = true
end

-- An account made ready: without what has left the window, and with nothing in the future.
local function settled(key, packed)
  local account = {
    key = key, unit = packed[1], window = packed[2], length = packed[2] * SECOND,
    used = packed[3], entries = packed[4], count = #packed[4] / SIZE, told = packed[5],
  }
  if account.count > 0 and entry(account, account.count) > now + SKEW then redated(account) end
  local gone, begin = 0, now - account.length
  while gone < account.count do
    local time, amount = entry(account, gone + 1)
    if time > begin then break end
    account.used = account.used - amount
    gone = gone + 1
  end
  if gone > 0 then
    account.entries, account.count = string.sub(account.entries, gone * SIZE + 1), account.count - gone
  end
  return account
end

local function state_of(key)
  if not states[key] then
    local packed, state = redis.call('GET', KEYS[key]), {}
    for nth, account in ipairs(packed and cmsgpack.unpack(packed) or {}) do state[nth] = settled(key, account) end
    states[key] = state
  end
  return states[key]
end

local function account_of(key, unit, window)
  local state = state_of(key)
  for nth = 1, #state do
    if state[nth].unit == unit and state[nth].window == window then return state[nth] end
  end
  state[#state + 1] = settled(key, {unit, window, 0, '', {}})
  return state[#state]
end

-- When `amount` fits if nothing else comes between: now, later, or never (-1).
local function room_at(account, amount, limit)
  if amount > limit then return -1 end
  local over, nth, time, freed = account.used - (limit - amount), 0, now, 0
  while over > 0 do
    nth = nth + 1
    time, freed = entry(account, nth)
    over = over - freed
  end
  return nth == 0 and now or time + account.length
end

-- Of the charges that are enforced, or of those that are not, the one without room that frees last: its index, what is
-- used, when there is room, and when there is room for one more (-1 for never); nil when all have room.
local function overdrawn(enforced)
  local found, latest
  for nth, charge in ipairs(charges) do
    local amount, limit = charge[5], charge[4]
    if charge[6] == enforced and amount > 0 and charge.account.used > limit - amount then
      local at = room_at(charge.account, amount, limit)
      local rank = at == -1 and math.huge or at
      if not found or rank > latest then found, latest = nth, rank end
    end
  end
  if not found then return nil end
  local account = charges[found].account
  return {found, account.used, latest == math.huge and -1 or latest, room_at(account, 1, charges[found][4])}
end

-- At most MOST entries: the closest neighbours become one, never wider than a SPANth of the window.
local function joined(account)
  local times, amounts = spread(account)
  local gaps = {}
  for nth = 3, #times do gaps[nth - 2] = times[nth] - times[nth - 2] end
  table.sort(gaps)
  local width = math.min(math.floor(account.length / SPAN), gaps[MOST / 4 + 1])
  local ends, sums, last = {times[1]}, {amounts[1]}, 1
  for nth = 2, #times do
    if last > 1 and times[nth] - ends[last - 1] <= width then
      ends[last], sums[last] = times[nth], sums[last] + amounts[nth]
    else
      last = last + 1
      ends[last], sums[last] = times[nth], amounts[nth]
    end
  end
  gather(account, ends, sums)
end

-- Two limits on one account charge it once.
local function put(account, amount)
  if account.charged or amount == 0 then return end
  local count, time, sum = account.count, 0, 0
  if count > 0 then time, sum = entry(account, count) end
  if time >= now then
    account.entries = string.sub(account.entries, 1, -SIZE - 1) .. struct.pack(ENTRY, time, sum + amount)
  else
    account.entries, account.count = account.entries .. struct.pack(ENTRY, now, amount), count + 1
    if account.count > MOST then joined(account) end
  end
  account.used, account.charged, changed[account.key] = account.used + amount, true, true
end

-- Whether nobody was told of that percent within the window that ends now; then it is noted that somebody is.
local function tell(account, percent)
  local told, begin = {}, now - account.length
  for nth = 1, #account.told, 2 do
    local known, when = account.told[nth], account.told[nth + 1]
    if when > begin and when <= now + SKEW then
      if known == percent then return false end
      told[#told + 1], told[#told + 2] = known, when
    end
  end
  told[#told + 1], told[#told + 2] = percent, now
  account.told, changed[account.key] = told, true
  return true
end

-- Writes a key back without accounts that say nothing any more; Redis forgets it when the last of them is empty.
local function save(key)
  local kept, last = {}, 0
  for _, account in ipairs(states[key]) do
    local latest = account.count > 0 and entry(account, account.count) or 0
    for nth = 2, #account.told, 2 do latest = math.max(latest, account.told[nth]) end
    if latest + account.length > now then
      kept[#kept + 1] = {account.unit, account.window, account.used, account.entries, account.told}
      last = math.max(last, latest + account.length)
    end
  end
  if #kept == 0 then
    redis.call('DEL', KEYS[key])
  else
    redis.call('SET', KEYS[key], cmsgpack.pack(kept), 'PX', string.format('%.0f', math.ceil((last - now) / 1000)))
  end
end

local function save_changed()
  for key in pairs(changed) do save(key) end
end

-- Adds {index, percent, used} to the answer, if somebody is to be told.
local function warn(answer, nth, percent, used)
  if tell(charges[nth].account, percent) then
    local last = #answer
    answer[last + 1], answer[last + 2], answer[last + 3] = nth, percent, used
  end
end

-- A refusal counts as the whole limit used, but not that of a message which never fits (warnings.py).
local function refuse(refused)
  local answer, charge = {now, 1, unpack(refused)}, charges[refused[1]]
  if charge[5] <= charge[4] then
    for _, percent in ipairs(charge[7]) do
      if percent <= 100 then warn(answer, refused[1], percent, refused[2]) end
    end
  end
  save_changed()
  return answer
end

-- The answer: {now, 0 charged | 1 refused | 2 too late, index, used, room at, one at, [index, percent, used] ...}. The
-- first index is that of the charge refused, or of one that was passed unenforced, or 0.
local function settle()
  local refused = overdrawn(true)
  if refused then return refuse(refused) end
  local answer = {now, 0, unpack(overdrawn(false) or {0, 0, 0, 0})}
  for nth, charge in ipairs(charges) do
    local limit, before, after = charge[4], charge.account.used, charge.account.used + charge[5]
    for _, percent in ipairs(charge[7]) do
      if before * 100 < percent * limit and percent * limit <= after * 100 then warn(answer, nth, percent, after) end
    end
  end
  for _, charge in ipairs(charges) do put(charge.account, charge[5]) end
  save_changed()
  return answer
end

-- Undoes a charge of the time `at`, if it still counts: it lies in the first entry that ends then or later, by no more
-- than what may be joined (window.py, given_back).
local function take_back(account, amount, at)
  if account.charged or account.count == 0 then return end
  local times, amounts = spread(account)
  local nth = 1
  while nth < #times and times[nth] < at do nth = nth + 1 end
  if at <= now - account.length or times[nth] < at or times[nth] - at > account.length / SPAN + SKEW then return end
  amount = math.min(amount, amounts[nth])
  amounts[nth] = amounts[nth] - amount
  gather(account, times, amounts)
  account.used, account.charged, changed[account.key] = account.used - amount, true, true
end

local function give_back(at, warned)
  for _, charge in ipairs(charges) do take_back(charge.account, charge[5], at) end
  for _, pair in ipairs(warned) do
    local account, told = charges[pair[1]].account, {}
    for nth = 1, #account.told, 2 do
      local percent, when = account.told[nth], account.told[nth + 1]
      if percent ~= pair[2] or when ~= at then told[#told + 1], told[#told + 2] = percent, when end
    end
    account.told, changed[account.key] = told, true
  end
  save_changed()
  return {now, 0}
end

-- As give_back, for the message whose mark is the last key: once.
local function refund(at)
  if redis.call('SET', KEYS[#KEYS], 1, 'NX', 'EX', 31622400) then return give_back(at, {}) end
  return {now, 0}
end

-- Every account of the keys that holds anything: {index of the key, unit, window, times, amounts}.
local function look()
  local answer = {now}
  for key = 1, #KEYS do
    for _, account in ipairs(state_of(key)) do
      if account.used > 0 then answer[#answer + 1] = {key, account.unit, account.window, spread(account)} end
    end
  end
  return answer
end

-- How many accounts the key held; it holds none any more. What cannot be read goes too, and counts as one.
local function reset()
  local good, held = pcall(function() return #cmsgpack.unpack(redis.call('GET', KEYS[1])) end)
  local there = redis.call('DEL', KEYS[1])
  return there == 0 and 0 or good and held or 1
end

for _, charge in ipairs(charges) do charge.account = account_of(charge[1], charge[2], charge[3]) end
if verb == 'look' then return look() end
if verb == 'reset' then return reset() end
if verb == 'check' then return {now, 1, unpack(overdrawn(true) or {0, 0, 0, 0})} end
if verb == 'give back' then return give_back(request[4], request[5]) end
if verb == 'refund' then return refund(request[4]) end
if request[2] > 0 and now > request[2] then return {now, 2} end
return settle()

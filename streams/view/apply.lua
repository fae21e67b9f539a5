-- Does everything that one read of the topics changes in one step, which no reader sees half of.
--
-- Redis takes nothing back: where a command fails, those before it stay. None can but where a key is
-- not what we made it, or somebody forbids a command. Then the mark stays that whoever follows sets
-- before he writes, and removes after: with it nobody goes on, readers say so, and all is built anew.
-- So no retry counts anything twice. That Redis is full, or only a replica, it says at that mark.
--
-- KEYS: meta, positions, progress
-- ARGV: 1. the fence that the writer has seen in meta, "" where none
--       2. the turn that it has seen there, "" where any will do
--       3. msgpack: the sizes of each command's arguments
--       4. the arguments of all commands, one after the other
--       5. msgpack: by field, what else it has seen or written in meta
--
-- Returns the turn afterwards. A writer that is behind another one ("moved"), that a rebuild has
-- fenced off ("fenced"), or whose Redis has gone back to what it was earlier, changes nothing. Nor does
-- one who follows where meta says something else than what was written there ("meta"), or where the
-- positions are not those that were written last ("positions"): set back, they would have records
-- counted twice. `read` in meta is their sum, and how many are told of in progress; while somebody
-- writes it is the mark ("broken off").
if (redis.call('HGET', KEYS[1], 'fence') or '') ~= ARGV[1] then
  return 'fenced'
end
local follows = ARGV[2] ~= ''
if follows and (redis.call('HGET', KEYS[1], 'turn') or '') ~= ARGV[2] then
  return 'moved'
end

-- In what state the positions are. Of another type they are in none: what deletes them must not fail.
local function read()
  local offsets, told = redis.pcall('HVALS', KEYS[2]), redis.pcall('HLEN', KEYS[3])
  if offsets.err or type(told) == 'table' then
    return 'damaged'
  end
  local sum = 0
  for _, offset in ipairs(offsets) do
    sum = sum + (tonumber(offset) or -1)
  end
  return string.format('%.0f/%d', sum, told)
end

if follows then
  for field, value in pairs(cmsgpack.unpack(ARGV[5])) do
    if redis.call('HGET', KEYS[1], field) ~= value then
      return 'meta'
    end
  end
  local known = redis.call('HGET', KEYS[1], 'read')
  if known ~= read() then
    return known == 'writing' and 'broken off' or 'positions'
  end
  redis.call('HSET', KEYS[1], 'read', 'writing')
end

-- Whole numbers of any length, as sums of parts that Lua counts exactly: the lowest one first, each
-- below `base`, and of a negative number all negative.
local digits, base = 7, 10000000

local function add(sum, number)
  local sign = 1
  if string.sub(number, 1, 1) == '-' then
    sign, number = -1, string.sub(number, 2)
  end
  local index = 1
  for last = #number, 1, -digits do
    local part = string.sub(number, math.max(last - digits + 1, 1), last)
    sum[index] = (sum[index] or 0) + sign * tonumber(part)
    index = index + 1
  end
end

-- Brings all parts to 0 or more, and below `base`; returns what is left above them.
local function carried(sum)
  local carry = 0
  for index, part in ipairs(sum) do
    local all = part + carry
    sum[index], carry = all % base, math.floor(all / base)
  end
  return carry
end

local function plus(one, other)
  local sum, sign = {}, ''
  add(sum, one)
  add(sum, other)
  table.insert(sum, 0)
  if carried(sum) < 0 then
    for index, part in ipairs(sum) do
      sum[index] = -part
    end
    carried(sum)
    sign = '-'
  end
  local text = ''
  for _, part in ipairs(sum) do
    text = string.format('%07d', part) .. text
  end
  return sign .. (string.match(text, '^0*(%d+)$'))
end

local own = {}

-- Adds to a field of a hash, which goes when it comes to 0: a view that saw two steps and one that
-- saw both at once must not differ. Redis counts up to 2^63, which in nano-dollars are nine billion.
function own.COUNT(_, key, field, amount)
  local sum = redis.pcall('HINCRBY', key, field, amount)
  if type(sum) == 'table' then
    local before = redis.call('HGET', key, field) or '0'
    if not string.match(before, '^-?[1-9]%d*$') and before ~= '0' then
      return redis.call('HINCRBY', key, field, amount)  -- fails again, and says why
    end
    sum = plus(before, amount)
    redis.call('HSET', key, field, sum)
  end
  if sum == 0 or sum == '0' then
    redis.call('HDEL', key, field)
  end
end

-- Keeps the highest of a sorted set, and the fields of the same names in another key.
function own.BOUND(_, ranking, companion, count)
  local over = redis.call('ZCARD', ranking) - tonumber(count)
  if over > 0 then
    for _, name in ipairs(redis.call('ZRANGE', ranking, 0, over - 1)) do
      redis.call('ZREM', ranking, name)
      redis.call('HDEL', companion, name)
    end
  end
end

-- Sets when a key ends, in Unix seconds. Some records have the time of a machine whose clock is wrong:
-- whatever it says, no key stays for ever.
local longest_s = 100 * 24 * 3600
local now_s = tonumber(redis.call('TIME')[1])
function own.EXPIREAT(_, key, at_s)
  redis.call('EXPIREAT', key, math.min(tonumber(at_s), now_s + longest_s))
end

local at = 1
for _, sizes in ipairs(cmsgpack.unpack(ARGV[3])) do
  local command = {}
  for index, size in ipairs(sizes) do
    command[index] = string.sub(ARGV[4], at, at + size - 1)
    at = at + size
  end
  local doer = own[command[1]] or redis.call
  doer(unpack(command))
end
redis.call('HSET', KEYS[1], 'read', read())
return redis.call('HINCRBY', KEYS[1], 'turn', 1)

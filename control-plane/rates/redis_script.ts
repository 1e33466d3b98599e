/**
 * The decisions of `domain/rates.ts` in Lua, for Redis, which runs a script as one step: what several control planes grant
 * at the same time never comes to more than the limit.
 */

import {
  COLD_MS,
  FREE_PARTS_PER_NODE,
  GRANT_TTL_MS,
  NODE_KEEP_MS,
  RateKind,
  RUNNING_KEEP_MS,
  TIGHT_KEEP_MS,
  TIGHT_MAX,
  TIGHT_PARTS_MIN,
  USE_KEEP_MS,
  WANT_KEEP_MS,
} from "../domain/rates.ts";

/** All keys are in one slot of a Redis Cluster. */
export const KEY_PREFIX = "{tokenbill}:rates:";
export const BOOTS_KEY = `${KEY_PREFIX}boots`;
export const TIGHT_KEY = `${KEY_PREFIX}tight`;
/** Arguments before the reports, and of each report. */
export const SHARE_HEAD = 3;
export const SHARE_WIDTH = 6;

export function limitKey(kind: number, subjectId: string): string {
  return `${KEY_PREFIX}${kind}:${subjectId}`;
}

const COMMON = `
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local function keep(kind)
  if kind == ${RateKind.CONCURRENT} then return ${RUNNING_KEEP_MS} end
  return ${USE_KEEP_MS}
end

-- The figures of the other nodes, and since when this one uses the limit. Forgets what is too old.
local function others(key, kind, boot)
  local live, mine = {}, now
  local fields = redis.call('HGETALL', key)
  for i = 1, #fields, 2 do
    local used, held, want, unmet, since, at = string.match(fields[i + 1], '^(%d+) (%d+) (%d+) (%d+) (%d+) (%d+)$')
    if fields[i] == boot then
      mine = tonumber(since)
    else
      local age = now - at
      if age >= keep(kind) then
        redis.call('HDEL', key, fields[i])
      else
        local wanting = age < ${WANT_KEEP_MS}
        live[#live + 1] = {
          used = tonumber(used),
          held = tonumber(held),
          want = wanting and tonumber(want) or 0,
          unmet = wanting and tonumber(unmet) or 0,
          since = tonumber(since),
        }
      end
    end
  end
  return live, mine
end

local function sum(live, name)
  local total = 0
  for i = 1, #live do total = total + live[i][name] end
  return total
end
`;

/**
 * KEYS: the boots, the tight ones, then a limit for each report. ARGV: boot, final and with tight (0 or 1), then kind, limit,
 * used, held, want and draw for each report. Returns the number of nodes, then allowance and remaining for each report, then
 * the tight limits as the end of their keys.
 */
export const SHARE_SCRIPT = `${COMMON}
local function lag(limit, want, wants, has)
  return math.max(0, (limit * want) / wants - has)
end

local function allowance(kind, limit, own, had, want, free, live, draw)
  local unmet = sum(live, 'unmet')
  local spare = free - unmet
  if want <= spare then
    return math.min(spare, math.max(want, 1, math.floor(free / (${FREE_PARTS_PER_NODE} * (#live + 1)))))
  end
  local kept = math.min(had, want, free)
  local more = want - kept
  if more == 0 then return kept end
  local wants = want + sum(live, 'want')
  local mine = lag(limit, want, wants, own + kept)
  local theirs = 0
  for i = 1, #live do
    local other = live[i]
    if other.unmet > 0 then theirs = theirs + lag(limit, other.want, wants, other.used + other.held) end
  end
  local part = more / (more + unmet)
  if mine + theirs > 0 then part = mine / (mine + theirs) end
  local piece = 1
  if kind == ${RateKind.TOKENS} then piece = more end
  local pieces = math.floor(((free - kept) * part) / piece + draw)
  return kept + math.min(more, free - kept, pieces * piece)
end

local function cold(live, since)
  local first = since
  for i = 1, #live do first = math.min(first, live[i].since) end
  return now - first < ${COLD_MS}
end

local boot, final = ARGV[1], ARGV[2] == '1'
if final then
  redis.call('ZREM', KEYS[1], boot)
else
  redis.call('ZADD', KEYS[1], now, boot)
end
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - ${NODE_KEEP_MS})
redis.call('PEXPIRE', KEYS[1], ${GRANT_TTL_MS})
local answer = { redis.call('ZCARD', KEYS[1]) }
for i = 3, #KEYS do
  local at = ${SHARE_HEAD} + (i - 3) * ${SHARE_WIDTH}
  local kind, limit, own = tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3])
  local had, want, draw = tonumber(ARGV[at + 4]), tonumber(ARGV[at + 5]), tonumber(ARGV[at + 6])
  local live, since = others(KEYS[i], kind, boot)
  local used = own + sum(live, 'used')
  local taken, kept = used + sum(live, 'held'), 0
  local isCold = cold(live, since)
  if isCold then
    local nodes = answer[1]
    taken = taken + math.max(0, nodes - #live - 1) * math.max(1, math.floor(limit / nodes))
  end
  local free = math.max(0, limit - taken)
  if isCold then kept = math.min(had, free) end
  local given, unmet = 0, sum(live, 'unmet')
  if limit == 0 then
    redis.call('HDEL', KEYS[i], boot)
  else
    if not final then given = math.max(kept, allowance(kind, limit, own, had, want, free, live, draw)) end
    local holds, wants, lacks = math.max(had, given), want, math.max(0, want - given)
    if final then holds, wants, lacks = 0, 0, 0 end
    unmet = unmet + lacks
    local figure = string.format('%.0f %.0f %.0f %.0f %.0f %.0f', own, holds, wants, lacks, since, now)
    redis.call('HSET', KEYS[i], boot, figure)
    redis.call('PEXPIRE', KEYS[i], keep(kind))
  end
  local left = math.max(0, limit - used)
  local name = string.sub(KEYS[i], ${KEY_PREFIX.length + 1})
  if unmet > 0 or left * math.max(answer[1], ${TIGHT_PARTS_MIN}) < limit then
    redis.call('ZADD', KEYS[2], now, name)
  else
    redis.call('ZREM', KEYS[2], name)
  end
  answer[#answer + 1] = given
  answer[#answer + 1] = left
end
if ARGV[3] == '1' then
  redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now - ${TIGHT_KEEP_MS})
  local tight = redis.call('ZREVRANGE', KEYS[2], 0, ${TIGHT_MAX - 1})
  for i = 1, #tight do answer[#answer + 1] = tight[i] end
end
redis.call('PEXPIRE', KEYS[2], ${GRANT_TTL_MS})
return answer
`;

/** KEYS: limits. ARGV: their kinds. Returns what all nodes used of each. */
export const USED_SCRIPT = `${COMMON}
local answer = {}
for i = 1, #KEYS do
  local live = others(KEYS[i], tonumber(ARGV[i]), '')
  answer[i] = sum(live, 'used')
end
return answer
`;

/** What the upstreams of the soak do, and how that changes over time. */

import { setTimeout as delay } from "node:timers/promises";
import type { Random } from "../simulator/random.ts";
import type { Behaviour, Mix, Upstream } from "../support/upstream.ts";

/** Models that misbehave before any content, each with moods of its own. */
export const MOODY_MODELS = ["moody-1", "moody-2", "moody-3", "moody-4"];
/** The model that breaks off after content, now and then. */
export const CUTTING_MODEL = "cutting";
/** Longer than every deadline of the soak's Logical Models. */
const SLOW_HEAD_MS = 6_000;
const MOOD_MS_MIN = 1_500;
const MOOD_MS_MAX = 8_000;

/** Every way to fail before content that an upstream which speaks HTTP has. None of them may reach a client. */
export const BEFORE_CONTENT: readonly Behaviour[] = [
  { status: 500 },
  { status: 502, body: "<html>Bad Gateway</html>" },
  { status: 503, retryAfter: 1 },
  { status: 503, retryAfterDate: 2 },
  { status: 504 },
  { status: 529 },
  { status: 408 },
  { status: 424 },
  { status: 429, retryAfterMs: 300 },
  { status: 429, retryAfter: 1, code: "rate_limit_exceeded" },
  { status: 429, code: "insufficient_quota" },
  { status: 401, code: "invalid_api_key" },
  { status: 402 },
  { status: 403 },
  { status: 404, code: "model_not_found" },
  { errorBody: true },
  { reset: "head" },
  { reset: "content" },
  { hang: "head" },
  { hang: "content" },
  { delayMs: SLOW_HEAD_MS },
  { end: "content" },
  { done: "content" },
  { errorFrame: "content" },
  { brokenFrame: "content", end: "content" },
  { forever: "comments" },
  { forever: "roles" },
  { forever: "deltas" },
];

/** Cuts after content: each must reach the client as an error, and be billed for what came before it. */
const AFTER_CONTENT: Mix = [
  { weight: 6, behaviour: {} },
  { weight: 1, behaviour: { reset: "middle", afterChunks: 2 } },
  { weight: 1, behaviour: { errorFrame: "middle", afterChunks: 4 } },
  { weight: 1, behaviour: { end: "middle", afterChunks: 6 } },
  { weight: 1, behaviour: { hang: "middle", afterChunks: 3 } },
];

function pick<T>(items: readonly T[], random: Random): T {
  return items[random.int(0, items.length - 1)]!;
}

/** A mood: well, failing in one way, in one way half of the time, or in every way at once. */
function drawMood(random: Random): Mix {
  const one = { weight: 1, behaviour: pick(BEFORE_CONTENT, random) };
  const well = { weight: 1, behaviour: {} };
  const all = BEFORE_CONTENT.map((behaviour) => ({ weight: 1, behaviour }));
  return pick([[well], [one], [one, well], [...all, { weight: all.length, behaviour: {} }]], random);
}

/** Changes the moods of the models until the process ends. */
export function beMoody(upstream: Upstream, random: Random): void {
  upstream.behaveAtRandom(CUTTING_MODEL, AFTER_CONTENT);
  for (const model of MOODY_MODELS) {
    void (async () => {
      for (;;) {
        upstream.behaveAtRandom(model, drawMood(random));
        await delay(random.between(MOOD_MS_MIN, MOOD_MS_MAX));
      }
    })();
  }
}

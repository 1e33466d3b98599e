/** What a client is told when its session ends, or when one of its events is refused. */

import { checkoutUrl } from "../checkout_link.ts";
import * as errors from "../errors.ts";
import { routable } from "../route_types.ts";
import { CloseCode, TURNS_MAX } from "./limits.ts";
import type { Party } from "./turn.ts";

/** What a client hears when its session ends. */
export interface Farewell {
  readonly code: number;
  readonly reason: string;
  /** Null: it is no error. */
  readonly fields: errors.ErrorFields | null;
}

export const REVOKED: Farewell = {
  code: CloseCode.POLICY,
  reason: "invalid_api_key",
  fields: {
    message: "The access key is no longer valid.",
    type: "invalid_request_error",
    code: "invalid_api_key",
  },
};
export const RESTART: Farewell = {
  code: CloseCode.RESTART,
  reason: "model_unavailable",
  fields: {
    message: "The model has changed. Please begin another session.",
    type: "service_unavailable_error",
    code: "model_unavailable",
  },
};
export const STOPPING: Farewell = { code: CloseCode.GOING_AWAY, reason: "shutting_down", fields: errors.SHUTTING_DOWN };
export const EXPIRED: Farewell = {
  code: CloseCode.GOING_AWAY,
  reason: "session_expired",
  fields: {
    message: "The session has reached its longest duration.",
    type: "invalid_request_error",
    code: "session_expired",
  },
};
export const IDLE: Farewell = {
  code: CloseCode.IDLE,
  reason: "idle_timeout",
  fields: { message: "The session was idle for too long.", type: "invalid_request_error", code: "idle_timeout" },
};
export const SLOW: Farewell = { code: CloseCode.UPSTREAM, reason: "timeout", fields: errors.STREAM_TIMEOUT };
export const CUT: Farewell = { code: CloseCode.UPSTREAM, reason: "upstream_cut", fields: errors.STREAM_CUT };
export const AMBIGUOUS: errors.ErrorFields = {
  message: "An event names each of its fields once.",
  type: "invalid_request_error",
  code: "invalid_event",
};
export const OTHER_MODEL: errors.ErrorFields = {
  message: "The model of a session cannot be changed. Please begin another session.",
  type: "invalid_request_error",
  param: "session.model",
  code: "model_change_not_supported",
};
export const TOO_MANY: errors.ErrorFields = {
  message: `A session makes up to ${TURNS_MAX} responses at a time.`,
  type: "invalid_request_error",
  code: "too_many_responses",
};
export const NOT_TAKEN: errors.ErrorFields = {
  message: "The upstream did not begin the response in time.",
  type: "server_error",
  code: "timeout",
};

export function exhausted(fields: errors.ErrorFields): Farewell {
  return { code: CloseCode.POLICY, reason: "insufficient_quota", fields };
}

export function exhaustedOf({ core, key }: Pick<Party, "core" | "key">): errors.ErrorFields {
  return errors.exhaustedFields(checkoutUrl(key.ve, core.wallNow()));
}

/** Null: key, VE, model and target are still what they were. The party's key becomes the one that the table has now. */
export function invalid(party: Party): Farewell | null {
  const { core, key, model, pm } = party;
  const { table } = core.deps;
  const now = table.key(key.digest);
  if (now === undefined || now.ve.id !== key.ve.id || now.ve.disabled) return REVOKED;
  party.key = now;
  const lm = table.logicalModel(now.ve, model);
  return lm === undefined || !lm.spec.group.pms.includes(pm) || !routable(pm) ? RESTART : null;
}

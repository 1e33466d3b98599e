/** What a visit is about: read from the address and from memory, before anything is shown. */

import { type Origin, parseAddress, sessionPath } from "./address.ts";
import type { Memory } from "./memory.ts";

/**
 * `open`: a session is to be opened; `attempt` counts those of this visit. `session`: it is there. `closed`: it is, but its
 * secret is not. `nothing`: the address leads nowhere.
 */
export type Target =
  | { readonly kind: "open"; readonly origin: Origin; readonly attempt: number }
  | { readonly kind: "session"; readonly id: string; readonly secret: string; readonly wechatCode: string | null }
  | { readonly kind: "closed" }
  | { readonly kind: "nothing" };

interface Place {
  readonly location: Pick<Location, "pathname" | "search" | "hash">;
  readonly history: Pick<History, "replaceState">;
}

/** Takes secrets and codes out of the address at once: it is copied, shared and logged. */
export function land({ location, history }: Place, memory: Memory): Target {
  const address = parseAddress(location);
  if (address.kind === "none") return { kind: "nothing" };
  if (address.kind === "new") {
    const opened = memory.opened(address.origin);
    if (opened === null) return { kind: "open", origin: address.origin, attempt: 0 };
    history.replaceState(null, "", sessionPath(location.pathname, opened.id));
    return { kind: "session", ...opened, wechatCode: null };
  }
  const { id, wechatCode } = address;
  const kept = memory.kept(id);
  if (address.secret !== null) memory.keep(id, { ...kept, secret: address.secret });
  if (location.hash !== "" || location.search !== "")
    history.replaceState(null, "", sessionPath(location.pathname, id));
  const secret = address.secret ?? kept?.secret ?? null;
  return secret === null ? { kind: "closed" } : { kind: "session", id, secret, wechatCode };
}

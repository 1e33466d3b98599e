/** PURE: whether payers can use the sandbox, which moves no money. */

import { isLoopbackHost } from "../../core/listen_address.ts";
import type { Settings } from "../settings.ts";

/**
 * `anyReal`: a merchant of this deployment has an account at a real processor. With `auto` it also takes that nobody but
 * this machine reaches the control plane: neither at the address it listens on, nor at the one that it says it has, nor
 * through a proxy.
 */
export function sandboxAvailable(
  settings: Pick<Settings, "sandboxPayments" | "publicUrl" | "address" | "trustedProxyHops">,
  anyReal: boolean,
): boolean {
  if (settings.sandboxPayments !== "auto") return settings.sandboxPayments === "always";
  // A proxy is there for others, even where nobody has said at which URL they come.
  if (settings.trustedProxyHops > 0) return false;
  const host = (URL.parse(settings.publicUrl)?.hostname ?? "").replace(/^\[|\]$/g, "");
  return !anyReal && isLoopbackHost(host) && isLoopbackHost(settings.address.host);
}

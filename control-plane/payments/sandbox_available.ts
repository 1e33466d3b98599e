/** PURE: whether payers can use the sandbox, which moves no money. */

import { isLoopbackHost } from "../../core/listen_address.ts";
import type { Settings } from "../settings.ts";

/**
 * `anyReal`: a merchant of this deployment has an account at a real processor. With `auto` it also takes that nobody but
 * this machine reaches the control plane: neither at the address it listens on, nor at the one that it says it has.
 */
export function sandboxAvailable(
  settings: Pick<Settings, "sandboxPayments" | "publicUrl" | "address">,
  anyReal: boolean,
): boolean {
  if (settings.sandboxPayments !== "auto") return settings.sandboxPayments === "always";
  const host = (URL.parse(settings.publicUrl)?.hostname ?? "").replace(/^\[|\]$/g, "");
  return !anyReal && isLoopbackHost(host) && isLoopbackHost(settings.address.host);
}

/** PURE: whether payers can use the sandbox, which moves no money. */

import { isLoopbackHost } from "../../core/listen_address.ts";
import type { Settings } from "../settings.ts";

/** `anyReal`: a merchant of this deployment has an account at a real processor. */
export function sandboxAvailable(settings: Pick<Settings, "sandboxPayments" | "publicUrl">, anyReal: boolean): boolean {
  if (settings.sandboxPayments !== "auto") return settings.sandboxPayments === "always";
  const host = URL.parse(settings.publicUrl)?.hostname ?? "";
  return !anyReal && isLoopbackHost(host.replace(/^\[|\]$/g, ""));
}

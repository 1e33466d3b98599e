/** PURE: whether the sandbox can be used. It moves no money but brings Credits, so that it must not be open by accident. */

import { isLoopbackHost } from "../../core/listen_address.ts";
import type { Settings } from "../settings.ts";

/**
 * `anyReal`: whether any merchant of the deployment has an account at a real processor. `auto` offers the sandbox while
 * nobody has, and nobody but this machine can reach the checkout.
 */
export function sandboxAvailable(
  { sandboxPayments, publicUrl }: Pick<Settings, "sandboxPayments" | "publicUrl">,
  anyReal: boolean,
): boolean {
  if (sandboxPayments !== "auto") return sandboxPayments === "always";
  const host = URL.parse(publicUrl)?.hostname.replace(/^\[|\]$/g, "") ?? "";
  return !anyReal && isLoopbackHost(host);
}

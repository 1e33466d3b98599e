/** The secret of a VE that nodes know too: what one of them signs, every other one and the control plane can check. */

import type { Secrets } from "./secrets.ts";

/** Changing it would make every id of a stored response useless. */
const PIN_SECRET_LABEL = "tokenbill pin secret";

/** 32 bytes, always the same for a VE under one master key. */
export function pinSecret(secrets: Pick<Secrets, "derive">, veId: string): Uint8Array {
  return secrets.derive(PIN_SECRET_LABEL, veId);
}

/** When access keys were last used, as far as this process wrote it: a busy key is written once in a while, not each second. */

import { KEY_USE_INTERVAL_S } from "../store/usage.ts";

export const KEY_USES_MAX = 200_000;

export interface KeyUse {
  readonly keyId: string;
  readonly veId: string;
  readonly usedUs: number;
}

export class KeyUses {
  readonly #written = new Map<string, number>();

  /** Those that may have to be written. */
  due(uses: readonly KeyUse[]): KeyUse[] {
    return uses.filter(({ keyId, veId, usedUs }) => {
      const written = this.#written.get(`${keyId}\0${veId}`);
      return written === undefined || written < usedUs - KEY_USE_INTERVAL_S * 1_000_000;
    });
  }

  /** These uses are committed. */
  note(uses: readonly KeyUse[]): void {
    for (const { keyId, veId, usedUs } of this.due(uses)) {
      this.#written.set(`${keyId}\0${veId}`, usedUs);
      if (this.#written.size > KEY_USES_MAX) this.#written.delete(this.#written.keys().next().value!);
    }
  }
}

/** What records refer to and never changes, kept in memory: prices, and the merchants of VEs. */

import type { Logger } from "pino";
import type { Tx } from "../db/database.ts";
import type { IncomingRecord, Known, KnownPrice } from "../domain/report.ts";
import { readMerchants, readPrices } from "../store/usage.ts";
import { decodePrice } from "./decode.ts";

export const PRICES_CACHED_MAX = 50_000;
export const MERCHANTS_CACHED_MAX = 200_000;
const ID_CHARS_MAX = 64;

/** A map that forgets its oldest entries. */
class BoundedMap<Value> extends Map<string, Value> {
  readonly max: number;
  constructor(max: number) {
    super();
    this.max = max;
  }
  override set(key: string, value: Value): this {
    super.set(key, value);
    if (this.size > this.max) this.delete(this.keys().next().value!);
    return this;
  }
}

export class KnownCache {
  readonly #merchants = new BoundedMap<string>(MERCHANTS_CACHED_MAX);
  readonly #prices = new BoundedMap<KnownPrice>(PRICES_CACHED_MAX);

  /** Everything these records refer to, as far as it exists. What is missing is asked for again the next time. */
  async load(tx: Tx, log: Logger, records: readonly IncomingRecord[]): Promise<Known> {
    const veIds = new Set<string>();
    const priceIds = new Set<string>();
    for (const { usage } of records) {
      if (typeof usage === "string") continue;
      if (isAskable(usage.veId)) veIds.add(usage.veId);
      if (isAskable(usage.priceId)) priceIds.add(usage.priceId);
    }
    const [merchants, prices] = await Promise.all([
      this.#loadMerchants(tx, veIds),
      this.#loadPrices(tx, log, priceIds),
    ]);
    return { merchants, prices };
  }

  async #loadMerchants(tx: Tx, veIds: ReadonlySet<string>): Promise<Map<string, string>> {
    const found = new Map<string, string>();
    const missing: string[] = [];
    for (const id of veIds) {
      const merchantId = this.#merchants.get(id);
      if (merchantId === undefined) missing.push(id);
      else found.set(id, merchantId);
    }
    for (const [id, merchantId] of await readMerchants(tx, missing)) {
      this.#merchants.set(id, merchantId);
      found.set(id, merchantId);
    }
    return found;
  }

  async #loadPrices(tx: Tx, log: Logger, ids: ReadonlySet<string>): Promise<Map<string, KnownPrice>> {
    const found = new Map<string, KnownPrice>();
    const missing: string[] = [];
    for (const id of ids) {
      const price = this.#prices.get(id);
      if (price === undefined) missing.push(id);
      else found.set(id, price);
    }
    for (const { id, merchantId, body } of await readPrices(tx, missing)) {
      try {
        const known = { merchantId, price: decodePrice(id, body) };
        this.#prices.set(id, known);
        found.set(id, known);
      } catch (error) {
        // Its records are set aside as of an unknown price.
        log.error({ err: error, priceId: id }, "a stored price cannot be read");
      }
    }
    return found;
  }
}

/** Only what can be an id is asked for: PostgreSQL refuses a NUL in a parameter, which would hold up the whole report. */
function isAskable(id: string): boolean {
  return id !== "" && id.length <= ID_CHARS_MAX && !id.includes("\0");
}

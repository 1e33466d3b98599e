/** Holds what clients were given against what the ledger says. */

import assert from "node:assert/strict";
import { fromBinary } from "@bufbuild/protobuf";
import { audit } from "../../control-plane/audit.ts";
import { type Credits, formatCredits, parseCredits } from "../../core/credits.ts";
import { UsageRecordSchema } from "../../proto/gen/tokenbill/node/v1/usage_report_service_pb.ts";
import { Outcome } from "../../proto/gen/tokenbill/v1/usage_pb.ts";
import type { Fate } from "./client.ts";
import type { Figures } from "./scenario.ts";
import { type FaultShop, PICO_PER_TOKEN, type World } from "./world.ts";

/** data-plane/budget/estimate.ts has the slice; the README promises it. */
export const SLICE_TOKENS = 256n;
const REPORTED_TIMEOUT_MS = 60_000;
/** How many of the wrong ones a failure names. */
const EXAMPLES_MAX = 5;

interface Entry {
  readonly id: string;
  readonly credits: Credits;
  readonly outcome: Outcome;
}

export interface WalletFigures {
  readonly purchased: Credits;
  readonly settled: Credits;
  readonly escrowed: Credits;
  readonly debt: Credits;
}

export async function readEntries(world: World, shop: FaultShop): Promise<Entry[]> {
  const rows = await world.database.query<{ id: string; credits: string; body: Uint8Array }>(
    "select id, credits::text as credits, body from usage_event where ve_id = $1",
    [shop.veId],
  );
  return rows.map(({ id, credits, body }) => {
    const { outcome } = fromBinary(UsageRecordSchema, body);
    return { id, credits: parseCredits(credits), outcome };
  });
}

export async function readIds(world: World, shop: FaultShop): Promise<Set<string>> {
  const rows = await world.database.query<{ id: string }>("select id from usage_event where ve_id = $1", [shop.veId]);
  return new Set(rows.map(({ id }) => id));
}

/** Waits until every whole answer is in the ledger. `except`: ids that are known to be lost. Returns how long it took. */
export async function untilReported(
  world: World,
  fates: readonly Fate[],
  timeoutMs = REPORTED_TIMEOUT_MS,
  except: ReadonlySet<string> = new Set(),
): Promise<number> {
  const beganMs = performance.now();
  for (const shop of world.shops) {
    const whole = fates.filter((fate) => fate.whole && fate.veId === shop.veId && !except.has(fate.id));
    let missing: Fate[] = [];
    try {
      await world.until(
        "every whole answer is in the ledger",
        async () => {
          const ids = await readIds(world, shop);
          missing = whole.filter((fate) => !ids.has(fate.id));
          if (missing.length > 0) await world.pause(100);
          return missing.length === 0;
        },
        timeoutMs,
      );
    } catch (error) {
      world.run.signal.throwIfAborted();
      const examples = missing.slice(0, EXAMPLES_MAX);
      throw new Error(
        `${missing.length} of ${whole.length} whole answers are not in the ledger: ${JSON.stringify(examples)}`,
        { cause: error },
      );
    }
  }
  return performance.now() - beganMs;
}

/** The figures of a wallet, straight from the database. */
export async function readWallet(world: World, shop: FaultShop): Promise<WalletFigures> {
  const [row] = await world.database.query<Record<keyof WalletFigures, string>>(
    `select purchased::text as purchased, settled::text as settled, escrowed::text as escrowed, debt::text as debt
     from wallet where ve_id = $1`,
    [shop.veId],
  );
  return {
    purchased: parseCredits(row!.purchased),
    settled: parseCredits(row!.settled),
    escrowed: parseCredits(row!.escrowed),
    debt: parseCredits(row!.debt),
  };
}

async function usageTransfers(world: World, shop: FaultShop): Promise<Credits> {
  const [row] = await world.database.query<{ credits: string }>(
    `select (coalesce(sum(credits) filter (where credit_account = 'usage'), 0)
       - coalesce(sum(credits) filter (where debit_account = 'usage'), 0))::text as credits
     from transfer where ve_id = $1`,
    [shop.veId],
  );
  return parseCredits(row!.credits);
}

function none<T>(what: string, wrong: readonly T[]): void {
  assert.equal(wrong.length, 0, `${what}: ${wrong.length}, such as ${JSON.stringify(wrong.slice(0, EXAMPLES_MAX))}`);
}

/** Every whole answer once and exact; nothing that was refused is billed; nothing twice. */
function compareFates(entries: readonly Entry[], fates: readonly Fate[], except: ReadonlySet<string>): void {
  const byId = new Map(entries.map((entry) => [entry.id, entry]));
  assert.equal(byId.size, entries.length, "a request is in the ledger twice");
  const whole = fates.filter((fate) => fate.whole && !except.has(fate.id));
  none(
    "whole answers that are not in the ledger",
    whole.filter(({ id }) => !byId.has(id)),
  );
  const show = (fate: Fate) => {
    const entry = byId.get(fate.id)!;
    return { id: fate.id, tokens: fate.tokens, billed: formatCredits(entry.credits), outcome: entry.outcome };
  };
  none(
    "whole answers that are not billed to the last digit",
    whole.filter((fate) => byId.get(fate.id)!.credits !== BigInt(fate.tokens) * PICO_PER_TOKEN).map(show),
  );
  none(
    "whole answers that did not end as completed",
    whole.filter((fate) => byId.get(fate.id)!.outcome !== Outcome.COMPLETED).map(show),
  );
  none(
    "refused requests that are billed",
    fates.filter((fate) => fate.status >= 400 && (byId.get(fate.id)?.credits ?? 0n) > 0n).map(show),
  );
}

export interface Promises {
  /** Requests that can have been live at the same moment. */
  readonly clients: number;
  /** False: nodes are left that hold leases, such as one whose disk is gone. */
  readonly allReturned?: boolean;
  /** Ids of records that a test destroyed on disk. */
  readonly lost?: ReadonlySet<string>;
  /** Kinds of alarms that what was done to the system must raise, besides those of `lost`. */
  readonly alarms?: readonly string[];
  /** True: the wallet never ran dry, so nobody may have been refused for it. */
  readonly ample?: boolean;
}

/** Asserts the promises of one shop, and returns its figures. Everything must have been reported. */
export async function checkShop(
  world: World,
  shop: FaultShop,
  allFates: readonly Fate[],
  promises: Promises,
): Promise<Figures> {
  const fates = allFates.filter(({ veId }) => veId === shop.veId);
  const entries = await readEntries(world, shop);
  const wallet = await readWallet(world, shop);
  compareFates(entries, fates, promises.lost ?? new Set());
  const events = entries.reduce((sum, entry) => sum + entry.credits, 0n);
  assert.equal(formatCredits(wallet.settled), formatCredits(events), "settled is the sum of the usage events");
  const transferred = await usageTransfers(world, shop);
  assert.equal(formatCredits(transferred), formatCredits(events), "the ledger's usage is the sum of the usage events");
  const overspent = wallet.settled > wallet.purchased ? wallet.settled - wallet.purchased : 0n;
  if (promises.allReturned ?? true) assert.equal(formatCredits(wallet.escrowed), "0", "every lease came back");
  if (shop.strict) {
    assert.equal(formatCredits(overspent), "0", "STRICT overspends nothing");
    assert.equal(formatCredits(wallet.debt), "0", "STRICT makes no debt");
  }
  const bound = BigInt(promises.clients) * SLICE_TOKENS * PICO_PER_TOKEN;
  assert.ok(overspent <= bound, `overspent ${formatCredits(overspent)} of ${formatCredits(bound)}`);
  const refused = fates.filter(({ code }) => code === "insufficient_quota");
  if (promises.ample === true) none("refusals although there were Credits", refused);
  return {
    mode: shop.strict ? "STRICT" : "BALANCED",
    requests: fates.length,
    whole: fates.filter(({ whole }) => whole).length,
    refused: refused.length,
    entries: entries.length,
    put_in: formatCredits(wallet.purchased),
    settled: formatCredits(wallet.settled),
    overspent: formatCredits(overspent),
    allowed: shop.strict ? "0" : formatCredits(bound),
  };
}

/** The deep audit over the whole database, and the alarms that the control plane raised meanwhile. */
export async function checkAudit(world: World, alarmsExpected: readonly string[] = []): Promise<void> {
  none("broken invariants", await audit(world.database, { deep: true }));
  const alarms = await world.database.query<{ kind: string; subject: string; detail: unknown }>(
    "select kind, subject, detail from alarm where kind <> all($1::text[])",
    [alarmsExpected],
  );
  none("alarms", alarms);
}

/**
 * The end of a scenario: everything is reported, the nodes stop in order, and the books agree. Prints them.
 */
export async function closeBooks(world: World, fates: readonly Fate[], promises: Promises): Promise<void> {
  await untilReported(world, fates, REPORTED_TIMEOUT_MS, promises.lost);
  await world.stopNodes();
  const rows: Figures[] = [];
  for (const shop of world.shops) rows.push(await checkShop(world, shop, fates, promises));
  world.run.figures("books", rows);
  const expected = (promises.lost?.size ?? 0) > 0 ? ["quarantine"] : [];
  await checkAudit(world, [...expected, ...(promises.alarms ?? [])]);
}

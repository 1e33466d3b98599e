/** For tests of the journal. */

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pino } from "pino";
import type { FileJournal } from "./file_journal.ts";
import type { Settlement } from "./journal.ts";

export const SILENT = pino({ level: "silent" });

/** A directory that is deleted by `remove`. */
export function temporaryDir(): { readonly path: string; remove(): void } {
  const path = mkdtempSync(join(tmpdir(), "tokenbill-journal-"));
  return { path, remove: () => rmSync(path, { recursive: true, force: true }) };
}

export function settlement(n: number, more: Partial<Settlement> = {}): Settlement {
  return {
    id: `usg_${n}`,
    veId: "ve_a",
    accessKeyId: "key_a",
    logicalModelId: "lm_a",
    logicalModel: "gpt",
    endpoint: 1,
    stream: false,
    physicalModelId: "pm_a",
    priceId: "price_a",
    units: [{ meter: 1, quantity: n, source: 1 }],
    credits: BigInt(n),
    outcome: 1,
    httpStatus: 200,
    attempts: [],
    arriveUnixUs: 1_700_000_000_000_000 + n,
    firstByteUs: 1,
    firstContentUs: 2,
    durationUs: 3,
    upstreamRequestId: "",
    errorCode: "",
    ...more,
  };
}

/** Settles and resolves with the error of `written`, if there was one. */
export function settle(journal: FileJournal, given: Settlement): Promise<Error | undefined> {
  return new Promise((done) => journal.settle(given, done));
}

/** An id source that counts. */
export function countingIds(): (prefix: string) => string {
  let n = 0;
  return (prefix) => `${prefix}made${++n}`;
}

import * as nodeFs from "node:fs";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import type { Logger } from "pino";
import { createBootDir, thisProcess, touchClaim } from "./boot_dir.ts";
import { FileJournal, type FileJournalOptions } from "./file_journal.ts";
import { FrameType, scanSegment } from "./frame.ts";
import { readRecordHead } from "./record.ts";
import type { JournalFs, SegmentFs } from "./journal_disk.ts";
import { countingIds, settle, settlement, SILENT, temporaryDir } from "./testing.ts";

const MANY = { records: 1_000, bytes: 1 << 20 };

let dir: ReturnType<typeof temporaryDir>;
let open: FileJournal[];

beforeEach(() => {
  dir = temporaryDir();
  open = [];
});
afterEach(async () => {
  for (const journal of open) await journal.close();
  dir.remove();
});

function make(more: Partial<FileJournalOptions> = {}): FileJournal {
  const journal = new FileJournal({ dir: dir.path, log: SILENT, now: Date.now, newId: countingIds(), ...more });
  open.push(journal);
  return journal;
}

function segments(): string[] {
  return nodeFs.readdirSync(dir.path).toSorted();
}

/** Types and ids of all frames of all segments. */
function frames(): string[] {
  const seen: string[] = [];
  for (const name of segments()) {
    scanSegment(readFileSync(join(dir.path, name)), ({ type, payload }) =>
      seen.push(`${type}:${readRecordHead(payload)!.id}`),
    );
  }
  return seen;
}

async function fill(journal: FileJournal, count: number): Promise<void> {
  await Promise.all(Array.from({ length: count }, (_, n) => settle(journal, settlement(n + 1))));
  await journal.sync();
}

/** All records from `from` on, in as many reads as it takes. */
async function readAll(journal: FileJournal, from: number, limits = MANY): Promise<{ recordNo: number; id: string }[]> {
  const all: { recordNo: number; id: string }[] = [];
  for (let next = from; ;) {
    const records = await journal.read(next, limits);
    if (records.length === 0) return all;
    for (const { recordNo, bytes } of records) all.push({ recordNo, id: readRecordHead(bytes)!.id });
    next += records.length;
  }
}

describe("writing", () => {
  test("a turn's frames are one write, and `written` runs after it", async () => {
    let writes = 0;
    const journal = make({
      fs: {
        ...nodeFs,
        writeSync: ((...args: Parameters<typeof nodeFs.writeSync>) => (writes++, nodeFs.writeSync(...args))) as never,
      },
    });
    journal.intent({ ...settlement(1) });
    journal.progress({ ...settlement(1) });
    const seen: string[][] = [];
    const done = [1, 2].map((n) => settle(journal, settlement(n)).then(() => seen.push(frames())));
    expect(segments()).toEqual([]);
    await Promise.all(done);
    expect(writes).toBe(1);
    expect(seen[0]).toEqual([
      `${FrameType.INTENT}:usg_1`,
      `${FrameType.PROGRESS}:usg_1`,
      `${FrameType.SETTLE}:usg_1`,
      `${FrameType.SETTLE}:usg_2`,
    ]);
  });

  test("only what the disk has confirmed can be read", async () => {
    const journal = make();
    await settle(journal, settlement(1));
    expect(journal.durableNo).toBe(0);
    expect(await journal.read(1, MANY)).toEqual([]);
    let told = 0;
    journal.onDurable(() => told++);
    await journal.sync();
    expect([journal.durableNo, told]).toEqual([1, 1]);
    expect(await journal.read(1, MANY)).toMatchObject([{ recordNo: 1, veId: "ve_a", credits: 1n }]);
  });

  test("names of any length fit", async () => {
    const journal = make();
    await settle(journal, settlement(1, { logicalModel: "ü".repeat(200_000) }));
    await settle(journal, settlement(2));
    expect(frames()).toEqual(["3:usg_1", "3:usg_2"]);
  });
});

describe("reading", () => {
  test("from memory, from disk and across segments it is the same, within the limits", async () => {
    const journal = make({ segmentBytes: 2_000, recentBytesMax: 1_000 });
    for (let n = 1; n <= 100; n += 4)
      await Promise.all([0, 1, 2, 3].map((more) => settle(journal, settlement(n + more))));
    await journal.sync();
    expect(segments().length).toBeGreaterThan(3);
    const expected = Array.from({ length: 100 }, (_, n) => ({ recordNo: n + 1, id: `usg_${n + 1}` }));
    expect(await readAll(journal, 1)).toEqual(expected);
    expect(await readAll(journal, 1, { records: 3, bytes: 1 << 20 })).toEqual(expected);
    expect(await readAll(journal, 1, { records: 1_000, bytes: 1 })).toEqual(expected);
    expect(await readAll(journal, 50)).toEqual(expected.slice(49));
  });

  test("a record that the disk lost is replaced, so that numbers have no gap", async () => {
    const journal = make({ recentBytesMax: 1 });
    await fill(journal, 5);
    const path = join(dir.path, segments()[0]!);
    const bytes = readFileSync(path);
    bytes[Math.floor(bytes.length / 2)]! ^= 1;
    writeFileSync(path, bytes);
    const ids = (await readAll(journal, 1)).map(({ id }) => id);
    expect(ids).toEqual(["usg_1", "usg_2", "usg_made1", "usg_4", "usg_5"]);
  });

  test("segments go when the ledger has all of them; what it asks for again is given as lost", async () => {
    const journal = make({ segmentBytes: 500, recentBytesMax: 1 });
    for (let n = 1; n <= 20; n++) await settle(journal, settlement(n));
    await journal.sync();
    const before = segments().length;
    journal.acknowledge(20);
    await new Promise((done) => setImmediate(done));
    await expect.poll(() => segments().length).toBe(1);
    expect(before).toBeGreaterThan(2);
    expect(journal.backlog).toBe(0);
    const again = await readAll(journal, 1);
    expect(again.map(({ recordNo }) => recordNo)).toEqual(Array.from({ length: 20 }, (_, n) => n + 1));
    expect(again[0]!.id).toBe("usg_made1");
  });

  test("live streams are carried into each new segment", async () => {
    const journal = make({ segmentBytes: 300 });
    journal.intent({ ...settlement(77) });
    journal.progress({ ...settlement(77) });
    for (let n = 1; n <= 10; n++) await settle(journal, settlement(n));
    await journal.sync();
    journal.acknowledge(10);
    await expect.poll(() => segments().length).toBe(1);
    expect(frames().slice(0, 2)).toEqual(["1:usg_77", "2:usg_77"]);
    await settle(journal, settlement(77));
    expect(journal.liveStreams).toBe(0);
  });
});

describe("a disk that fails", () => {
  /** node:fs whose writes or syncs fail while `failing` says so. */
  function failingFs(failing: { write?: boolean; half?: boolean; sync?: boolean }): JournalFs & SegmentFs {
    const enospc = (): never => {
      throw Object.assign(new Error("no space left on device"), { code: "ENOSPC" });
    };
    return {
      ...nodeFs,
      writeSync: ((fd: number, buffer: Buffer, at: number, length: number, position: number) => {
        if (failing.half === true && length > 10) return nodeFs.writeSync(fd, buffer, at, 10, position);
        return failing.write === true ? enospc() : nodeFs.writeSync(fd, buffer, at, length, position);
      }) as never,
      fdatasync: ((fd: number, done: (error: Error | null) => void) =>
        failing.sync === true ? done(new Error("EIO")) : nodeFs.fdatasync(fd, done)) as never,
    };
  }

  test("stops admission, keeps the records, and goes on when there is room again", async () => {
    const failing = { write: false };
    const journal = make({ fs: failingFs(failing) });
    expect(await settle(journal, settlement(1))).toBeUndefined();
    failing.write = true;
    expect((await settle(journal, settlement(2)))?.message).toContain("no space");
    expect(journal.accepting).toBe(false);
    expect((await settle(journal, settlement(3)))?.message).toContain("no space");
    failing.write = false;
    await expect.poll(() => journal.accepting).toBe(true);
    await journal.sync();
    expect((await readAll(journal, 1)).map(({ id }) => id)).toEqual(["usg_1", "usg_2", "usg_3"]);
    expect(frames()).toEqual(["3:usg_1", "3:usg_2", "3:usg_3"]);
  });

  test("a write that stops half way is overwritten by the next try", async () => {
    const failing = { write: false, half: false };
    const journal = make({ fs: failingFs(failing) });
    await settle(journal, settlement(1));
    failing.half = true;
    // Ten bytes arrive, then the rest is written in further steps of ten, until the last few fail.
    failing.write = true;
    expect(await settle(journal, settlement(2))).toBeDefined();
    failing.half = false;
    failing.write = false;
    await settle(journal, settlement(3));
    expect(frames()).toEqual(["3:usg_1", "3:usg_2", "3:usg_3"]);
  });

  test("a sync that fails makes everything unconfirmed be written again, elsewhere", async () => {
    const failing = { sync: false };
    const journal = make({ fs: failingFs(failing) });
    await fill(journal, 1);
    failing.sync = true;
    await settle(journal, settlement(2));
    await journal.sync();
    expect([journal.accepting, journal.durableNo]).toEqual([false, 1]);
    failing.sync = false;
    await expect.poll(() => journal.accepting).toBe(true);
    await journal.sync();
    expect(journal.durableNo).toBe(2);
    expect(segments()).toHaveLength(2);
    expect((await readAll(journal, 1)).map(({ id }) => id)).toEqual(["usg_1", "usg_2"]);
  });

  test("a directory that is gone stops admission, although open files can be written, until it is back", async () => {
    const root = temporaryDir();
    const bootDir = createBootDir(root.path, "boot_1", thisProcess("node_1"));
    const errors: string[] = [];
    const log = { ...SILENT, error: (message: string) => errors.push(message), warn() {} } as unknown as Logger;
    const journal = make({ dir: bootDir, log });
    const look = (): void => journal.sawDirectory(touchClaim(bootDir, Date.now()));
    await fill(journal, 1);
    look();
    expect(journal.accepting).toBe(true);
    const away = join(root.path, "away");
    nodeFs.renameSync(bootDir, away);
    for (let looks = 0; looks < 2; looks++) look();
    await settle(journal, settlement(2));
    expect(journal.accepting).toBe(false);
    expect(errors).toEqual(["the journal's directory is gone; nothing is admitted until it is back"]);
    nodeFs.renameSync(away, bootDir);
    look();
    expect(journal.accepting).toBe(true);
    // The directory without its claim belongs to nobody, and is somebody else's soon.
    nodeFs.rmSync(join(bootDir, "owner.0.json"));
    look();
    expect(journal.accepting).toBe(false);
    root.remove();
  });

  test("too much that waits stops admission until it is reported", async () => {
    const journal = make({ segmentBytes: 300, diskBytesMax: 1_000 });
    for (let n = 1; n <= 10; n++) await settle(journal, settlement(n));
    expect(journal.accepting).toBe(false);
    journal.acknowledge(10);
    expect(journal.accepting).toBe(true);
  });
});

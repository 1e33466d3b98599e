import { appendFileSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { create } from "@bufbuild/protobuf";
import { afterEach, beforeEach, expect, test } from "vitest";
import {
  type WatchConfigResponse,
  WatchConfigResponseSchema,
} from "../proto/gen/tokenbill/node/v1/config_feed_service_pb.ts";
import { TableFile } from "./config_table_file.ts";
import { SILENT } from "./journal/testing.ts";

const TOKEN = "tbn_0123456789abcdef";
const SECRET = "sk-upstream-secret";

let dir: string;
let path: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), "tokenbill-table-"));
  path = join(dir, "node", "table.bin");
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

type Event = NonNullable<WatchConfigResponse["event"]>;

function event(what: Event): WatchConfigResponse {
  return create(WatchConfigResponseSchema, { event: what });
}

function provider(id: string) {
  return { kind: { case: "provider" as const, value: { id, baseUrl: "https://x", credentials: { apiKey: SECRET } } } };
}

function snapshot(revision: bigint, ids: string[] = ["prov_a"]): WatchConfigResponse[] {
  return [
    event({ case: "snapshotBegin", value: { epoch: "e", revision } } as Event),
    event({ case: "snapshotChunk", value: { resources: ids.map(provider) } } as unknown as Event),
    event({ case: "snapshotEnd", value: { revision } } as Event),
  ].map((given) => create(WatchConfigResponseSchema, given));
}

function delta(from: bigint, revision: bigint, id = "prov_b"): WatchConfigResponse {
  const value = { fromRevision: from, revision, upserts: [provider(id)], removedIds: [] };
  return create(WatchConfigResponseSchema, event({ case: "delta", value } as unknown as Event));
}

function open(more: Partial<ConstructorParameters<typeof TableFile>[0]> = {}): TableFile {
  return new TableFile({ path, nodeToken: TOKEN, log: SILENT, writes: true, ...more });
}

async function keep(file: TableFile, events: WatchConfigResponse[]): Promise<void> {
  for (const each of events) await file.keep(each);
}

/** The kinds and revisions in the file. */
function load(file = open()): string[] {
  const seen: string[] = [];
  file.load(({ event: what }) => {
    const revision = what.value !== undefined && "revision" in what.value ? what.value.revision : "";
    seen.push(`${what.case} ${revision}`.trim());
  });
  return seen;
}

const WHOLE = ["snapshotBegin 5", "snapshotChunk", "snapshotEnd 5"];

test("a snapshot and what follows come back as they were, and nothing of them is readable", async () => {
  const file = open();
  await keep(file, [...snapshot(5n), delta(5n, 6n)]);
  await keep(file, [
    create(WatchConfigResponseSchema, { event: { case: "checkpoint", value: { epoch: "e", revision: 6n } } }),
  ]);
  await file.close();
  expect(load()).toEqual([...WHOLE, "delta 6"]);
  expect(readFileSync(path).includes(SECRET)).toBe(false);
  expect(statSync(path).mode & 0o777).toBe(0o600);
  expect(readdirSync(join(dir, "node"))).toEqual(["table.bin"]);
});

test("after a restart deltas are appended", async () => {
  const first = open();
  await keep(first, snapshot(5n));
  await first.close();
  const second = open();
  expect(load(second)).toEqual(WHOLE);
  await keep(second, [delta(5n, 6n)]);
  await second.close();
  const third = open();
  expect(load(third)).toEqual([...WHOLE, "delta 6"]);
  await keep(third, [delta(6n, 7n)]);
  await third.close();
  expect(load()).toEqual([...WHOLE, "delta 6", "delta 7"]);
});

test("a new snapshot takes the place of everything, but only when it is whole", async () => {
  const file = open();
  await keep(file, snapshot(5n));
  await keep(file, snapshot(9n).slice(0, 2));
  file.flush();
  await expect.poll(() => readdirSync(join(dir, "node"))).toContain("table.bin.new");
  expect(load()).toEqual(WHOLE);
  await keep(file, snapshot(9n));
  await file.close();
  expect(load()).toEqual(WHOLE.map((line) => line.replace("5", "9")));
});

test("another token, a flipped bit or another file: nothing comes back", async () => {
  const file = open();
  await keep(file, [...snapshot(5n), delta(5n, 6n)]);
  await file.close();
  expect(load(open({ nodeToken: "tbn_another_0123456789" }))).toEqual([]);
  const bytes = readFileSync(path);
  for (const at of [3, 12, 30, bytes.length - 1]) {
    const damaged = Buffer.from(bytes);
    damaged[at]! ^= 1;
    writeFileSync(path, damaged);
    expect(load()).toEqual([]);
  }
  writeFileSync(path, "");
  expect(load()).toEqual([]);
  rmSync(path);
  expect(load()).toEqual([]);
});

test("a torn end is cut off, and what comes after it counts", async () => {
  const file = open();
  await keep(file, snapshot(5n));
  await file.close();
  appendFileSync(path, Buffer.from([40, 0, 0, 0, 1, 2, 3]));
  const again = open();
  expect(load(again)).toEqual(WHOLE);
  await keep(again, [delta(5n, 6n)]);
  await again.close();
  expect(load()).toEqual([...WHOLE, "delta 6"]);
});

test("a worker that only reads leaves the file alone", async () => {
  const file = open();
  await keep(file, snapshot(5n));
  await file.close();
  const reader = open({ writes: false });
  expect(load(reader)).toEqual(WHOLE);
  await keep(reader, [delta(5n, 6n)]);
  await reader.close();
  expect(load()).toEqual(WHOLE);
});

test("asks for a fresh snapshot when the deltas outgrow the old one", async () => {
  const file = open({ deltaBytesMin: 100 });
  await keep(file, snapshot(5n));
  expect(file.wantsSnapshot).toBe(false);
  for (let n = 5n; n < 12n; n++) {
    await file.keep(delta(n, n + 1n));
    file.flush();
  }
  await expect.poll(() => file.wantsSnapshot).toBe(true);
  await keep(file, snapshot(12n));
  await expect.poll(() => file.wantsSnapshot).toBe(false);
  await file.close();
});

test("a directory that cannot be written is no reason to stop", async () => {
  writeFileSync(join(dir, "node"), "a file where the directory should be");
  const file = open();
  await keep(file, [...snapshot(5n), delta(5n, 6n)]);
  await file.close();
  expect(load()).toEqual([]);
});

test("one that takes the file over writes nothing before a snapshot, and asks for one", async () => {
  const before = open();
  await keep(before, snapshot(1n));
  const next = open({ writes: false });
  load(next);
  // What the old one still writes is not what the new one has read.
  await keep(before, [delta(1n, 2n)]);
  await before.close();
  await keep(next, [delta(1n, 2n)]);
  expect(next.wantsSnapshot).toBe(false);
  next.takeOver();
  expect(next.wantsSnapshot).toBe(true);
  await keep(next, [delta(2n, 3n)]);
  next.flush();
  expect(load()).toEqual(["snapshotBegin 1", "snapshotChunk", "snapshotEnd 1", "delta 2"]);
  await keep(next, [...snapshot(3n), delta(3n, 4n)]);
  expect(next.wantsSnapshot).toBe(false);
  await next.close();
  expect(load()).toEqual(["snapshotBegin 3", "snapshotChunk", "snapshotEnd 3", "delta 4"]);
});

/** Spools on a file system that is slow, full or broken: readers get every byte or an error, and everything is given back. */

import fc from "fast-check";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { BodySource } from "../transport.ts";
import { SPOOL_MEMORY_BYTES, SPOOL_PENDING_BYTES_MAX, type Spool, type SpoolSplice } from "./spool.ts";
import { type SpoolsOptions, Spools } from "./spools.ts";
import type { SpoolFs } from "./spool_types.ts";

let dir = "";
beforeAll(async () => void (dir = await mkdtemp(join(tmpdir(), "spool-"))));
afterAll(() => rm(dir, { recursive: true }));

/** Files in memory. What it is asked waits for `run` when it is slow. */
class FakeFs implements SpoolFs {
  opened = 0;
  closed = 0;
  unlinked = 0;
  slow = false;
  waiting: (() => void)[] = [];
  failOpen: string | null = null;
  failWrite: string | null = null;
  /** The most bytes that one write takes. */
  writeMax = Number.POSITIVE_INFINITY;
  private readonly files = new Map<number, Buffer>();

  open(_: string, __: string, ___: number, done: (error: Error | null, fd: number) => void): void {
    this.later(() => {
      if (this.failOpen !== null) return done(errorOf(this.failOpen), -1);
      this.files.set(++this.opened, Buffer.alloc(0));
      done(null, this.opened);
    });
  }
  write(
    fd: number,
    bytes: Uint8Array,
    from: number,
    length: number,
    at: number,
    done: (e: Error | null, n: number) => void,
  ): void {
    this.later(() => {
      if (this.failWrite !== null) return done(errorOf(this.failWrite), 0);
      const count = Math.min(length, this.writeMax);
      const old = this.files.get(fd)!;
      const next = Buffer.alloc(Math.max(old.length, at + count));
      old.copy(next);
      next.set(bytes.subarray(from, from + count), at);
      this.files.set(fd, next);
      done(null, count);
    });
  }
  read(
    fd: number,
    bytes: Uint8Array,
    from: number,
    length: number,
    at: number,
    done: (e: Error | null, n: number) => void,
  ): void {
    this.later(() => {
      const file = this.files.get(fd);
      if (file === undefined) throw new Error("read after close");
      done(null, file.copy(bytes, from, at, at + length));
    });
  }
  unlink(_: string, done: (error: null) => void): void {
    this.unlinked++;
    this.later(() => done(null));
  }
  close(fd: number, done: (error: null) => void): void {
    if (!this.files.delete(fd)) throw new Error("closed twice");
    this.closed++;
    this.later(() => done(null));
  }
  run(): void {
    const { waiting } = this;
    this.waiting = [];
    for (const each of waiting) each();
  }
  private later(run: () => void): void {
    if (this.slow) this.waiting.push(run);
    else setImmediate(run);
  }
}

function errorOf(code: string): Error {
  return Object.assign(new Error(code), { code });
}

async function open(fs: FakeFs, options: Partial<SpoolsOptions> = {}): Promise<Spools> {
  let id = 0;
  return Spools.open({ dir, newId: () => String(id++), fs, ...options });
}

/** Reads a source to its end; an error's words if it fails. */
function drain(source: BodySource, pauseEvery = 0): Promise<Buffer | string> {
  return new Promise((resolve) => {
    const chunks: Uint8Array[] = [];
    const reading = source.open({
      onChunk(chunk) {
        chunks.push(chunk);
        if (pauseEvery === 0 || chunks.length % pauseEvery !== 0) return;
        reading.pause();
        setImmediate(() => reading.resume());
      },
      onEnd: () => resolve(Buffer.concat(chunks)),
      onError: (error) => resolve(error.message),
    });
  });
}

function bytesOf(length: number, seed = 7): Buffer {
  const bytes = Buffer.alloc(length);
  for (let i = 0; i < length; i++) bytes[i] = (i * seed + (i >> 9)) & 0xff;
  return bytes;
}

const BIG = bytesOf(SPOOL_MEMORY_BYTES + 300_000);

function feed(spool: Spool, bytes: Buffer, size = 50_000): void {
  for (let at = 0; at < bytes.length; at += size) spool.write(bytes.subarray(at, at + size));
}

async function settled(spools: Spools, fs: FakeFs): Promise<void> {
  for (let i = 0; i < 50 && spools.live > 0; i++) await new Promise((resolve) => setImmediate(resolve));
  expect([spools.live, spools.memoryBytes, spools.diskBytes, fs.opened - fs.closed]).toEqual([0, 0, 0, 0]);
}

describe("readers", () => {
  test("several read from the start while it grows, each at its pace", async () => {
    const fs = new FakeFs();
    const spools = await open(fs);
    const spool = spools.create(BIG.length)!;
    const source = spool.source();
    expect(source.length).toBe(BIG.length);
    const first = drain(source);
    feed(spool, BIG.subarray(0, 300_000));
    const second = drain(spool.source(), 2);
    await new Promise((resolve) => setImmediate(resolve));
    feed(spool, BIG.subarray(300_000));
    spool.end();
    const third = drain(spool.source(), 1);
    for (const read of await Promise.all([first, second, third])) expect(BIG.equals(read as Buffer)).toBe(true);
    spool.close();
    await settled(spools, fs);
    expect(fs.unlinked).toBe(1);
  });

  test("splices, any cuts, any pace", async () => {
    const splice = fc.record({ at: fc.nat(), cut: fc.nat({ max: 300 }), add: fc.uint8Array({ maxLength: 20 }) });
    await fc.assert(
      fc.asyncProperty(
        fc.nat({ max: SPOOL_MEMORY_BYTES * 2 }),
        fc.array(splice, { maxLength: 4 }),
        fc.integer({ min: 1, max: 4 }),
        fc.boolean(),
        async (length, wishes, pace, late) => {
          const fs = new FakeFs();
          fs.writeMax = 40_000;
          const spools = await open(fs);
          const spool = spools.create(null)!;
          const body = bytesOf(length);
          const splices: SpoolSplice[] = [];
          let expected = "";
          let from = 0;
          for (const { at, cut, add } of wishes
            .map((w) => ({ ...w, at: w.at % (length + 1) }))
            .sort((a, b) => a.at - b.at)) {
            if (at < from) continue;
            const end = Math.min(length, at + cut);
            splices.push({ start: at, end, bytes: add });
            expected += body.toString("latin1", from, at) + Buffer.from(add).toString("latin1");
            from = end;
          }
          expected += body.toString("latin1", from);
          const early = drain(spool.source(splices), pace);
          feed(spool, body, 17_000 * pace);
          spool.end();
          const source = spool.source(splices);
          expect(source.length).toBe(expected.length);
          const read = late ? await drain(source, pace) : await early;
          expect((read as Buffer).toString("latin1") === expected).toBe(true);
          await early;
          spool.close();
          await settled(spools, fs);
        },
      ),
      { numRuns: 40 },
    );
  });

  test("a view reads any part, and waits for the disk", async () => {
    const fs = new FakeFs();
    const spools = await open(fs);
    const spool = spools.create(null)!;
    feed(spool, BIG);
    spool.end();
    const view = spool.view(1000, BIG.length - 500);
    const whole = BIG.subarray(1000, BIG.length - 500);
    expect(view.size).toBe(whole.length);
    for (const [from, to] of [
      [0, 10],
      [SPOOL_MEMORY_BYTES - 1100, SPOOL_MEMORY_BYTES],
      [view.size - 20, view.size + 20],
      [0, view.size],
    ] as const) {
      expect(whole.subarray(from, to).equals(Buffer.from(await view.read(from, to)))).toBe(true);
    }
    spool.close();
    await expect(view.read(0, 10)).rejects.toThrow("closed");
    await settled(spools, fs);
  });

  test("what is in memory keeps its bytes after the spool is closed", async () => {
    const fs = new FakeFs();
    const spools = await open(fs);
    const spool = spools.create(null)!;
    spool.write(Buffer.from("hello"));
    spool.end();
    const read = (await drain(spool.source())) as Buffer;
    spool.close();
    const other = spools.create(null)!;
    other.write(Buffer.alloc(1000, "x"));
    expect(read.toString()).toBe("hello");
    other.close();
    await settled(spools, fs);
    expect(fs.opened).toBe(0);
  });
});

describe("a disk", () => {
  test("that is slow holds the client back", async () => {
    const fs = new FakeFs();
    fs.slow = true;
    const spools = await open(fs);
    const spool = spools.create(null)!;
    let drained = 0;
    spool.host = { onDrain: () => drained++, onFailure: () => expect.unreachable() };
    const chunk = Buffer.alloc(64 * 1024);
    let taken = 0;
    while (spool.write(chunk)) taken += chunk.length;
    expect(taken).toBeLessThanOrEqual(SPOOL_MEMORY_BYTES + SPOOL_PENDING_BYTES_MAX);
    while (fs.waiting.length > 0) fs.run();
    expect(drained).toBe(1);
    expect(spool.readable).toBe(spool.bytes);
    spool.close();
    while (fs.waiting.length > 0) fs.run();
    await settled(spools, fs);
  });

  test.each([
    ["ENOSPC", "disk_full"],
    ["EDQUOT", "disk_full"],
    ["EIO", "disk_error"],
  ])("that says %s fails the readers and the client", async (code, failure) => {
    const fs = new FakeFs();
    fs.failWrite = code;
    const spools = await open(fs);
    const spool = spools.create(null)!;
    const failures: string[] = [];
    spool.host = { onDrain() {}, onFailure: (what) => failures.push(what) };
    const read = drain(spool.source());
    feed(spool, BIG);
    expect(await read).toContain(failure);
    expect(failures).toEqual([failure]);
    expect(spool.write(BIG)).toBe(true);
    expect(await drain(spool.source())).toContain(failure);
    spool.close();
    await settled(spools, fs);
  });

  test("that has no descriptor to spare", async () => {
    const fs = new FakeFs();
    fs.failOpen = "EMFILE";
    const spools = await open(fs);
    const spool = spools.create(null)!;
    feed(spool, BIG);
    expect(await drain(spool.source())).toContain("EMFILE");
    spool.close();
    await settled(spools, fs);
  });

  test.each([0, 1, 2, 3, 4])("is asked nothing more once the spool is closed, after %i steps", async (steps) => {
    const fs = new FakeFs();
    fs.slow = true;
    const spools = await open(fs);
    const spool = spools.create(null)!;
    const read = drain(spool.source());
    feed(spool, BIG);
    for (let i = 0; i < steps; i++) {
      fs.run();
      await new Promise((resolve) => setImmediate(resolve));
    }
    spool.close();
    spool.close();
    expect(await read).toContain("closed");
    while (fs.waiting.length > 0) fs.run();
    await settled(spools, fs);
  });

  test("that holds too much already", async () => {
    const fs = new FakeFs();
    const spools = await open(fs, { diskBytesMax: 100_000 });
    const spool = spools.create(null)!;
    const failures: string[] = [];
    spool.host = { onDrain() {}, onFailure: (what) => failures.push(what) };
    feed(spool, BIG);
    expect(failures).toEqual(["no_room"]);
    spool.close();
    await settled(spools, fs);
  });
});

test("memory that is short sends bodies to the disk at once", async () => {
  const fs = new FakeFs();
  const spools = await open(fs, { memoryBytesMax: 10_000 });
  const first = spools.create(20_000)!;
  first.write(bytesOf(20_000));
  expect(fs.opened).toBe(0);
  const second = spools.create(20_000)!;
  expect(second.write(bytesOf(20_000))).toBe(false);
  second.end();
  expect(bytesOf(20_000).equals((await drain(second.source())) as Buffer)).toBe(true);
  expect(fs.opened).toBe(1);
  first.close();
  second.close();
  await settled(spools, fs);
});

test("chunks of one byte do not cost more than their bytes", async () => {
  const fs = new FakeFs();
  const spools = await open(fs);
  const spool = spools.create(null)!;
  for (let i = 0; i < 10_000; i++) spool.write(Buffer.from("x"));
  expect(spools.memoryBytes).toBeLessThan(16_000);
  spool.close();
  await settled(spools, fs);
});

test("there are only so many at a time", async () => {
  const fs = new FakeFs();
  const spools = await open(fs, { spoolsMax: 1 });
  const spool = spools.create(null)!;
  expect(spools.create(null)).toBeNull();
  spool.close();
  expect(spools.create(null)).not.toBeNull();
});

test("a client that leaves fails the readers, and is told nothing", async () => {
  const fs = new FakeFs();
  const spools = await open(fs);
  const spool = spools.create(1000)!;
  spool.host = { onDrain() {}, onFailure: () => expect.unreachable() };
  const read = drain(spool.source());
  spool.write(Buffer.from("x"));
  spool.fail("cut");
  expect(await read).toContain("cut");
  spool.close();
  await settled(spools, fs);
});

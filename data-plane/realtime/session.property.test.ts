/** Whatever happens in whatever order: every turn is settled once, and what is written down is what was spent. */

import { EventEmitter } from "node:events";
import fc from "fast-check";
import pino from "pino";
import { expect, test } from "vitest";
import { parseCredits } from "../../core/credits.ts";
import { Core } from "../core.ts";
import { RouteTable } from "../route_table.ts";
import { FakeBudget, FakeJournal, FakeMetrics } from "../testing_fakes.ts";
import { delta, gatewayResources, KEY, snapshot, VE } from "../testing.ts";
import { hash } from "node:crypto";
import { REALTIME_LIMITS } from "./limits.ts";
import { Peer } from "./peer.ts";
import { Session } from "./session.ts";
import { REALTIME_PRICE } from "./testing.ts";

/** What a Peer needs of a WebSocket. */
class FakeSocket extends EventEmitter {
  readonly OPEN = 1;
  readyState = 1;
  bufferedAmount = 0;
  paused = false;
  sent: Record<string, unknown>[] = [];
  send(data: Buffer): void {
    this.sent.push(JSON.parse(data.toString()) as Record<string, unknown>);
  }
  pause(): void {
    this.paused = true;
  }
  resume(): void {
    this.paused = false;
  }
  ping(): void {}
  close(code = 1005): void {
    if (this.readyState !== 1) return;
    this.readyState = 2;
    setImmediate(() => this.ended(code));
  }
  terminate(): void {
    if (this.readyState === 3) return;
    this.readyState = 2;
    setImmediate(() => this.ended(1006));
  }
  ended(code: number): void {
    if (this.readyState === 3) return;
    this.readyState = 3;
    this.emit("close", code, Buffer.alloc(0));
  }
  says(event: unknown): void {
    if (this.readyState === 1) this.emit("message", Buffer.from(JSON.stringify(event)), false);
  }
}

class World {
  readonly client = new FakeSocket();
  readonly upstream = new FakeSocket();
  readonly budget = new FakeBudget();
  readonly journal = new FakeJournal();
  readonly table = new RouteTable();
  readonly core: Core;
  readonly session: Session;
  over = 0;
  now = 1_000_000;
  created = 0;
  problems: string[] = [];

  constructor(strict: boolean, onDisconnect: number) {
    const options = { pm: { price: REALTIME_PRICE }, provider: { onDisconnect }, ve: { budgetMode: strict ? 2 : 1 } };
    snapshot(this.table, gatewayResources(["http://127.0.0.1:1"], options));
    let id = 0;
    this.core = new Core({
      table: this.table,
      budget: this.budget,
      journal: this.journal,
      upstream: null as never,
      now: () => this.now,
      random: () => 0.5,
      newId: (prefix) => `${prefix}${++id}`,
      settings: { veDomain: "", corsOrigins: [] },
      log: pino({ level: "error" }, { write: (line: string) => void this.problems.push(line) }),
      metrics: new FakeMetrics(),
    });
    const key = this.table.key(hash("sha256", KEY, "base64"))!;
    const lm = this.table.logicalModel(key.ve, "gpt")!;
    this.session = new Session({
      party: { core: this.core, key, lm, model: "gpt", pm: lm.spec.group.pms[0]!, kind: 1, tier: 0 },
      client: new Peer(this.client as never, 1024),
      upstream: new Peer(this.upstream as never, 1024),
      attempts: [],
      limits: REALTIME_LIMITS,
      onOver: () => void this.over++,
    });
    this.session.begin(Buffer.from(JSON.stringify({ type: "session.created", session: {} })), false);
  }
}

const USED = { input_tokens: 40, output_tokens: 9, output_token_details: { audio_tokens: 5 } };
const step = fc.oneof(
  fc.constantFrom<[string, (world: World) => void]>(
    ["ask", ({ client }) => client.says({ type: "response.create" })],
    ["ask with id", ({ client }) => client.says({ type: "response.create", event_id: "e" })],
    ["create", (w) => w.upstream.says({ type: "response.created", response: { id: `r${++w.created}` } })],
    ["poor", ({ budget }) => void (budget.free = 0n)],
    ["rich", ({ budget }) => void (budget.free = parseCredits("500"))],
    ["slow", ({ budget }) => void (budget.pending ??= [])],
    ["answer", ({ budget }) => budget.pending?.splice(0).forEach((run) => run())],
    ["hold journal", ({ journal }) => void (journal.held ??= [])],
    ["write journal", ({ journal }) => journal.held?.splice(0).forEach((run) => run())],
    ["refuse", ({ upstream }) => upstream.says({ type: "error", error: { code: "c", message: "m" } })],
    ["refuse id", ({ upstream }) => upstream.says({ type: "error", error: { code: "c", event_id: "e" } })],
    ["transcribe", ({ upstream }) => upstream.says({ type: TRANSCRIBED, usage: { type: "duration", seconds: 1 } })],
    ["tick", ({ session }) => session.onProgressTick()],
    ["drain", ({ session }) => session.drain()],
  ),
  fc
    .tuple(fc.constantFrom("delta", "done", "done unmetered", "failed"), fc.integer({ min: 1, max: 4 }))
    .map(([what, n]): [string, (world: World) => void] => [
      `${what} ${n}`,
      ({ upstream }) => {
        const audio = Buffer.alloc(200_000).toString("base64");
        if (what === "delta")
          return upstream.says({ type: "response.output_audio.delta", response_id: `r${n}`, delta: audio });
        const usage = what === "done" ? USED : null;
        const status = what === "failed" ? "failed" : "completed";
        upstream.says({ type: "response.done", response: { id: `r${n}`, usage, status } });
      },
    ]),
);
/** Rarer, since little follows them. */
const last = fc.constantFrom<[string, (world: World) => void]>(
  ["client leaves", ({ client }) => client.ended(1000)],
  ["upstream breaks", ({ upstream }) => upstream.ended(1006)],
  ["upstream ends", ({ upstream }) => upstream.ended(1000)],
  ["revoke", ({ table }) => void delta(table, [], ["key_1"])],
  [
    "late",
    (world) => {
      world.now += 60_000;
      world.core.wheel.advance();
    },
  ],
);
const TRANSCRIBED = "conversation.item.input_audio_transcription.completed";
const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

test("in any order", async () => {
  const run = fc.array(fc.tuple(step, fc.boolean()), { maxLength: 25 });
  await fc.assert(
    fc.asyncProperty(
      run,
      last,
      run,
      fc.boolean(),
      fc.constantFrom(1, 2, 3),
      async (before, end, after, strict, policy) => {
        const world = new World(strict, policy);
        for (const [[, act], wait] of [...before, [end, true] as const, ...after]) {
          act(world);
          if (wait) await turn();
        }
        world.session.abort();
        for (let n = 0; n < 40; n++) {
          world.budget.pending?.splice(0).forEach((answer) => answer());
          world.journal.held?.splice(0).forEach((written) => written());
          await turn();
        }
        for (let n = 0; n < 4; n++) await turn();
        const { budget, journal, core } = world;
        expect(world.problems).toEqual([]);
        expect(core.liveCount).toBe(0);
        expect(world.over).toBe(1);
        expect(budget.reservations.filter(({ settled }) => settled !== 1)).toEqual([]);
        expect(journal.settlements.reduce((sum, { credits }) => sum + credits, 0n)).toBe(budget.spent);
        const ids = journal.settlements.map(({ id }) => id);
        expect(new Set(ids).size).toBe(ids.length);
        expect(journal.intents.filter(({ id }) => !ids.includes(id))).toEqual([]);
        expect(journal.settlements.every(({ veId }) => veId === VE)).toBe(true);
        expect(world.client.readyState).not.toBe(1);
        expect(world.upstream.readyState).not.toBe(1);
        core.close();
      },
    ),
    { numRuns: 200 },
  );
});

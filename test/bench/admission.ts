/** What admission and settlement cost a request: the estimate, the hold, its growth, and the settlement, all in memory. */

import { parseCredits } from "../../core/credits.ts";
import { UnitKind } from "../../core/meters.ts";
import type { Admitted } from "../../data-plane/admitted.ts";
import { limitAccount, LimitKind } from "../../data-plane/budget/accounts.ts";
import type { Reservation } from "../../data-plane/budget/budget.ts";
import { admissionOf, type RequestSize, type TargetCost } from "../../data-plane/budget/estimate.ts";
import { WalletState } from "../../data-plane/budget/wallet.ts";
import type { LeaseAnswer } from "../../data-plane/budget/wallet_link.ts";
import { Wallets } from "../../data-plane/budget/wallets.ts";
import { Growth } from "../../data-plane/growth.ts";
import { LimitHolds } from "../../data-plane/limits.ts";
import type { AdmissionRates, RoutePm } from "../../data-plane/route_types.ts";
import { type Cost, costOf } from "./cost.ts";
import { benchMain, type BenchOptions } from "./options.ts";
import { digits, median, printHeading, printTable, spread } from "./stats.ts";

const ROUNDS = 9;
const WARM_UP_ROUNDS = 3;
const REQUESTS = 100_000;
const VES = 10_000;
/** Requests that are live at the same time. */
const LIVE = 64;
/** A stream that outgrows its first reservation by several slices. */
const STREAM_TOKENS = 2048;
const TOKENS_PER_CHUNK = 1;
const BODY_BYTES = 1024;
const GRANTED = parseCredits("1000000000");
const TTL_MS = 3_600_000;

/** 0.05 Credits per 1000 tokens of input, 0.15 of output. */
const RATES: AdmissionRates = {
  input: 50_000_000n,
  output: 150_000_000n,
  dearInput: 50_000_000n,
  dearOutput: 150_000_000n,
  request: 0n,
  image: 0n,
  second: 0n,
  character: 0n,
  toolCall: 0n,
};
const SPENT = 200n * RATES.input + 50n * RATES.output;
const TARGETS: readonly TargetCost[] = [
  { rates: RATES, maxOutputTokens: 16_384 },
  { rates: { ...RATES, output: 200_000_000n }, maxOutputTokens: 16_384 },
];
const UNITS = [{ meter: 1 as const, quantity: 200, source: 1 as const }];

function sizeOf(stream: boolean): RequestSize {
  return {
    inputTokens: BODY_BYTES,
    images: 0,
    characters: 0,
    seconds: 0,
    mediaInputTokens: 0,
    mediaOutputTokens: 0,
    hasOutput: true,
    stream,
    outputTokensMax: 0,
    answers: 1,
  };
}

const LIMITED_PM = {
  id: "pm_bench",
  maxOutputTokens: 16_384,
  unitLimit: UnitKind.TOKENS,
  creditLimited: true,
  rates: RATES,
} as unknown as RoutePm;

/** What `LimitHolds` reads of an admitted request. */
const ADMITTED = {
  body: { bytes: Buffer.alloc(BODY_BYTES), outputTokensMax: 0, answers: 1 },
  endpoint: { hasOutput: true },
  stream: false,
  clampTo: null,
} as unknown as Admitted;

class World {
  readonly wallets = new Wallets(
    () => performance.now(),
    (ms, fn) => {
      const timer = setTimeout(fn, ms);
      return () => clearTimeout(timer);
    },
  );
  readonly accounts: readonly string[];
  readonly #live: (Reservation | LimitHolds)[] = [];

  constructor(ves: number, limits: boolean) {
    this.accounts = Array.from({ length: ves }, (_, n) => `ve_${String(n).padStart(26, "a")}`);
    for (const account of this.accounts) this.#open(account);
    if (limits) for (const kind of [LimitKind.UNITS, LimitKind.CREDITS]) this.#open(limitAccount(LIMITED_PM.id, kind));
    this.grant();
  }

  #open(account: string): void {
    this.wallets.reserveSlow(account, 1n, 1n, (result) => {
      if (typeof result !== "string") this.wallets.settle(result, 0n);
    });
  }

  /** Answers a report about every account that has something to say: what was spent is the ledger's from here on. */
  grant(): void {
    const lines = this.wallets.cut(new Map(), this.accounts.length + 2);
    const spent = new Map(lines.map((line) => [line.account, line.spent]));
    const answers = lines.map(({ account }): LeaseAnswer => ({
      account,
      granted: GRANTED,
      ttlMs: TTL_MS,
      state: WalletState.OK,
      creditRemaining: GRANTED,
      resetAt: 0,
    }));
    this.wallets.answer(lines, spent, answers, performance.now(), false);
  }

  /** Keeps some requests live: the oldest comes back when a new one begins. */
  turn<R extends Reservation | LimitHolds>(begun: R): R | null {
    this.#live.push(begun);
    return this.#live.length > LIVE ? (this.#live.shift() as R) : null;
  }
}

interface Case {
  readonly name: string;
  readonly world: World;
  readonly each: (i: number) => void;
  readonly count: number;
}

function hold(wallets: Wallets, account: string, amount: bigint): Reservation {
  const held = wallets.reserve(account, amount);
  if (held === null) throw new Error("the lease did not cover a request of the bench");
  return held;
}

function walletCase(name: string, ves: number, stream: boolean): Case {
  const world = new World(ves, false);
  const { wallets, accounts } = world;
  const size = sizeOf(stream);
  // As traffic comes: in no order, and the same in every round.
  const order = Uint32Array.from({ length: REQUESTS }, (_, i) => (i * 2_654_435_761) % ves);
  const each = (i: number): void => {
    const { amount } = admissionOf(size, TARGETS, false);
    const held = hold(wallets, accounts[order[i]!]!, amount);
    if (stream) {
      const growth = new Growth(wallets, held, RATES, size, false);
      for (let tokens = 0; tokens < STREAM_TOKENS; tokens += TOKENS_PER_CHUNK) growth.covers(0, tokens);
    }
    const over = world.turn(held);
    if (over !== null) wallets.settle(over, SPENT);
  };
  return { name, world, each, count: stream ? REQUESTS / 20 : REQUESTS };
}

function limitCase(): Case {
  const world = new World(1, true);
  const each = (): void => {
    const holds = new LimitHolds(world.wallets, LIMITED_PM, () => {});
    if (!holds.take(ADMITTED)) throw new Error("the limits did not cover a request of the bench");
    world.turn(holds)?.settle(UNITS, SPENT);
  };
  return { name: "two limits of the model", world, each, count: REQUESTS };
}

function estimateCase(): Case {
  let sum = 0n;
  const size = sizeOf(false);
  const each = (): void => {
    sum += admissionOf(size, TARGETS, false).amount;
  };
  return { name: "the estimate alone, 2 targets", world: new World(1, false), each, count: REQUESTS };
}

async function run({ rounds = ROUNDS }: BenchOptions): Promise<void> {
  printHeading(
    "admission",
    `Estimate, hold and settlement of a request in memory, ${LIVE} live at a time. ${rounds} rounds, interleaved, medians (least-most).\n` +
      `A stream grows to ${STREAM_TOKENS.toLocaleString("en-US")} tokens, looked at after each. Limits come on top of the wallet.`,
  );
  const cases = [
    estimateCase(),
    walletCase("JSON, 1 VE", 1, false),
    walletCase(`JSON, ${VES.toLocaleString("en-US")} VEs`, VES, false),
    walletCase("stream, 1 VE", 1, true),
    limitCase(),
  ];
  const costs = cases.map(() => [] as Cost[]);
  for (let round = -WARM_UP_ROUNDS; round < rounds; round++) {
    for (const [index, { world, each, count }] of cases.entries()) {
      const cost = costOf(count, each);
      world.grant();
      if (round >= 0) costs[index]!.push(cost);
    }
  }
  const rows = cases.map(({ name }, index) => [
    name,
    spread(costs[index]!.map(({ ns }) => ns)),
    digits(median(costs[index]!.map(({ bytes }) => bytes))),
  ]);
  printTable(["case", "ns/request", "bytes/request"], rows);
  const stream = median(costs[3]!.map(({ ns }) => ns)) - median(costs[1]!.map(({ ns }) => ns));
  console.log(`\nA chunk of a stream: ${digits(stream / (STREAM_TOKENS / TOKENS_PER_CHUNK))} ns.`);
}

if (import.meta.main) await benchMain(run);

/** For tests: the node services over real HTTP/2, with the ledger's rules for order and repetition. */

import { createServer, type Http2Server, type ServerHttp2Session } from "node:http2";
import type { AddressInfo } from "node:net";
import { create, fromBinary } from "@bufbuild/protobuf";
import { Code, ConnectError, type ConnectRouter } from "@connectrpc/connect";
import { connectNodeAdapter } from "@connectrpc/connect-node";
import { formatCredits, parseCredits } from "../core/credits.ts";
import { limitAccount, LimitKind } from "./budget/accounts.ts";
import {
  ConfigFeedService,
  type ReportConfigStatusRequest,
  type WatchConfigRequest,
  type WatchConfigResponse,
} from "../proto/gen/tokenbill/node/v1/config_feed_service_pb.ts";
import { HealthService, type ShareHealthRequest } from "../proto/gen/tokenbill/node/v1/health_service_pb.ts";
import {
  LeaseStateSchema,
  LimitStateSchema,
  ReportStatus,
  type ReportUsageRequest,
  ReportUsageResponseSchema,
  type UsageRecord,
  UsageRecordSchema,
  UsageReportService,
} from "../proto/gen/tokenbill/node/v1/usage_report_service_pb.ts";

export const NODE_TOKEN = "tbn_of_the_tests_0123456789";

export interface Boot {
  lastSeq: number;
  final: boolean;
  readonly records: UsageRecord[];
  readonly leases: Map<string, bigint>;
}

/** What becomes of the next call of ReportUsage. */
export type Fate = "answer" | "hold_answer" | "lose_answer" | "lose_call" | "refuse_leases";

export class FakeControlPlane {
  readonly boots = new Map<string, Boot>();
  /** Every report as it arrived, repeated ones included. */
  readonly reports: ReportUsageRequest[] = [];
  /** Taken from the front, one for each report; then `answer`. */
  readonly fates: Fate[] = [];
  /** What each account gets on top, if it wants anything. */
  grant = 1_000_000n;
  /** What a record uses of each limit of its Physical Model. */
  limitUse = 1n;
  /** Gives an answer that is held. */
  #held: (() => void)[] = [];
  readonly watches: WatchConfigRequest[] = [];
  /** What everybody who watches is sent first. */
  first: readonly WatchConfigResponse[] = [];
  readonly statuses: ReportConfigStatusRequest[] = [];
  readonly shares: ShareHealthRequest[] = [];
  readonly #events: { readonly queue: WatchConfigResponse[]; wake: () => void; ended: boolean }[] = [];
  #changed: (() => void)[] = [];
  #server: Http2Server | null = null;
  readonly #sessions = new Set<ServerHttp2Session>();
  #port = 0;

  get url(): string {
    return `http://127.0.0.1:${this.#port}`;
  }

  /** Listens, on the same port as before if there was one. */
  async start(): Promise<void> {
    const handler = connectNodeAdapter({ routes: (router) => this.#routes(router), requestPathPrefix: "" });
    this.#server = createServer(handler);
    this.#server.on("session", (session) => {
      this.#sessions.add(session);
      session.on("close", () => this.#sessions.delete(session));
      session.on("error", () => undefined);
    });
    await new Promise<void>((done) => this.#server!.listen(this.#port, "127.0.0.1", done));
    this.#port = (this.#server.address() as AddressInfo).port;
  }

  /** Gone, as after a crash: connections break. */
  async stop(): Promise<void> {
    this.dropWatches();
    for (const session of this.#sessions) session.destroy();
    const server = this.#server;
    this.#server = null;
    if (server !== null) await new Promise<void>((done) => server.close(() => done()));
  }

  boot(bootId: string): Boot {
    let boot = this.boots.get(bootId);
    if (boot === undefined) {
      boot = { lastSeq: 0, final: false, records: [], leases: new Map() };
      this.boots.set(bootId, boot);
    }
    return boot;
  }

  /** Every record of every boot. */
  get records(): UsageRecord[] {
    return [...this.boots.values()].flatMap(({ records }) => records);
  }

  /** Sends an event to everybody who watches. */
  send(event: WatchConfigResponse): void {
    for (const watch of this.#events) {
      watch.queue.push(event);
      watch.wake();
    }
  }

  dropWatches(): void {
    for (const watch of this.#events) {
      watch.ended = true;
      watch.wake();
    }
  }

  /** Resolves when `condition` holds; it is looked at after every call. */
  async until(condition: () => boolean): Promise<void> {
    while (!condition()) await new Promise<void>((done) => this.#changed.push(done));
  }

  /** Answers that were held leave. */
  letGo(): void {
    for (const give of this.#held.splice(0)) give();
  }

  #noteChange(): void {
    const changed = this.#changed;
    this.#changed = [];
    // After the answer has left, so that what waits sees what the node sees.
    setImmediate(() => changed.forEach((done) => done()));
  }

  #routes(router: ConnectRouter): void {
    const authenticate = (header: Headers): void => {
      if (header.get("authorization") !== `Bearer ${NODE_TOKEN}`)
        throw new ConnectError("who are you?", Code.Unauthenticated);
    };
    router.service(UsageReportService, {
      reportUsage: async (request, context) => {
        authenticate(context.requestHeader);
        return this.#report(request);
      },
      getWallet: () => ({ wallet: { creditBudget: "10", creditRemaining: "7.5", state: 1 } }),
    });
    router.service(HealthService, {
      shareHealth: (request, context) => {
        authenticate(context.requestHeader);
        this.shares.push(request);
        this.#noteChange();
        return {};
      },
    });
    const watch = this.#watch.bind(this);
    router.service(ConfigFeedService, {
      watchConfig: (request, context) => {
        authenticate(context.requestHeader);
        return watch(request, context.signal);
      },
      reportConfigStatus: (request) => {
        this.statuses.push(request);
        this.#noteChange();
        return {};
      },
    });
  }

  async #report(request: ReportUsageRequest) {
    this.reports.push(request);
    const fate = this.fates.shift() ?? "answer";
    if (fate === "lose_call") {
      this.#noteChange();
      throw new ConnectError("lost on the way", Code.Unavailable);
    }
    if (fate === "refuse_leases" && request.leases.length > 0) {
      this.#noteChange();
      throw new ConnectError("leases[0].want: no", Code.InvalidArgument);
    }
    const response = this.#apply(request);
    this.#noteChange();
    if (fate === "hold_answer") await new Promise<void>((give) => this.#held.push(give));
    if (fate === "lose_answer") throw new ConnectError("lost on the way back", Code.Unavailable);
    return response;
  }

  #apply(request: ReportUsageRequest) {
    const boot = this.boot(request.bootId);
    const seq = Number(request.seq);
    let status: ReportStatus = ReportStatus.DUPLICATE;
    if (seq > boot.lastSeq) {
      const first = Number(request.firstRecordNo);
      const gap = seq !== boot.lastSeq + 1 || (request.records.length > 0 && first !== boot.records.length + 1);
      status = gap ? ReportStatus.GAP : ReportStatus.APPLIED;
    }
    if (status === ReportStatus.APPLIED) this.#take(boot, request, seq);
    const leases = request.leases.map(({ veId }) =>
      create(LeaseStateSchema, {
        veId,
        granted: formatCredits(boot.leases.get(veId) ?? 0n),
        ttlMs: 60_000n,
        state: 1,
        creditRemaining: "100",
      }),
    );
    const [lastSeq, lastRecordNo] = [BigInt(boot.lastSeq), BigInt(boot.records.length)];
    const limits = request.limits.map(({ physicalModelId, kind }) =>
      create(LimitStateSchema, {
        physicalModelId,
        kind,
        granted: formatCredits(boot.leases.get(limitAccount(physicalModelId, kind as number as LimitKind)) ?? 0n),
        ttlMs: 60_000n,
      }),
    );
    return create(ReportUsageResponseSchema, { status, lastSeq, lastRecordNo, leases, limits });
  }

  #take(boot: Boot, request: ReportUsageRequest, seq: number): void {
    boot.lastSeq = seq;
    boot.final = request.final;
    const use = (account: string, spent: bigint): void => {
      const lease = boot.leases.get(account) ?? 0n;
      boot.leases.set(account, spent < lease ? lease - spent : 0n);
    };
    for (const bytes of request.records) {
      const record = fromBinary(UsageRecordSchema, bytes);
      boot.records.push(record);
      use(record.veId, parseCredits(record.credits));
      for (const kind of Object.values(LimitKind)) {
        const account = limitAccount(record.physicalModelId, kind);
        if (boot.leases.has(account)) use(account, this.limitUse);
      }
    }
    const asks = [
      ...request.leases.map((lease) => ({ account: lease.veId, lease })),
      ...request.limits.map((lease) => ({
        account: limitAccount(lease.physicalModelId, lease.kind as number as LimitKind),
        lease,
      })),
    ];
    for (const { account, lease } of asks) {
      const left = (boot.leases.get(account) ?? 0n) - parseCredits(lease.release || "0");
      boot.leases.set(account, (left < 0n ? 0n : left) + (lease.want + lease.need === "" ? 0n : this.grant));
    }
  }

  async *#watch(request: WatchConfigRequest, signal: AbortSignal): AsyncGenerator<WatchConfigResponse> {
    const watch = { queue: [...this.first], wake: (): void => undefined, ended: false };
    this.#events.push(watch);
    this.watches.push(request);
    this.#noteChange();
    const wake = (): void => watch.wake();
    signal.addEventListener("abort", wake);
    try {
      while (!watch.ended && !signal.aborted) {
        yield* watch.queue.splice(0);
        if (watch.queue.length === 0 && !watch.ended && !signal.aborted)
          await new Promise<void>((done) => (watch.wake = done));
      }
    } finally {
      signal.removeEventListener("abort", wake);
      this.#events.splice(this.#events.indexOf(watch), 1);
    }
  }
}

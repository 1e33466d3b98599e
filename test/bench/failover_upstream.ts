/**
 * Upstreams for the failover bench: several ports in one process, each with a mode that the bench sets by a message. Says how
 * many calls each port has had.
 */

import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { Random } from "../simulator/random.ts";

export type Mode =
  | { readonly kind: "well" }
  /** Such a share of the calls fails, the others are well. */
  | { readonly kind: "503" | "reset"; readonly share: number }
  /** Such a share of the calls is answered late. */
  | { readonly kind: "slow"; readonly share: number; readonly delayMs: number }
  /** No call is answered. */
  | { readonly kind: "hang" }
  /** Nobody listens. */
  | { readonly kind: "closed" };

export type Order = { readonly type: "mode"; readonly n: number; readonly mode: Mode } | { readonly type: "calls" };

export type Reply =
  | { readonly type: "ready"; readonly ports: readonly number[] }
  | { readonly type: "done" }
  | { readonly type: "calls"; readonly calls: readonly number[] };

const ANSWER = JSON.stringify({
  id: "chatcmpl-bench",
  object: "chat.completion",
  created: 1_764_000_000,
  model: "bench-upstream",
  choices: [{ index: 0, message: { role: "assistant", content: "word ".repeat(100) }, finish_reason: "stop" }],
  usage: { prompt_tokens: 20, completion_tokens: 100, total_tokens: 120 },
});
const random = new Random(1);

function answer(response: ServerResponse): void {
  response.writeHead(200, { "content-type": "application/json", "content-length": ANSWER.length }).end(ANSWER);
}

class Port {
  readonly server: Server;
  port = 0;
  calls = 0;
  mode: Mode = { kind: "well" };

  constructor() {
    this.server = createServer((request, response) => this.#onRequest(request, response));
    this.server.keepAliveTimeout = 60_000;
  }

  async listen(): Promise<void> {
    await new Promise<void>((done) => this.server.listen(this.port, "127.0.0.1", done));
    this.port = (this.server.address() as AddressInfo).port;
  }

  async setMode(mode: Mode): Promise<void> {
    const wasClosed = this.mode.kind === "closed";
    this.mode = mode;
    if (mode.kind === "closed" && !wasClosed) {
      const closed = new Promise((done) => this.server.close(done));
      this.server.closeAllConnections();
      await closed;
    } else if (wasClosed && mode.kind !== "closed") {
      await this.listen();
    }
  }

  #onRequest(request: IncomingMessage, response: ServerResponse): void {
    this.calls++;
    request.resume().on("end", () => this.#onBody(response));
  }

  #onBody(response: ServerResponse): void {
    const { mode } = this;
    const isHit = "share" in mode && random.chance(mode.share);
    if (mode.kind === "hang") return;
    if (mode.kind === "503" && isHit) response.writeHead(503, { "content-length": 0 }).end();
    else if (mode.kind === "reset" && isHit) response.socket?.resetAndDestroy();
    else if (mode.kind === "slow" && isHit) setTimeout(() => answer(response), mode.delayMs);
    else answer(response);
  }
}

const ports = Array.from({ length: Number(process.argv[2]) }, () => new Port());
for (const port of ports) await port.listen();
process.on("message", (order: Order) => {
  if (order.type === "calls") {
    process.send!({ type: "calls", calls: ports.map(({ calls }) => calls) } satisfies Reply);
  } else {
    void ports[order.n]!.setMode(order.mode).then(() => process.send!({ type: "done" } satisfies Reply));
  }
});
process.send!({ type: "ready", ports: ports.map(({ port }) => port) } satisfies Reply);

/**
 * How a server ends without anybody noticing: it takes no new connections, lets what runs end, and breaks an idle
 * connection only when its client had time to learn that it will go.
 */

import type { Server } from "node:http";
import { Server as NetServer } from "node:net";
import type { Pipeline } from "./transport.ts";

/**
 * So long a connection is kept after it got idle, or after the closing began: a client that is about to use it again is
 * answered with `connection: close` and not with a reset, and a load balancer has time to see `/readyz` fail.
 */
export const LINGER_MS = 2_000;
const SWEEP_MS = 50;
/** After the last answer, connections get this long to take it. */
const CLOSE_MS = 2_000;

export interface CloseOptions {
  /** How long what runs may go on. */
  readonly drainMs: number;
  /** LINGER_MS if absent; never longer than `drainMs`. */
  readonly lingerMs?: number;
}

export class Closing {
  /** True: no connection is taken any more, and each answer is the last one of its connection. */
  begun = false;
  /** True: the time is over, and what still comes on a connection that stands is refused. */
  ended = false;
  #idleSince = 0;

  /** A connection that was promised to be kept has got idle. */
  noteIdle(): void {
    if (this.begun) this.#idleSince = performance.now();
  }

  /** Ends the server, after `drainMs` also what still runs. Resolves when no connection is left. */
  async run(server: Server, pipeline: Pipeline, options: CloseOptions): Promise<void> {
    this.begun = true;
    this.#idleSince = performance.now();
    const closed = new Promise<void>((resolve) => server.once("close", resolve));
    // Not the method of node:http, which breaks the idle connections at once.
    NetServer.prototype.close.call(server);
    await this.#drain(server, pipeline, options, closed);
    // A client whose answer was ended may come back at once, and nobody would end that request.
    this.ended = true;
    pipeline.abortAll();
    await pipeline.idle();
    // What was answered just now is still on its way out: idle connections go first, the others shortly after.
    server.close();
    const cut = setTimeout(() => server.closeAllConnections(), CLOSE_MS);
    await closed;
    clearTimeout(cut);
  }

  /** Resolves when nothing runs and nothing comes any more, or when the time is over. */
  async #drain(server: Server, pipeline: Pipeline, options: CloseOptions, closed: Promise<void>): Promise<void> {
    const { drainMs, lingerMs = LINGER_MS } = options;
    const { promise: over, resolve } = Promise.withResolvers<void>();
    const sweep = (): void => {
      if (performance.now() - this.#idleSince < Math.min(drainMs, lingerMs)) return;
      server.closeIdleConnections();
      if (pipeline.live === 0) resolve();
    };
    const sweeping = setInterval(sweep, SWEEP_MS);
    const late = setTimeout(resolve, drainMs);
    sweep();
    // A request can outlive its connection: its usage is still being read.
    void closed.then(() => pipeline.idle()).then(resolve);
    await over;
    clearTimeout(late);
    clearInterval(sweeping);
  }
}

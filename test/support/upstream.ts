/**
 * A simulated OpenAI-compatible upstream. Healthy, it answers any model; told to, it misbehaves in every way a real one
 * has been seen to. It says in its answers that it is simulated.
 */

import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo, Socket } from "node:net";
import { errorBody } from "./upstream_answers.ts";
import { type Behaviour, behaviourOfName, drawBehaviour, type Mix } from "./upstream_behaviour.ts";
import { Random } from "../simulator/random.ts";
import { answer, Gate, Left, nowMs, type UpstreamCall } from "./upstream_exchange.ts";

export type { Behaviour, Mix } from "./upstream_behaviour.ts";
export type { UpstreamCall } from "./upstream_exchange.ts";

const BODY_BYTES_MAX = 64 * 1024 ** 2;

export interface Upstream {
  /** Up to and including `/v1`. */
  readonly url: string;
  readonly port: number;
  readonly calls: UpstreamCall[];
  /** Sets what happens on calls with this model: one behaviour a call, the last one stays. None: healthy again. */
  behave(model: string, ...behaviours: Behaviour[]): void;
  /** From now on each call with this model draws what happens. `behave` ends it. */
  behaveAtRandom(model: string, mix: Mix): void;
  /** Lets so many held content chunks of this model go; all from now on if no number is given. */
  release(model: string, chunks?: number): void;
  /** Resolves with the call that makes `calls` at least so long. */
  waitForCalls(count: number): Promise<UpstreamCall>;
  /** Is gone, as if the process had died: connections break and new ones are refused. Everything scripted is kept. */
  die(): Promise<void>;
  /** Comes back on the same port. */
  revive(): Promise<void>;
  /** Ends it, and every connection. */
  close(): Promise<void>;
}

export interface UpstreamOptions {
  /** host:port; port 0 is an ephemeral one. */
  readonly address: string;
  /** False: `calls` stays empty, for long runs. */
  readonly record?: boolean;
  /** Of what is drawn: `failPercent` and `behaveAtRandom`. Default 1. */
  readonly seed?: number;
}

async function readBody(request: IncomingMessage): Promise<Buffer> {
  const parts: Buffer[] = [];
  let bytes = 0;
  for await (const part of request as AsyncIterable<Buffer>) {
    bytes += part.length;
    if (bytes > BODY_BYTES_MAX) throw new Left();
    parts.push(part);
  }
  return Buffer.concat(parts);
}

function parseJson(text: Buffer): any {
  try {
    const value: unknown = JSON.parse(text.toString("utf8"));
    return value !== null && typeof value === "object" ? value : undefined;
  } catch {
    return undefined;
  }
}

class SimulatedUpstream implements Upstream {
  readonly calls: UpstreamCall[] = [];
  url = "";
  port = 0;
  readonly #record: boolean;
  readonly #random: Random;
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  readonly #behaviours = new Map<string, Behaviour[]>();
  readonly #mixes = new Map<string, Mix>();
  readonly #gates = new Map<string, Gate>();
  readonly #watchers = new Set<() => void>();
  #number = 0;

  constructor(record: boolean, seed: number) {
    this.#record = record;
    this.#random = new Random(seed);
    this.#server = createServer((request, response) => void this.#handle(request, response));
    this.#server.keepAliveTimeout = 60_000;
    this.#server.on("connection", (socket) => {
      this.#sockets.add(socket);
      socket.once("close", () => this.#sockets.delete(socket));
    });
  }

  async listen(address: string): Promise<void> {
    const { hostname, port } = new URL(`http://${address}`);
    await new Promise<void>((resolve, reject) => {
      this.#server
        .once("error", reject)
        .listen(Number(port === "" ? 80 : port), hostname.replace(/[[\]]/g, ""), resolve);
    });
    this.port = (this.#server.address() as AddressInfo).port;
    this.url = `http://${hostname}:${this.port}/v1`;
  }

  behave(model: string, ...behaviours: Behaviour[]): void {
    this.#mixes.delete(model);
    if (behaviours.length === 0) this.#behaviours.delete(model);
    else this.#behaviours.set(model, behaviours);
  }

  behaveAtRandom(model: string, mix: Mix): void {
    this.#mixes.set(model, mix);
  }

  release(model: string, chunks = Number.MAX_SAFE_INTEGER): void {
    this.#gate(model).release(chunks);
  }

  async waitForCalls(count: number): Promise<UpstreamCall> {
    while (this.calls.length < count) {
      await new Promise<void>((resolve) => this.#watchers.add(resolve));
    }
    return this.calls[count - 1]!;
  }

  async die(): Promise<void> {
    await this.close();
  }

  revive(): Promise<void> {
    return this.listen(new URL(this.url).host);
  }

  async close(): Promise<void> {
    if (!this.#server.listening) return;
    const closed = new Promise((resolve) => this.#server.close(resolve));
    for (const socket of this.#sockets) socket.destroy();
    await closed;
  }

  #gate(model: string): Gate {
    let gate = this.#gates.get(model);
    if (gate === undefined) this.#gates.set(model, (gate = new Gate()));
    return gate;
  }

  #behaviour(model: string): Behaviour {
    const behaviour = this.#scripted(model);
    const { failPercent } = behaviour;
    return failPercent === undefined || this.#random.chance(failPercent / 100) ? behaviour : {};
  }

  #scripted(model: string): Behaviour {
    const mix = this.#mixes.get(model);
    if (mix !== undefined) return drawBehaviour(mix, () => this.#random.next());
    const scripted = this.#behaviours.get(model);
    if (scripted === undefined) return behaviourOfName(model);
    return scripted.length > 1 ? scripted.shift()! : scripted[0]!;
  }

  async #handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const arriveMs = nowMs();
    const { promise: done, resolve } = Promise.withResolvers<boolean>();
    response.once("close", () => resolve(response.writableFinished));
    try {
      const path = new URL(request.url ?? "/", "http://upstream").pathname;
      const rawBody = await readBody(request);
      const body = parseJson(rawBody);
      const named = path.startsWith("/v1/models/") ? decodeURIComponent(path.slice("/v1/models/".length)) : body?.model;
      const model = typeof named === "string" ? named : "";
      const method = request.method ?? "";
      const call: UpstreamCall = {
        method,
        path,
        headers: request.headers,
        rawBody,
        body,
        model,
        arriveMs,
        chunkMs: [],
        done,
      };
      if (this.#record) this.calls.push(call);
      for (const wake of this.#watchers) wake();
      this.#watchers.clear();
      await answer({
        call,
        response,
        behaviour: this.#behaviour(model),
        gate: this.#gate(model),
        number: ++this.#number,
      });
    } catch (error) {
      if (error instanceof Left || response.destroyed) return;
      const message = error instanceof Error ? error.message : String(error);
      if (response.headersSent) response.destroy();
      else
        response
          .writeHead(400, { "content-type": "application/json" })
          .end(JSON.stringify(errorBody(message, "invalid_request_error", null)));
    }
  }
}

/** Starts a simulated upstream. */
export async function startUpstream(options: UpstreamOptions): Promise<Upstream> {
  const upstream = new SimulatedUpstream(options.record ?? true, options.seed ?? 1);
  await upstream.listen(options.address);
  return upstream;
}

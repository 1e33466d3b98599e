/**
 * A TCP proxy that misbehaves as networks do. Each connection goes to one of the targets, the next one in turn if that
 * cannot be reached; so a client behind it that connects again finds another replica.
 */

import { type AddressInfo, connect, createServer, type Server, type Socket } from "node:net";

/** `up`: from the client to the target. */
export type Direction = "up" | "down";

export interface Weather {
  /** Every byte comes this much later. */
  readonly latencyMs: number;
  /** True: nothing comes through, and nobody is told. What was sent meanwhile arrives when that ends, as TCP sends again. */
  readonly blackhole: boolean;
}

const CALM: Weather = { latencyMs: 0, blackhole: false };
/** Bytes held in one direction of one connection; then its sender is slowed down. */
const HELD_BYTES_MAX = 1024 * 1024;
const CONNECT_TIMEOUT_MS = 2_000;

/** Bytes on their way in one direction. */
class Lane {
  readonly #from: Socket;
  readonly #to: Socket;
  #weather: Weather;
  #held: { readonly bytes: Buffer; readonly dueMs: number }[] = [];
  #heldBytes = 0;
  #ended = false;
  #timer: NodeJS.Timeout | undefined;

  constructor(from: Socket, to: Socket, weather: Weather) {
    this.#from = from;
    this.#to = to;
    this.#weather = weather;
    from.on("data", (bytes) => this.#take(bytes as Buffer));
    from.on("end", () => {
      this.#ended = true;
      this.#deliver();
    });
  }

  set weather(weather: Weather) {
    this.#weather = weather;
    this.#deliver();
  }

  close(): void {
    clearTimeout(this.#timer);
    this.#held = [];
  }

  #take(bytes: Buffer): void {
    this.#held.push({ bytes, dueMs: performance.now() + this.#weather.latencyMs });
    this.#heldBytes += bytes.length;
    if (this.#heldBytes > HELD_BYTES_MAX) this.#from.pause();
    this.#deliver();
  }

  #deliver(): void {
    clearTimeout(this.#timer);
    if (this.#weather.blackhole || this.#to.destroyed) return;
    for (let first = this.#held[0]; first !== undefined; first = this.#held[0]) {
      const waitMs = first.dueMs - performance.now();
      if (waitMs > 0) {
        this.#timer = setTimeout(() => this.#deliver(), Math.ceil(waitMs));
        return;
      }
      this.#held.shift();
      this.#heldBytes -= first.bytes.length;
      this.#to.write(first.bytes);
    }
    this.#from.resume();
    if (this.#ended) this.#to.end();
  }
}

class Connection {
  readonly #client: Socket;
  #target: Socket | undefined;
  #lanes: Record<Direction, Lane> | undefined;
  onClose: () => void = () => {};

  constructor(client: Socket) {
    this.#client = client;
    client.on("error", () => this.cut());
    client.once("close", () => this.cut());
  }

  /** Resolves when it is connected; false if the target cannot be reached. */
  async open(address: string, weather: Readonly<Record<Direction, Weather>>): Promise<boolean> {
    const { hostname, port } = new URL(`tcp://${address}`);
    const target = connect({ host: hostname, port: Number(port), noDelay: true });
    const timer = setTimeout(() => target.destroy(), CONNECT_TIMEOUT_MS);
    const opened = await new Promise<boolean>((resolve) => {
      target.once("connect", () => resolve(true));
      target.once("close", () => resolve(false));
      target.on("error", () => {});
    });
    clearTimeout(timer);
    if (!opened) return false;
    if (this.#client.destroyed) {
      target.destroy();
      return true;
    }
    this.#target = target;
    target.once("close", () => this.cut());
    this.#lanes = {
      up: new Lane(this.#client, target, weather.up),
      down: new Lane(target, this.#client, weather.down),
    };
    this.#client.resume();
    return true;
  }

  set weather(weather: Readonly<Record<Direction, Weather>>) {
    if (this.#lanes === undefined) return;
    this.#lanes.up.weather = weather.up;
    this.#lanes.down.weather = weather.down;
  }

  /** Breaks it for both sides. */
  cut(): void {
    this.#lanes?.up.close();
    this.#lanes?.down.close();
    if (!this.#client.destroyed) this.#client.resetAndDestroy();
    if (this.#target?.destroyed === false) this.#target.resetAndDestroy();
    this.onClose();
  }

  /** Breaks it for the target alone: the client goes on talking to nobody. */
  halfOpen(): void {
    const target = this.#target;
    if (target === undefined) return;
    target.removeAllListeners("close");
    this.#lanes?.up.close();
    this.#lanes?.down.close();
    this.#lanes = undefined;
    if (!target.destroyed) target.resetAndDestroy();
    this.#client.removeAllListeners("data");
    this.#client.resume();
  }
}

export class CutProxy {
  readonly address: string;
  readonly #server: Server;
  readonly #targets: readonly string[];
  readonly #connections = new Set<Connection>();
  #weather: Record<Direction, Weather> = { up: CALM, down: CALM };
  #next = 0;
  #refusing = false;

  private constructor(server: Server, targets: readonly string[], first: number) {
    this.#server = server;
    this.#targets = targets;
    this.#next = first;
    this.address = `127.0.0.1:${(server.address() as AddressInfo).port}`;
    server.on("connection", (socket: Socket) => void this.#accept(socket));
  }

  /** `targets` are `host:port`; the first connection goes to number `first` of them. */
  static async start(targets: readonly string[], first = 0): Promise<CutProxy> {
    const server = createServer({ allowHalfOpen: true, noDelay: true, pauseOnConnect: true });
    await new Promise<void>((resolve, reject) => server.once("error", reject).listen(0, "127.0.0.1", resolve));
    return new CutProxy(server, targets, first);
  }

  get connections(): number {
    return this.#connections.size;
  }

  /** Sets the weather of one direction, or of both. */
  set(weather: Partial<Weather>, direction?: Direction): void {
    for (const one of direction === undefined ? (["up", "down"] as const) : [direction]) {
      this.#weather[one] = { ...this.#weather[one], ...weather };
    }
    for (const connection of this.#connections) connection.weather = this.#weather;
  }

  /** Breaks all connections; new ones are let in at once. */
  cut(): void {
    for (const connection of [...this.#connections]) connection.cut();
  }

  /** Breaks all connections for the targets alone. */
  halfOpen(): void {
    for (const connection of this.#connections) connection.halfOpen();
  }

  /** Breaks all connections and refuses new ones, as a machine does where nobody listens. */
  refuse(): void {
    this.#refusing = true;
    this.cut();
  }

  /** Everything is well again. What hung in a black hole goes on. */
  heal(): void {
    this.#refusing = false;
    this.set(CALM);
  }

  async close(): Promise<void> {
    this.refuse();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  async #accept(socket: Socket): Promise<void> {
    if (this.#refusing) {
      socket.on("error", () => {});
      socket.resetAndDestroy();
      return;
    }
    const connection = new Connection(socket);
    this.#connections.add(connection);
    connection.onClose = () => this.#connections.delete(connection);
    for (let tries = 0; tries < this.#targets.length; tries++) {
      const target = this.#targets[this.#next++ % this.#targets.length]!;
      if (await connection.open(target, this.#weather)) return;
    }
    connection.cut();
  }
}

/** Ports of this machine that do not even speak HTTP. */

import { type AddressInfo, createServer, type Socket } from "node:net";

export interface BadPort {
  /** Up to and including `/v1`, as the base URL of a Provider. */
  readonly url: string;
  readonly port: number;
  /** Connections so far. */
  readonly accepted: number;
  close(): Promise<void>;
}

/** A port that nobody listens on: connections to it are refused. It was free a moment ago, so no one else has it soon. */
export async function closedPort(): Promise<Omit<BadPort, "close" | "accepted">> {
  const { url, port, close } = await listen(() => undefined);
  await close();
  return { url, port };
}

/** Accepts connections and never says anything. */
export function silentPort(): Promise<BadPort> {
  return listen((socket) => void socket.resume());
}

/** Accepts connections and resets each at once, or when the first bytes of a request come. */
export function resettingPort(when: "accept" | "data" = "accept"): Promise<BadPort> {
  return listen((socket) => {
    if (when === "accept") socket.resetAndDestroy();
    else socket.once("data", () => socket.resetAndDestroy());
  });
}

/** Answers in a language that is not HTTP. */
export function strangePort(): Promise<BadPort> {
  return listen((socket) => void socket.once("data", () => socket.end("SSH-2.0-simulated\r\n")));
}

async function listen(onSocket: (socket: Socket) => void): Promise<BadPort> {
  const sockets = new Set<Socket>();
  let accepted = 0;
  const server = createServer((socket) => {
    accepted++;
    sockets.add(socket);
    socket.on("close", () => sockets.delete(socket)).on("error", () => undefined);
    onSocket(socket);
  });
  await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
  const { port } = server.address() as AddressInfo;
  return {
    url: `http://127.0.0.1:${port}/v1`,
    port,
    get accepted() {
      return accepted;
    },
    async close() {
      const closed = new Promise((done) => server.close(done));
      for (const socket of sockets) socket.destroy();
      await closed;
    },
  };
}

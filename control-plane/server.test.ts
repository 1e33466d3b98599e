/** What one client can take up of the server, and what the server does about it. */

import { once } from "node:events";
import { connect } from "node:net";
import pino from "pino";
import { afterEach, expect, test } from "vitest";
import { type ControlPlaneServer, listen, SERVER_LIMITS, type ServerLimits } from "./server.ts";

let server: ControlPlaneServer | undefined;

afterEach(() => server?.close({ drainMs: 0 }));

async function start(limits: Partial<ServerLimits>): Promise<number> {
  const log = pino({ level: "silent" });
  server = await listen({ host: "127.0.0.1", port: 0 }, log, { ...SERVER_LIMITS, ...limits });
  return server.address.port;
}

/** Sends `text`, and gives everything that came back until the server closed the connection. */
async function exchange(port: number, text: string): Promise<string> {
  const socket = connect(port, "127.0.0.1");
  let answer = "";
  socket.on("data", (data) => (answer += String(data)));
  socket.on("error", () => {});
  socket.write(text);
  await once(socket, "close");
  return answer;
}

test("headers that never end are answered with 408", async () => {
  const port = await start({ headersTimeoutMs: 20, requestTimeoutMs: 40, checkEveryMs: 10 });
  expect(await exchange(port, "GET /healthz HTTP/1.1\r\nhost: x\r\n")).toMatch(/^HTTP\/1\.1 408 /);
});

test("a connection above the limit is closed, and the ones before go on", async () => {
  const port = await start({ connectionsMax: 1 });
  const first = connect(port, "127.0.0.1");
  await once(first, "connect");
  expect(await exchange(port, "GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")).toBe("");
  first.write("GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n");
  const [data] = (await once(first, "data")) as [Buffer];
  expect(String(data)).toMatch(/^HTTP\/1\.1 200 /);
  first.destroy();
});

import { once } from "node:events";
import { type AddressInfo, connect, createServer, type Server, type Socket } from "node:net";
import { setTimeout as delay } from "node:timers/promises";
import { afterEach, beforeEach, expect, test } from "vitest";
import { CutProxy } from "./cut_proxy.ts";
import { until } from "./part.ts";

/** Answers each byte sequence with its name in front. */
class Echo {
  readonly server: Server;
  readonly sockets = new Set<Socket>();
  received = "";

  constructor(name: string) {
    this.server = createServer((socket) => {
      this.sockets.add(socket);
      socket.once("close", () => this.sockets.delete(socket)).on("error", () => {});
      socket.on("data", (bytes) => {
        this.received += bytes.toString();
        socket.write(`${name}:${bytes.toString()}`);
      });
    });
  }

  async listen(): Promise<string> {
    this.server.listen(0, "127.0.0.1");
    await once(this.server, "listening");
    return `127.0.0.1:${(this.server.address() as AddressInfo).port}`;
  }
}

class Client {
  readonly socket: Socket;
  text = "";
  closed = false;

  constructor(address: string) {
    this.socket = connect(Number(address.split(":")[1]), "127.0.0.1");
    this.socket.on("data", (bytes) => (this.text += bytes.toString()));
    this.socket.on("error", () => {}).once("close", () => (this.closed = true));
  }

  async hears(text: string): Promise<void> {
    await until(`the client hears ${text}`, async () => this.text === text);
  }
}

/** Long enough for loopback to bring what it would bring. */
const A_WHILE_MS = 100;
let echoes: Echo[];
let proxy: CutProxy;
let clients: Client[];

function newClient(): Client {
  const client = new Client(proxy.address);
  clients.push(client);
  return client;
}

beforeEach(async () => {
  clients = [];
  echoes = [new Echo("a"), new Echo("b")];
  proxy = await CutProxy.start(await Promise.all(echoes.map((echo) => echo.listen())));
});

afterEach(async () => {
  for (const { socket } of clients) socket.destroy();
  await proxy.close();
  for (const { server, sockets } of echoes) {
    for (const socket of sockets) socket.destroy();
    server.close();
  }
});

test("bytes pass in both directions, and connections go to the targets in turn", async () => {
  const [first, second] = [newClient(), newClient()];
  first.socket.write("1");
  await first.hears("a:1");
  second.socket.write("2");
  await second.hears("b:2");
});

test("a target that cannot be reached is passed over", async () => {
  echoes[0]!.server.close();
  const client = newClient();
  client.socket.write("1");
  await client.hears("b:1");
});

test("latency is kept in each direction, and the order with it", async () => {
  const client = newClient();
  client.socket.write("1");
  await client.hears("a:1");
  proxy.set({ latencyMs: 150 });
  const beganMs = performance.now();
  client.socket.write("2");
  await until("it arrived", async () => echoes[0]!.received === "12");
  expect(performance.now() - beganMs).toBeGreaterThanOrEqual(149);
  await client.hears("a:1a:2");
  expect(performance.now() - beganMs).toBeGreaterThanOrEqual(298);
});

test("a black hole for answers lets requests through, and gives them back when it ends", async () => {
  const client = newClient();
  client.socket.write("1");
  await client.hears("a:1");
  proxy.set({ blackhole: true }, "down");
  client.socket.write("2");
  await until("the request arrived", async () => echoes[0]!.received === "12");
  await delay(A_WHILE_MS);
  expect(client.text).toBe("a:1");
  proxy.heal();
  await client.hears("a:1a:2");
});

test("what a black hole swallowed is gone after a cut, and both sides are told", async () => {
  const client = newClient();
  proxy.set({ blackhole: true }, "up");
  client.socket.write("1");
  await delay(A_WHILE_MS);
  proxy.cut();
  proxy.heal();
  await until("the client is cut", async () => client.closed);
  await until("the target is cut", async () => echoes[0]!.sockets.size === 0);
  expect(echoes[0]!.received).toBe("");
});

test("half open: the target is gone and the client does not know", async () => {
  const client = newClient();
  client.socket.write("1");
  await client.hears("a:1");
  proxy.halfOpen();
  await until("the target is cut", async () => echoes[0]!.sockets.size === 0);
  client.socket.write("2");
  await delay(A_WHILE_MS);
  expect(client.closed).toBe(false);
  expect(echoes[0]!.received).toBe("1");
  proxy.cut();
  await until("the client is cut", async () => client.closed);
});

test("refuses until it is healed", async () => {
  proxy.refuse();
  const refused = newClient();
  await until("it is refused", async () => refused.closed);
  proxy.heal();
  const client = newClient();
  client.socket.write("1");
  await client.hears("a:1");
});

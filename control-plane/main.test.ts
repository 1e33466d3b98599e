/** The control plane as a process: starts, says what is wrong, stops, starts again. */

import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdtempSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { afterAll, describe, expect, test } from "vitest";
import { postgresUrl } from "../test/support/postgres.ts";
import { MerchantService } from "../proto/gen/tokenbill/v1/merchant_service_pb.ts";
import { ProviderFormat } from "../proto/gen/tokenbill/v1/provider_pb.ts";
import { ProviderService } from "../proto/gen/tokenbill/v1/provider_service_pb.ts";

const MAIN = new URL("./main.ts", import.meta.url).pathname;
const homes: string[] = [];

afterAll(() => {
  for (const home of homes) rmSync(home, { recursive: true, force: true });
});

function makeHome(): string {
  const home = mkdtempSync(join(tmpdir(), "tokenbill-main-"));
  homes.push(home);
  return home;
}

interface Process {
  readonly child: ChildProcess;
  readonly stderr: () => string;
  /** The exit code. */
  readonly exited: Promise<number | null>;
}

function run(home: string, env: Record<string, string> = {}): Process {
  const child = spawn(process.execPath, [MAIN], {
    env: { PATH: process.env["PATH"], TOKENBILL_HOME: home, CONTROL_PLANE_ADDR: "127.0.0.1:0", ...env },
    stdio: ["ignore", "ignore", "pipe", "ipc"],
  });
  let text = "";
  child.stderr!.on("data", (chunk: Buffer) => (text += String(chunk)));
  return { child, stderr: () => text, exited: once(child, "exit").then(([code]) => code as number | null) };
}

async function ready(started: Process): Promise<string> {
  const outcome = await Promise.race([once(started.child, "message"), started.exited]);
  if (!Array.isArray(outcome)) throw new Error(`it did not start: ${started.stderr()}`);
  const [message] = outcome as [{ type: string; address: string }];
  expect(message.type).toBe("ready");
  return `http://${message.address}`;
}

async function stop(started: Process, signal: NodeJS.Signals = "SIGTERM"): Promise<void> {
  started.child.kill(signal);
  expect(await started.exited).toBe(0);
}

function authorized(
  url: string,
  token: string,
): { merchants: ReturnType<typeof merchantClient>; providers: ReturnType<typeof providerClient> } {
  const transport = createGrpcTransport({
    baseUrl: url,
    interceptors: [
      (next) => (request) => {
        request.header.set("authorization", `Bearer ${token}`);
        return next(request);
      },
    ],
  });
  return { merchants: merchantClient(transport), providers: providerClient(transport) };
}
const merchantClient = (transport: ReturnType<typeof createGrpcTransport>) => createClient(MerchantService, transport);
const providerClient = (transport: ReturnType<typeof createGrpcTransport>) => createClient(ProviderService, transport);

const SECRET_FILES = ["merchant.token", "operator.token", "node.token", "master.key"];

describe.each(["embedded", "postgres"])("control plane process on %s", (kind) => {
  test("makes its home, stops cleanly, and starts again with everything there", async () => {
    const home = makeHome();
    const env: Record<string, string> = kind === "postgres" ? { DATABASE_URL: await postgresUrl() } : {};
    const first = run(home, env);
    const url = await ready(first);
    for (const file of SECRET_FILES) expect(statSync(join(home, file)).mode & 0o777).toBe(0o600);
    const read = (file: string): string => readFileSync(join(home, file), "utf8").trim();
    const secrets = SECRET_FILES.map(read);
    const { merchants, providers } = authorized(url, read("merchant.token"));
    expect((await merchants.getMerchant({})).merchant!.name).toBe("default");
    const { provider } = await providers.createProvider({
      name: "kept",
      format: ProviderFormat.OPENAI,
      baseUrl: "http://127.0.0.1:9/v1",
      credentials: { apiKey: "k" },
    });
    await stop(first);

    renameSync(join(home, "operator.token"), join(home, "operator.token.away"));
    const second = run(home, env);
    const again = authorized(await ready(second), read("merchant.token"));
    expect((await again.providers.getProvider({ id: provider!.id })).provider).toStrictEqual(provider);
    expect(existsSync(join(home, "operator.token"))).toBe(false);
    expect(second.stderr()).toContain("its file is not in this home");
    await stop(second, "SIGINT");
    renameSync(join(home, "operator.token.away"), join(home, "operator.token"));
    expect(SECRET_FILES.map(read)).toStrictEqual(secrets);
    for (const secret of secrets) expect(first.stderr() + second.stderr()).not.toContain(secret);

    writeFileSync(join(home, "master.key"), Buffer.alloc(32, 9).toString("base64"));
    const wrongKey = run(home, env);
    expect(await wrongKey.exited).toBe(78);
    expect(wrongKey.stderr()).toContain(
      "tokenbill control plane: TOKENBILL_MASTER_KEY: the database was set up with another master key",
    );
    rmSync(join(home, "master.key"));
    const noKey = run(home, env);
    expect(await noKey.exited).toBe(78);
    expect(noKey.stderr()).toContain("which is missing");
    expect(existsSync(join(home, "master.key"))).toBe(false);
  });
});

describe("control plane process", () => {
  test("two processes starting at once on one PostgreSQL both work, with their own homes and one token", async () => {
    const databaseUrl = await postgresUrl();
    const env = {
      DATABASE_URL: databaseUrl,
      NODE_TOKEN: "tbn_shared_0123456789",
      TOKENBILL_MASTER_KEY: Buffer.alloc(32, 1).toString("base64"),
    };
    const both = [run(makeHome(), env), run(makeHome(), env)];
    const urls = await Promise.all(both.map(ready));
    for (const url of urls) expect((await fetch(`${url}/readyz`)).status).toBe(200);
    const ownKey = run(makeHome(), { DATABASE_URL: databaseUrl });
    expect(await ownKey.exited).toBe(78);
    expect(ownKey.stderr()).toContain(
      "TOKENBILL_MASTER_KEY: the database was set up with a master key, which is missing",
    );
    await Promise.all(both.map((started) => stop(started)));
  });

  test("a second process on an embedded home is refused in one line", async () => {
    const home = makeHome();
    const first = run(home);
    await ready(first);
    const second = run(home);
    expect(await second.exited).toBe(78);
    expect(second.stderr()).toMatch(
      new RegExp(`^tokenbill control plane: .* is in use by process ${first.child.pid}[^\\n]*\\n$`),
    );
    await stop(first);
  });

  test.each([
    [{ CONTROL_PLANE_ADDR: "nonsense" }, /^tokenbill control plane: CONTROL_PLANE_ADDR: [^\n]+\n$/],
    [
      { DATABASE_URL: "postgres://u:hunter2@127.0.0.1:1/none" },
      /^tokenbill control plane: DATABASE_URL: the database at 127\.0\.0\.1:1\/none does not answer[^\n]+\n$/,
    ],
    [
      { CONTROL_PLANE_ADDR: "192.0.2.1:80" },
      /^tokenbill control plane: CONTROL_PLANE_ADDR: cannot listen on 192\.0\.2\.1:80[^\n]+\n$/,
    ],
  ])("%j stops the start with one line and 78", async (env, line) => {
    const started = run(makeHome(), env as Record<string, string>);
    expect(await started.exited).toBe(78);
    expect(started.stderr()).toMatch(line);
    expect(started.stderr()).not.toContain("hunter2");
  });
});

/**
 * Finds, installs and runs PostgreSQL for tests. Run as a program, `node postgres_server.ts <dir> <owner pid>`, it makes
 * a cluster, writes `<dir>/state.json` when the server accepts connections, and stops the server and removes the data
 * on SIGTERM or when the owner is gone. Works as root (the server then runs as another user) and as a normal user.
 */

import { type ChildProcess, execFile, spawn } from "node:child_process";
import { access, chown, constants, mkdtemp, open, readdir, rename, rm, statfs, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { promisify } from "node:util";
import postgres from "postgres";

const run = promisify(execFile);
const START_ATTEMPTS = 5;
const START_TIMEOUT_MS = 30_000;
const OWNER_POLL_MS = 500;
const MEMORY_FREE_BYTES_MIN = 2 * 1024 ** 3;

export interface PostgresBinaries {
  readonly initdb: string;
  readonly postgres: string;
}

async function executable(path: string): Promise<boolean> {
  return access(path, constants.X_OK).then(
    () => true,
    () => false,
  );
}

async function lookForBinaries(): Promise<PostgresBinaries | undefined> {
  const debian = "/usr/lib/postgresql";
  const versions = await readdir(debian).catch(() => []);
  const newest = versions.toSorted((a, b) => Number(b) - Number(a)).map((version) => join(debian, version, "bin"));
  for (const dir of [...(process.env["PATH"] ?? "").split(delimiter), ...newest]) {
    const found = { initdb: join(dir, "initdb"), postgres: join(dir, "postgres") };
    if ((await executable(found.initdb)) && (await executable(found.postgres))) return found;
  }
  return undefined;
}

/** Installs packages with apt-get, as root or through sudo without a password. @throws with what is missing otherwise. */
export async function aptInstall(packages: readonly string[], missing: string): Promise<void> {
  const prefix = process.getuid?.() === 0 ? [] : ["sudo", "-n"];
  const env = { ...process.env, DEBIAN_FRONTEND: "noninteractive" };
  try {
    for (const args of [
      ["update", "-qq"],
      ["install", "-y", "-qq", "--no-install-recommends", ...packages],
    ]) {
      const [command, ...rest] = [...prefix, "apt-get", ...args];
      await run(command!, rest, { env, maxBuffer: 64 * 1024 ** 2 });
    }
  } catch (error) {
    const why = error instanceof Error ? error.message.trim().split("\n").at(-1) : String(error);
    throw new Error(`${missing} Installing ${packages.join(", ")} with apt-get failed: ${why}`, { cause: error });
  }
}

/** The server's programs, installed if the machine lacks them. @throws saying precisely what is missing. */
export async function findBinaries(): Promise<PostgresBinaries> {
  const present = await lookForBinaries();
  if (present !== undefined) return present;
  const missing =
    "PostgreSQL is missing: `initdb` and `postgres` are neither on PATH nor under /usr/lib/postgresql. " +
    "Install PostgreSQL 15 or later, or set TEST_DATABASE_URL to a server where databases may be created.";
  await aptInstall(["postgresql"], missing);
  const installed = await lookForBinaries();
  if (installed === undefined) throw new Error(missing);
  return installed;
}

/** PostgreSQL refuses to run as root: then it runs as `postgres`, or as `nobody` where that user does not exist. */
export async function serverUser(): Promise<{ uid?: number; gid?: number }> {
  if (process.getuid?.() !== 0) return {};
  for (const name of ["postgres", "nobody"]) {
    try {
      const [uid, gid] = await Promise.all(
        ["-u", "-g"].map(async (flag) => Number((await run("id", [flag, name])).stdout)),
      );
      return { uid: uid!, gid: gid! };
    } catch {
      continue;
    }
  }
  throw new Error("PostgreSQL cannot run as root, and there is neither a user `postgres` nor `nobody` to run it as");
}

/** Memory-backed where there is room: durability is not what these tests measure. */
export async function dataRoot(): Promise<string> {
  try {
    const memory = await statfs("/dev/shm");
    await access("/dev/shm", constants.W_OK);
    if (memory.bavail * memory.bsize >= MEMORY_FREE_BYTES_MIN) return "/dev/shm";
  } catch {
    // No such folder here.
  }
  return tmpdir();
}

export async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve, reject) => server.once("error", reject).listen(0, "127.0.0.1", resolve));
  const address = server.address();
  await new Promise((resolve) => server.close(resolve));
  if (address === null || typeof address === "string") throw new Error("no port");
  return address.port;
}

/** True once the server answers a query: it takes connections a little earlier, and refuses them. */
export async function answers(url: string): Promise<boolean> {
  const sql = postgres(url, { max: 1, connect_timeout: 5, onnotice: () => undefined });
  try {
    await sql`select 1`;
    return true;
  } catch {
    return false;
  } finally {
    await sql.end({ timeout: 1 });
  }
}

interface Cluster {
  readonly server: ChildProcess;
  readonly url: string;
}

/** `started` learns of each process at once, so that a stop during the start finds it. */
async function startServer(
  binaries: PostgresBinaries,
  data: string,
  log: string,
  user: object,
  started: (server: ChildProcess) => void,
): Promise<Cluster> {
  for (let attempt = 1; attempt <= START_ATTEMPTS; attempt++) {
    const port = await freePort();
    const url = `postgres://postgres@127.0.0.1:${port}/postgres`;
    const file = await open(log, "a");
    const settings = [
      `port=${port}`,
      "listen_addresses=127.0.0.1",
      "unix_socket_directories=",
      "max_connections=300",
      "shared_buffers=128MB",
    ].flatMap((setting) => ["-c", setting]);
    const server = spawn(binaries.postgres, ["-D", data, ...settings], {
      ...user,
      cwd: data,
      stdio: ["ignore", file.fd, file.fd],
    });
    started(server);
    const ended = new Promise<boolean>((resolve) =>
      server.once("exit", () => resolve(true)).once("error", () => resolve(true)),
    );
    await file.close();
    const deadline = Date.now() + START_TIMEOUT_MS;
    while (Date.now() < deadline) {
      if (await answers(url)) return { server, url };
      // The port was taken between asking and listening: try another one.
      if (await Promise.race([ended, delay(50, false)])) break;
    }
    server.kill("SIGKILL");
    await ended;
  }
  throw new Error(`PostgreSQL did not start in ${START_ATTEMPTS} attempts; see ${log}`);
}

function ownerAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

async function writeState(dir: string, state: object): Promise<void> {
  const path = join(dir, "state.json");
  await writeFile(`${path}.new`, JSON.stringify(state));
  await rename(`${path}.new`, path);
}

async function main(dir: string, owner: number): Promise<void> {
  const user = await serverUser();
  const data = await mkdtemp(join(await dataRoot(), "tokenbill-postgres-"));
  let server: ChildProcess | undefined;
  let stopping = false;
  const stop = async (orphaned = false): Promise<void> => {
    if (stopping) return;
    stopping = true;
    if (server !== undefined && server.exitCode === null && server.signalCode === null) {
      const gone = new Promise((resolve) => server!.once("exit", resolve));
      server.kill("SIGQUIT"); // Immediate: the data is thrown away.
      await gone;
    }
    await rm(data, { recursive: true, force: true });
    if (orphaned) await rm(dir, { recursive: true, force: true });
    process.exit(0);
  };
  process.on("SIGTERM", () => void stop());
  process.on("SIGINT", () => void stop());
  setInterval(() => {
    if (!ownerAlive(owner)) void stop(true);
  }, OWNER_POLL_MS);
  try {
    const binaries = await findBinaries();
    if ("uid" in user) await chown(data, user.uid!, user.gid!);
    await run(binaries.initdb, ["-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-locale"], {
      ...user,
      cwd: data,
    });
    const cluster = await startServer(binaries, data, join(dir, "server.log"), user, (process) => (server = process));
    cluster.server.once("exit", () => void stop());
    await writeState(dir, { pid: process.pid, url: cluster.url });
  } catch (error) {
    await writeState(dir, { pid: process.pid, error: error instanceof Error ? error.message : String(error) });
    await stop();
  }
}

if (import.meta.main) await main(process.argv[2]!, Number(process.argv[3]));

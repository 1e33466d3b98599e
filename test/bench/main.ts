/**
 * `npm run bench [-- name…] [--rounds N] [--seconds N]`: runs the benchmarks one after another, each in a process of its
 * own so that none inherits another's heap. Without names all of them, in about half an hour.
 *
 * BENCH_CONTROL_PLANE_ARGS and BENCH_DATA_PLANE_ARGS are given to Node when a bench starts a plane, for example
 * `--cpu-prof --cpu-prof-dir=/some/folder`. BENCH_NODE_ARGS are given to the process of the bench itself.
 */

import { spawn } from "node:child_process";
import { fileURLToPath } from "node:url";
import { parseBenchArgs } from "./options.ts";

const BENCHES = [
  "pipeline",
  "admission",
  "journal",
  "router",
  "proxy",
  "latency",
  "sse",
  "memory",
  "feed",
  "ingest",
  "recovery",
  "failover",
  "upload",
  "formats",
] as const;

let running: ReturnType<typeof spawn> | undefined;
let interrupted = false;

function runBench(name: string, args: readonly string[]): Promise<number> {
  const script = fileURLToPath(new URL(`${name}.ts`, import.meta.url));
  const own = (process.env["BENCH_NODE_ARGS"] ?? "").split(" ").filter((arg) => arg !== "");
  const nodeArgs = ["--expose-gc", "--max-old-space-size=8192", ...own];
  return new Promise((resolve, reject) => {
    running = spawn(process.execPath, [...nodeArgs, script, ...args], { stdio: "inherit" });
    running.once("error", reject);
    running.once("exit", (code) => resolve(code ?? 1));
  });
}

for (const signal of ["SIGINT", "SIGTERM"] as const) {
  // A terminal sends SIGINT to the bench too; it cleans up and exits, and then so do we.
  process.on(signal, () => {
    interrupted = true;
    running?.kill(signal);
  });
}

const { names, flags } = parseBenchArgs(process.argv.slice(2), BENCHES);
const failed: string[] = [];
for (const name of names) {
  if (interrupted) break;
  if ((await runBench(name, flags)) !== 0) failed.push(name);
}
if (failed.length > 0 && !interrupted) console.error(`\nDid not finish: ${failed.join(", ")}`);
process.exitCode = interrupted ? 130 : failed.length > 0 ? 1 : 0;

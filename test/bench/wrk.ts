/** wrk: closed-loop load from C, so that the load is never the limit. */

import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { benchFolder, start } from "./processes.ts";
import { tools } from "./tools.ts";

export interface WrkResult {
  readonly requests: number;
  readonly seconds: number;
  readonly p50Us: number;
  readonly p99Us: number;
}

export interface WrkTarget {
  readonly url: string;
  readonly body: string;
  readonly headers: Readonly<Record<string, string>>;
}

function script({ body, headers }: WrkTarget): string {
  const lines = Object.entries(headers).map(([name, value]) => `wrk.headers["${name}"] = "${value}"`);
  return `wrk.method = "POST"
wrk.body = [==[${body}]==]
wrk.headers["content-type"] = "application/json"
${lines.join("\n")}
done = function(summary, latency)
  local e = summary.errors
  io.write(string.format('RESULT {"requests":%d,"us":%d,"p50":%d,"p99":%d,"connect":%d,"read":%d,"write":%d,"status":%d,"timeout":%d}\\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99), e.connect, e.read, e.write, e.status, e.timeout))
end
`;
}

/** @throws when any answer was an error: the figures of a broken run mean nothing */
export async function runWrk(
  core: number,
  target: WrkTarget,
  connections: number,
  seconds: number,
): Promise<WrkResult> {
  const { wrk } = await tools("wrk", "taskset");
  const file = join(benchFolder(), "post.lua");
  writeFileSync(file, script(target));
  const args = ["-t1", `-c${connections}`, `-d${seconds}s`, "--timeout", "10s", "-s", file, target.url];
  const started = start("wrk", wrk, args, { core });
  const code = await new Promise<number | null>((resolve) => started.child.once("close", resolve));
  const line = /^RESULT (.*)$/m.exec(started.output());
  if (code !== 0 || line === null) throw new Error(`wrk ended with ${code}: ${started.output()}`);
  const result = JSON.parse(line[1]!) as Record<string, number>;
  const errors = ["connect", "read", "write", "status", "timeout"].filter((kind) => result[kind]! > 0);
  if (errors.length > 0)
    throw new Error(
      `${target.url} answered with errors: ${errors.map((kind) => `${kind} ${result[kind]}`).join(", ")}`,
    );
  return { requests: result["requests"]!, seconds: result["us"]! / 1e6, p50Us: result["p50"]!, p99Us: result["p99"]! };
}

/** What the scripts share: running programs, with the pinned tools first on PATH. */

import { spawn } from "node:child_process";
import { delimiter, join } from "node:path";
import { fileURLToPath } from "node:url";

export const ROOT = fileURLToPath(new URL("..", import.meta.url));

/** Where setup_test_env.ts puts a Go toolchain if the system's is too old. */
export const GO_HOME = join(ROOT, ".cache", "go");

export interface Result {
  readonly code: number;
  readonly output: string;
}

export interface RunOptions {
  readonly cwd?: string;
  readonly env?: NodeJS.ProcessEnv;
  /** True: output goes to the terminal as it comes, and `output` stays empty. */
  readonly show?: boolean;
}

/** Runs a program without a shell. A program that is not there gives code 127, as a shell would. */
export function run(command: string, args: readonly string[], options: RunOptions = {}): Promise<Result> {
  const bins = [join(ROOT, "node_modules", ".bin"), join(GO_HOME, "bin")];
  const path = [...bins, process.env["PATH"] ?? "", "/usr/local/go/bin"].join(delimiter);
  return new Promise((resolve) => {
    const child = spawn(command, args, {
      cwd: options.cwd ?? ROOT,
      env: { ...process.env, ...options.env, PATH: path },
      stdio: options.show === true ? ["ignore", "inherit", "inherit"] : ["ignore", "pipe", "pipe"],
    });
    let output = "";
    child.stdout?.on("data", (data: Buffer) => (output += data.toString()));
    child.stderr?.on("data", (data: Buffer) => (output += data.toString()));
    child.once("error", (error) => resolve({ code: 127, output: `${command}: ${error.message}` }));
    child.once("close", (code, signal) =>
      resolve({ code: code ?? 128, output: signal === null ? output : `${output}\n${signal}` }),
    );
  });
}

/** Like `run`, for steps that must work. @throws with the output otherwise */
export async function mustRun(command: string, args: readonly string[], options: RunOptions = {}): Promise<string> {
  const { code, output } = await run(command, args, options);
  if (code !== 0) throw new Error(`${command} ${args.join(" ")} ended with ${code}\n${output}`);
  return output;
}

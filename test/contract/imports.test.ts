/** The rules of the house (DESIGN section 3): who may import whom, and how long a file may be. */

import { readdirSync, readFileSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));
const FILE_LINES_MAX = 450;

interface Source {
  readonly path: string;
  readonly lines: number;
  /** Packages by name; files by their path from the root. */
  readonly imports: readonly string[];
}

const IMPORT =
  /(?:^|\n)\s*(?:import|export)\s(?:[^;"']*?\sfrom\s)?\s*["']([^"']+)["']|\bimport\(\s*["']([^"']+)["']\s*\)/g;

export function importsOf(path: string, text: string): string[] {
  return [...text.matchAll(IMPORT)]
    .map((match) => match[1] ?? match[2]!)
    .map((name) => (name.startsWith(".") ? relative(ROOT, join(ROOT, dirname(path), name)) : name));
}

function sourcesIn(folder: string): Source[] {
  return readdirSync(join(ROOT, folder), { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && entry.name.endsWith(".ts"))
    .map((entry) => relative(ROOT, join(entry.parentPath, entry.name)))
    .filter((path) => !path.includes("node_modules/") && !path.includes("/gen/") && !path.includes("/dist/"))
    .map((path) => {
      const text = readFileSync(join(ROOT, path), "utf8");
      return { path, lines: text.split("\n").length, imports: importsOf(path, text) };
    });
}

const sources = ["core", "control-plane", "data-plane", "clients", "test", "scripts"].flatMap(sourcesIn);
const production = sources.filter(
  ({ path }) => !/\.(test|bench)\.ts$/.test(path) && !/\/testing(_\w+)?(\.ts$|\/)/.test(path),
);

/** Every import that `allowed` does not permit, as `file -> import`. */
function offences(folder: string, allowed: (name: string, path: string) => boolean, among = production): string[] {
  return among
    .filter(({ path }) => path.startsWith(folder))
    .flatMap(({ path, imports }) => imports.filter((name) => !allowed(name, path)).map((name) => `${path} -> ${name}`));
}

/** Some arithmetic on addresses happens to live in node:net; a file that takes nothing else from there stays pure. */
function pureNet(name: string, path: string): boolean {
  if (name !== "node:net") return false;
  const text = readFileSync(join(ROOT, path), "utf8");
  const taken = [...text.matchAll(/import\s*\{([^}]*)\}\s*from "node:net"/g)].flatMap((match) => match[1]!.split(","));
  const names = taken.map((part) => part.trim()).filter((part) => part !== "");
  return names.length > 0 && names.every((part) => ["isIP", "isIPv4", "isIPv6", "BlockList"].includes(part));
}

const inside = (name: string, ...folders: string[]): boolean => folders.some((folder) => name.startsWith(folder));

/** Everything in the planes that touches network, disk or processes. */
const IO =
  /^(node:(net|http|http2|https|tls|dns|fs|child_process|cluster|worker_threads|dgram)(\/.*)?|undici|ws|postgres|@electric-sql\/.*|@connectrpc\/connect-node)$/;
const DATA_PLANE_IO = [
  "data-plane/upstream.ts",
  "data-plane/accounts.ts",
  "data-plane/server.ts",
  "data-plane/closing.ts",
  "data-plane/journal/",
  "data-plane/spool/spools.ts",
  "data-plane/config_client.ts",
  "data-plane/config_table_file.ts",
  "data-plane/control_plane.ts",
  "data-plane/spool/",
  "data-plane/realtime/dial.ts",
  "data-plane/realtime/peer.ts",
  "data-plane/realtime/upgrade.ts",
  "data-plane/tokenizer/token_worker.ts",
  "data-plane/tokenizer/worker_counter.ts",
  "data-plane/main.ts",
  "data-plane/node.ts",
  "data-plane/workers.ts",
];

describe("imports", () => {
  test("the rules see every kind of import", () => {
    const text = `import a, { b } from "./a.ts";\nimport type { C } from "c";\nimport {\n  d,\n} from "../core/d.ts";\nimport "e";\nexport { f } from "f";\nawait import("g");`;
    expect(importsOf("test/x.ts", text)).toEqual(["test/a.ts", "c", "core/d.ts", "e", "f", "g"]);
    expect(production.length).toBeGreaterThan(50);
  });

  test("core imports nothing but itself, and the address arithmetic of node:net", () => {
    const allowed = (name: string, path: string): boolean => inside(name, "core/") || pureNet(name, path);
    expect(offences("core/", allowed)).toEqual([]);
  });

  test("domain imports nothing but core and itself", () => {
    const allowed = (name: string, path: string): boolean =>
      inside(name, "core/", "control-plane/domain/") || pureNet(name, path);
    expect(offences("control-plane/domain/", allowed)).toEqual([]);
  });

  test("in the control plane, store does not know api, and db knows neither", () => {
    expect(
      offences("control-plane/store/", (name) => !inside(name, "control-plane/api/", "control-plane/feed/")),
    ).toEqual([]);
    const above = ["control-plane/api/", "control-plane/feed/", "control-plane/store/"];
    expect(offences("control-plane/db/", (name) => !inside(name, ...above))).toEqual([]);
  });

  test("only db knows a database driver, and only it and store know SQL", () => {
    const drivers = (name: string): boolean => name !== "postgres" && !name.startsWith("@electric-sql/");
    const notDb = production.filter(({ path }) => !path.startsWith("control-plane/db/"));
    expect(offences("control-plane/", drivers, notDb)).toEqual([]);
    expect(offences("data-plane/", drivers)).toEqual([]);
    const api = production.filter(({ path }) => path.startsWith("control-plane/api/"));
    const queries = api.filter(({ path }) => /\.query(<[^>]*>)?\(/.test(readFileSync(join(ROOT, path), "utf8")));
    expect(queries.map(({ path }) => path)).toEqual([]);
  });

  test("the planes never import each other, nor the clients or tests", () => {
    expect(offences("control-plane/", (name) => !inside(name, "data-plane/", "clients/", "test/", "scripts/"))).toEqual(
      [],
    );
    expect(offences("data-plane/", (name) => !inside(name, "control-plane/", "clients/", "test/", "scripts/"))).toEqual(
      [],
    );
  });

  test("clients use the public API only", () => {
    const allowed = (name: string): boolean =>
      inside(name, "clients/") || !/^(core|control-plane|data-plane|proto|test)\//.test(name);
    expect(offences("clients/", allowed)).toEqual([]);
  });

  test("on the data plane, only the named files do I/O", () => {
    const among = production.filter(({ path }) => !DATA_PLANE_IO.some((allowed) => path.startsWith(allowed)));
    expect(offences("data-plane/", (name, path) => !IO.test(name) || pureNet(name, path), among)).toEqual([]);
  });
});

test("no file is too long to be read in one go", () => {
  const long = sources.filter(({ lines }) => lines > FILE_LINES_MAX).map(({ path, lines }) => `${path}: ${lines}`);
  expect(long).toEqual([]);
});

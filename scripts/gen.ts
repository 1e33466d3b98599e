/** `npm run gen`: the committed code from the schema. `--out <dir>` writes it elsewhere, to compare. */

import { chmod, copyFile, mkdir, stat } from "node:fs/promises";
import { join } from "node:path";
import { mustRun, ROOT } from "./run.ts";

/** The validation rules' schema is taken from its Go module: versioned, checksummed, and no account is needed. */
const PROTOVALIDATE = "github.com/bufbuild/protovalidate@v1.2.2";
const VALIDATE_PROTO = "buf/validate/validate.proto";
export const GENERATED = ["proto/gen", "clients/ts/src/gen", "clients/go/gen"] as const;

/** Puts the imported schema into proto/deps, which git ignores, if it is not there. */
export async function fetchDeps(): Promise<void> {
  const target = join(ROOT, "proto/deps", VALIDATE_PROTO);
  const present = await stat(target).then(
    () => true,
    () => false,
  );
  if (present) return;
  const module = JSON.parse(await mustRun("go", ["mod", "download", "-json", PROTOVALIDATE])) as { Dir: string };
  await mkdir(join(target, ".."), { recursive: true });
  await copyFile(join(module.Dir, "proto/protovalidate", VALIDATE_PROTO), target);
  await chmod(target, 0o644); // The module cache is read-only; a copy need not be.
}

/** Generates into `out`, which the three folders are made under. */
export async function generate(out: string): Promise<void> {
  await fetchDeps();
  for (const template of ["buf.gen.yaml", "clients/buf.gen.yaml"]) {
    await mustRun("buf", ["generate", "--template", template, "-o", out]);
  }
}

if (import.meta.main) {
  const at = process.argv.indexOf("--out");
  await generate(at === -1 ? ROOT : process.argv[at + 1]!);
  console.log(`Generated ${GENERATED.join(", ")}.`);
}

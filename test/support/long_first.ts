/** The order of test files: those that take long come first, so that no worker ends with one of them while others idle. */

import { BaseSequencer, type TestSpecification } from "vitest/node";

/** Beginnings of paths, the longest first: they take from half a minute to minutes. */
const LONG = [
  "test/simulator/simulator.test.ts",
  "test/rates/real.test.ts",
  "test/e2e/start.test.ts",
  "data-plane/reload.test.ts",
  "test/fault/",
  "test/soak/",
  "control-plane/main.test.ts",
  "test/simulator/",
  "test/e2e/",
  "control-plane/api/malformed.test.ts",
] as const;

function rank(root: string, { moduleId }: TestSpecification): number {
  const path = moduleId.slice(root.length + 1);
  const at = LONG.findIndex((beginning) => path.startsWith(beginning));
  return at === -1 ? LONG.length : at;
}

export class LongFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const { root } = this.ctx.config;
    const bySize = await super.sort(files);
    return bySize.toSorted((a, b) => rank(root, a) - rank(root, b));
  }
}

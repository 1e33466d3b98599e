import { defineConfig } from "vitest/config";
import { LongFirst } from "./test/support/long_first.ts";

// Forks, because tests start real servers and databases and must not share module state.
export default defineConfig({
  test: {
    include: ["**/*.test.ts"],
    exclude: ["**/node_modules/**", "clients/ts/dist/**", "proto/gen/**"],
    globalSetup: ["test/support/global_setup.ts"],
    pool: "forks",
    maxWorkers: 2,
    sequence: { sequencer: LongFirst },
    testTimeout: 60_000,
    hookTimeout: 120_000,
    teardownTimeout: 30_000,
  },
});

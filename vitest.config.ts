import { defineConfig } from "vitest/config";

// Forks, because tests start real servers and databases and must not share module state.
export default defineConfig({
  test: {
    include: ["**/*.test.ts"],
    exclude: ["**/node_modules/**", "clients/ts/dist/**", "proto/gen/**"],
    globalSetup: ["test/support/global_setup.ts"],
    pool: "forks",
    maxWorkers: 2,
    testTimeout: 60_000,
    hookTimeout: 120_000,
    teardownTimeout: 30_000,
  },
});

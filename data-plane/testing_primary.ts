/** For tests of the reload: a primary that gives new workers little time, `JOIN_MS_MAX`. */

import cluster from "node:cluster";
import { fileURLToPath } from "node:url";
import { pino } from "pino";
import { runPrimary } from "./workers.ts";

cluster.setupPrimary({ exec: fileURLToPath(new URL("main.ts", import.meta.url)) });
const primary = runPrimary({
  count: Number(process.env["DATA_PLANE_WORKERS"]),
  nodeId: "node_of_the_tests",
  drainMs: 1_000,
  log: pino({ level: "info" }, pino.destination({ dest: 2, sync: true })),
  onStop: (stop) => process.on("SIGTERM", () => void stop().then(() => process.exit(0))),
  joinMsMax: Number(process.env["JOIN_MS_MAX"]),
});
process.on("SIGHUP", () => void primary.reload());

/** `npm run upstream [host:port]`: the simulated upstream, for trying TokenBill without an account anywhere. */

import { startUpstream } from "./upstream.ts";

const address = process.argv[2] ?? "127.0.0.1:9000";
try {
  const upstream = await startUpstream({ address, record: false });
  console.log(`Simulated OpenAI-compatible upstream: ${upstream.url} (any API key, any model name; Ctrl-C stops it)`);
  for (const signal of ["SIGINT", "SIGTERM"] as const)
    process.on(signal, () => void upstream.close().then(() => process.exit(0)));
} catch (error) {
  console.error(
    `The simulated upstream cannot listen on ${address}: ${error instanceof Error ? error.message : String(error)}`,
  );
  process.exit(1);
}

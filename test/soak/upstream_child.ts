/** An upstream of the soak as a process: `SOAK_ADDRESS`, and with `SOAK_SEED` a moody one. */

import { Random } from "../simulator/random.ts";
import { startUpstream } from "../support/upstream.ts";
import { beMoody } from "./misbehaviours.ts";

const address = process.env["SOAK_ADDRESS"] ?? "127.0.0.1:0";
const seed = process.env["SOAK_SEED"];
const upstream = await startUpstream({ address, record: false, seed: Number(seed ?? 1) });
if (seed !== undefined) beMoody(upstream, new Random(Number(seed)));
process.on("SIGTERM", () => process.exit(0));
process.send?.({ type: "ready", address: new URL(upstream.url).host });

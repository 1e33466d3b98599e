/** Loaded before everything else (`--import`): plants the fault that SIMULATOR_MUTATION names into the source as it is loaded. */

import { registerHooks } from "node:module";
import { MUTATIONS } from "./mutations.ts";

const name = process.env["SIMULATOR_MUTATION"];
const mutation = MUTATIONS.find((each) => each.name === name);
if (mutation === undefined)
  throw new Error(`there is no mutation ${name}: ${MUTATIONS.map((each) => each.name).join(", ")}`);

registerHooks({
  load(url, context, nextLoad) {
    const loaded = nextLoad(url, context);
    if (!url.endsWith(`/${mutation.file}`)) return loaded;
    const source = String(loaded.source);
    if (source.split(mutation.from).length !== 2)
      throw new Error(`${mutation.name}: what it replaces is not exactly once in ${mutation.file}`);
    return { ...loaded, source: source.replace(mutation.from, () => mutation.to) };
  },
});

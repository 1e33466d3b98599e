// For tests: the SDK as it is in this repository, where a merchant has it from the registry.

import { registerHooks } from "node:module";

const SDK = new URL("../../ts/src/index.ts", import.meta.url).href;

registerHooks({
  resolve: (name, context, next) =>
    name === "@tokenbill/sdk" ? { url: SDK, shortCircuit: true } : next(name, context),
});
